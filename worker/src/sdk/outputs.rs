//! The outputs of a running function, guarded: panics become failures, sizes and times are limited.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures_util::stream::Stream;
use stageline_protocol::ErrorKind;
use tokio::time::Sleep;

use super::codec::Payload;
use super::error::{Failure, Fault};
use super::function::Outputs;
use super::panic::caught;

/// Polls a user's code: a panic in it is its failure.
pub(crate) fn guarded<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, Failure>> {
    match caught(poll) {
        Ok(poll) => poll.map(Ok),
        Err(said) => Poll::Ready(Err(Failure::panicked(said))),
    }
}

/// Drops a user's stream: a panic of its destructor is a failure too.
pub(crate) fn close(outputs: Option<Outputs>) -> Result<(), Failure> {
    caught(|| drop(outputs)).map_err(Failure::panicked)
}

/// Refuses a payload above the limit, where it was made.
pub(crate) fn admit(payload: Payload, max_payload: usize) -> Result<Payload, Failure> {
    admit_size(payload.bytes.len(), max_payload)?;
    Ok(payload)
}

/// Refuses a payload of such a size, if it is above the limit.
pub(crate) fn admit_size(size: usize, max_payload: usize) -> Result<(), Failure> {
    if size <= max_payload {
        return Ok(());
    }
    Err(Failure::permanent(
        ErrorKind::TooLarge,
        format_args!(
            "the output has {size} bytes and the largest allowed is {max_payload}: make it smaller, \
             or split it with a flat_map"
        ),
    ))
}

/// The outputs of an expansion whose first one has been waited for. A failure is the last item.
pub(crate) struct Expansion {
    first: Option<Payload>,
    /// None when it has ended.
    rest: Option<Outputs>,
    max_payload: usize,
    timeout: Option<Duration>,
    /// Runs while an output is waited for, never while the reader is busy elsewhere.
    deadline: Option<Pin<Box<Sleep>>>,
    attempt: u32,
    given: u64,
}

impl Expansion {
    pub(crate) fn new(
        first: Payload,
        rest: Outputs,
        max_payload: usize,
        timeout: Option<Duration>,
        attempt: u32,
    ) -> Self {
        let (first, rest) = (Some(first), Some(rest));
        Self { first, rest, max_payload, timeout, deadline: None, attempt, given: 0 }
    }

    fn poll_rest(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Payload, Failure>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let answer = match guarded(|| rest.as_mut().poll_next(cx)) {
            Poll::Ready(Ok(None)) => None,
            Poll::Ready(Ok(Some(output))) => {
                Some(output.and_then(|payload| admit(payload, self.max_payload)))
            }
            Poll::Ready(Err(panic)) => Some(Err(panic)),
            Poll::Pending => {
                let Some(timeout) = self.timeout else { return Poll::Pending };
                let deadline =
                    self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(deadline.as_mut().poll(cx));
                let message = format!("no output within {timeout:?}, after {} outputs", self.given);
                Some(Err(Failure::timeout(message)))
            }
        };
        self.deadline = None;
        Poll::Ready(answer)
    }
}

impl Stream for Expansion {
    type Item = Result<Payload, Fault>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Payload, Fault>>> {
        let output = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.poll_rest(cx)),
        };
        let failure = match output {
            Some(Ok(payload)) => {
                self.given += 1;
                return Poll::Ready(Some(Ok(payload)));
            }
            Some(Err(failure)) => {
                // It has failed already: what its destructor says adds nothing.
                let _closed = close(self.rest.take());
                Some(failure)
            }
            None => close(self.rest.take()).err(),
        };
        Poll::Ready(failure.map(|failure| Err(failure.into_fault(self.attempt))))
    }
}
