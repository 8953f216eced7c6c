//! Stage functions for scenarios that run in one process and over a cluster alike: one of each
//! operator, and some that misbehave on purpose.
//!
//! What they see they write to traces, and where they wait they wait on gates, both in a folder that
//! is given to them: so a test in the same process has a folder of its own, as a cluster has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stageline::{Context, Registry, Sink, Source, Stage, StageError};

use crate::functions::{gate_in, trace_in};

/// What a function saw in its context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// The item.
    pub item: u64,
    /// Its lineage, as text.
    pub lineage: String,
    /// The attempt.
    pub attempt: u32,
    /// The job.
    pub job: u64,
    /// The stage's name.
    pub stage: String,
    /// The process.
    pub worker: String,
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Person {
    /// A name.
    pub name: String,
    /// In years.
    pub age: u32,
}

/// `map`: twice the number.
pub const DOUBLE: Stage<u64, u64> = Stage::named("double");
/// `try_map`: the number, but fails on multiples of five.
pub const CHECK: Stage<u64, u64> = Stage::named("check");
/// `filter`: keeps what is odd.
pub const ODD: Stage<u64, u64> = Stage::named("odd");
/// `try_filter`: keeps what is odd, fails on multiples of five.
pub const CHECK_ODD: Stage<u64, u64> = Stage::named("check_odd");
/// `flat_map`, by a stream: see [`repeated`].
pub const REPEAT: Stage<u64, u64> = Stage::named("repeat");
/// `flat_map`, by a collection: see [`repeated`].
pub const REPEAT_ITER: Stage<u64, u64> = Stage::named("repeat_iter");
/// `flat_map`, blocking: see [`repeated`].
pub const REPEAT_BLOCKING: Stage<u64, u64> = Stage::named("repeat_blocking");
/// `try_flat_map`: as [`repeated`]; on multiples of five a failure follows.
pub const CHECK_REPEAT: Stage<u64, u64> = Stage::named("check_repeat");
/// `try_flat_map`, blocking: as [`CHECK_REPEAT`].
pub const CHECK_REPEAT_BLOCKING: Stage<u64, u64> = Stage::named("check_repeat_blocking");
/// `map`, blocking: twice the number.
pub const DOUBLE_BLOCKING: Stage<u64, u64> = Stage::named("double_blocking");
/// `try_map`, blocking: as [`CHECK`].
pub const CHECK_BLOCKING: Stage<u64, u64> = Stage::named("check_blocking");
/// `filter`, blocking: as [`ODD`].
pub const ODD_BLOCKING: Stage<u64, u64> = Stage::named("odd_blocking");
/// Answers what its context shows.
pub const LOOK: Stage<u64, Seen> = Stage::named("look");
/// Traces `+ n worker` when it starts and `- n worker` when it ends, or `dropped n` when it is
/// dropped before; waits between the two while the gate `held` is closed.
pub const HELD: Stage<u64, u64> = Stage::named("held");
/// The same again, as another stage with the trace `feed`, and without a gate.
pub const FEED: Stage<u64, u64> = Stage::named("feed");
/// Blocks until it is cancelled; then traces `cancelled n` in `deaf`.
pub const DEAF: Stage<u64, u64> = Stage::named("deaf");
/// Fails on its first two attempts; traces each attempt in `flaky`.
pub const FLAKY: Stage<u64, u64> = Stage::named("flaky");
/// Item 0 fails until item 1 has run, and asks to be tried again at once; traces in `polite`.
pub const POLITE: Stage<u64, u64> = Stage::named("polite");
/// Fails for good.
pub const HOPELESS: Stage<u64, u64> = Stage::named("hopeless");
/// Never answers.
pub const STUCK: Stage<u64, u64> = Stage::named("stuck");
/// Does not answer the first time.
pub const SLEEPY: Stage<u64, u64> = Stage::named("sleepy");
/// Gives an output, then never another.
pub const STUCK_LATER: Stage<u64, u64> = Stage::named("stuck_later");
/// Panics on multiples of five.
pub const PANICKY: Stage<u64, u64> = Stage::named("panicky");
/// Gives one output, then panics.
pub const PANICKY_LATER: Stage<u64, u64> = Stage::named("panicky_later");
/// Gives one output, then panics when its stream is dropped.
pub const PANICKY_AT_LAST: Stage<u64, u64> = Stage::named("panicky_at_last");
/// Makes a JSON value: a person, of whom every third has an age that is no number.
pub const PEOPLE: Stage<u64, Value> = Stage::named("people");
/// A person's age.
pub const AGE: Stage<Person, u32> = Stage::named("age");
/// Sink: traces the number in `stored`; fails on multiples of five.
pub const STORE: Sink<u64> = Sink::named("store");
/// Source: the numbers below thirty, but multiples of seven fail.
pub const UNSURE: Source<u64> = Source::named("unsure");
/// Source: three numbers, then a panic.
pub const BROKEN: Source<u64> = Source::named("broken");
/// Source: never gives anything; traces `cancelled` in `silent` when its context is.
pub const SILENT: Source<u64> = Source::named("silent");

