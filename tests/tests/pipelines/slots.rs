//! How many items run at a time, and how many wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use stageline::Stream;
use stageline_tests::cluster::{guarded, wait_for};
use stageline_tests::stages::{FEED, HELD};

use crate::world::{Place, World, everywhere, sorted};

/// The most calls that ran at a time, by the order of their traces; of each worker, or of all.
fn most_at_a_time(world: &World, by_worker: bool) -> BTreeMap<String, usize> {
    let (mut now, mut most) = (BTreeMap::<String, usize>::new(), BTreeMap::new());
    for line in world.trace("held") {
        let words: Vec<&str> = line.split(' ').collect();
        let key = if by_worker { words[2].to_owned() } else { String::new() };
        let running = now.entry(key.clone()).or_default();
        match words[0] {
            "+" => *running += 1,
            "-" => *running -= 1,
            other => panic!("{other}"),
        }
        let most = most.entry(key).or_default();
        *most = (*running).max(*most);
    }
    most
}

#[tokio::test]
async fn workers_caps_what_runs_at_a_time_over_all_workers() {
    everywhere(async |world| {
        world.close_gate("held");
        let held = Stream::from_iter(0..200u64).map(HELD).workers(3).results(&world.client);
        world.until_traced("held", "+", 3).await;
        world.open_gate("held");
        assert_eq!(sorted(held.map(Result::unwrap).collect::<Vec<_>>().await), sorted(0..200));
        assert_eq!(most_at_a_time(world, false), [(String::new(), 3)].into());
    })
    .await;
}

#[tokio::test]
async fn workers_per_caps_what_runs_at_a_time_on_each() {
    everywhere(async |world| {
        world.close_gate("held");
        let held = Stream::from_iter(0..200u64).map(HELD).workers_per(2).results(&world.client);
        world.until_traced("held", "+", 2 * world.workers().len()).await;
        world.open_gate("held");
        assert_eq!(sorted(held.map(Result::unwrap).collect::<Vec<_>>().await), sorted(0..200));
        let expected = world.workers().iter().map(|name| ((*name).to_owned(), 2)).collect();
        assert_eq!(most_at_a_time(world, true), expected);
    })
    .await;
}

#[tokio::test]
async fn workers_caps_closures_too() {
    let client = World::new(Place::Embedded).await.client;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (running.clone(), most.clone());
    let busy = Stream::from_iter(0..200u64).map_local(move |n: u64| {
        let (running, most) = counters.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            n
        }
    });
    let values = busy.workers(5).collect(&client).await.unwrap();
    assert_eq!((sorted(values), running.load(Ordering::SeqCst)), (sorted(0..200), 0));
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

/// Whether calls wait for each other asleep or block their threads: all slots are used at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_wait_for_each_other_all_run() {
    let client = World::new(Place::Embedded).await.client;
    let all_here = Arc::new(tokio::sync::Barrier::new(5));
    let asleep = Stream::from_iter(0..200u64).map_local(move |n: u64| {
        let all_here = all_here.clone();
        async move {
            all_here.wait().await;
            n
        }
    });
    let values = guarded(asleep.workers(5).collect(&client)).await.unwrap();
    assert_eq!(sorted(values), sorted(0..200));

    let both_here = Arc::new(std::sync::Barrier::new(2));
    let blocked = Stream::from_iter(0..2u64).map_local(move |n: u64| {
        let both_here = both_here.clone();
        async move {
            both_here.wait();
            n
        }
    });
    let values = guarded(blocked.workers(2).collect(&client)).await.unwrap();
    assert_eq!(sorted(values), [0, 1]);
}

#[tokio::test]
async fn a_buffer_of_zero_is_a_rendezvous() {
    everywhere(async |world| {
        world.close_gate("held");
        let results = Stream::from_iter(0..40u64)
            .map(FEED)
            .workers(1)
            .map(HELD)
            .workers(1)
            .buffer(0)
            .results(&world.client);
        // One item is held, and one is done before it and has nowhere to go.
        world.until_traced("held", "+", 1).await;
        world.until_traced("feed", "-", 2).await;
        let job = results.job();
        let queued = || job.status().is_some_and(|s| s.stages[1].totals.waiting_for_credit == 1);
        wait_for("an item waits for credit", queued).await;
        assert_eq!((world.traced("feed", "+"), world.traced("held", "+")), (2, 1));
        world.open_gate("held");
        assert_eq!(sorted(results.map(Result::unwrap).collect::<Vec<_>>().await), sorted(0..40));
    })
    .await;
}

#[tokio::test]
async fn a_buffer_holds_what_it_says() {
    everywhere(async |world| {
        world.close_gate("held");
        let results = Stream::from_iter(0..40u64)
            .map(FEED)
            .workers(1)
            .map(HELD)
            .workers(1)
            .buffer(5)
            .results(&world.client);
        // One is held, five wait before it, and one is done and has nowhere to go.
        world.until_traced("feed", "-", 7).await;
        let job = results.job();
        let queued = || job.status().is_some_and(|s| s.stages[1].totals.waiting_for_credit == 1);
        wait_for("an item waits for credit", queued).await;
        assert_eq!((world.traced("feed", "+"), world.traced("held", "+")), (7, 1));
        world.open_gate("held");
        assert_eq!(sorted(results.map(Result::unwrap).collect::<Vec<_>>().await), sorted(0..40));
    })
    .await;
}
