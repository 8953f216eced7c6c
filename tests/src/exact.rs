//! Waits that are exact: tokio's timer has a resolution of a millisecond and rounds up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

struct Waiter {
    at: Instant,
    number: u64,
    done: oneshot::Sender<()>,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Waits that long, to within some tens of microseconds: a thread of its own does the waiting.
pub async fn wait(time: Duration) {
    static TIMER: OnceLock<Mutex<(Sender<Waiter>, u64)>> = OnceLock::new();
    let timer = TIMER.get_or_init(|| {
        let (sender, receiver) = channel::<Waiter>();
        std::thread::spawn(move || {
            let mut waiting = BinaryHeap::<Reverse<Waiter>>::new();
            loop {
                while let Some(Reverse(first)) = waiting.peek() {
                    if first.at > Instant::now() {
                        break;
                    }
                    if let Some(Reverse(first)) = waiting.pop() {
                        let _dropped = first.done.send(());
                    }
                }
                let next = match waiting.peek() {
                    Some(Reverse(first)) => {
                        receiver.recv_timeout(first.at.saturating_duration_since(Instant::now()))
                    }
                    None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match next {
                    Ok(waiter) => waiting.push(Reverse(waiter)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Mutex::new((sender, 0))
    });
    let (done, waited) = oneshot::channel();
    let at = Instant::now() + time;
    {
        let mut timer = timer.lock().unwrap_or_else(PoisonError::into_inner);
        timer.1 += 1;
        let number = timer.1;
        let _runs_for_ever = timer.0.send(Waiter { at, number, done });
    }
    let _runs_for_ever = waited.await;
}
