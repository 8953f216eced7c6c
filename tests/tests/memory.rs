//! What a pipeline holds when its consumer stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use stageline::{Client, Results, Stream};
use stageline_tests::cluster::{Cluster, wait_for};
use stageline_tests::functions::{PASS, PASS_TOO};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const PAYLOAD: usize = 1 << 20;

/// The formula of ARCHITECTURE.md ("How much is held"), for one upstream task each.
fn held(slots: u64, buffer: u64, payload: u64) -> u64 {
    const WINDOW: u64 = 2 << 20;
    const OVERHEAD: u64 = 32;
    slots + buffer.min((WINDOW / (payload + OVERHEAD)).max(1))
}

fn endless(client: &Client, max_in_flight: u64) -> (Results<Bytes>, Arc<AtomicU64>) {
    let made = Arc::new(AtomicU64::new(0));
    let counter = made.clone();
    let source = std::iter::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Bytes::from(vec![7; PAYLOAD])
    });
    let results = Stream::from_iter(source)
        .map(PASS)
        .workers(4)
        .buffer(4)
        .map(PASS_TOO)
        .workers(4)
        .buffer(4)
        .max_in_flight(max_in_flight)
        .results(client);
    (results, made)
}

async fn cluster() -> Cluster {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("one", &["pass"]).await;
    cluster.worker("two", &["pass_too"]).await;
    cluster
}

/// Waits until every place that can hold an item does: items waiting at the source, then in slots and
/// queued at each stage. Nothing can move from there, as long as nobody takes a result.
async fn fills_up(held: [(u64, u64); 3], waiting: u64, results: &Results<Bytes>) {
    let job = results.job();
    wait_for(&format!("{waiting} items waiting, and {held:?} held"), || {
        let Some(status) = job.status() else { return false };
        let [source, stages @ ..] = &status.stages[..] else { return false };
        let full = stages.iter().map(|s| (s.totals.busy, s.totals.queued)).eq(held);
        full && source.totals.waiting_for_credit == waiting
    })
    .await;
}

#[tokio::test]
async fn a_stalled_consumer_stops_an_endless_source_where_the_credits_say() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let (results, made) = endless(&client, 10_000);
    let stage = held(4, 4, PAYLOAD as u64);
    let (terminal, queued_at_the_source) = (1, 1);
    let expected = 2 * stage + terminal + queued_at_the_source;
    assert_eq!(expected, 12);
    fills_up([(4, 1), (4, 1), (1, 0)], 1, &results).await;
    assert_eq!(made.load(Ordering::Relaxed), expected);
}

#[tokio::test]
async fn max_in_flight_stops_the_source_earlier() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let (results, made) = endless(&client, 10);
    fills_up([(4, 0), (4, 1), (1, 0)], 0, &results).await;
    assert_eq!(made.load(Ordering::Relaxed), 10);
}
