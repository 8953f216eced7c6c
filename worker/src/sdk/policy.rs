//! Whether a failed attempt is repeated, and when: a policy for tower's retry layer.
//!
//! Waits grow exponentially with jitter ("equal jitter": half fixed, half random, see Marc Brooker,
//! "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), so that the many calls which one
//! outage fails do not all come back at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower::retry::Policy;

use super::codec::Payload;
use super::context::Context;
use super::error::{Advice, Failure};
use super::invoke::{Reply, Slot};

/// The longest wait before the first repetition; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait is longer, except one that the function asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// One call, as it goes through the layers; the context counts the attempts.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) cx: Context,
    pub(crate) input: Payload,
    pub(crate) slot: Arc<dyn Slot>,
}

/// How a call ended, with the attempts that it took.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) failure: Failure,
    pub(crate) attempts: u32,
}

/// Repeats a failed attempt up to `retries` times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) retries: u32,
}

impl Policy<Request, Reply, Tried> for Retry {
    type Future = BoxFuture<'static, ()>;

    fn retry(
        &mut self,
        request: &mut Request,
        result: &mut Result<Reply, Tried>,
    ) -> Option<Self::Future> {
        let tried = result.as_mut().err()?;
        let attempt = request.cx.attempt();
        tried.attempts = attempt;
        if attempt > self.retries || request.cx.is_cancelled() {
            return None;
        }
        let wait = match tried.failure.advice {
            Advice::Never => return None,
            Advice::After(least) => spread(least),
            Advice::Backoff => backoff(attempt, fastrand::f64()),
        };
        request.cx.next_attempt();
        tracing::debug!(
            lineage = %request.cx.lineage(), attempt, ?wait, error = %tried.failure,
            "the attempt failed and will be repeated"
        );
        let slot = Arc::clone(&request.slot);
        slot.retrying();
        Some(Box::pin(async move {
            slot.release();
            tokio::time::sleep(wait).await;
            slot.acquire().await;
        }))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

/// The wait after the `attempt`th attempt, counted from 1: between half and all of an exponentially
/// growing time, by `random` in 0..1.
fn backoff(attempt: u32, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let whole = (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT);
    whole.mul_f64(0.5 + random / 2.0)
}

/// A wait that was asked for, and up to a tenth (at most a second) more.
fn spread(least: Duration) -> Duration {
    let most = (least / 10).min(Duration::from_secs(1));
    least.saturating_add(most.mul_f64(fastrand::f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_with_half_of_them_random() {
        let most = |attempt| backoff(attempt, 1.0);
        assert_eq!(most(1), Duration::from_millis(100));
        assert_eq!(most(2), Duration::from_millis(200));
        assert_eq!(most(7), Duration::from_millis(6400));
        assert_eq!(most(8), Duration::from_secs(10));
        assert_eq!(most(u32::MAX), Duration::from_secs(10));
        assert_eq!(backoff(3, 0.0), Duration::from_millis(200));
    }

    #[test]
    fn a_wait_that_was_asked_for_is_never_cut_short() {
        for least in
            [Duration::ZERO, Duration::from_secs(3), Duration::from_secs(3600), Duration::MAX]
        {
            let wait = spread(least);
            assert!(wait >= least && wait <= least.saturating_add(Duration::from_secs(1)));
        }
    }
}
