//! What a stage of a workload does with an item, whatever carries it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::plan::{Plan, Role, WAIT, Workload};
use super::record;
use super::tally::{self, Tally};
use super::{payload, record::Record};
use crate::exact;

/// The item of that index, for workloads without a rate. Of `typed`, an encoded record.
#[must_use]
pub fn make(plan: &Plan, index: u64) -> Bytes {
    match plan.workload {
        Workload::Typed => record::encode(&record::make(index, plan.payload)),
        _ => payload::make(index, plan.payload),
    }
}

/// What a map makes of an item.
///
/// # Panics
/// When a record does not decode: the benchmark's own mistake.
#[must_use]
pub fn map(plan: &Plan, item: &[u8]) -> Bytes {
    match plan.workload {
        Workload::Typed => record::encode(&record::digested(decoded(item))),
        _ => payload::appended(item),
    }
}

/// As [`map`], for a map that may wait for each item.
pub async fn map_waiting(plan: &Plan, role: Role, item: Bytes) -> Bytes {
    if plan.waits(role) {
        wait().await;
    }
    map(plan, &item)
}

/// What the sink does with an item.
///
/// # Panics
/// When a record does not decode: the benchmark's own mistake.
pub fn take(plan: &Plan, item: &[u8]) {
    match plan.workload {
        Workload::Typed => tally::count(record::hash(&decoded(item))),
        Workload::Latency => take_stamped(item),
        _ => tally::count(payload::hash(item)),
    }
}

fn take_stamped(item: &[u8]) {
    // One that was damaged is not counted, and so found missing.
    if let Some((index, sent)) = payload::read_stamp(item) {
        tally::took(realtime().saturating_sub(sent));
        tally::count(index);
    }
}

fn decoded(item: &[u8]) -> Record {
    record::decode(item).expect("the benchmark's own records decode")
}

/// Waits as a map of `fanout` does, and notes that it did.
pub async fn wait() {
    tally::wait_begins();
    let started = Instant::now();
    exact::wait(WAIT).await;
    tally::wait_ends(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

/// What the sinks of a run must have seen.
#[must_use]
pub fn expected(plan: &Plan) -> Tally {
    let mut tally = Tally { count: plan.items, ..Tally::default() };
    for index in 0..plan.items {
        let hash = match plan.workload {
            Workload::Latency => index,
            Workload::Typed => {
                let made = record::make(index, plan.payload);
                record::hash(&record::digested(record::digested(made)))
            }
            _ => {
                let maps = 0..plan.workload.maps();
                let made = payload::make(index, plan.payload);
                payload::hash(&maps.fold(made, |item, _| payload::appended(&item)))
            }
        };
        tally.sum = tally.sum.wrapping_add(hash);
    }
    tally
}

/// Emits the items of `latency` on schedule.
///
/// The schedule is absolute: a source that was held up makes up for it. An item's time is when its
/// source got to run, or when it was due if the source was late: so a source that is held up by its
/// system shows in the latencies, and the precision of a timer does not.
#[derive(Debug)]
pub struct Pacer {
    started: Instant,
    every: Duration,
    payload: usize,
}

impl Pacer {
    /// A schedule that begins now.
    #[must_use]
    pub fn start(plan: &Plan) -> Self {
        let every = Duration::from_secs(1) / u32::try_from(plan.rate.max(1)).unwrap_or(u32::MAX);
        Self { started: Instant::now(), every, payload: plan.payload }
    }

    /// The item of that index, when it is due.
    pub async fn make(self: Arc<Self>, index: u64) -> Bytes {
        let due = self.started + self.every * u32::try_from(index).unwrap_or(u32::MAX);
        let early = due.saturating_duration_since(Instant::now());
        let late = if early.is_zero() {
            due.elapsed()
        } else {
            exact::wait(early).await;
            Duration::ZERO
        };
        let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        payload::stamped(index, realtime().saturating_sub(late), self.payload)
    }
}

/// Nanoseconds since 1970: the one clock that all processes of a machine share.
fn realtime() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
