//! What each process holds when the consumer stalls and the source is endless.
//!
//! Payloads of 1 MiB, two stages with `workers(4).buffer(4)`, each in a process of its own, and
//! results that nobody takes. Prints the resident memory of every process after 15 s and after 60 s;
//! they must be within 8 MiB of each other.
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin figures -- memory
//! ```

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, resident, this_program};
use crate::functions::{PASS, PASS_TOO};
use bytes::Bytes;
use stageline::Stream;

/// Prints what the processes hold. False if that grows.
///
/// # Panics
/// When the cluster does not start.
pub async fn measure() -> bool {
    let mut cluster = Cluster::start(&this_program()).await;
    cluster.worker("one", &["pass"]).await;
    cluster.worker("two", &["pass_too"]).await;
    let client = cluster.client().await;
    let made = Arc::new(AtomicU64::new(0));
    let counter = made.clone();
    let source = std::iter::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Bytes::from(vec![7; 1 << 20])
    });
    let results = Stream::from_iter(source)
        .map(PASS)
        .workers(4)
        .buffer(4)
        .map(PASS_TOO)
        .workers(4)
        .buffer(4)
        .max_in_flight(10_000)
        .results(&client);
    let mut readings = Vec::new();
    for wait in [15, 45] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        readings.push([
            ("client", resident(std::process::id())),
            ("coordinator", cluster.coordinator.resident()),
            ("worker one", cluster.workers["one"].resident()),
            ("worker two", cluster.workers["two"].resident()),
        ]);
    }
    drop(results);
    let mut out = std::io::stdout().lock();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        out,
        "{} items of 1 MiB made\n{:12} {:>10} {:>10}",
        made.load(Ordering::Relaxed),
        "",
        "15 s",
        "60 s"
    )
    .expect("standard output is there");
    let mut flat = true;
    for (early, late) in readings[0].iter().zip(&readings[1]) {
        flat &= early.1.abs_diff(late.1) <= 8 << 20;
        writeln!(out, "{:12} {:>6.1} MiB {:>6.1} MiB", early.0, mib(early.1), mib(late.1))
            .expect("standard output is there");
    }
    writeln!(
        out,
        "{}",
        if flat { "flat: within 8 MiB" } else { "NOT flat: more than 8 MiB apart" }
    )
    .expect("standard output is there");
    flat
}
