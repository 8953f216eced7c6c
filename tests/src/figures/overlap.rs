//! Whether stages overlap: two stages that wait 2 ms for each item, on two workers of 16 slots.
//!
//! Prints the total for one such stage and for two, beside the ideal of items × 2 ms ÷ 32. The waits
//! are exact (a timer thread), so what is above the ideal is the pipeline's own.
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin figures -- overlap
//! ```

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, this_program};
use crate::functions::{WAIT, WAIT_TOO};
use stageline::{Client, Stream};

const ITEMS: u64 = 40_000;

/// Prints how long one stage and two take.
///
/// # Panics
/// When an item is lost.
pub async fn measure() {
    let mut cluster = Cluster::start(&this_program()).await;
    for name in ["one", "two"] {
        cluster.worker(name, &["wait", "wait_too"]).await;
    }
    let client = cluster.client().await;
    let ideal = Duration::from_millis(2) * u32::try_from(ITEMS).unwrap_or(u32::MAX) / 32;
    let one = timed(Stream::from_iter(0..ITEMS).map(WAIT), &client).await;
    let two = timed(Stream::from_iter(0..ITEMS).map(WAIT).map(WAIT_TOO), &client).await;
    let ratio = |time: Duration| time.as_secs_f64() / ideal.as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{ITEMS} items, 2 ms each, 32 slots a stage; ideal {ideal:?}\n\
         one stage  {one:?}, {:.2} × the ideal\n\
         two stages {two:?}, {:.2} × the ideal, {:.2} × one stage",
        ratio(one),
        ratio(two),
        two.as_secs_f64() / one.as_secs_f64(),
    )
    .expect("standard output is there");
}

async fn timed(stream: Stream<u64>, client: &Client) -> Duration {
    let started = Instant::now();
    let count = stream.count(client).await.expect("no item fails");
    assert_eq!(count, ITEMS);
    started.elapsed()
}
