//! Pipelines over real processes, some of which die.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use stageline::{JobStatus, Results, Stream, TaskStats};
use stageline_tests::cluster::{Cluster, guarded, wait_for};
use stageline_tests::functions::{FIRST, HUNDRED, RECORD, SECOND, THIRD};
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const ROOTS: u64 = 500;
/// What the three stages together add.
const ADDED: u64 = 111_000_000;

/// Takes all results, in a task of its own.
fn collect(results: Results<u64>) -> JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut values: Vec<u64> =
            results.map(|result| result.expect("no item fails")).collect().await;
        values.sort_unstable();
        values
    })
}

fn all(roots: u64) -> Vec<u64> {
    (0..roots).map(|root| root + ADDED).collect()
}

fn sum(status: &JobStatus, of: fn(&TaskStats) -> u64) -> u64 {
    status.stages.iter().map(|stage| of(&stage.totals)).sum()
}

#[tokio::test]
async fn a_pipeline_runs_over_three_workers() {
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["a", "b", "c"] {
        cluster.worker(name, &[]).await;
    }
    let client = cluster.client().await;
    let results = Stream::from_iter(0..3_000).map(FIRST).map(SECOND).map(THIRD).results(&client);
    assert_eq!(guarded(collect(results)).await.unwrap(), all(3_000));
}

/// Three stages on workers of their own, and a second worker for the middle one. The first worker of
/// the middle stage is killed while it holds items that it has not acked: the first stage sends them
/// again, without running its function again.
#[tokio::test]
async fn a_killed_worker_loses_nothing_and_nothing_upstream_runs_again() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("one", &["first"]).await;
    cluster.worker("two", &["second"]).await;
    cluster.worker("three", &["third"]).await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let values = collect(results);
    wait_for("it holds items", || !cluster.trace("second-started").is_empty()).await;
    cluster.worker("two-again", &["second"]).await;
    cluster.kill("two");
    cluster.open_gate("second");

    assert_eq!(guarded(values).await.unwrap(), all(ROOTS));
    let status = guarded(job.ended()).await.unwrap();
    let mut calls = BTreeMap::<String, u32>::new();
    for root in cluster.trace("first") {
        *calls.entry(root).or_default() += 1;
    }
    assert_eq!(calls.len() as u64, ROOTS);
    assert!(calls.values().all(|calls| *calls == 1), "{calls:?}");
    assert!(sum(&status, |stats| stats.resent) > 0, "{status:?}");
}

/// The killed worker's outputs have gone on, and none of them is acked: made again by its
/// replacement, every one of them comes to the terminal twice.
#[tokio::test]
async fn what_was_sent_on_before_a_kill_comes_twice_and_is_delivered_once() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("one", &["first"]).await;
    cluster.worker("two", &["second"]).await;
    cluster.worker("three", &["third"]).await;
    cluster.close_gate("third");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let values = collect(results);
    let held_by_third = || {
        let status = job.status()?;
        Some(status.stages.get(3)?.totals.received)
    };
    wait_for("the third stage holds outputs of the second", || held_by_third() > Some(0)).await;
    cluster.worker("two-again", &["second"]).await;
    cluster.kill("two");
    let made_again = || cluster.trace("second").len() > ROOTS as usize;
    let again = || held_by_third() > Some(128);
    wait_for("they are made again", || made_again() || again()).await;
    cluster.open_gate("third");

    assert_eq!(guarded(values).await.unwrap(), all(ROOTS));
    let status = guarded(job.ended()).await.unwrap();
    assert!(sum(&status, |stats| stats.resent) > 0, "{status:?}");
    assert!(sum(&status, |stats| stats.duplicates) > 0, "{status:?}");
}

/// A source on a worker begins again where its position was stored, and makes the same roots.
#[tokio::test]
async fn a_killed_source_goes_on_elsewhere() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("source", &["hundred"]).await;
    cluster.worker("stages", &["first", "second", "third"]).await;
    cluster.close_gate("third");
    let client = cluster.client().await;
    let pipeline = Stream::source(HUNDRED).map(FIRST).map(SECOND).map(THIRD);
    let results = pipeline.max_in_flight(10).results(&client);
    let job = results.job();
    let values = collect(results);
    wait_for("roots are under way", || !cluster.trace("second").is_empty()).await;
    cluster.worker("source-again", &["hundred"]).await;
    cluster.kill("source");
    cluster.open_gate("third");

    assert_eq!(guarded(values).await.unwrap(), all(100));
    let status = guarded(job.ended()).await.unwrap();
    assert!(status.stages[0].by_worker.contains_key("source-again"), "{status:?}");
}

/// A sink on the fleet runs at least once for each item, with the same key each time.
#[tokio::test]
async fn a_killed_sink_runs_again_with_the_same_key() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("stages", &["first"]).await;
    cluster.worker("sink", &["record"]).await;
    cluster.close_gate("record");
    let client = cluster.client().await;
    let run = {
        let client = client.clone();
        tokio::spawn(async move {
            Stream::from_iter(0..ROOTS).map(FIRST).for_each(RECORD, &client).await
        })
    };
    wait_for("the sink holds items", || !cluster.trace("first").is_empty()).await;
    cluster.worker("sink-again", &["record"]).await;
    cluster.kill("sink");
    cluster.open_gate("record");

    let (_, errors) = guarded(run).await.unwrap().unwrap();
    assert_eq!(errors, []);
    let mut keys = BTreeMap::<String, String>::new();
    for line in cluster.trace("record") {
        let (number, key) = line.split_once(' ').unwrap();
        let first = keys.entry(number.to_owned()).or_insert_with(|| key.to_owned());
        assert_eq!(first, key);
    }
    assert_eq!(keys.len() as u64, ROOTS);
}
