//! Stage functions with their types erased: from payload to payload.
//!
//! Each constructor takes a user's function, and wraps it in decoding and encoding for one operator.
//! What runs here is one attempt; timeouts, retries, panics and limits are [`super::invoke`]'s.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stageline_protocol::ErrorKind;
use stageline_protocol::pipeline::Op;

use super::ahead::{Maker, Taker, Watch, ahead};
use super::blocking::Thread;
use super::burst::{self, Answer, Answers, Burst};
use super::codec::{self, Payload};
use super::context::Context;
use super::error::{Failure, StageError};
use super::handler::Handler;
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
    pub(crate) each: Each,
    pub(crate) burst: Option<Burst>,
}

/// A function for one item at a time.
#[derive(Clone)]
pub(crate) enum Each {
    Async(Call),
    Blocking(BlockingCall),
}

/// One attempt. The function is first called when the future is polled, so a panic shows there.
pub(crate) type Call =
    Arc<dyn Fn(Context, Payload) -> BoxFuture<'static, Result<Made, Failure>> + Send + Sync>;
/// One attempt on a thread.
pub(crate) type BlockingCall = Arc<
    dyn Fn(Context, Payload, Thread) -> BoxFuture<'static, Result<Made, Failure>> + Send + Sync,
>;
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

    /// A fallible blocking function that hands out its outputs one by one, while it runs: for what cannot
    /// be written as an iterator. A failure ends it, after the outputs before.
    pub fn try_blocking_emit<In, Out, F>(f: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Fn(Context, In, Emit<'_, Out>) -> Result<(), StageError> + Send + Sync + 'static,
    {
        Self::emitting(move |cx, payload, maker| {
            let emit = Emit { maker: &maker, outputs: PhantomData };
            Ok(f(cx, decode(payload)?, emit)?)
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
        let calls = Calls { each: Each::Async(each), burst: Some(burst) };
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
        Self::item_by_item(Op::FlatMap, Each::Async(call))
    }

    const fn item_by_item(op: Op, each: Each) -> Self {
        let blocking = matches!(each, Each::Blocking(_));
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
        Self::item_by_item(Op::FlatMap, Each::Async(call))
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
        let call: BlockingCall = Arc::new(move |cx, payload, thread| {
            let (f, at) = (Arc::clone(&f), cx.clone());
            let code = move || make(f.call(|| cx, decode(payload)?));
            Box::pin(async move { thread.run(at, code).await? })
        });
        Self::item_by_item(op, Each::Blocking(call))
    }

    /// The iterator stays on the thread that made it.
    fn blocking_iterator<In, M, F, I>(f: F, outputs: fn(F::Output) -> Result<I, Failure>) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In>,
        F::Output: 'static,
        I: Iterator<Item = Result<Payload, Failure>> + 'static,
    {
        Self::emitting(move |cx, payload, maker| {
            for output in outputs(f.call(|| cx, decode(payload)?))? {
                if !maker.send(Ok(output?)) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The code sends what it makes, a few outputs ahead of its reader; when the reader is dropped, it is
    /// told so by the next.
    fn emitting<F>(f: F) -> Self
    where
        F: Fn(Context, Payload, Maker) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let f = Arc::new(f);
        let call: BlockingCall = Arc::new(move |cx, payload, thread| {
            let (f, at) = (Arc::clone(&f), cx.clone());
            Box::pin(async move {
                let (maker, taker) = ahead();
                let thread = thread.run(at, move || f(cx, payload, maker));
                let sent = stream::unfold(taker, async |mut taker: Taker| {
                    taker.next().await.map(|output| (output, taker))
                });
                // It closes when the thread is done; then it tells how it ended.
                let ended = stream::once(async move { thread.await.flatten() })
                    .filter_map(async |ended: Result<(), Failure>| ended.err().map(Err));
                Ok(Made::Many(sent.chain(ended).boxed()))
            })
        });
        Self::item_by_item(Op::FlatMap, Each::Blocking(call))
    }
}

/// Where the outputs of a blocking expansion go that makes them one by one: see
/// [`StageFunction::try_blocking_emit`].
pub struct Emit<'a, Out> {
    maker: &'a Maker,
    outputs: PhantomData<fn(Out)>,
}

impl<Out: Serialize + 'static> Emit<'_, Out> {
    /// One more output. Waits while those before it have not left. False when nobody wants any more:
    /// the function should end then.
    ///
    /// # Errors
    /// The output cannot be encoded, which is to end the function.
    pub fn emit(&mut self, output: Out) -> Result<bool, StageError> {
        let payload =
            encode(output).map_err(|failure| StageError::msg(failure.message).permanent())?;
        Ok(self.maker.send(Ok(payload)))
    }
}

impl<Out> Emit<'_, Out> {
    /// What tells, also while no output is made, whether somebody still waits for some.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { watch: self.maker.watch() }
    }
}

/// Whether somebody still waits for the outputs of a call. Cheap to ask.
pub struct Wanted {
    watch: Watch,
}

impl Wanted {
    /// False once the call has been given up: it timed out, or its job is over.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.watch.is_wanted()
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}

impl<Out> fmt::Debug for Emit<'_, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emit")
    }
}

impl fmt::Debug for StageFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageFunction({}{})", if self.blocking { "blocking " } else { "" }, self.op)
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
