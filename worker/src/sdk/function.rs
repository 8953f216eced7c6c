//! Stage functions with their types erased: from payload to payload.
//!
//! Each constructor takes a user's function, and wraps it in decoding and encoding for one operator.
//! What runs here is one attempt; timeouts, retries, panics and limits are [`super::invoke`]'s.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stageline_protocol::ErrorKind;
use stageline_protocol::pipeline::Op;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::burst::{self, Answer, Answers, Burst};
use super::codec::{self, Payload};
use super::context::Context;
use super::error::{Failure, StageError};
use super::handler::Handler;
use super::panic::said;
use super::roots::Roots;

/// A stage function of some operator, ready to run: what a [`Registry`](super::Registry) holds, and
/// what the factory of a parameterised function makes.
///
/// Each constructor is described at the method of [`Registry`](super::Registry) of the same name.
#[derive(Clone)]
pub struct StageFunction {
    op: Op,
    blocking: bool,
    pub(crate) body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    Call(Calls),
    Open(Open),
}

/// How a function is called: an item at a time, and if that is possible, a run at a time.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) each: Call,
    pub(crate) burst: Option<Burst>,
}

/// One attempt. The function is first called when the future is polled, so a panic shows there.
pub(crate) type Call =
    Arc<dyn Fn(Context, Payload) -> BoxFuture<'static, Result<Made, Failure>> + Send + Sync>;
/// A source, from a position, whose payloads are of so many bytes at the most.
pub(crate) type Open = Arc<dyn Fn(Context, u64, usize) -> Roots + Send + Sync>;
pub(crate) type Outputs = BoxStream<'static, Result<Payload, Failure>>;

/// What one attempt made.
pub(crate) enum Made {
    One(Payload),
    Keep,
    Nothing,
    Done,
    Many(Outputs),
}

/// What a sink's function answers.
const DONE: Answer<()> = Answer::Done;
/// How many outputs a blocking expansion may be ahead of its reader.
const BLOCKING_AHEAD: usize = 16;

impl StageFunction {
    /// The operator that it is for.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Whether it runs on a thread of its own, where it may block.
    #[must_use]
    pub const fn is_blocking(&self) -> bool {
        self.blocking
    }

    /// An async function: one output for each input.
    pub fn map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Out> + Send + 'static,
    {
        Self::asynchronous(Op::Map, f, |out| Ok(Answer::Output(out)))
    }

    /// A fallible async function: one output for each input.
    pub fn try_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<Out, StageError>> + Send + 'static,
    {
        Self::asynchronous(Op::Map, f, |out| Ok(Answer::Output(out?)))
    }

    /// An async predicate.
    pub fn filter<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = bool> + Send + 'static,
    {
        Self::asynchronous(Op::Filter, f, |keep| Ok(judged(keep)))
    }

    /// A fallible async predicate.
    pub fn try_filter<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<bool, StageError>> + Send + 'static,
    {
        Self::asynchronous(Op::Filter, f, |keep| Ok(judged(keep?)))
    }

    /// A function that answers with a stream of outputs.
    pub fn flat_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Stream<Item = Out> + Send + 'static,
    {
        Self::streaming(f, |out| encode(out))
    }

    /// A function that answers with a stream of outputs and at most one failure, which ends it.
    pub fn try_flat_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Stream<Item = Result<Out, StageError>> + Send + 'static,
    {
        Self::streaming(f, |out| encode(out?))
    }

    /// An async function that answers with a collection of outputs.
    pub fn flat_map_iter<In, Out, M, F, I>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = I> + Send + 'static,
        I: IntoIterator<Item = Out> + 'static,
        I::IntoIter: Send + 'static,
    {
        Self::collecting(f, |outputs: I| Ok(many(outputs)))
    }

    /// A fallible async function that answers with a collection of outputs.
    pub fn try_flat_map_iter<In, Out, M, F, I>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<I, StageError>> + Send + 'static,
        I: IntoIterator<Item = Out> + 'static,
        I::IntoIter: Send + 'static,
    {
        Self::collecting(f, |outputs: Result<I, _>| Ok(many(outputs?)))
    }

    /// An async sink.
    pub fn for_each<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = ()> + Send + 'static,
    {
        Self::asynchronous(Op::Sink, f, |()| Ok(DONE))
    }

    /// A fallible async sink.
    pub fn try_for_each<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<(), StageError>> + Send + 'static,
    {
        Self::asynchronous(Op::Sink, f, |done| Ok(done.map(|()| DONE)?))
    }

    /// A blocking function: one output for each input.
    pub fn blocking_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Out>,
    {
        Self::blocking(Op::Map, f, |out| one(out))
    }

