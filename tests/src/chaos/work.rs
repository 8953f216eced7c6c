//! What the processes work on: stage functions that hold many items at a time, and jobs made of them
//! whose results are known beforehand.

use std::str::FromStr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use stageline::{Context, Registry, Sink, Source, Stage, StageError};

use crate::functions::{dir, trace_in};

/// The numbers below what the file `roots` in the test's folder says, on a worker.
pub const ROOTS: Source<u64> = Source::named("chaos_roots");
/// Adds a million, in 20 ms.
pub const ONE: Stage<u64, u64> = Stage::named("chaos_one");
/// Adds ten million, in 20 ms.
pub const TWO: Stage<u64, u64> = Stage::named("chaos_two");
/// Adds a hundred million, in 5 ms.
pub const THREE: Stage<u64, u64> = Stage::named("chaos_three");
/// Two of each: twice the number, and one more.
pub const PAIR: Stage<u64, u64> = Stage::named("chaos_pair");
/// Four of each: four times the number, and one, two and three more, in 5 ms each. One step in sixty fails,
/// whatever the number.
pub const FLAKY: Stage<u64, u64> = Stage::named("chaos_flaky");
/// Outputs of [`FLAKY`], for each number.
pub const FLAKY_OUTPUTS: u64 = 4;
/// Leaves a trace of the number and its idempotency key, under the job's id.
pub const KEEP: Sink<u64> = Sink::named("chaos_keep");

/// Which functions the workers of each role offer.
pub const ROLES: [(&str, &[&str]); 5] = [
    ("source", &["chaos_roots"]),
    ("one", &["chaos_one"]),
    ("two", &["chaos_two", "chaos_pair", "chaos_flaky"]),
    ("three", &["chaos_three"]),
    ("sink", &["chaos_keep"]),
];

/// The functions above.
#[must_use]
pub fn registry() -> Registry {
    Registry::new()
        .source(ROOTS, |from: u64| stream::iter(from..roots()))
        .map(ONE, |n: u64| async move { after(20, n + 1_000_000).await })
        .map(TWO, |n: u64| async move { after(20, n + 10_000_000).await })
        .map(THREE, |n: u64| async move { after(5, n + 100_000_000).await })
        .flat_map_iter(PAIR, |n: u64| async move {
            let first = after(20, n * 2).await;
            [first, first + 1]
        })
        .try_flat_map(FLAKY, |n: u64| {
            stream::iter(0..=FLAKY_OUTPUTS)
                .then(move |made| async move {
                    let output = after(5, n * FLAKY_OUTPUTS + made).await;
                    if fastrand::u64(..60) == 0 {
                        return Err(StageError::msg(by_chance(n, made)).permanent());
                    }
                    Ok((made, output))
                })
                // The last step is none but for its chance to fail.
                .filter(|step| future::ready(!matches!(step, Ok((FLAKY_OUTPUTS, _)))))
                .map_ok(|(_, output)| output)
        })
        .for_each(KEEP, |cx: Context, n: u64| async move {
            if let Some(dir) = dir() {
                let line = format_args!("{n} {}", cx.idempotency_key());
                trace_in(&dir, &kept(&cx.job().to_string()), line);
            }
        })
}

/// The name of the trace that [`KEEP`] leaves for a job.
#[must_use]
pub fn kept(job: &str) -> String {
    format!("kept-{job}")
}

/// The message of a call of [`FLAKY`] that fails after so many outputs.
fn by_chance(n: u64, made: u64) -> String {
    format!("by chance: {n} after {made}")
}

/// What such a message says: the number, and how many outputs were before.
#[must_use]
pub fn parse_by_chance(message: &str) -> Option<(u64, u64)> {
    let (_, rest) = message.split_once("by chance: ")?;
    let (n, made) = rest.split_once(" after ")?;
    Some((n.parse().ok()?, made.split(' ').next()?.parse().ok()?))
}

async fn after(millis: u64, n: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    n
}

fn roots() -> u64 {
    let text = dir().and_then(|dir| std::fs::read_to_string(dir.join("roots")).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// A sort of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The client's source, three stages, the client's results.
    Plain,
    /// A source on a worker, an expansion, the client's results.
    Spread,
    /// The client's source, two stages, a sink on the workers.
    Sink,
    /// The client's source, a stage, an expansion that fails by chance, another stage, the client's results.
    Flaky,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Spread, Self::Sink, Self::Flaky];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Spread => "spread",
            Self::Sink => "sink",
            Self::Flaky => "flaky",
        }
    }

    /// The roles of workers that have something to do in it.
    #[must_use]
    pub const fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Flaky => &["one", "two", "three"],
            Self::Spread => &["source", "one", "two", "three"],
            Self::Sink => &["one", "two", "sink"],
        }
    }

    /// What must come out of a job of so many items (a multiple of four).
    #[must_use]
    pub fn expected(self, items: u64) -> std::ops::Range<u64> {
        let least = match self {
            Self::Plain => 111_000_000,
            // A million is added before the expansion doubles.
            Self::Spread => 102_000_000,
            Self::Sink => 11_000_000,
            Self::Flaky => 104_000_000,
        };
        least..least + items
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|shape| shape.name() == text);
        found.ok_or_else(|| format!("{text:?} is no shape: write plain, spread, sink or flaky"))
    }
}
