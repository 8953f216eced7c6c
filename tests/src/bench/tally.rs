//! What a process has seen of a run, and what a run must come to.
//!
//! Each thread counts in cells of its own, so that counting costs an item next to nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What a process, or all of them, saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Items at the sink.
    pub count: u64,
    /// The sum of their hashes, modulo 2^64.
    pub sum: u64,
    /// How long each item took, in nanoseconds; `latency` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<u64>,
    /// The shortest wait of a map, in nanoseconds; `fanout` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortest_wait: Option<u64>,
    /// The most items that a process waited for at once; `fanout` only.
    #[serde(default)]
    pub most_at_once: u64,
}

impl Tally {
    /// Adds what another process saw.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.latencies.extend(other.latencies);
        self.shortest_wait = self.shortest_wait.into_iter().chain(other.shortest_wait).min();
        self.most_at_once = self.most_at_once.max(other.most_at_once);
    }
}

#[derive(Default)]
struct Cells {
    count: AtomicU64,
    sum: AtomicU64,
}

static ALL: Mutex<Vec<Arc<Cells>>> = Mutex::new(Vec::new());
static LATENCIES: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
static WAITING: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);

/// Counts an item at the sink.
pub fn count(hash: u64) {
    thread_local! {
        static MINE: Arc<Cells> = {
            let mine = Arc::<Cells>::default();
            locked(&ALL).push(mine.clone());
            mine
        };
    }
    MINE.with(|mine| {
        // Only this thread writes, so nothing is lost between the reading and the writing.
        mine.count.store(mine.count.load(Relaxed) + 1, Relaxed);
        mine.sum.store(mine.sum.load(Relaxed).wrapping_add(hash), Relaxed);
    });
}

/// Notes how long an item took.
pub fn took(nanos: u64) {
    locked(&LATENCIES).push(nanos);
}

/// An item begins to wait.
pub fn wait_begins() {
    MOST.fetch_max(WAITING.fetch_add(1, Relaxed) + 1, Relaxed);
}

/// An item has waited for so long.
pub fn wait_ends(nanos: u64) {
    WAITING.fetch_sub(1, Relaxed);
    SHORTEST.fetch_min(nanos, Relaxed);
}

/// What this process saw since it was last asked. Nothing may be running.
#[must_use]
pub fn take() -> Tally {
    let mut tally = Tally {
        latencies: std::mem::take(&mut locked(&LATENCIES)),
        shortest_wait: Some(SHORTEST.swap(u64::MAX, Relaxed)).filter(|nanos| *nanos != u64::MAX),
        most_at_once: MOST.swap(0, Relaxed),
        ..Tally::default()
    };
    for cells in locked(&ALL).iter() {
        tally.count += cells.count.swap(0, Relaxed);
        tally.sum = tally.sum.wrapping_add(cells.sum.swap(0, Relaxed));
    }
    tally
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
