//! Seeded schedules of a whole cluster of the pure machines: see `stageline_tests::sim`.
//!
//! `SEEDS=20000` runs more of them, `FIRST=5000` others; `SEED=n … replay --nocapture` shows one.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and report like tests"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use stageline_protocol::task::Bug;
use stageline_tests::sim::{self, Failure, Figures, Shape};

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// Runs the seeds on all cores; answers the figures, or shows the failure with the lowest seed.
fn run_all(shape: Shape, count: u64) -> Figures {
    let (first, count) = (number("FIRST", 0), number("SEEDS", count));
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let (mut sum, mut failed) = (Figures::default(), None);
        while failed.is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            match sim::run(seed, shape, None, false) {
                Ok(run) => sum.add(&run.figures),
                Err(failure) => failed = Some(failure),
            }
        }
        (sum, failed)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a simulation thread")).collect()
    });
    let mut all = Figures::default();
    let mut failures: BTreeMap<u64, Box<Failure>> = BTreeMap::new();
    for (figures, failure) in results {
        all.add(&figures);
        failures.extend(failure.map(|failure| (failure.seed, failure)));
    }
    if let Some((seed, _)) = failures.pop_first() {
        panic!("{}", sim::run(seed, shape, None, true).expect_err("a failure replays"));
    }
    println!("{shape:?}: {count} schedules in {:.1} s: {all}", started.elapsed().as_secs_f64());
    all
}

/// A run in which nothing went wrong proves nothing.
fn assert_not_vacuous(figures: &Figures, count: u64) {
    let count = number("SEEDS", count);
    assert!(figures.all_faults() >= 2 * count, "faults");
    assert!(figures.resent > 0, "nothing was ever sent again");
    assert!(figures.duplicates > 0, "no duplicate ever reached the boundary");
    assert!(figures.stale > 0, "nothing stale was ever refused");
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_whatever_breaks() {
    let figures = run_all(Shape::Whole, 1_000);
    assert_not_vacuous(&figures, 1_000);
    assert!(figures.carried > 0, "nothing ever carried over to a newer connection");
    assert!(figures.returned > 0, "nothing was ever given back");
    assert!(figures.alone > 0, "no suspect ever ran");
}

#[test]
fn a_named_source_is_replaced_where_it_was() {
    assert_not_vacuous(&run_all(Shape::NamedSource, 200), 200);
}

#[test]
fn items_that_kill_are_convicted_and_no_others() {
    let figures = run_all(Shape::Killers, 200);
    assert!(figures.killers > 0, "nothing was ever killed by an item");
    assert_not_vacuous(&figures, 200);
}

#[test]
fn an_expansion_may_be_large() {
    let figures = run_all(Shape::Large, 4);
    assert!(figures.resent > 0 && figures.delivered > 20_000);
}

#[test]
fn a_consumer_that_wants_no_more_ends_the_job() {
    let figures = run_all(Shape::Take, 200);
    assert!(figures.all_faults() > 0 && figures.delivered > 0);
}

#[test]
fn a_job_whose_client_is_killed_is_cancelled_everywhere() {
    let figures = run_all(Shape::ClientDies, 200);
    assert_eq!(figures.faults.get("KillClient"), Some(&number("SEEDS", 200)));
}

/// Each planted defect is caught, and by nothing else than the defect.
#[test]
fn every_planted_bug_is_caught() {
    const WITHIN: u64 = 200;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let hunt = || {
        while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            is_caught(*bug, WITHIN);
        }
    };
    std::thread::scope(|scope| {
        let hunters: Vec<_> = (0..cores).map(|_| scope.spawn(hunt)).collect();
        for hunter in hunters {
            hunter.join().expect("every bug is caught");
        }
    });
}

fn is_caught(bug: Bug, within: u64) {
    let shape = match bug {
        Bug::DeathsForgotten => Shape::Killers,
        _ => Shape::Whole,
    };
    let failed = |seed| sim::run(seed, shape, Some(bug), false).err();
    let Some(caught) = (0..within).find_map(failed) else {
        panic!("{bug:?} was not caught by {within} seeds")
    };
    println!("{bug:?}: caught by seed {}: {}", caught.seed, caught.invariant);
    // And by nothing else than the defect.
    let sound = sim::run(caught.seed, shape, None, true);
    assert!(sound.is_ok(), "without the defect, too: {}", sound.expect_err("it failed"));
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let run = |seed| {
        sim::run(seed, Shape::Whole, None, true).unwrap_or_else(|failure| panic!("{failure}"))
    };
    for seed in 0..10 {
        let (once, again) = (run(seed), run(seed));
        let differs = once.log.iter().zip(&again.log).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((once.log_hash, once.figures), (again.log_hash, again.figures), "seed {seed}");
    }
    assert_ne!(run(0).log_hash, run(1).log_hash, "the seed decides");
}

#[test]
fn replay() {
    let shape = match std::env::var("SHAPE").as_deref() {
        Err(_) | Ok("Whole") => Shape::Whole,
        Ok("Take") => Shape::Take,
        Ok("NamedSource") => Shape::NamedSource,
        Ok("ClientDies") => Shape::ClientDies,
        Ok("Killers") => Shape::Killers,
        Ok("Large") => Shape::Large,
        Ok(other) => {
            panic!("SHAPE={other} is none of Whole, Take, NamedSource, ClientDies, Killers, Large")
        }
    };
    let result = sim::run(number("SEED", 0), shape, None, true);
    let log = match &result {
        Ok(run) => &run.log,
        Err(failure) => &failure.log,
    };
    if std::env::var_os("SEED").is_some() {
        log.iter().for_each(|line| println!("{line}"));
    }
    assert!(!log.is_empty());
    if let Err(failure) = result {
        panic!("seed {}: {}", failure.seed, failure.invariant);
    }
}
