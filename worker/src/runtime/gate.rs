//! Who is in process: calls beside each other, or one suspect alone.
//!
//! Every call of a function on a worker is inside the gate while it is in process: not while it waits
//! for a slot, for room or for its next attempt. A suspect closes the gate: calls that are inside go
//! on to their end, new ones wait, and when all are out, it is alone until it gives the gate back.
//! Suspects take turns, in the order in which they came.
//!
//! Going in and out is one atomic operation each while nobody is, or wants to be, alone. Every wait is
//! cancel safe: who gives up leaves the gate as if it had not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

/// Set while somebody is, or wants to be, alone; below it, how many are inside.
const CLOSED: u64 = 1 << 63;

/// The gate of one process. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: AtomicU64,
    opened: Notify,
    emptied: Notify,
    turn: Arc<Mutex<()>>,
}

/// Inside, beside others, until it is dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    gate: Gate,
}

/// Alone, until it is dropped.
#[derive(Debug)]
pub(crate) struct Alone {
    gate: Gate,
    _turn: OwnedMutexGuard<()>,
}

impl Gate {
    /// Goes in when nobody is, or wants to be, alone.
    pub(crate) async fn enter(&self) -> Inside {
        loop {
            if let Some(inside) = self.try_enter() {
                return inside;
            }
            let opened = self.inner.opened.notified();
            // It may have been opened before this waited for it.
            if self.is_closed() {
                opened.await;
            }
        }
    }

    /// Goes in if that can be done at once.
    pub(crate) fn try_enter(&self) -> Option<Inside> {
        let before = self.inner.state.fetch_add(1, Ordering::AcqRel);
        let inside = Inside { gate: self.clone() };
        (before & CLOSED == 0).then_some(inside)
    }

    fn is_closed(&self) -> bool {
        self.inner.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Lets nobody in any more, and waits until everybody is out.
    pub(crate) async fn alone(&self) -> Alone {
        let turn = self.inner.turn.clone().lock_owned().await;
        self.inner.state.fetch_or(CLOSED, Ordering::AcqRel);
        let alone = Alone { gate: self.clone(), _turn: turn };
        loop {
            let emptied = self.inner.emptied.notified();
            if self.inner.state.load(Ordering::Acquire) == CLOSED {
                return alone;
            }
            emptied.await;
        }
    }
}

impl Inside {
    /// Another one who is inside beside this one: brought in, also while somebody waits to be alone.
    pub(crate) fn another(&self) -> Self {
        self.gate.inner.state.fetch_add(1, Ordering::AcqRel);
        Self { gate: self.gate.clone() }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let before = self.gate.inner.state.fetch_sub(1, Ordering::AcqRel);
        if before == CLOSED + 1 {
            self.gate.inner.emptied.notify_one();
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.gate.inner.state.fetch_and(!CLOSED, Ordering::AcqRel);
        self.gate.inner.opened.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        future.now_or_never()
    }

    #[tokio::test]
    async fn who_is_alone_waits_for_all_and_all_wait_for_it() {
        let gate = Gate::default();
        let first = gate.enter().await;
        let second = gate.enter().await;
        let mut alone = Box::pin(gate.alone());
        assert!(now(&mut alone).is_none());
        let mut third = Box::pin(gate.enter());
        assert!(now(&mut third).is_none(), "it would go on for ever otherwise");
        drop(first);
        assert!(now(&mut alone).is_none());
        drop(second);
        let alone = now(&mut alone).expect("all are out");
        assert!(now(&mut third).is_none());
        drop(alone);
        now(&mut third).expect("the gate is open");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_gate_as_it_was() {
        let gate = Gate::default();
        let inside = gate.enter().await;
        let mut alone = Box::pin(gate.alone());
        assert!(now(&mut alone).is_none());
        let mut waiting = Box::pin(gate.enter());
        assert!(now(&mut waiting).is_none());
        let mut next = Box::pin(gate.alone());
        assert!(now(&mut next).is_none());
        drop(waiting);
        drop(alone);
        drop(inside);
        drop(now(&mut next).expect("its turn"));
        now(gate.enter()).expect("the gate is open");
        assert_eq!(gate.inner.state.load(Ordering::Acquire), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_is_ever_inside_with_one_who_is_alone() {
        let gate = Gate::default();
        let inside = Arc::new(AtomicU64::new(0));
        let mut calls = tokio::task::JoinSet::new();
        for caller in 0..8_u64 {
            let (gate, inside) = (gate.clone(), inside.clone());
            calls.spawn(async move {
                for turn in 0..2_000_u64 {
                    if (turn + caller).is_multiple_of(5) {
                        let alone = gate.alone().await;
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                        drop(alone);
                    } else {
                        let guard = gate.enter().await;
                        inside.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                }
            });
        }
        while let Some(ended) = calls.join_next().await {
            ended.expect("a caller");
        }
        assert_eq!(gate.inner.state.load(Ordering::SeqCst), 0);
    }
}