/// The number, `n % 4` times: times ten, plus 0, 1, 2.
pub fn repeated(n: u64) -> impl Iterator<Item = u64> + Send + 'static {
    (0..n % 4).map(move |i| n * 10 + i)
}

/// What the fallible functions say of a multiple of five.
#[must_use]
pub fn complaint(n: u64) -> String {
    format!("{n} is a multiple of five")
}

fn checked(n: u64) -> Result<u64, StageError> {
    if n.is_multiple_of(5) { Err(StageError::msg(complaint(n))) } else { Ok(n) }
}

fn checked_repeat(n: u64) -> impl Iterator<Item = Result<u64, StageError>> + Send + 'static {
    repeated(n).map(Ok).chain(checked(n).err().map(Err))
}

/// All of them. Without a folder they leave no traces, and never wait.
#[must_use]
pub fn registry(dir: Option<PathBuf>) -> Registry {
    let marks = Marks(dir.map(Arc::from));
    watched(misbehaving(operators(), &marks), &marks)
}

fn operators() -> Registry {
    Registry::new()
        .map(DOUBLE, |n: u64| async move { n * 2 })
        .try_map(CHECK, |n: u64| async move { checked(n) })
        .filter(ODD, |n: u64| async move { n % 2 == 1 })
        .try_filter(CHECK_ODD, |n: u64| async move { Ok(checked(n)? % 2 == 1) })
        .flat_map(REPEAT, |n: u64| stream::iter(repeated(n)))
        .flat_map_iter(REPEAT_ITER, |n: u64| async move { repeated(n) })
        .blocking_flat_map(REPEAT_BLOCKING, repeated)
        .try_flat_map(CHECK_REPEAT, |n: u64| stream::iter(checked_repeat(n)))
        .try_blocking_flat_map(CHECK_REPEAT_BLOCKING, |n: u64| Ok(checked_repeat(n)))
        .blocking_map(DOUBLE_BLOCKING, |n: u64| n * 2)
        .try_blocking_map(CHECK_BLOCKING, checked)
        .blocking_filter(ODD_BLOCKING, |n: u64| n % 2 == 1)
        .map(PEOPLE, |n: u64| async move {
            let age = if n % 3 == 2 { serde_json::json!("unknown") } else { n.into() };
            serde_json::json!({ "name": format!("person {n}"), "age": age })
        })
        .map(AGE, |person: Person| async move { person.age })
        .try_source(UNSURE, |from: u64| {
            stream::iter(from..30).map(|n| {
                if n % 7 == 0 { Err(StageError::msg(format_args!("no {n}"))) } else { Ok(n) }
            })
        })
}

