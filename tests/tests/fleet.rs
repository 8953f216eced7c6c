//! Pipelines over real processes, and what happens when some of them die.

use std::collections::BTreeMap;

use stageline::Stream;
use stageline_tests::cluster::{Cluster, guarded, wait_for};
use stageline_tests::functions::{FIRST, SECOND, THIRD};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");

#[tokio::test]
async fn a_pipeline_runs_over_three_workers() {
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["a", "b", "c"] {
        cluster.worker(name, &[]).await;
    }
    let client = cluster.client().await;
    let job = Stream::from_iter(0..3_000u64).map(FIRST).map(SECOND).map(THIRD).collect(&client);
    let mut results = guarded(job).await.unwrap();
    results.sort_unstable();
    assert_eq!(results, (0..3_000).map(|n| n + 111_000_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_killed_worker_loses_nothing_and_doubles_nothing() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("one", &["first"]).await;
    cluster.worker("two", &["second"]).await;
    cluster.worker("three", &["third"]).await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..500u64).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let collected = tokio::spawn(async move {
        use futures_util::StreamExt;
        results.map(Result::unwrap).collect::<Vec<u64>>().await
    });
    wait_for("the second worker holds items", || !cluster.trace("second-started").is_empty()).await;
    cluster.worker("two-again", &["second"]).await;
    cluster.kill("two");
    cluster.open_gate("second");
    let mut values = guarded(collected).await.unwrap();
    let status = guarded(job.ended()).await.unwrap();
    values.sort_unstable();
    assert_eq!(values, (0..500).map(|n| n + 111_000_000).collect::<Vec<_>>());
    let mut calls = BTreeMap::<String, u32>::new();
    for line in cluster.trace("first") {
        *calls.entry(line).or_default() += 1;
    }
    assert_eq!(calls.len(), 500);
    assert!(calls.values().all(|count| *count == 1), "the first stage ran once per root");
    let resent: u64 = status.stages.iter().map(|stage| stage.totals.resent).sum();
    assert!(resent > 0, "{status:?}");
}
