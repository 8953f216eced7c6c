//! Waits that are exact: tokio's timer has a resolution of a millisecond and rounds up.
//!
//! A thread does the waiting. It asks the kernel for timers without slack (50 µs unless asked), has
//! itself woken a little early, and spins for the rest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How much too early the thread is woken: about as long as waking takes.
const EARLY: Duration = Duration::from_micros(25);

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

/// Waits that long, never less, and some microseconds more on a machine that is not busy. Cancel safe.
pub async fn wait(time: Duration) {
    static TIMER: OnceLock<Mutex<(Sender<Waiter>, u64)>> = OnceLock::new();
    let timer = TIMER.get_or_init(|| {
        let (sender, receiver) = channel::<Waiter>();
        std::thread::spawn(move || {
            without_slack();
            let mut waiting = BinaryHeap::<Reverse<Waiter>>::new();
            loop {
                while let Some(Reverse(first)) = waiting.peek() {
                    let early = first.at.saturating_duration_since(Instant::now());
                    if early > EARLY {
                        break;
                    }
                    while first.at > Instant::now() {
                        std::hint::spin_loop();
                    }
                    if let Some(Reverse(first)) = waiting.pop() {
                        let _dropped = first.done.send(());
                    }
                }
                let next = match waiting.peek() {
                    Some(Reverse(first)) => {
                        let wake = first.at.checked_sub(EARLY).unwrap_or(first.at);
                        receiver.recv_timeout(wake.saturating_duration_since(Instant::now()))
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

/// Asks for timers of this thread that are not put off to be coalesced with others. Where that cannot
/// be asked for, waits are the longer by it.
fn without_slack() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(id) = thread.file_name() {
        let slack = std::path::Path::new("/proc").join(id).join("timerslack_ns");
        let _not_linux = std::fs::write(slack, "1");
    }
}
