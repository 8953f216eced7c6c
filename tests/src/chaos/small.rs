//! A million small items past a consumer that stalls and goes on: no connection is reset.
//!
//! HTTP/2 keeps a budget for small frames that nobody reads, and kills a connection that spends it.
//! So items of 16 bytes are sent through two workers while the consumer takes some, stops until
//! nothing moves any more, and goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use stageline::{Job, Stream};

use super::Outcome;
use super::stall::broken_links;
use crate::cluster::{Cluster, this_program};
use crate::functions::{PASS, PASS_TOO};

/// Sends so many items with so many stalls of that length, and prints what came of it.
///
/// # Panics
/// When the cluster does not start, or an item fails.
pub async fn run(items: u64, stalls: u64, stall: Duration) -> Outcome {
    let mut cluster = Cluster::start(&this_program()).await;
    cluster.worker("one", &["pass"]).await;
    cluster.worker("two", &["pass_too"]).await;
    let client = cluster.client().await;
    let payload = |n: u64| Bytes::from(format!("{n:016}"));
    let stream = Stream::from_iter((0..items).map(payload)).map(PASS).map(PASS_TOO);
    let mut results = stream.results(&client);
    let job = results.job();
    let started = Instant::now();
    let mut seen = vec![false; usize::try_from(items).unwrap_or(usize::MAX)];
    let (mut count, mut twice, mut wrong, mut stalled) = (0_u64, 0_u64, 0_u64, 0);
    while let Some(result) = results.next().await {
        let bytes = result.expect("no item fails");
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<usize>().ok());
        match number.and_then(|n| seen.get_mut(n)) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => twice += 1,
            None => wrong += 1,
        }
        count += 1;
        if stalled < stalls && count == (stalled + 1) * items / (stalls + 1) {
            stalled += 1;
            tokio::time::sleep(stall).await;
        }
    }
    let ended = job.ended().await;
    let lost = seen.iter().filter(|seen| !**seen).count();
    let broken = broken_links(&cluster);
    println!(
        "{items} items of 16 bytes, {stalled} stalls of {stall:?}, {:.1} s: lost {lost}, delivered \
         twice {twice}, wrong {wrong}, sent again {}, connections that broke: {}",
        started.elapsed().as_secs_f64(),
        resent(&job),
        broken.len(),
    );
    broken.iter().for_each(|line| println!("BROKEN: {line}"));
    let well = ended.is_ok() && resent(&job) == 0 && broken.is_empty();
    Outcome::of(well && (lost, twice, wrong) == (0, 0, 0))
}

/// A link that broke and came back at once would show here, too.
fn resent(job: &Job) -> u64 {
    let status = job.status();
    status.iter().flat_map(|status| &status.stages).map(|stage| stage.totals.resent).sum()
}
