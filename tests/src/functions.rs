//! Stage functions for tests: they can be held on a gate, and they leave a trace of every call.
//!
//! Gates and traces are files in a folder that the test owns, named by `STAGELINE_TEST_DIR`, so that
//! they work across processes and outlive a killed one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use stageline::{Context, Registry, Sink, Source, Stage, StageError};

/// Adds a million. Waits while the gate `first` is closed. Leaves a trace.
pub const FIRST: Stage<u64, u64> = Stage::named("first");
/// Adds ten million. Waits while the gate `second` is closed. Leaves a trace.
pub const SECOND: Stage<u64, u64> = Stage::named("second");
/// Adds a hundred million. Leaves a trace.
pub const THIRD: Stage<u64, u64> = Stage::named("third");
/// Keeps what is even.
pub const EVEN: Stage<u64, u64> = Stage::named("even");
/// The number, three times: times ten, plus 0, 1, 2.
pub const TRIPLE: Stage<u64, u64> = Stage::named("triple");
/// Fails on multiples of seven.
pub const SEVENS: Stage<u64, u64> = Stage::named("sevens");
/// Panics on five.
pub const PANIC: Stage<u64, u64> = Stage::named("panic");
/// Ends its process on [`FATAL`], at once; passes everything else on, after 5 ms. Waits while the gate
/// `fragile` is closed. Leaves a trace.
pub const FRAGILE: Stage<u64, u64> = Stage::named("fragile");
/// What [`FRAGILE`] does not survive.
pub const FATAL: u64 = 13;
/// Waits while the gate `deadly` is closed, then ends its process on [`FATAL`]; passes everything else on.
/// Leaves a trace.
pub const DEADLY: Stage<u64, u64> = Stage::named("deadly");
/// Five numbers: times ten, plus 0 to 4. When it runs again, on any worker, just the first two, and then it
/// hangs. Leaves a trace.
pub const TIRED: Stage<u64, u64> = Stage::named("tired");
/// The number, two thousand times: times ten thousand, plus 0, 1, 2, … Waits while the gate `burst` is
/// closed. Leaves a trace.
pub const BURST: Stage<u64, u64> = Stage::named("burst");
/// Waits for 2 ms, exactly, and passes its input on.
pub const WAIT: Stage<u64, u64> = Stage::named("wait");
/// The same again, under another name.
pub const WAIT_TOO: Stage<u64, u64> = Stage::named("wait_too");
/// Passes bytes on.
pub const PASS: Stage<Bytes, Bytes> = Stage::named("pass");
/// The same again, under another name.
pub const PASS_TOO: Stage<Bytes, Bytes> = Stage::named("pass_too");
/// Passes any value on. Waits while the gate `hold` is closed.
pub const HOLD: Stage<Value, Value> = Stage::named("hold");
/// The amount of an order.
pub const AMOUNT: Stage<Order, u64> = Stage::named("amount");
/// All numbers, for ever.
pub const NUMBERS: Source<u64> = Source::named("numbers");
/// The numbers below a hundred.
pub const HUNDRED: Source<u64> = Source::named("hundred");
/// Leaves a trace of the number and of the idempotency key.
pub const RECORD: Sink<u64> = Sink::named("record");

/// A record, to be decoded.
#[derive(Clone, Debug, Deserialize)]
pub struct Order {
    /// What it costs.
    pub amount: u64,
}

