//! The roots of a source, by the batch.
//!
//! A source is a stream of values, as its author wrote it. All that comes after it takes roots by the run:
//! so [`Roots`], asked for some, takes as many as the stream has and are asked for, and encodes them behind
//! each other. It does so in one call, whatever their number, and allocates nothing for a small one.
//!
//! A failure stands for one root, and the source goes on after it. A panic of the stream passes to whoever
//! asks: what the source still had is not known then.

use std::pin::Pin;
use std::task::{Context as TaskWaker, Poll};
use std::time::Duration;

use futures_util::stream::Stream;
use serde::Serialize;
use stageline_protocol::Encoding;
use stageline_protocol::item::ITEM_OVERHEAD;
use stageline_protocol::run::Packed;
// Tokio's clock: it stands still in a simulation, whose course must not depend on the machine.
use tokio::time::Instant;

use super::burst::{Outcome, Outcomes};
use super::error::{Failure, Fault, StageError};

/// A batch is not made larger once it has taken so long: what is made already should not wait, nor
/// should others on this thread.
const LONG: Duration = Duration::from_micros(200);

/// The roots of a source, in order.
pub struct Roots {
    source: Box<dyn Source>,
    /// What has been made and not yet taken.
    made: Outcomes,
}

impl Roots {
    /// The values of a stream, of at most `max_payload` bytes each when they are encoded.
    pub fn new<T: Serialize + 'static>(
        values: impl Stream<Item = Result<T, StageError>> + Send + 'static,
        max_payload: usize,
    ) -> Self {
        Self::of(move || values, |value| value.map_err(Failure::from), max_payload)
    }

    /// Those of a stream that is opened when it is first asked.
    pub(super) fn of<S, T>(
        open: impl FnOnce() -> S + Send + 'static,
        value: impl Fn(S::Item) -> Result<T, Failure> + Send + 'static,
        max_payload: usize,
    ) -> Self
    where
        S: Stream + Send + 'static,
        T: Serialize + 'static,
    {
        let source = User { open: Some(open), stream: None, value };
        Self { source: Box::new(source), made: Outcomes::new(max_payload) }
    }

    /// Makes up to so many roots, of what counts for about so many bytes at the most: at least one, which is waited
    /// for, and those that are there already. Answers whether the source is at its end; it is not to be
    /// asked again then. [`take`](Self::take) has what was made.
    pub(crate) fn poll_make(
        &mut self,
        waker: &mut TaskWaker<'_>,
        items: u64,
        bytes: u64,
    ) -> Poll<bool> {
        let most = Most { items, bytes };
        match self.source.fill(waker, most, &mut self.made) {
            Filled::Waits { made: 0 } => Poll::Pending,
            Filled::Full | Filled::Waits { .. } => Poll::Ready(false),
            Filled::Ended => Poll::Ready(true),
        }
    }

    /// The roots that have been made, in order: some values, or a failure in the place of one.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Result<(Encoding, Packed), Fault>> + '_ {
        self.made.drain().filter_map(|made| match made {
            Outcome::Outputs(encoding, values) => Some(Ok((encoding, values))),
            Outcome::Failed(fault) => Some(Err(fault)),
            // Nobody puts these in here.
            Outcome::Kept(_) | Outcome::Nothing(_) | Outcome::Pending(_) => None,
        })
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Most {
    items: u64,
    bytes: u64,
}

/// Why no more was made.
enum Filled {
    /// It is enough.
    Full,
    /// The stream has no more yet, and wakes who asked when it has.
    Waits { made: u64 },
    /// The stream has no more.
    Ended,
}

