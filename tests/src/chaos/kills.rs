//! Kills over all kinds of process, with stops and polite ends among them, through as many jobs as
//! it takes.
//!
//! A killed process is started again under its name soon after; so is one that was told to end. A job
//! whose client was killed is over, and another takes its place at once. The faults stop when the
//! number of kills is reached; then the last job ends, and every process must be idle. A worker that
//! runs a suspect is not killed: the item would be convicted of it, and rightly so, for all that
//! anybody can know.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Outcome;
use super::client::now;
use super::fleet::{CLIENT, COORDINATOR, Fleet, State};
use super::oracle::Verdict;
use super::series::{LOOK, Series};
use super::work::Shape;
use crate::cluster::{GUARD, this_program};

/// One job of each shape completes, at the least.
const LEAST_JOBS: u64 = 3;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many kills.
    pub kills: u64,
    /// How many results each job has.
    pub items: u64,
    /// Draws the faults.
    pub seed: u64,
    /// Whether the coordinator is killed, too.
    pub coordinator: bool,
}

/// What can happen to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Killed; started again after that long.
    Kill(Duration),
    /// Stopped for that long.
    Stop(Duration),
    /// Told to end; another is started after that long.
    End(Duration),
}

/// Kills as planned, and prints the figures.
///
/// # Panics
/// When a process cannot be started.
pub async fn run(plan: &Plan) -> Outcome {
    let fleet = Fleet::start(&this_program(), 2, None).await;
    let mut driver = Driver {
        fleet,
        rng: Rng::with_seed(plan.seed),
        plan: plan.clone(),
        kills: BTreeMap::new(),
        others: BTreeMap::new(),
        killed_at: Vec::new(),
        spares: 0,
        due: Vec::new(),
    };
    let started = Instant::now();
    let verdict = driver.drive().await;
    driver.report(verdict, started.elapsed())
}

struct Driver {
    fleet: Fleet,
    rng: Rng,
    plan: Plan,
    /// Kills by kind of process.
    kills: BTreeMap<String, u64>,
    /// Stops and ends.
    others: BTreeMap<String, u64>,
    killed_at: Vec<u64>,
    /// How often a worker was not killed because of a suspect.
    spares: u64,
    /// Processes that go on, or are started again, and when.
    due: Vec<(Instant, String)>,
}

impl Driver {
    async fn drive(&mut self) -> Verdict {
        let mut jobs = Series::begin(&mut self.fleet, &Shape::ALL, self.plan.items);
        let mut next_fault = Instant::now() + self.pause();
        while self.killed() < self.plan.kills || jobs.verdict.completed < LEAST_JOBS {
            if !jobs.look(&mut self.fleet, true) {
                break;
            }
            self.bring_back(&mut jobs.verdict.faults);
            if self.killed() < self.plan.kills && Instant::now() >= next_fault {
                self.strike(jobs.shape()).await;
                next_fault = Instant::now() + self.pause();
            }
            tokio::time::sleep(LOOK).await;
        }
        while !self.due.is_empty() {
            self.bring_back(&mut jobs.verdict.faults);
            tokio::time::sleep(LOOK).await;
        }
        jobs.finish(&mut self.fleet).await
    }

