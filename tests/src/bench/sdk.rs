//! Stageline under measurement: the SDK as a user has it, with default settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use stageline::{Client, Registry, Sink, Source, Stage, Stream};
use stageline_worker::{RunningWorker, Worker};

use super::payload;
use super::plan::{Plan, Role, SLOTS, Workload};
use super::record::{self, Record};
use super::tally;
use super::work::{self, Pacer};

const SOURCE: Source<Bytes> = Source::named("source");
const FIRST: Stage<Bytes, Bytes> = Stage::named("first");
const SECOND: Stage<Bytes, Bytes> = Stage::named("second");
const SINK: Sink<Bytes> = Sink::named("sink");

const RECORDS: Source<Record> = Source::named("source");
const FIRST_RECORD: Stage<Record, Record> = Stage::named("first");
const SECOND_RECORD: Stage<Record, Record> = Stage::named("second");
const RECORD_SINK: Sink<Record> = Sink::named("sink");

/// How many items the source of this process has.
static ITEMS: AtomicU64 = AtomicU64::new(0);

/// Says how many items the source of this process has, from the next job on.
pub fn have(items: u64) {
    ITEMS.store(items, Ordering::SeqCst);
}

/// A worker process: one stage of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hand {
    /// What is run.
    pub plan: Plan,
    /// The one stage whose function it registers.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Where the coordinator is.
    pub coordinator: String,
}

impl Hand {
    /// Starts the worker. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(self) -> Result<RunningWorker> {
        let registry = registry(self.plan, &[self.role]);
        Ok(Worker::new(registry, self.coordinator).name(self.name).start().await?)
    }
}

/// The functions of these stages of a plan.
#[must_use]
pub fn registry(plan: Plan, roles: &[Role]) -> Registry {
    roles.iter().fold(Registry::new(), |registry, &role| {
        let registry = match plan.workload {
            Workload::Typed => typed(registry, plan, role),
            _ => raw(registry, plan, role),
        };
        if plan.waits(role) { registry.slots(SLOTS) } else { registry }
    })
}

fn raw(registry: Registry, plan: Plan, role: Role) -> Registry {
    match role {
        Role::Source => registry.source(SOURCE, move |from: u64| payloads(plan, from)),
        Role::First => map(registry, FIRST, plan.waits(role)),
        Role::Second => map(registry, SECOND, plan.waits(role)),
        Role::Sink => registry.for_each(SINK, move |item: Bytes| async move {
            work::take(&plan, &item);
        }),
    }
}

fn map(registry: Registry, stage: Stage<Bytes, Bytes>, waits: bool) -> Registry {
    if waits {
        return registry.map(stage, |item: Bytes| async move {
            work::wait().await;
            payload::appended(&item)
        });
    }
    registry.map(stage, |item: Bytes| async move { payload::appended(&item) })
}

fn typed(registry: Registry, plan: Plan, role: Role) -> Registry {
    let map = |item: Record| async move { record::digested(item) };
    match role {
        Role::Source => registry.source(RECORDS, move |from: u64| {
            let indexes = from..ITEMS.load(Ordering::SeqCst);
            stream::iter(indexes).map(move |index| record::make(index, plan.payload))
        }),
        Role::First => registry.map(FIRST_RECORD, map),
        Role::Second => registry.map(SECOND_RECORD, map),
        Role::Sink => registry.for_each(RECORD_SINK, |item: Record| async move {
            tally::count(record::hash(&item));
        }),
    }
}

fn payloads(plan: Plan, from: u64) -> impl futures_util::Stream<Item = Bytes> + Send {
    let indexes = stream::iter(from..ITEMS.load(Ordering::SeqCst));
    if plan.workload != Workload::Latency {
        return indexes.map(move |index| work::make(&plan, index)).left_stream();
    }
    let pacer = Arc::new(Pacer::start(&plan));
    indexes.then(move |index| pacer.clone().make(index)).right_stream()
}

/// Runs one job of a plan, and answers how long it took from its submission to its end.
///
/// # Errors
/// When it fails, or an item of it does.
pub async fn job(plan: &Plan, client: &Client) -> Result<Duration> {
    let started = Instant::now();
    let ended = match plan.workload {
        Workload::Typed => {
            let records = Stream::source(RECORDS).map(FIRST_RECORD).map(SECOND_RECORD);
            records.for_each(RECORD_SINK, client).boxed()
        }
        Workload::Link => Stream::source(SOURCE).for_each(SINK, client).boxed(),
        _ => Stream::source(SOURCE).map(FIRST).map(SECOND).for_each(SINK, client).boxed(),
    };
    let (_, errors) = ended.await.context("the job failed")?;
    let took = started.elapsed();
    ensure!(errors.is_empty(), "{} items failed, the first: {}", errors.len(), errors[0]);
    Ok(took)
}
