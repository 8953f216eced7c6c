//! Calls by the run: a function called for one item after the other, on the spot.
//!
//! Most functions are done when they are first polled, and then a call of their own costs more than
//! they do. [`call_each`] makes one loop of a run's calls: each future is made and polled once, and what
//! comes of it is noted in [`Outcomes`], outputs packed behind each other. Nothing is allocated for an
//! item, but for one whose future is not done yet: that future moves into a [`Rest`], to be polled to
//! its end elsewhere.
//!
//! The first poll has nobody to wake. So a [`Rest`] must be polled again without being woken; that poll
//! brings its waker.
//!
//! An item fares as it would in a call of its own without policies: the same outputs, the same faults.
//! A panic is the fault of its item, and the loop goes on.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskWaker, Poll, Waker, ready};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stageline_protocol::run::{Content, Packed, Packer, Run};
use stageline_protocol::{Encoding, ErrorKind};

use super::codec::{self, Payload};
use super::context::TaskContext;
use super::error::{Failure, Fault};
use super::function::{Made, decode, encode};
use super::handler::Handler;
use super::invoke::Reply;
use super::outputs::{admit, admit_size, guarded};
use super::panic::{caught, discard};

/// A function, to be called for all items of a run, in order. A run of no values is not for it.
///
/// Answers how many it has called: all, unless it was to [stop](Outcomes::stop_at_pending).
pub(crate) type Burst = Arc<dyn Fn(&TaskContext, &Run, &mut Outcomes) -> u64 + Send + Sync>;

/// What an answer of a user's function means.
pub(crate) trait Answers<R, Out>:
    Fn(R) -> Result<Answer<Out>, Failure> + Copy + Send + Sync + 'static
{
}

impl<A, R, Out> Answers<R, Out> for A where
    A: Fn(R) -> Result<Answer<Out>, Failure> + Copy + Send + Sync + 'static
{
}

/// The answer of a function that makes no more than one output.
pub(crate) enum Answer<Out> {
    Output(Out),
    Keep,
    Nothing,
    Done,
}

impl<Out: Serialize + 'static> Answer<Out> {
    pub(crate) fn make(self) -> Result<Made, Failure> {
        Ok(match self {
            Self::Output(output) => Made::One(encode(output)?),
            Self::Keep => Made::Keep,
            Self::Nothing => Made::Nothing,
            Self::Done => Made::Done,
        })
    }

    fn reply(self, max_payload: usize) -> Result<Reply, Failure> {
        Ok(match self {
            Self::Output(output) => Reply::One(admit(encode(output)?, max_payload)?),
            Self::Keep => Reply::Keep,
            Self::Nothing => Reply::Nothing,
            Self::Done => Reply::Done,
        })
    }
}

/// What came of items, one after the other.
pub(crate) enum Outcome {
    /// An output of each of some items.
    Outputs(Encoding, Packed),
    /// So many pass a filter.
    Kept(u64),
    /// A filter dropped so many, or a sink is done with them.
    Nothing(u64),
    /// One failed.
    Failed(Fault),
    /// One is not done.
    Pending(Rest),
}

impl Outcome {
    /// Of how many items.
    pub(crate) fn calls(&self) -> u64 {
        match self {
            Self::Outputs(_, outputs) => outputs.len(),
            Self::Kept(calls) | Self::Nothing(calls) => *calls,
            Self::Failed(_) | Self::Pending(_) => 1,
        }
    }
}

/// What came of the items of a run, in order. To be used again when it has been drained: what it
/// has allocated stays with it.
pub(crate) struct Outcomes {
    max_payload: usize,
    /// Whether a call that is not done is the last.
    stop_at_pending: bool,
    /// Whether there is such a call.
    pending: bool,
    list: Vec<Outcome>,
    /// Outputs that are not in the list yet, all of one encoding.
    packer: Packer,
    encoding: Encoding,
    /// Where a value is encoded before it is packed.
    value: Vec<u8>,
}