    fn killed(&self) -> u64 {
        self.kills.values().sum()
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(200..3_000))
    }

    /// Those whose time has come go on, or live again; one that is leaving, once it has left.
    fn bring_back(&mut self, faults: &mut Vec<String>) {
        let now = Instant::now();
        let (come, later): (Vec<_>, Vec<_>) = self.due.drain(..).partition(|(at, _)| *at <= now);
        self.due = later;
        for (at, name) in come {
            match self.fleet.state(&name) {
                State::Stopped => self.fleet.go_on(&name),
                // A client is not started again: its job is.
                State::Dead if name != CLIENT => self.fleet.restart(&name),
                State::Leaving => match self.fleet.left(&name) {
                    Some(0) => self.fleet.restart(&name),
                    Some(code) => faults.push(format!("{name} left with exit code {code}")),
                    None if at.elapsed() > GUARD => faults.push(format!("{name} does not leave")),
                    None => self.due.push((at, name)),
                },
                _ => {}
            }
        }
    }

    async fn strike(&mut self, shape: Shape) {
        let (fault, victim) = self.draw(shape);
        let Some(victim) = victim else { return };
        let kind = victim.split('-').next().unwrap_or_default().to_owned();
        let back = match fault {
            Fault::Kill(back) => {
                if !self.fleet.kill_sparing(&victim).await {
                    self.spares += 1;
                    return;
                }
                *self.kills.entry(kind).or_default() += 1;
                self.killed_at.push(now());
                back
            }
            Fault::Stop(back) => {
                self.fleet.stop(&victim);
                *self.others.entry(format!("{kind} stopped")).or_default() += 1;
                back
            }
            Fault::End(back) => {
                self.fleet.terminate(&victim);
                *self.others.entry(format!("{kind} told to end")).or_default() += 1;
                back
            }
        };
        self.due.push((Instant::now() + back, victim));
    }

    /// A fault, and a process that it befalls, if one runs that has to do with the current job.
    fn draw(&mut self, shape: Shape) -> (Fault, Option<String>) {
        let rng = &mut self.rng;
        let soon = Duration::from_millis(rng.u64(0..2_000));
        // Below a lease, as a whole: a client that misses it is dead, and so is its job.
        let short = Duration::from_millis(rng.u64(200..4_000));
        let (fault, of): (Fault, fn(&str) -> bool) = match rng.u32(0..100) {
            0..62 => (Fault::Kill(soon), is_worker),
            62..72 => (Fault::Stop(short), is_worker),
            72..82 => (Fault::End(soon), is_worker),
            82..88 if self.plan.coordinator => (Fault::Kill(soon), |name| name == COORDINATOR),
            // Longer than a lease, too: its time does not count.
            82..91 => (Fault::Stop(short * 4), |name| name == COORDINATOR),
            91..96 => (Fault::Kill(soon), |name| name == CLIENT),
            _ => (Fault::Stop(short), |name| name == CLIENT),
        };
        let those: Vec<String> =
            self.fleet.names(State::Running).into_iter().filter(|name| of(name)).collect();
        let busy = |name: &str| shape.roles().contains(&name.split('-').next().unwrap_or(name));
        let those: Vec<String> =
            those.into_iter().filter(|name| !is_worker(name) || busy(name)).collect();
        let victim = (!those.is_empty()).then(|| those[rng.usize(0..those.len())].clone());
        (fault, victim)
    }

    fn report(self, verdict: Verdict, took: Duration) -> Outcome {
        let (slowest, answered) = first_resends(&self.killed_at, &verdict.resends);
        println!(
            "seed {}: {} kills {:?}\nbeside them {:?}; {} times a worker was spared for a suspect that it ran, or might\njobs of {} items, {:.0} s",
            self.plan.seed,
            self.killed(),
            self.kills,
            self.others,
            self.spares,
            self.plan.items,
            took.as_secs_f64(),
        );
        println!(
            "first resend after a kill: {slowest} ms at the latest, of {answered} kills that had one \
             before the next (figures come every 500 ms)"
        );
        let held = verdict.print();
        if !held {
            println!("logs and results: {}", self.fleet.keep().display());
        }
        Outcome::of(held)
    }
}

fn is_worker(name: &str) -> bool {
    name != CLIENT && name != COORDINATOR
}

/// The longest time from a kill to the first resend after it, in milliseconds, and over how many kills:
/// those with a resend before the next kill.
fn first_resends(kills: &[u64], resends: &[u64]) -> (u64, usize) {
    let next = kills.iter().skip(1).copied().chain([u64::MAX]);
    let first = kills.iter().zip(next).filter_map(|(kill, next)| {
        let after = resends.iter().filter(|at| **at >= *kill && **at < next);
        Some(after.min()? - kill)
    });
    let all: Vec<u64> = first.collect();
    (all.iter().copied().max().unwrap_or_default(), all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_resend_belongs_to_the_kill_before_it() {
        assert_eq!(first_resends(&[100, 200, 300], &[150, 160, 390]), (90, 2));
        assert_eq!(first_resends(&[100], &[]), (0, 0));
    }
}
