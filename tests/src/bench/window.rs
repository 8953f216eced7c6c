//! What a sender of a baseline retains: everything that is not acked, bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many payload bytes may be unacked on a connection.
pub const WINDOW: usize = 1 << 20;
/// How many acked batches are kept, for their memory.
const SPARE: usize = 8;

/// The batches of one connection that are not acked yet. One task admits, another acks.
#[derive(Debug)]
pub struct Window<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    retained: VecDeque<Retained<T>>,
    spare: Vec<T>,
    bytes: usize,
    sent: u64,
    acked: u64,
}

#[derive(Debug)]
struct Retained<T> {
    /// How many items had been sent, with these.
    upto: u64,
    bytes: usize,
    batch: T,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        let state =
            State { retained: VecDeque::new(), spare: Vec::new(), bytes: 0, sent: 0, acked: 0 };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<T> Window<T> {
    /// Retains a batch that is about to be sent, once there is room for it. One batch always has room.
    pub async fn admit(&self, items: u64, bytes: usize, batch: T) {
        let mut batch = Some(batch);
        loop {
            {
                let mut state = self.state();
                if (state.retained.is_empty() || state.bytes + bytes <= WINDOW)
                    && let Some(batch) = batch.take()
                {
                    state.sent += items;
                    state.bytes += bytes;
                    let upto = state.sent;
                    state.retained.push_back(Retained { upto, bytes, batch });
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    /// So many items are safe, in all: forgets the batches that are wholly among them.
    pub fn acked(&self, count: u64) {
        let mut state = self.state();
        state.acked = state.acked.max(count);
        while let Some(first) = state.retained.front()
            && first.upto <= state.acked
        {
            let bytes = first.bytes;
            state.bytes -= bytes;
            if let Some(first) = state.retained.pop_front()
                && state.spare.len() < SPARE
            {
                state.spare.push(first.batch);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A batch that was acked, to be used again.
    pub fn spare(&self) -> Option<T> {
        self.state().spare.pop()
    }

    /// Waits until everything that was sent is acked. Not beside [`admit`](Self::admit).
    pub async fn drained(&self) {
        while !self.is_drained() {
            self.changed.notified().await;
        }
    }

    /// Whether everything that was sent is acked.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.state().retained.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_window_admits_until_it_is_full_and_again_after_acks() {
        let window = Window::default();
        let admit = |items, bytes| window.admit(items, bytes, ()).now_or_never().is_some();
        assert!(admit(10, WINDOW / 2));
        assert!(admit(10, WINDOW / 2));
        assert!(!admit(1, 1), "full");
        window.acked(9);
        assert!(!admit(1, 1), "the first batch is not wholly acked");
        window.acked(10);
        assert!(admit(1, 1));
        assert!(window.drained().now_or_never().is_none());
        window.acked(21);
        assert!(window.drained().now_or_never().is_some());
    }

    #[test]
    fn a_batch_beyond_the_window_passes_alone() {
        let window = Window::default();
        assert!(window.admit(1, 3 * WINDOW, ()).now_or_never().is_some());
        assert!(window.admit(1, 1, ()).now_or_never().is_none());
        window.acked(1);
        assert!(window.admit(1, 1, ()).now_or_never().is_some());
    }
}