fn misbehaving(registry: Registry, marks: &Marks) -> Registry {
    let (flaky, polite) = (marks.clone(), marks.clone());
    registry
        .try_map(FLAKY, move |cx: Context, n: u64| {
            flaky.trace("flaky", format_args!("{n}#{}", cx.attempt()));
            async move { if cx.attempt() < 3 { Err(StageError::msg("not yet")) } else { Ok(n) } }
        })
        .try_map(POLITE, move |n: u64| {
            polite.trace("polite", n);
            let alone = n == 0 && !polite.read("polite").iter().any(|line| line == "1");
            async move {
                let busy = || StageError::msg("busy").retry_after(Duration::from_millis(1));
                if alone { Err(busy()) } else { Ok(n) }
            }
        })
        .try_map(HOPELESS, |_: u64| async move {
            Err::<u64, _>(StageError::msg("hopeless").permanent())
        })
        .map(STUCK, |_: u64| std::future::pending::<u64>())
        .map(SLEEPY, |cx: Context, n: u64| async move {
            if cx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            n
        })
        .flat_map(STUCK_LATER, |n: u64| stream::iter([n]).chain(stream::pending()))
        .map(PANICKY, |n: u64| {
            // Zero: when called. All others: in the future.
            assert!(n > 0, "{}", complaint(n));
            async move {
                assert!(!n.is_multiple_of(5), "{}", complaint(n));
                n
            }
        })
        .flat_map(PANICKY_LATER, |n: u64| {
            stream::iter([n, 0]).map(move |output| {
                assert!(output > 0, "{}", complaint(n));
                output
            })
        })
        .flat_map(PANICKY_AT_LAST, |n: u64| {
            let bomb = Bomb(n);
            stream::iter([n]).inspect(move |_| {
                let _dropped_with_the_stream = &bomb;
            })
        })
        .source(BROKEN, |from: u64| {
            stream::iter(from..).inspect(|n| assert!(*n < 3, "the disk is gone"))
        })
}

fn watched(registry: Registry, marks: &Marks) -> Registry {
    let [held, feed, deaf, store, silent] = std::array::from_fn(|_| marks.clone());
    registry
        .map(LOOK, |cx: Context, item: u64| async move {
            Seen {
                item,
                lineage: cx.lineage().to_string(),
                attempt: cx.attempt(),
                job: cx.job().0,
                stage: cx.stage().to_owned(),
                worker: cx.worker().to_owned(),
            }
        })
        .map(HELD, move |cx: Context, n: u64| {
            let marks = held.clone();
            async move {
                let call = marks.call("held", n, cx.worker());
                marks.gate("held").await;
                call.done();
                n
            }
        })
        .map(FEED, move |cx: Context, n: u64| {
            let marks = feed.clone();
            async move {
                marks.call("feed", n, cx.worker()).done();
                n
            }
        })
        .blocking_map(DEAF, move |cx: Context, n: u64| {
            deaf.trace("deaf", format_args!("+ {n}"));
            while !cx.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            deaf.trace("deaf", format_args!("cancelled {n}"));
            n
        })
        .try_for_each(STORE, move |n: u64| {
            let marks = store.clone();
            async move {
                checked(n)?;
                marks.trace("stored", n);
                Ok(())
            }
        })
        .source(SILENT, move |cx: Context, _: u64| {
            let marks = silent.clone();
            marks.trace("silent", "+");
            tokio::spawn(async move {
                cx.cancelled().await;
                marks.trace("silent", "cancelled");
            });
            stream::pending()
        })
}

/// Panics when it is dropped.
struct Bomb(u64);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.0 == u64::MAX, "{}", complaint(self.0));
    }
}

/// Traces and gates in a folder.
#[derive(Clone, Debug)]
struct Marks(Option<Arc<Path>>);

impl Marks {
    fn trace(&self, name: &str, what: impl std::fmt::Display) {
        if let Some(dir) = &self.0 {
            trace_in(dir, name, what);
        }
    }

    fn read(&self, name: &str) -> Vec<String> {
        self.0.as_ref().map(|dir| crate::functions::read_trace(dir, name)).unwrap_or_default()
    }

    async fn gate(&self, name: &str) {
        if let Some(dir) = &self.0 {
            gate_in(dir, name).await;
        }
    }

    /// Traces a call; also when it is dropped before it is done.
    fn call(&self, name: &'static str, n: u64, worker: &str) -> Call {
        self.trace(name, format_args!("+ {n} {worker}"));
        Call { marks: self.clone(), name, n, worker: worker.to_owned(), done: false }
    }
}

struct Call {
    marks: Marks,
    name: &'static str,
    n: u64,
    worker: String,
    done: bool,
}

impl Call {
    fn done(mut self) {
        self.done = true;
        self.marks.trace(self.name, format_args!("- {} {}", self.n, self.worker));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.done {
            self.marks.trace(self.name, format_args!("dropped {}", self.n));
        }
    }
}
