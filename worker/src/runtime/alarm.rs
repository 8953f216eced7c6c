//! Timers that may not be set: one for each wait, and one that is set again and again.

use std::future;
use std::pin::Pin;

use tokio::time::{Instant, Sleep};

/// Rings once the time has come that it was last set to; it may ring earlier, for an older setting.
/// That is its point: to put a timer off costs the runtime a system call, and most never come due.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(Instant::now())), armed: None }
    }

    /// To be rung at that time, or never.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            self.sleep.as_mut().reset(at);
        }
    }

    /// Waits until it rings. Cancel safe.
    pub(super) async fn rings(&mut self) {
        if self.armed.is_none() {
            future::pending::<()>().await;
        }
        self.sleep.as_mut().await;
        self.armed = None;
    }
}

/// Waits until that time, or for ever. Cancel safe.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_in_time_and_only_if_it_is_set() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut alarm = Alarm::new();
        alarm.set(None);
        assert!(tokio::time::timeout(second, alarm.rings()).await.is_err(), "nobody has set it");
        alarm.set(Some(start + second * 5));
        alarm.set(Some(start + second * 3));
        alarm.rings().await;
        assert_eq!(start.elapsed(), second * 3);
        assert!(tokio::time::timeout(second, alarm.rings()).await.is_err(), "it has rung");
        alarm.set(Some(start + second * 6));
        alarm.set(Some(start + second * 9));
        alarm.rings().await;
        alarm.set(Some(start + second * 9));
        alarm.rings().await;
        assert_eq!(start.elapsed(), second * 9);
    }
}
