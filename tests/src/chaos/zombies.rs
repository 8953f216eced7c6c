//! Workers that are stopped for longer than their lease, and then go on as if nothing had happened.
//!
//! By then the coordinator has replaced their tasks. What a zombie still sends is refused as stale, and
//! what it held has been sent to others. One worker of each role is stopped at a time, in the middle
//! of a job, so that each holds items; the job outlives the stop, or nobody would be left to refuse
//! them.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Outcome;
use super::fleet::{COORDINATOR, Fleet, workers};
use super::series::{LOOK, Series};
use super::work::Shape;
use crate::cluster::{GUARD, this_program};

/// Workers for each role.
const EACH: usize = 3;
/// The roles whose workers are stopped.
const ROLES: [&str; 4] = ["source", "one", "two", "three"];

/// Makes so many zombies, each stopped for that long, and prints the figures.
///
/// # Panics
/// When a process cannot be started.
pub async fn run(count: u64, items: u64, stop: Duration, seed: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let mut fleet = Fleet::start(&this_program(), EACH, None).await;
    let mut jobs = Series::begin(&mut fleet, &[Shape::Spread, Shape::Plain], items);
    let mut zombies = 0;
    while zombies < count {
        if zombies > 0 && !jobs.fresh(&mut fleet).await {
            break;
        }
        // A job that has just begun gives its workers something to hold.
        if !jobs.run_for(&mut fleet, Duration::from_millis(rng.u64(1_500..4_000))).await {
            break;
        }
        let victims: Vec<String> =
            ROLES.iter().map(|role| format!("{role}-{}", rng.usize(1..=EACH))).collect();
        let seen = |fleet: &Fleet, name: &str| {
            let log = fleet.log(COORDINATOR);
            log.matches(&format!("worker {name} is here")).count()
        };
        let before: Vec<usize> = victims.iter().map(|name| seen(&fleet, name)).collect();
        victims.iter().for_each(|name| fleet.stop(name));
        let stopped = jobs.run_for(&mut fleet, stop).await;
        victims.iter().for_each(|name| fleet.go_on(name));
        zombies += victims.len() as u64;
        let since = Instant::now();
        let back = |fleet: &Fleet| {
            victims.iter().zip(&before).all(|(name, before)| seen(fleet, name) > *before)
        };
        while stopped && !back(&fleet) {
            if since.elapsed() > GUARD {
                jobs.verdict.faults.push(format!("not back: one of {victims:?}"));
            }
            if !jobs.look(&mut fleet, true) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let verdict = jobs.finish(&mut fleet).await;
    println!("seed {seed}: {zombies} zombies of {} workers, {stop:?} each", workers(EACH).len());
    let mut held = verdict.print();
    if verdict.figures.stale == 0 {
        println!("VACUOUS: nothing was refused as stale");
        held = false;
    }
    if !held {
        println!("logs and results: {}", fleet.keep().display());
    }
    Outcome::of(held)
}