/// All of them.
#[must_use]
pub fn registry() -> Registry {
    Registry::new()
        .map(FIRST, |n: u64| async move {
            trace("first-started", n);
            gate("first").await;
            trace("first", n);
            n + 1_000_000
        })
        .map(SECOND, |n: u64| async move {
            trace("second-started", n);
            gate("second").await;
            trace("second", n);
            n + 10_000_000
        })
        .map(THIRD, |n: u64| async move {
            gate("third").await;
            trace("third", n);
            n + 100_000_000
        })
        .filter(EVEN, |n: u64| async move { n.is_multiple_of(2) })
        .flat_map_iter(TRIPLE, |n: u64| async move { (0..3).map(move |i| n * 10 + i) })
        .try_map(SEVENS, |n: u64| async move {
            if n.is_multiple_of(7) {
                Err(StageError::msg(format!("{n} is a multiple of seven")))
            } else {
                Ok(n)
            }
        })
        .map(PANIC, |n: u64| async move {
            assert_ne!(n, 5, "five");
            n
        })
        .map(FRAGILE, |n: u64| async move {
            trace("fragile", n);
            if n == FATAL {
                // As a segmentation fault in a library would.
                std::process::abort();
            }
            gate("fragile").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            n
        })
        .map(DEADLY, |n: u64| async move {
            trace("deadly", n);
            gate("deadly").await;
            if n == FATAL {
                std::process::abort();
            }
            n
        })
        .flat_map(TIRED, |n: u64| {
            let again = dir().is_some_and(|dir| {
                read_trace(&dir, "tired").iter().any(|line| *line == n.to_string())
            });
            trace("tired", n);
            let outputs = stream::iter(0..if again { 2 } else { 5 }).map(move |i| n * 10 + i);
            outputs.chain(if again { stream::pending().boxed() } else { stream::empty().boxed() })
        })
        .flat_map_iter(BURST, |n: u64| async move {
            trace("burst", n);
            gate("burst").await;
            (0..2_000).map(move |i| n * 10_000 + i)
        })
        .map(WAIT, exactly_two_ms)
        .slots(16)
        .map(WAIT_TOO, exactly_two_ms)
        .slots(16)
        .map(PASS, |bytes: Bytes| async move { bytes })
        .map(PASS_TOO, |bytes: Bytes| async move { bytes })
        .map(HOLD, |value: Value| async move {
            gate("hold").await;
            value
        })
        .map(AMOUNT, |order: Order| async move { order.amount })
        .source(NUMBERS, |from: u64| futures_util::stream::iter(from..))
        .source(HUNDRED, |from: u64| futures_util::stream::iter(from..100))
        .for_each(RECORD, |cx: Context, n: u64| async move {
            gate("record").await;
            trace("record", format_args!("{n} {}", cx.idempotency_key()));
        })
        .merge(crate::stages::registry(dir()))
        .merge(crate::chaos::work::registry())
}

async fn exactly_two_ms(n: u64) -> u64 {
    crate::exact::wait(Duration::from_millis(2)).await;
    n
}

pub(crate) fn dir() -> Option<PathBuf> {
    std::env::var_os("STAGELINE_TEST_DIR").map(PathBuf::from)
}

/// Appends a line to the trace of that name, in one write, so that processes do not mix.
fn trace(name: &str, what: impl std::fmt::Display) {
    if let Some(dir) = dir() {
        trace_in(&dir, name, what);
    }
}

/// Appends a line to the trace of that name in that folder.
pub fn trace_in(dir: &Path, name: &str, what: impl std::fmt::Display) {
    let line = format!("{what}\n");
    let file = OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}.trace")));
    if let Ok(mut file) = file {
        let _traced = file.write_all(line.as_bytes());
    }
}

/// Waits while the file `NAME.closed` is there.
async fn gate(name: &str) {
    if let Some(dir) = dir() {
        gate_in(&dir, name).await;
    }
}

/// Waits while the gate of that name in that folder is closed.
pub async fn gate_in(dir: &Path, name: &str) {
    let closed = dir.join(format!("{name}.closed"));
    // Asking the file system is cheap, and works across processes.
    while closed.exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Closes the gate of that name: functions that come to it wait.
///
/// # Errors
/// When the folder cannot be written to.
pub fn close_gate(dir: &Path, name: &str) -> std::io::Result<()> {
    File::create(dir.join(format!("{name}.closed"))).map(drop)
}

/// Opens the gate of that name.
///
/// # Errors
/// When it was not closed.
pub fn open_gate(dir: &Path, name: &str) -> std::io::Result<()> {
    std::fs::remove_file(dir.join(format!("{name}.closed")))
}

/// The lines of the trace of that name; none if nothing has left one.
#[must_use]
pub fn read_trace(dir: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(format!("{name}.trace"))).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
