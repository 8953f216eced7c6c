//! Workers that are asked to leave while a job runs: what they have begun they finish, the rest they
//! give back, and nothing runs twice.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use stageline::{JobStatus, Results, Stream, TaskStats};
use stageline_tests::cluster::{Cluster, Process, eventually, guarded, processes, wait_for};
use stageline_tests::functions::{FIRST, HUNDRED, SECOND, THIRD};
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const ROOTS: u64 = 500;
/// What the three stages together add.
const ADDED: u64 = 111_000_000;
/// The slots of an async function, unless told.
const SLOTS: u64 = 64;

/// Takes so many results, in a task of its own.
fn take(results: Results<u64>, count: u64) -> JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let values = results.take(count as usize).map(|result| result.expect("no item fails"));
        let mut values: Vec<u64> = values.collect().await;
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

/// Adds a worker that takes at most so long to leave.
async fn worker(cluster: &mut Cluster, name: &str, grace: &str) {
    let arguments = ["worker", "--coordinator", &cluster.address, "--name", name, "--grace", grace];
    let worker = Process::start(PROGRAM, &arguments, cluster.dir.path(), name);
    cluster.workers.insert(name.to_owned(), worker);
    let address = &cluster.address;
    eventually(name, async || processes(address).await.iter().any(|p| p.name == name)).await;
}

/// Asks a worker to leave, and waits until it is known to.
async fn ask_to_leave(cluster: &Cluster, name: &str) {
    cluster.workers[name].signal("TERM");
    let address = &cluster.address;
    let leaving = async || processes(address).await.iter().any(|p| p.name == name && p.leaving);
    eventually("it is listed as leaving", leaving).await;
}

/// Waits until a worker has ended, and answers its exit code.
async fn left(cluster: &mut Cluster, name: &str) -> i32 {
    let worker = cluster.workers.get_mut(name).expect("a worker of that name");
    let mut code = None;
    wait_for("it leaves", || {
        code = worker.ended();
        code.is_some()
    })
    .await;
    code.unwrap()
}

/// Every function has run once for each root, finished or not.
fn assert_each_ran_once(cluster: &Cluster, roots: u64) {
    for trace in ["first-started", "first", "second-started", "second", "third"] {
        let mut calls = BTreeMap::<String, u32>::new();
        for input in cluster.trace(trace) {
            *calls.entry(input).or_default() += 1;
        }
        let again: Vec<_> = calls.iter().filter(|(_, calls)| **calls > 1).collect();
        assert!(again.is_empty(), "{trace}, more than once: {again:?}");
        assert_eq!(calls.len() as u64, roots, "{trace}");
    }
}

/// Two workers for everything, with their slots for the second stage full and a gate before them.
async fn held_at_second(grace: &str) -> Cluster {
    let mut cluster = Cluster::start(PROGRAM).await;
    worker(&mut cluster, "stays", "25s").await;
    worker(&mut cluster, "leaves", grace).await;
    cluster.close_gate("second");
    cluster
}

fn pipeline(roots: u64) -> stageline::Stream<u64> {
    Stream::from_iter(0..roots).map(FIRST).map(SECOND).map(THIRD)
}

/// The calls of the second stage by worker, once both have as many as they may.
async fn both_are_full(job: &stageline::Job) {
    wait_for("both workers' slots are full", || {
        let status = job.status();
        let calls = status.and_then(|status| status.stages.get(2).map(|s| s.by_worker.clone()));
        calls.is_some_and(|calls| calls.len() == 2 && calls.values().all(|n| *n == SLOTS))
    })
    .await;
}

#[tokio::test]
async fn who_leaves_finishes_what_has_begun_and_nothing_runs_twice() {
    let mut cluster = held_at_second("60s").await;
    let client = cluster.client().await;
    let results = pipeline(ROOTS).results(&client);
    let job = results.job();
    let values = take(results, u64::MAX);
    both_are_full(&job).await;

    ask_to_leave(&cluster, "leaves").await;
    assert_eq!(cluster.workers.get_mut("leaves").unwrap().ended(), None, "it has calls to finish");
    cluster.open_gate("second");
    assert_eq!(left(&mut cluster, "leaves").await, 0);

    assert_eq!(guarded(values).await.unwrap(), all(ROOTS));
    let status = guarded(job.ended()).await.unwrap();
    assert_eq!(status.stages[2].by_worker["leaves"], SLOTS, "what it had begun, and nothing more");
    assert_each_ran_once(&cluster, ROOTS);
    assert_eq!(sum(&status, |stats| stats.resent), 0, "{status:?}");
    assert_eq!(sum(&status, |stats| stats.duplicates), 0, "{status:?}");
}

/// Its calls are done, but nobody takes their results: it goes when its time is over, and what was
/// not acked runs again.
#[tokio::test]
async fn a_stalled_consumer_does_not_keep_who_leaves() {
    let mut cluster = Cluster::start(PROGRAM).await;
    worker(&mut cluster, "stays", "25s").await;
    worker(&mut cluster, "leaves", "1s").await;
    let client = cluster.client().await;
    let results = pipeline(ROOTS).results(&client);
    let job = results.job();
    wait_for("results wait for the consumer", || {
        let status = job.status();
        let third = status.and_then(|status| status.stages.get(3).map(|s| s.by_worker.clone()));
        third.is_some_and(|calls| calls.len() == 2 && calls.values().all(|n| *n > 0))
    })
    .await;
    ask_to_leave(&cluster, "leaves").await;
    assert_eq!(left(&mut cluster, "leaves").await, 0);
    assert!(cluster.workers["leaves"].log().contains("the time to leave is over"));

    assert_eq!(guarded(take(results, u64::MAX)).await.unwrap(), all(ROOTS));
    guarded(job.ended()).await.unwrap();
}

