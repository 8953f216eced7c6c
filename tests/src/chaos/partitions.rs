//! Networks that are cut: one way and both, for less than a lease and for more.
//!
//! Every process has a network of its own (see [`Net`]). A worker may be cut off for as long as one
//! likes; the client and the coordinator for less than a lease, since more is the end of the job.

use std::time::Duration;

use fastrand::Rng;

use super::Outcome;
use super::fleet::{CLIENT, COORDINATOR, Fleet, workers};
use super::net::{Cut, Net};
use super::series::Series;
use super::work::Shape;
use crate::cluster::this_program;

/// Workers for each role.
const EACH: usize = 2;

/// Cuts so many times, and prints the figures.
///
/// # Panics
/// When a process cannot be started.
pub async fn run(cycles: u64, items: u64, seed: u64) -> Outcome {
    let names: Vec<String> =
        workers(EACH).into_iter().chain([COORDINATOR, CLIENT].map(str::to_owned)).collect();
    let net = match Net::new(&names) {
        Ok(net) => net,
        Err(why) => {
            println!("skipped: {why}");
            return Outcome::Skipped;
        }
    };
    let mut rng = Rng::with_seed(seed);
    let mut fleet = Fleet::start(&this_program(), EACH, Some(net)).await;
    let mut jobs = Series::begin(&mut fleet, &[Shape::Spread, Shape::Plain], items);
    for cycle in 0..cycles {
        if !jobs.run_for(&mut fleet, Duration::from_millis(rng.u64(1_500..4_000))).await {
            break;
        }
        if cycle % 4 == 3 {
            // Of a job whose source is the client's, and under way.
            while jobs.shape() != Shape::Plain && jobs.fresh(&mut fleet).await {}
            if !jobs.run_for(&mut fleet, Duration::from_secs(1)).await {
                break;
            }
            let time = Duration::from_millis(rng.u64(42_000..50_000));
            println!(
                "cycle {cycle}: the client is parted from all workers of its first stage, for {time:?}"
            );
            let parted: Vec<String> =
                workers(EACH).into_iter().filter(|w| w.starts_with("one")).collect();
            let part = |fleet: &Fleet, change: fn(&Net, &str, &str)| {
                if let Some(net) = &fleet.net {
                    parted.iter().for_each(|worker| change(net, CLIENT, worker));
                }
            };
            part(&fleet, Net::part);
            let well = jobs.run_for(&mut fleet, time).await;
            part(&fleet, Net::join);
            if !well {
                break;
            }
            continue;
        }
        let cut = [Cut::Both, Cut::In, Cut::Out][rng.usize(0..3)];
        // Every third cycle is a short one of the two that a job cannot do without.
        let (victim, time) = match cycle % 3 {
            2 => ([CLIENT, COORDINATOR][rng.usize(0..2)].to_owned(), rng.u64(1_000..6_000)),
            1 => (worker(&mut rng), rng.u64(13_000..18_000)),
            _ => (worker(&mut rng), rng.u64(1_000..8_000)),
        };
        let time = Duration::from_millis(time);
        println!("cycle {cycle}: {victim} cut off, {cut:?}, for {time:?}");
        if let Some(net) = &fleet.net {
            net.cut(&victim, cut);
        }
        let well = jobs.run_for(&mut fleet, time).await;
        if let Some(net) = &fleet.net {
            net.heal(&victim, cut);
        }
        if !well {
            break;
        }
    }
    let verdict = jobs.finish(&mut fleet).await;
    let cut_off = fleet.logged("it goes on dialling").len();
    println!("seed {seed}: {cycles} cycles; sources that reached nobody and went on: {cut_off}");
    let vacuous = cycles > 3 && cut_off == 0;
    if vacuous {
        println!("VACUOUS: no source was ever parted from all it sends to");
    }
    let held = verdict.print() && !vacuous;
    if !held {
        println!("logs and results: {}", fleet.keep().display());
    }
    Outcome::of(held)
}

fn worker(rng: &mut Rng) -> String {
    let workers = workers(EACH);
    // Sinks have nothing to do in these jobs.
    let busy: Vec<&String> = workers.iter().filter(|name| !name.starts_with("sink")).collect();
    busy[rng.usize(0..busy.len())].clone()
}