    /// A fallible blocking function: one output for each input.
    pub fn try_blocking_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Result<Out, StageError>>,
    {
        Self::blocking(Op::Map, f, |out| one(out?))
    }

    /// A blocking predicate.
    pub fn blocking_filter<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = bool>,
    {
        Self::blocking(Op::Filter, f, |keep| Ok(kept(keep)))
    }

    /// A fallible blocking predicate.
    pub fn try_blocking_filter<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = Result<bool, StageError>>,
    {
        Self::blocking(Op::Filter, f, |keep| Ok(kept(keep?)))
    }

    /// A blocking function that answers with an iterator of outputs, which may block too.
    pub fn blocking_flat_map<In, Out, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: IntoIterator<Item = Out> + 'static,
    {
        Self::blocking_iterator(f, |outputs| Ok(outputs.into_iter().map(|out| encode(out))))
    }

    /// A fallible blocking function that answers with an iterator of outputs and at most one
    /// failure, which ends it; the iterator may block too.
    pub fn try_blocking_flat_map<In, Out, M, F, I>(f: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Result<I, StageError>>,
        I: IntoIterator<Item = Result<Out, StageError>> + 'static,
    {
        Self::blocking_iterator(f, |outputs: Result<I, _>| {
            Ok(outputs?.into_iter().map(|out| encode(out?)))
        })
    }

    /// A blocking sink.
    pub fn blocking_for_each<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = ()>,
    {
        Self::blocking(Op::Sink, f, |()| Ok(Made::Done))
    }

    /// A fallible blocking sink.
    pub fn try_blocking_for_each<In, M, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = Result<(), StageError>>,
    {
        Self::blocking(Op::Sink, f, |done| Ok(done.map(|()| Made::Done)?))
    }

    /// A source: from a position to the stream of the roots from there on.
    pub fn source<Out, M, F>(f: F) -> Self
    where
        Out: Serialize + 'static,
        F: Handler<M, u64>,
        F::Output: Stream<Item = Out> + Send + 'static,
    {
        Self::opening(f, Ok)
    }

    /// A fallible source: a failure is an error item in the place of a root.
    pub fn try_source<Out, M, F>(f: F) -> Self
    where
        Out: Serialize + 'static,
        F: Handler<M, u64>,
        F::Output: Stream<Item = Result<Out, StageError>> + Send + 'static,
    {
        Self::opening(f, |out| Ok(out?))
    }

    /// A function that makes one answer of each input.
    fn asynchronous<In, R, Out, M, F>(op: Op, f: F, answer: impl Answers<R, Out>) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        R: 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = R> + Send + 'static,
    {
        let f = Arc::new(f);
        let by_the_burst = Arc::clone(&f);
        let burst: Burst = Arc::new(move |cx: &_, run: &_, outcomes: &mut _| {
            burst::call_each(&*by_the_burst, answer, cx, run, outcomes)
        });
        let each: Call = Arc::new(move |cx, payload| {
            let f = Arc::clone(&f);
            Box::pin(async move {
                let answered = f.call(|| cx, decode(payload)?).await;
                answer(answered)?.make()
            })
        });
        let calls = Calls { each, burst: Some(burst) };
        Self { op, blocking: false, body: Body::Call(calls) }
    }

    /// An expansion that makes all its outputs at once.
    fn collecting<In, R, M, F>(f: F, make: fn(R) -> Result<Made, Failure>) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        R: 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = R> + Send + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Arc::new(move |cx, payload| {
            let f = Arc::clone(&f);
            Box::pin(async move {
                let answer = f.call(|| cx, decode(payload)?);
                make(answer.await)
            })
        });
        Self::item_by_item(Op::FlatMap, false, call)
    }

    const fn item_by_item(op: Op, blocking: bool, each: Call) -> Self {
        Self { op, blocking, body: Body::Call(Calls { each, burst: None }) }
    }

