//! Outputs that a blocking expansion makes ahead of whoever takes them: a few, and of large ones not more
//! than so many bytes. One that is larger than that waits alone.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::codec::Payload;
use super::error::Failure;

/// How many outputs may wait.
const WAITING: usize = 16;
/// How many bytes of them, or one that is larger.
const WAITING_BYTES: usize = 1 << 20;

type Output = Result<Payload, Failure>;

/// The end that makes outputs, on a thread. Clones are the same.
#[derive(Clone)]
pub(super) struct Maker {
    outputs: mpsc::Sender<Waiting>,
    room: Arc<Room>,
}

/// The end that takes them.
pub(super) struct Taker {
    outputs: mpsc::Receiver<Waiting>,
}

/// An output that has not been taken; it takes room until it is.
struct Waiting {
    output: Output,
    _share: Share,
}

#[derive(Default)]
struct Room {
    taken: Mutex<usize>,
    freed: Condvar,
}

struct Share {
    room: Arc<Room>,
    bytes: usize,
}

pub(super) fn ahead() -> (Maker, Taker) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Maker { outputs: sender, room: Arc::default() }, Taker { outputs: receiver })
}

impl Maker {
    /// Hands an output over; waits for room. False when nobody takes any more.
    pub(super) fn send(&self, output: Output) -> bool {
        let bytes = output.as_ref().map_or(0, |payload| payload.bytes.len()).min(WAITING_BYTES);
        let mut taken = self.room.lock();
        // Whoever takes nothing any more frees all of it.
        while *taken + bytes > WAITING_BYTES {
            taken = self.room.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += bytes;
        drop(taken);
        let share = Share { room: self.room.clone(), bytes };
        self.outputs.blocking_send(Waiting { output, _share: share }).is_ok()
    }

    /// What tells whether somebody still takes outputs, without keeping this end open.
    pub(super) fn watch(&self) -> Watch {
        Watch { outputs: self.outputs.downgrade() }
    }
}

/// Tells whether somebody still takes outputs.
pub(super) struct Watch {
    outputs: mpsc::WeakSender<Waiting>,
}

impl Watch {
    pub(super) fn is_wanted(&self) -> bool {
        self.outputs.upgrade().is_some_and(|outputs| !outputs.is_closed())
    }
}

impl Taker {
    /// The next output; none when no more are made. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Output> {
        self.outputs.recv().await.map(|waiting| waiting.output)
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.room.lock() -= self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use bytes::Bytes;
    use stageline_protocol::Encoding;

    use super::*;

    fn output(bytes: usize) -> Output {
        Ok(Payload { encoding: Encoding::Raw, bytes: Bytes::from(vec![0; bytes]) })
    }

    /// Takes outputs of this size, and answers how many at the most had been made beyond those taken.
    async fn most_ahead(bytes: usize) -> usize {
        let (maker, mut taker) = ahead();
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let making = thread::spawn(move || {
            for _ in 0..100 {
                count.fetch_add(1, Ordering::SeqCst);
                assert!(maker.send(output(bytes)));
            }
        });
        let (mut taken, mut most) = (0, 0);
        while let Some(output) = taker.next().await {
            assert!(output.is_ok());
            taken += 1;
            most = most.max(made.load(Ordering::SeqCst) - taken);
        }
        assert_eq!(taken, 100);
        making.join().expect("it ends");
        most
    }

    #[tokio::test]
    async fn outputs_are_made_ahead_by_number_and_by_bytes() {
        // Two wait, and one more waits for room.
        let most = most_ahead(400_000).await;
        assert!(most <= 3, "{most} ahead");
        let most = most_ahead(3 << 20).await;
        assert!(most <= 2, "{most} ahead");
        assert!(most_ahead(10).await <= WAITING + 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_hears_that_nobody_takes_it() {
        let (maker, mut taker) = ahead();
        let making = thread::spawn(move || while maker.send(output(600_000)) {});
        assert!(taker.next().await.is_some());
        drop(taker);
        making.join().expect("it ends");
    }
}