/// The next source begins where this one has stopped, when it has stopped.
#[tokio::test]
async fn a_source_goes_on_elsewhere_and_no_root_comes_twice() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("leaves", &["hundred"]).await;
    cluster.worker("stages", &["first", "second", "third"]).await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let stream = Stream::source(HUNDRED).map(FIRST).map(SECOND).map(THIRD);
    let results = stream.max_in_flight(10).results(&client);
    let job = results.job();
    let values = take(results, u64::MAX);
    wait_for("roots are under way", || cluster.trace("second-started").len() == 10).await;
    cluster.worker("stays", &["hundred"]).await;
    ask_to_leave(&cluster, "leaves").await;
    cluster.open_gate("second");
    assert_eq!(left(&mut cluster, "leaves").await, 0);

    assert_eq!(guarded(values).await.unwrap(), all(100));
    let status = guarded(job.ended()).await.unwrap();
    assert!(status.stages[0].by_worker["stays"] > 0, "{status:?}");
    assert_each_ran_once(&cluster, 100);
    assert_eq!(sum(&status, |stats| stats.resent), 0, "{status:?}");
    assert_eq!(sum(&status, |stats| stats.duplicates), 0, "{status:?}");
}

/// Tasks part over their links; who is not there to hear of it keeps nobody.
#[tokio::test]
async fn a_worker_leaves_while_the_coordinator_is_away() {
    let mut cluster = held_at_second("60s").await;
    let client = cluster.client().await;
    let results = pipeline(ROOTS).results(&client);
    let job = results.job();
    let values = take(results, ROOTS);
    both_are_full(&job).await;
    cluster.kill_coordinator();
    let leaver = cluster.workers.get_mut("leaves").unwrap();
    leaver.logged("lost the coordinator").await;
    leaver.signal("TERM");
    leaver.logged("leaving").await;
    cluster.open_gate("second");
    assert_eq!(left(&mut cluster, "leaves").await, 0);

    assert_eq!(guarded(values).await.unwrap(), all(ROOTS));
    assert_each_ran_once(&cluster, ROOTS);
}

/// The coordinator is killed before it has heard of any of it; back, it is told how far the source came.
#[tokio::test]
async fn a_source_that_leaves_while_the_coordinator_is_away_tells_it_before_it_goes() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("stays", &["first", "second", "third"]).await;
    worker(&mut cluster, "leaves", "60s").await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let stream = Stream::source(HUNDRED).map(FIRST).map(SECOND).map(THIRD);
    let results = stream.max_in_flight(10).results(&client);
    let job = results.job();
    let values = take(results, u64::MAX);
    wait_for("roots are under way", || cluster.trace("second-started").len() == 10).await;
    cluster.kill_coordinator();
    let leaver = cluster.workers.get_mut("leaves").unwrap();
    leaver.logged("lost the coordinator").await;
    leaver.signal("TERM");
    leaver.logged("leaving").await;
    cluster.open_gate("second");
    wait_for("all that was under way is done", || cluster.trace("third").len() == 10).await;
    cluster.start_coordinator().await;
    assert_eq!(left(&mut cluster, "leaves").await, 0);
    cluster.worker("next", &["hundred"]).await;

    assert_eq!(guarded(values).await.unwrap(), all(100));
    guarded(job.ended()).await.unwrap();
    assert_each_ran_once(&cluster, 100);
}

/// How far a source is, only the coordinator can tell the next one; it is waited for, but not for ever.
#[tokio::test]
async fn a_source_waits_for_the_coordinator_until_its_time_is_over() {
    let mut cluster = Cluster::start(PROGRAM).await;
    worker(&mut cluster, "leaves", "1s").await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let stream = Stream::source(HUNDRED).map(FIRST).map(SECOND).map(THIRD);
    let values = take(stream.max_in_flight(10).results(&client), u64::MAX);
    wait_for("roots are under way", || cluster.trace("second-started").len() == 10).await;
    cluster.kill_coordinator();
    let leaver = cluster.workers.get_mut("leaves").unwrap();
    leaver.logged("lost the coordinator").await;
    leaver.signal("TERM");
    cluster.open_gate("second");
    assert_eq!(left(&mut cluster, "leaves").await, 0);
    assert!(cluster.workers["leaves"].log().contains("the time to leave is over"));
    values.abort();
}

/// Whoever asks twice, or with Ctrl-C, does not want to wait.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut cluster = held_at_second("600s").await;
    worker(&mut cluster, "interrupted", "600s").await;
    let client = cluster.client().await;
    let results = pipeline(ROOTS).results(&client);
    let values = take(results, u64::MAX);
    wait_for("all of them run something", || {
        cluster.trace("second-started").len() as u64 == 3 * SLOTS
    })
    .await;
    ask_to_leave(&cluster, "leaves").await;
    cluster.workers["leaves"].signal("TERM");
    assert_eq!(left(&mut cluster, "leaves").await, 0);
    cluster.workers["interrupted"].signal("INT");
    assert_eq!(left(&mut cluster, "interrupted").await, 0);
    assert!(!cluster.workers["interrupted"].log().contains("leaving"));
    cluster.open_gate("second");
    assert_eq!(guarded(values).await.unwrap(), all(ROOTS));
}
