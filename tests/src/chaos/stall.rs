//! A sink that stalls behind an endless source: memory stays within what the credits allow, and no
//! connection breaks.
//!
//! Payloads of 1 MiB, two stages with `workers(4).buffer(4)`, each in a process of its own, and
//! results that nobody takes. The formula of ARCHITECTURE.md ("How much is in flight") says 12 roots,
//! and each is held at most once by the source and once by each stage.

use std::time::Duration;

use bytes::Bytes;
use stageline::{Client, Results, Stream};

use super::Outcome;
use super::fleet::lines_with;
use crate::cluster::{Cluster, resident, this_program};
use crate::functions::{PASS, PASS_TOO};

const PAYLOAD: u64 = 1 << 20;
/// Roots in flight, by the formula.
const ROOTS: u64 = 12;
/// Places where a root is held: the source and two stages.
const PLACES: u64 = 3;

/// The endless pipeline over both workers.
pub fn endless(client: &Client) -> Results<Bytes> {
    let payload = usize::try_from(PAYLOAD).unwrap_or(usize::MAX);
    Stream::from_iter(std::iter::repeat_with(move || Bytes::from(vec![7; payload])))
        .map(PASS)
        .workers(4)
        .buffer(4)
        .map(PASS_TOO)
        .workers(4)
        .buffer(4)
        .max_in_flight(10_000)
        .results(client)
}

/// Stalls for that long, and prints what the processes hold.
///
/// # Panics
/// When the cluster does not start.
pub async fn run(time: Duration) -> Outcome {
    let mut cluster = Cluster::start(&this_program()).await;
    cluster.worker("one", &["pass"]).await;
    cluster.worker("two", &["pass_too"]).await;
    let client = cluster.client().await;
    let before = held(&cluster);
    let results = endless(&client);
    let allowed = ROOTS * PLACES * PAYLOAD * 5 / 4;
    let (mut most, mut last) = (0, before);
    for _ in 0..time.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        last = held(&cluster);
        most = most.max(last);
    }
    let broken = broken_links(&cluster);
    drop(results);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "all processes: {:.1} MiB before, {:.1} MiB at the most within {time:?}, {:.1} MiB at the end\n\
         above the baseline {:.1} MiB; 1.25 times what the credits allow is {:.1} MiB\n\
         connections that broke: {}",
        mib(before),
        mib(most),
        mib(last),
        mib(most.saturating_sub(before)),
        mib(allowed),
        broken.len(),
    );
    broken.iter().for_each(|line| println!("BROKEN: {line}"));
    Outcome::of(most <= before + allowed && broken.is_empty())
}

/// The memory of all processes together, this one included.
fn held(cluster: &Cluster) -> u64 {
    let workers: u64 = cluster.workers.values().map(crate::cluster::Process::resident).sum();
    workers + cluster.coordinator.resident() + resident(std::process::id())
}

/// What the processes have logged about links and sessions that broke.
#[must_use]
pub fn broken_links(cluster: &Cluster) -> Vec<String> {
    let dir = cluster.dir.path();
    ["link down", "lost the coordinator", "GOAWAY"]
        .iter()
        .flat_map(|t| lines_with(dir, t))
        .collect()
}