/// A user's stream, without its type.
trait Source: Send {
    fn fill(&mut self, waker: &mut TaskWaker<'_>, most: Most, made: &mut Outcomes) -> Filled;
}

struct User<O, S, V> {
    /// None once it has been called.
    open: Option<O>,
    stream: Option<Pin<Box<S>>>,
    value: V,
}

impl<O, S, V, T> Source for User<O, S, V>
where
    O: FnOnce() -> S + Send,
    S: Stream + Send,
    V: Fn(S::Item) -> Result<T, Failure> + Send,
    T: Serialize + 'static,
{
    fn fill(&mut self, waker: &mut TaskWaker<'_>, most: Most, made: &mut Outcomes) -> Filled {
        let began = Instant::now();
        if let Some(open) = self.open.take() {
            self.stream = Some(Box::pin(open()));
        }
        let Some(stream) = &mut self.stream else { return Filled::Ended };
        let (mut count, mut size, mut last) = (0, 0, 0);
        loop {
            let value = match stream.as_mut().poll_next(waker) {
                Poll::Pending => return Filled::Waits { made: count },
                Poll::Ready(None) => return Filled::Ended,
                Poll::Ready(Some(value)) => value,
            };
            match (self.value)(value).and_then(|value| made.output(value)) {
                Ok(bytes) => last = bytes as u64 + ITEM_OVERHEAD,
                Err(failure) => made.failed(failure),
            }
            (count, size) = (count + 1, size + last);
            // The clock is looked at less and less often: a batch takes at most twice as long.
            let is_long = || count.is_power_of_two() && began.elapsed() >= LONG;
            // One more of that size would be too much: so a batch is a frame, and not a little more.
            if count >= most.items || size + last > most.bytes || is_long() {
                return Filled::Full;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use futures_util::stream::{self, StreamExt};
    use stageline_protocol::ErrorKind;

    use super::*;

    /// The lengths of each run, or a failure; and whether the source is at its end.
    type Made = (Vec<Result<Vec<u64>, ErrorKind>>, bool);

    fn make(roots: &mut Roots, items: u64, bytes: u64) -> Poll<Made> {
        let made = roots.poll_make(&mut TaskWaker::from_waker(Waker::noop()), items, bytes);
        made.map(|ended| {
            let runs = roots.take().map(|run| match run {
                Ok((_, values)) => Ok(values.lengths().collect()),
                Err(fault) => Err(fault.kind),
            });
            (runs.collect(), ended)
        })
    }

    fn of(lengths: &'static [usize]) -> impl Stream<Item = Result<Bytes, StageError>> {
        stream::iter(lengths.iter().map(|&length| match length {
            0 => Err(StageError::msg("no root")),
            length => Ok(Bytes::from(vec![7; length])),
        }))
    }

    #[test]
    fn small_roots_come_in_one_run_and_large_ones_alone() {
        let mut roots = Roots::new(of(&[3, 3, 0, 2, 9_000, 1, 20_000]), 10_000);
        let one = |length| Ok(vec![length]);
        let failed = Err(ErrorKind::Failed);
        let runs = [Ok(vec![3, 3]), failed, one(2), one(9_000), one(1), Err(ErrorKind::TooLarge)];
        assert_eq!(make(&mut roots, 100, 1 << 20), Poll::Ready((runs.to_vec(), true)));
    }

    #[test]
    fn no_more_is_made_than_is_asked_for() {
        let mut roots = Roots::new(of(&[8; 9]), 100);
        assert_eq!(make(&mut roots, 1, 1 << 20), Poll::Ready((vec![Ok(vec![8])], false)));
        assert_eq!(make(&mut roots, 100, 80), Poll::Ready((vec![Ok(vec![8; 2])], false)));
        assert_eq!(make(&mut roots, 6, 1 << 20), Poll::Ready((vec![Ok(vec![8; 6])], false)));
        assert_eq!(make(&mut roots, 6, 1 << 20), Poll::Ready((vec![], true)));
    }

    #[test]
    fn what_is_there_does_not_wait_for_what_is_not() {
        let values = of(&[1, 2]).chain(stream::pending());
        let mut roots = Roots::new(values, 100);
        assert_eq!(make(&mut roots, 100, 100), Poll::Ready((vec![Ok(vec![1, 2])], false)));
        assert_eq!(make(&mut roots, 100, 100), Poll::Pending);
    }

    #[test]
    fn a_large_root_is_not_copied() {
        let value = Bytes::from(vec![7; 9_000]);
        let mut roots = Roots::new(stream::iter([Ok(value.clone())]), 10_000);
        assert!(roots.poll_make(&mut TaskWaker::from_waker(Waker::noop()), 9, 1).is_ready());
        let (encoding, values) = roots.take().next().unwrap().unwrap();
        assert_eq!((encoding, values.blob().as_ptr()), (Encoding::Raw, value.as_ptr()));
    }
}