impl Outcomes {
    /// None yet. Outputs of more bytes than `max_payload` are refused.
    pub(crate) fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            stop_at_pending: false,
            pending: false,
            list: Vec::new(),
            packer: Packer::new(),
            encoding: Encoding::default(),
            value: Vec::new(),
        }
    }

    /// Whether the first call that is not done is to be the last; no more than one would have a slot.
    pub(crate) const fn stop_at_pending(&mut self, stop: bool) {
        self.stop_at_pending = stop;
    }

    /// Whether all calls since the last [`drain`](Self::drain) were done at once.
    pub(crate) const fn are_done(&self) -> bool {
        !self.pending
    }

    /// Takes all of them out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Outcome> + '_ {
        self.flush();
        self.pending = false;
        self.list.drain(..)
    }

    fn answered<Out: Serialize + 'static>(&mut self, answer: Answer<Out>) -> Result<(), Failure> {
        match answer {
            Answer::Output(output) => {
                self.output(output)?;
            }
            Answer::Keep => {
                if let Some(Outcome::Kept(count)) = self.list.last_mut() {
                    *count += 1;
                } else {
                    self.put(Outcome::Kept(1));
                }
            }
            Answer::Nothing | Answer::Done => {
                if let Some(Outcome::Nothing(count)) = self.list.last_mut() {
                    *count += 1;
                } else {
                    self.put(Outcome::Nothing(1));
                }
            }
        }
        Ok(())
    }

    /// Adds an output. Answers its size.
    pub(super) fn output<Out: Serialize + 'static>(
        &mut self,
        output: Out,
    ) -> Result<usize, Failure> {
        let output = match codec::into_bytes(output) {
            Ok(bytes) => {
                let size = bytes.len();
                admit_size(size, self.max_payload)?;
                if !self.pack(Encoding::Raw, &bytes) {
                    self.put(Outcome::Outputs(Encoding::Raw, bytes.into()));
                }
                return Ok(size);
            }
            Err(output) => output,
        };
        let mut value = mem::take(&mut self.value);
        value.clear();
        codec::write(&output, &mut value)
            .map_err(|error| Failure::permanent(ErrorKind::Encode, error))?;
        // Its destructor may panic, and then the item has failed: no output of it must be noted yet.
        drop(output);
        let size = value.len();
        admit_size(size, self.max_payload)?;
        if self.pack(Encoding::MessagePack, &value) {
            self.value = value;
        } else {
            let packed = Packed::from(bytes::Bytes::from(value));
            self.put(Outcome::Outputs(Encoding::MessagePack, packed));
        }
        Ok(size)
    }

    /// Copies an output behind the others. False if it is too large for that.
    fn pack(&mut self, encoding: Encoding, bytes: &[u8]) -> bool {
        if self.encoding != encoding {
            self.flush();
            self.encoding = encoding;
        }
        self.packer.push(bytes) || {
            self.flush();
            self.packer.push(bytes)
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.put(Outcome::Failed(failure.into_fault(1)));
    }

    fn put(&mut self, outcome: Outcome) {
        self.flush();
        self.list.push(outcome);
    }

    fn flush(&mut self) {
        if let Some(packed) = self.packer.take() {
            self.list.push(Outcome::Outputs(self.encoding, packed));
        }
    }
}

/// Calls a function for each item of a run. See the module.
pub(crate) fn call_each<In, R, Out, M, F>(
    f: &F,
    answer: impl Answers<R, Out>,
    cx: &TaskContext,
    run: &Run,
    outcomes: &mut Outcomes,
) -> u64
where
    In: DeserializeOwned + Send + 'static,
    R: 'static,
    Out: Serialize + 'static,
    F: Handler<M, In>,
    F::Output: Future<Output = R> + Send + 'static,
{
    let Content::Values(encoding, values) = &run.content else { return run.len() };
    // The box is used for one call after the other, and given away with a future that is not done.
    let mut call: Called<F::Output> = Box::pin(None);
    let mut nobody = TaskWaker::from_waker(Waker::noop());
    let mut place = 0;
    while place < values.len() {
        // One call after the other, until one has a fate of its own.
        let calls = || {
            while place < values.len() {
                let input = match codec::as_bytes(*encoding, || values.get(place)) {
                    Some(input) => input,
                    None => decode(Payload { encoding: *encoding, bytes: values.get(place) })?,
                };
                call.set(Some(f.call(|| cx.item(run.lineage.after(place)), input)));
                let Poll::Ready(answered) = poll(&mut call, &mut nobody) else {
                    return Ok(Poll::Pending);
                };
                call.set(None);
                outcomes.answered(answer(answered)?)?;
                place += 1;
            }
            Ok(Poll::Ready(()))
        };
        match caught(calls) {
            Ok(Ok(Poll::Ready(()))) => break,
            Ok(Ok(Poll::Pending)) => {
                let call = mem::replace(&mut call, Box::pin(None));
                outcomes.put(Outcome::Pending(Rest::of(call, answer, outcomes.max_payload)));
                outcomes.pending = true;
                if outcomes.stop_at_pending {
                    return place + 1;
                }
            }
            Ok(Err(failure)) => outcomes.failed(failure),
            Err(said) => {
                outcomes.failed(Failure::panicked(said));
                discard(mem::replace(&mut call, Box::pin(None)));
            }
        }
        place += 1;
    }
    values.len()
}

/// Room for the future of a call.
type Called<Fut> = Pin<Box<Option<Fut>>>;

/// Polls the future; without one there is nothing to wait for, nor ever will be.
fn poll<Fut: Future>(call: &mut Called<Fut>, waker: &mut TaskWaker<'_>) -> Poll<Fut::Output> {
    call.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(waker))
}

/// The rest of a call that was not done when it was first polled. It never panics, neither polled nor
/// dropped.
pub(crate) struct Rest {
    /// None when it has ended.
    call: Option<BoxFuture<'static, Result<Reply, Failure>>>,
}

impl Rest {
    fn of<R, Out, Fut>(
        mut call: Called<Fut>,
        answer: impl Answers<R, Out>,
        max_payload: usize,
    ) -> Self
    where
        R: 'static,
        Out: Serialize + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let rest = async move {
            let answered = std::future::poll_fn(|waker| poll(&mut call, waker)).await;
            call.set(None);
            answer(answered)?.reply(max_payload)
        };
        Self { call: Some(Box::pin(rest)) }
    }
}

impl Future for Rest {
    type Output = Result<Reply, Fault>;

    fn poll(mut self: Pin<&mut Self>, waker: &mut TaskWaker<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let ended = ready!(guarded(|| call.as_mut().poll(waker)));
        discard(self.call.take());
        Poll::Ready(ended.flatten().map_err(|failure| failure.into_fault(1)))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        discard(self.call.take());
    }
}
