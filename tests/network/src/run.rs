//! One seed: a cluster, its job, faults until most of it is done, and then peace.

use std::time::{Duration, SystemTime};

use fastrand::Rng;
use stageline_protocol::task::Bug;

use crate::cluster::{self, Settings};
use crate::faults::Faults;
use crate::summary::Summary;
use crate::watch;
use crate::workload::Workload;

/// When each run begins, since 1970: the coordinator's term is of this size.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// Faults end after so long, however little is done.
const TROUBLE: Duration = Duration::from_secs(120);
/// The job ends within so long after the last of them.
const PEACE: Duration = Duration::from_secs(60);

/// Runs one seed, and prints what happened in one line.
///
/// # Errors
/// What was lost, delivered twice, or never ended.
pub(crate) fn one(seed: u64, bug: Option<Bug>, levels: Option<&str>) -> Result<(), String> {
    watch::start(levels)?;
    let summary = simulate(seed, bug)?;
    println!("{summary}");
    match summary.complaint() {
        None => Ok(()),
        Some(complaint) => Err(format!(
            "seed {seed}: {complaint}\nIts log: cargo run -- --seed {seed} --trace debug"
        )),
    }
}

fn simulate(seed: u64, bug: Option<Bug>) -> Result<Summary, String> {
    // What the processes draw themselves: backoffs, and their ids (`net::ids`). All run on this thread.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let settings = Settings::draw(&mut rng, bug);
    let workload = Workload::draw(seed, &mut rng);
    // Milliseconds that a message takes at the most.
    let slowest = [2, 10, 50][rng.usize(..3)];
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(TROUBLE + PEACE + PEACE)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(slowest))
        .tcp_capacity(1024)
        .enable_random_order()
        .build();
    let (seen, hosts) = cluster::build(&mut sim, settings, workload);
    let mut faults = Faults::new(rng.fork(), hosts, settings.lease);
    // The network heals when so much has come out.
    let expected = seen.borrow().oracle.expected();
    // Failures by chance leave less of it.
    let due = if workload.chance().is_some() { expected * 3 / 4 } else { expected };
    let most = due * rng.u64(60..95) / 100;
    let mut healed = None;
    let mut delivered_in_trouble = 0;
    while !seen.borrow().over {
        sim.step().map_err(|error| format!("seed {seed}: a process broke: {error}"))?;
        match healed {
            None if seen.borrow().oracle.delivered() >= most || sim.elapsed() >= TROUBLE => {
                faults.heal_all(&mut sim);
                tracing::info!(target: "faults", at = ?sim.elapsed(), "peace");
                delivered_in_trouble = seen.borrow().oracle.delivered();
                healed = Some(sim.elapsed());
            }
            None => faults.step(&mut sim),
            Some(since) if sim.elapsed() > since + PEACE => break,
            Some(_) => faults.restart_the_ended(&mut sim),
        }
    }
    let peace = healed.map_or(Duration::ZERO, |since| sim.elapsed().saturating_sub(since));
    let seen = seen.borrow();
    let mut stats = stageline::TaskStats::default();
    seen.figures.values().for_each(|stage| stats.add(stage));
    let lost = seen.oracle.lost();
    Ok(Summary {
        seed,
        expected,
        delivered: seen.oracle.delivered(),
        in_trouble: delivered_in_trouble,
        spared: faults.spared,
        faults: faults.counts,
        resent: stats.resent,
        duplicates: stats.duplicates,
        stale: stats.stale,
        lost: lost.len() as u64,
        first_lost: lost.first().map(|outcome| format!("{outcome:?}")),
        wrong: seen.oracle.wrong.clone(),
        violations: watch::violations(),
        failure: seen.failure.clone(),
        unfinished: !seen.over,
        simulated: sim.elapsed(),
        peace,
    })
}
