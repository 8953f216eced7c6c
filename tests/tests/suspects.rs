//! An item that kills its process, and items that only were there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use stageline::{Error, ErrorKind, ItemError, Results, Stream};
use stageline_tests::cluster::{Cluster, eventually, guarded, processes, wait_for};
use stageline_tests::functions::{BURST, DEADLY, FATAL, FRAGILE, THIRD, WAIT};
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const WORKERS: [&str; 3] = ["a", "b", "c"];

/// What has come of a job so far, and all of it once it is over.
struct Outcome {
    values: BTreeMap<u64, u64>,
    errors: Vec<ItemError>,
}

fn collect(mut results: Results<u64>) -> (Arc<AtomicU64>, JoinHandle<Outcome>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let all = tokio::spawn(async move {
        let mut outcome = Outcome { values: BTreeMap::new(), errors: Vec::new() };
        while let Some(result) = results.next().await {
            match result {
                Ok(value) => *outcome.values.entry(value).or_default() += 1,
                Err(Error::Item(error)) => outcome.errors.push(error),
                Err(error) => panic!("the job fails: {error}"),
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    });
    (count, all)
}

async fn start(workers: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in workers {
        cluster.worker(name, &["fragile"]).await;
    }
    cluster
}

async fn is_gone(cluster: &Cluster, name: &str) {
    eventually("it counts as dead", async || {
        processes(&cluster.address).await.iter().all(|process| process.name != name)
    })
    .await;
}

fn each_once(outcome: &Outcome, numbers: impl Iterator<Item = u64>) {
    assert!(outcome.values.keys().copied().eq(numbers), "some are missing");
    let twice: Vec<_> = outcome.values.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test]
async fn an_item_that_kills_its_process_becomes_an_error_and_those_beside_it_do_not() {
    let mut cluster = start(&WORKERS).await;
    let client = cluster.client().await;
    let stream = Stream::from_iter(0..300).map(FRAGILE).workers_per(8);
    let (_, all) = collect(stream.results(&client));
    while !all.is_finished() {
        for name in WORKERS {
            if cluster.workers.get_mut(name).unwrap().ended().is_some() {
                cluster.worker(name, &["fragile"]).await;
            }
        }
        tokio::task::yield_now().await;
    }
    let outcome = guarded(all).await.unwrap();
    each_once(&outcome, (0..300).filter(|n| *n != FATAL));
    let [error] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
    assert_eq!(
        (error.kind, error.stage.as_str(), error.attempts),
        (ErrorKind::Crashed, "fragile", 2)
    );
    assert!(error.message.contains("where it ran alone"), "{}", error.message);
    let calls = cluster.trace("fragile").iter().filter(|n| **n == FATAL.to_string()).count();
    assert_eq!(
        calls, 3,
        "marked by the first death, suspected at the second, convicted by the third"
    );
    let log = cluster.coordinator.log();
    assert!(log.contains("it is convicted") && log.contains("it runs alone"), "{log}");
}

/// Workers are killed while they hold items that were in process before; nobody is guilty.
#[tokio::test]
async fn innocent_items_are_never_convicted_however_many_workers_die() {
    const ITEMS: u64 = 2_000;
    const KILLS: u64 = 12;
    let numbers = 100..100 + ITEMS;
    let mut cluster = start(&["a"]).await;
    cluster.close_gate("fragile");
    let client = cluster.client().await;
    let stream = Stream::from_iter(numbers.clone()).map(FRAGILE).workers_per(8);
    let (count, all) = collect(stream.results(&client));

    // Eight items are in process where "a" dies, and then where "b" does.
    wait_for("all slots are in use", || cluster.trace("fragile").len() == 8).await;
    assert!(cluster.kill_sparing("a").await);
    is_gone(&cluster, "a").await;
    cluster.worker("b", &["fragile"]).await;
    wait_for("the same items are in process", || cluster.trace("fragile").len() == 16).await;
    assert!(cluster.kill_sparing("b").await);
    for name in WORKERS {
        cluster.worker(name, &["fragile"]).await;
    }
    cluster.open_gate("fragile");

    let mut rng = fastrand::Rng::with_seed(3);
    let (mut kills, mut spared) = (2, 0);
    while kills < KILLS {
        let moment = kills * ITEMS / (KILLS + 1) + rng.u64(..ITEMS / KILLS / 2);
        wait_for("some more results", || count.load(Ordering::Relaxed) >= moment).await;
        // Two in a row: what was in process at the first is so at the second.
        for _ in 0..2 {
            let victim = WORKERS[rng.usize(..WORKERS.len())];
            if cluster.kill_sparing(victim).await {
                kills += 1;
                cluster.worker(victim, &["fragile"]).await;
            } else {
                spared += 1;
            }
        }
    }
    let outcome = guarded(all).await.unwrap();
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    each_once(&outcome, numbers);
    let log = cluster.coordinator.log();
    println!("{kills} kills, {spared} spared");
    assert!(log.contains("it runs alone"), "vacuous: no item was ever suspected");
    assert!(!log.contains("it is convicted"));
}

/// Expansions that run alone make more than there is room for, and what makes room runs in the same
/// worker.
#[tokio::test]
async fn a_suspect_lets_others_in_while_it_waits_for_room() {
    const FUNCTIONS: &[&str] = &["burst", "third"];
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.close_gate("burst");
    let client = cluster.client().await;
    let (_, all) = collect(Stream::from_iter(0..3).flat_map(BURST).map(THIRD).results(&client));
    for (name, calls) in [("a", 3), ("b", 6)] {
        cluster.worker(name, FUNCTIONS).await;
        wait_for("all are in process", || cluster.trace("burst").len() == calls).await;
        assert!(cluster.kill_sparing(name).await);
        is_gone(&cluster, name).await;
    }
    cluster.worker("c", FUNCTIONS).await;
    cluster.open_gate("burst");
    let outcome = guarded(all).await.unwrap();
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let outputs = (0..3).flat_map(|n| (0..2_000).map(move |i| n * 10_000 + i + 100_000_000));
    each_once(&outcome, outputs);
    let log = cluster.workers["c"].log();
    let alone = log.lines().filter(|line| line.contains("runs alone")).count();
    assert!(alone > 6, "{alone}: each of the three waited for room, more than once");
}

/// The workers of the stage before are killed while the killer is in process: copies of it are in several
/// places when it begins to kill.
#[tokio::test]
async fn copies_of_a_killer_do_not_kill_for_ever() {
    const COPIES: usize = 3;
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in WORKERS {
        cluster.worker(name, &["deadly"]).await;
    }
    cluster.worker("one", &["wait"]).await;
    cluster.close_gate("deadly");
    let client = cluster.client().await;
    let (_, all) = collect(Stream::from_iter(0..100).map(WAIT).map(DEADLY).results(&client));
    let begun = |cluster: &Cluster| {
        cluster.trace("deadly").iter().filter(|n| **n == FATAL.to_string()).count()
    };
    for copies in 1..=COPIES {
        wait_for("another copy is in process", || begun(&cluster) == copies).await;
        if copies < COPIES {
            assert!(cluster.kill_sparing("one").await);
            cluster.worker("one", &["wait"]).await;
        }
    }
    cluster.open_gate("deadly");
    while !all.is_finished() {
        for name in WORKERS {
            if cluster.workers.get_mut(name).unwrap().ended().is_some() {
                cluster.worker(name, &["deadly"]).await;
            }
        }
        tokio::task::yield_now().await;
    }
    let outcome = guarded(all).await.unwrap();
    each_once(&outcome, (0..100).filter(|n| *n != FATAL));
    let [error] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
    assert_eq!((error.kind, error.stage.as_str()), (ErrorKind::Crashed, "deadly"));
    let deaths = begun(&cluster);
    assert!(deaths <= COPIES + 3, "it was begun {deaths} times");
}
