//! How long results pause when a worker is killed.
//!
//! Three stages, each on a worker of its own, and a second worker for the middle one; a steady source.
//! The middle worker is killed (SIGKILL) while it holds items. Prints the longest time between two
//! results before and after the kill, and what was lost and doubled: nothing.
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin figures -- pause
//! ```

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, this_program};
use crate::functions::{FIRST, SECOND, THIRD};
use futures_util::StreamExt;
use stageline::Stream;

const ITEMS: u64 = 20_000;
const EVERY: Duration = Duration::from_micros(500);

/// Prints how long results pause.
///
/// # Panics
/// When an item is lost or delivered twice.
pub async fn measure() {
    let mut cluster = Cluster::start(&this_program()).await;
    cluster.worker("one", &["first"]).await;
    cluster.worker("two", &["second"]).await;
    cluster.worker("two-again", &["second"]).await;
    cluster.worker("three", &["third"]).await;
    let client = cluster.client().await;
    let started = Instant::now();
    let source = futures_util::stream::iter(0..ITEMS).then(move |n| async move {
        let due = started + EVERY * u32::try_from(n).unwrap_or(u32::MAX);
        tokio::time::sleep_until(due.into()).await;
        n
    });
    let mut results =
        Stream::from_stream(source.boxed()).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let mut seen = BTreeMap::<u64, u32>::new();
    let (mut last, mut killed_at) = (Instant::now(), None::<Instant>);
    let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
    while let Some(result) = results.next().await {
        let value = result.expect("no item fails");
        let pause = last.elapsed();
        last = Instant::now();
        match killed_at {
            None if seen.len() > 100 => before = before.max(pause),
            None => {}
            Some(_) => after = after.max(pause),
        }
        *seen.entry(value).or_default() += 1;
        if killed_at.is_none() && seen.len() as u64 == ITEMS / 4 {
            cluster.kill("two");
            killed_at = Some(Instant::now());
        }
    }
    let status = job.ended().await.expect("the job completes");
    let sum = |of: fn(&stageline::TaskStats) -> u64| -> u64 {
        status.stages.iter().map(|stage| of(&stage.totals)).sum()
    };
    let lost = (0..ITEMS).filter(|n| !seen.contains_key(&(n + 111_000_000))).count();
    let doubled = seen.values().filter(|count| **count > 1).count();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{ITEMS} items, one every {EVERY:?}; the worker of the second stage killed after a quarter\n\
         longest pause between two results: {before:?} before the kill, {after:?} after it\n\
         resends {}, raw duplicates {}, lost {lost}, delivered twice {doubled}",
        sum(|stats| stats.resent),
        sum(|stats| stats.duplicates),
    )
    .expect("standard output is there");
    assert_eq!((lost, doubled), (0, 0));
}