    fn streaming<In, R, M, F>(f: F, encode: fn(R) -> Result<Payload, Failure>) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        R: 'static,
        F: Handler<M, In>,
        F::Output: Stream<Item = R> + Send + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Arc::new(move |cx, payload| {
            let f = Arc::clone(&f);
            Box::pin(
                async move { Ok(Made::Many(f.call(|| cx, decode(payload)?).map(encode).boxed())) },
            )
        });
        Self::item_by_item(Op::FlatMap, false, call)
    }

    fn opening<R, Out, M, F>(
        f: F,
        value: impl Fn(R) -> Result<Out, Failure> + Copy + Send + Sync + 'static,
    ) -> Self
    where
        R: 'static,
        Out: Serialize + 'static,
        F: Handler<M, u64>,
        F::Output: Stream<Item = R> + Send + 'static,
    {
        let f = Arc::new(f);
        let open: Open = Arc::new(move |cx, position, max_payload| {
            let f = Arc::clone(&f);
            // The function is called by the first poll, as the stream's own code is: panics show there.
            Roots::of(move || f.call(|| cx, position), value, max_payload)
        });
        Self { op: Op::Source, blocking: false, body: Body::Open(open) }
    }

    fn blocking<In, M, F>(op: Op, f: F, make: fn(F::Output) -> Result<Made, Failure>) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In>,
        F::Output: 'static,
    {
        let f = Arc::new(f);
        let call: Call = Arc::new(move |cx, payload| {
            let f = Arc::clone(&f);
            Box::pin(
                async move { on_a_thread(move || make(f.call(|| cx, decode(payload)?))).await? },
            )
        });
        Self::item_by_item(op, true, call)
    }

    /// The iterator stays on the thread that made it, and runs a few outputs ahead of its reader;
    /// when the reader is dropped, it ends after the output at hand.
    fn blocking_iterator<In, M, F, I>(f: F, outputs: fn(F::Output) -> Result<I, Failure>) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: 'static,
        I: Iterator<Item = Result<Payload, Failure>> + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Arc::new(move |cx, payload| {
            let f = Arc::clone(&f);
            Box::pin(async move {
                let (sender, receiver) = mpsc::channel(BLOCKING_AHEAD);
                let thread = on_a_thread(move || {
                    for output in outputs(f.call(|| cx, decode(payload)?))? {
                        let failed = output.is_err();
                        if sender.blocking_send(output).is_err() || failed {
                            break;
                        }
                    }
                    Ok(())
                });
                let sent = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
                    receiver.recv().await.map(|output| (output, receiver))
                });
                // The channel closes when the thread is done; then it tells how it ended.
                let ended = stream::once(async move { thread.await.flatten() })
                    .filter_map(async |ended: Result<(), Failure>| ended.err().map(Err));
                Ok(Made::Many(sent.chain(ended).boxed()))
            })
        });
        Self::item_by_item(Op::FlatMap, true, call)
    }
}

impl fmt::Debug for StageFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageFunction({}{})", if self.blocking { "blocking " } else { "" }, self.op)
    }
}

/// Blocking calls that run in this process, those that nobody waits for any more among them. Of the
/// process and not of a node: what kills it, kills all of it.
static BLOCKING: AtomicU64 = AtomicU64::new(0);

/// How many blocking calls run in this process, abandoned ones included.
pub(crate) fn blocking_calls() -> u64 {
    BLOCKING.load(Ordering::Acquire)
}

struct Blocking;

impl Blocking {
    fn count() -> Self {
        BLOCKING.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        BLOCKING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs blocking code on a thread for it. Dropped, it is abandoned if it runs, and never starts if it
/// does not yet.
fn on_a_thread<R: Send + 'static>(
    run: impl FnOnce() -> R + Send + 'static,
) -> impl Future<Output = Result<R, Failure>> + Send + 'static {
    let span = tracing::Span::current();
    let counted = move || {
        let _counted = Blocking::count();
        span.in_scope(run)
    };
    let thread = AbortOnDropHandle::new(tokio::task::spawn_blocking(counted));
    async move {
        thread.await.map_err(|e| match e.try_into_panic() {
            Ok(thrown) => Failure::panicked(said(thrown)),
            Err(e) => Failure::permanent(ErrorKind::Failed, format_args!("not run: {e}")),
        })
    }
}

pub(super) fn decode<In: DeserializeOwned + 'static>(payload: Payload) -> Result<In, Failure> {
    codec::decode_owned(payload.encoding, payload.bytes)
        .map_err(|e| Failure::permanent(ErrorKind::Decode, e))
}

pub(super) fn encode<Out: Serialize + 'static>(out: Out) -> Result<Payload, Failure> {
    codec::encode_owned(out)
        .map(|(encoding, bytes)| Payload { encoding, bytes })
        .map_err(|e| Failure::permanent(ErrorKind::Encode, e))
}

fn one<Out: Serialize + 'static>(out: Out) -> Result<Made, Failure> {
    encode(out).map(Made::One)
}

const fn judged(keep: bool) -> Answer<()> {
    if keep { Answer::Keep } else { Answer::Nothing }
}

const fn kept(keep: bool) -> Made {
    if keep { Made::Keep } else { Made::Nothing }
}

fn many<I>(outputs: I) -> Made
where
    I: IntoIterator,
    I::Item: Serialize + 'static,
    I::IntoIter: Send + 'static,
{
    Made::Many(stream::iter(outputs.into_iter().map(encode)).boxed())
}
