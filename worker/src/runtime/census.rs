//! Counting what a process runs: what must return to where it was when a job is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stageline_protocol::control::Census;

use super::threads::Threads;

/// Counters of one process, shared by all that is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: AtomicU64,
    links: AtomicU64,
    timers: AtomicU64,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    Task,
    /// A connection under a link, one end of it.
    Link,
    Timer,
}

/// Counts one thing for as long as it lives.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Counters,
    what: Counted,
}

impl Counters {
    pub(crate) fn count(&self, what: Counted) -> Tally {
        self.of(what).fetch_add(1, Ordering::Relaxed);
        Tally { counters: self.clone(), what }
    }

    fn of(&self, what: Counted) -> &AtomicU64 {
        match what {
            Counted::Task => &self.inner.tasks,
            Counted::Link => &self.inner.links,
            Counted::Timer => &self.inner.timers,
        }
    }

    /// What runs now on these threads.
    pub(crate) fn census(&self, threads: &Threads) -> Census {
        let get = |what| self.of(what).load(Ordering::Relaxed);
        Census {
            runtime_tasks: threads.alive_tasks() as u64,
            tasks: get(Counted::Task),
            links: get(Counted::Link),
            children: 0,
            timers: get(Counted::Timer),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.counters.of(self.what).fetch_sub(1, Ordering::Relaxed);
    }
}
