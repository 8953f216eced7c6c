//! The builder of pipelines.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stageline_protocol::StageId;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage as Node};
use stageline_worker::runtime::{LocalJob, LocalStage};
use stageline_worker::sdk::{
    DEFAULT_MAX_PAYLOAD, Handler, Registry, Roots, SourceName, StageError, StageFunction, StageName,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::source::Sender;

/// A pipeline under construction, whose items are of type `T` at this point.
///
/// Nothing runs before a terminal is called. Settings ([`workers`](Self::workers),
/// [`buffer`](Self::buffer), [`timeout`](Self::timeout), …) are those of the stage before them. What
/// is wrong with a pipeline (a name used twice, `workers(0)`) is told when it is submitted.
#[must_use = "a stream does nothing until a terminal is called"]
pub struct Stream<T> {
    pub(crate) pipeline: Pipeline,
    pub(crate) local: LocalJob,
    items: PhantomData<fn() -> T>,
}

impl<T: Serialize + Send + 'static> Stream<T> {
    /// The items of an iterator. It is advanced as the pipeline has room, so it may be endless; one
    /// that blocks (reads files, say) belongs into [`channel`](Self::channel), on a thread of its own.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is no collection: nothing is gathered here"
    )]
    pub fn from_iter<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
    {
        Self::from_stream(stream::iter(items))
    }

    /// The items of an async stream.
    pub fn from_stream(items: impl futures_util::Stream<Item = T> + Send + 'static) -> Self {
        use futures_util::StreamExt;
        Self::try_from_stream(items.map(Ok))
    }

    /// The items of an async stream whose items can fail. A failure becomes an error item; the
    /// stream goes on.
    pub fn try_from_stream(
        items: impl futures_util::Stream<Item = Result<T, StageError>> + Send + 'static,
    ) -> Self {
        Self::from_roots("source", Roots::new(items, DEFAULT_MAX_PAYLOAD))
    }

    /// A channel that the program pushes into; it holds so many items (at least one) before a push
    /// waits.
    pub fn channel(capacity: usize) -> (Sender<T>, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Sender::new(sender), Self::from_stream(ReceiverStream::new(receiver)))
    }
}

impl<T: 'static> Stream<T> {
    /// A source that runs on a worker, by its name.
    pub fn source(name: impl SourceName<T>) -> Self {
        let name = name.into_name();
        let mut node = Node::new(name.name, Op::Source, Site::Fleet);
        node.output = name.output;
        Self::begin(node, LocalJob::default())
    }

    fn from_roots(name: &str, roots: Roots) -> Self {
        let node = Node::new(name, Op::Source, Site::Client);
        let mut local = LocalJob::default();
        local.stages.insert(StageId(0), LocalStage::Source(roots));
        Self::begin(node, local)
    }

    /// A pipeline that is declared already, all but its terminal; stage 0 is its source.
    #[cfg(feature = "cli")]
    pub(crate) fn declared(pipeline: Pipeline, roots: Roots) -> Self {
        let mut local = LocalJob::default();
        local.stages.insert(StageId(0), LocalStage::Source(roots));
        Self { pipeline, local, items: PhantomData }
    }

    fn begin(node: Node, local: LocalJob) -> Self {
        let pipeline = Pipeline { stages: vec![node], ..Pipeline::default() };
        Self { pipeline, local, items: PhantomData }
    }

    /// A name for the pipeline, for people.
    pub fn pipeline_name(mut self, name: impl Into<String>) -> Self {
        self.pipeline.name = name.into();
        self
    }

    /// At most so many roots are admitted and not yet done with, in all. Default: enough to fill all
    /// slots and buffers twice.
    pub const fn max_in_flight(mut self, roots: u64) -> Self {
        self.pipeline.max_in_flight = Some(roots);
        self
    }

    /// One output for each item, by the function registered under that name.
    ///
    /// A stage of another type does not compile:
    ///
    /// ```compile_fail,E0277
    /// use stageline::{Stage, Stream};
    ///
    /// const WORDS: Stage<String, usize> = Stage::named("words");
    /// let _stream = Stream::from_iter([1_u64, 2]).map(WORDS);
    /// ```
    pub fn map<Out: 'static>(self, stage: impl StageName<T, Out>) -> Stream<Out> {
        self.named(Op::Map, stage)
    }

    /// As [`map`](Self::map), for a function that can fail. Which of the two it is, the registry
    /// says; a pipeline reads better when its author says it too.
    pub fn try_map<Out: 'static>(self, stage: impl StageName<T, Out>) -> Stream<Out> {
        self.named(Op::Map, stage)
    }

    /// The items that the function registered under that name keeps.
    pub fn filter(self, stage: impl StageName<T, T>) -> Self {
        self.named(Op::Filter, stage)
    }

    /// As [`filter`](Self::filter), for a function that can fail.
    pub fn try_filter(self, stage: impl StageName<T, T>) -> Self {
        self.named(Op::Filter, stage)
    }

    /// Any number of outputs for each item, by the function registered under that name.
    pub fn flat_map<Out: 'static>(self, stage: impl StageName<T, Out>) -> Stream<Out> {
        self.named(Op::FlatMap, stage)
    }

    /// As [`flat_map`](Self::flat_map), for a function that can fail.
    pub fn try_flat_map<Out: 'static>(self, stage: impl StageName<T, Out>) -> Stream<Out> {
        self.named(Op::FlatMap, stage)
    }

    fn named<Out: 'static>(self, op: Op, stage: impl StageName<T, Out>) -> Stream<Out> {
        let name = stage.into_name();
        let mut node = Node::new(name.name, op, Site::Fleet);
        (node.input, node.output) = (name.input, name.output);
        self.then(node)
    }

    /// Adds a stage that is described already.
    pub(crate) fn then<Out: 'static>(mut self, node: Node) -> Stream<Out> {
        self.push(node, Carries::All);
        Stream { pipeline: self.pipeline, local: self.local, items: PhantomData }
    }

    pub(crate) fn push(&mut self, node: Node, carries: Carries) -> StageId {
        let to = self.next_id();
        let from = StageId(to.0.saturating_sub(1));
        self.pipeline.stages.push(node);
        self.pipeline.channels.push(Channel { from, to, carries, buffer: None });
        to
    }

    pub(crate) fn next_id(&self) -> StageId {
        StageId(u32::try_from(self.pipeline.stages.len()).unwrap_or(u32::MAX))
    }

    /// The settings of the stage before.
    fn last(mut self, set: impl FnOnce(&mut Node)) -> Self {
        if let Some(node) = self.pipeline.stages.last_mut() {
            set(node);
        }
        self
    }

    /// At most so many items of this stage at a time, over all workers. Default: all slots of every
    /// worker that registers it.
    pub fn workers(self, slots: u32) -> Self {
        self.last(|node| node.workers = Some(slots))
    }

    /// At most so many items of this stage at a time on each worker.
    pub fn workers_per(self, slots: u32) -> Self {
        self.last(|node| node.workers_per = Some(slots))
    }

    /// So many items wait in front of this stage at each of its workers, beyond those in its slots.
    /// Default: what 20 ms of the stage's measured rate need. 0 is a rendezvous.
    pub fn buffer(mut self, items: u32) -> Self {
        if let Some(channel) = self.pipeline.channels.last_mut() {
            channel.buffer = Some(items);
        }
        self
    }

    /// A name for this stage, in logs, errors and figures. Default: its function's name.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.last(|node| node.name = name.into())
    }

    /// Settings for this stage's function, handed to it as they are. For functions that take some.
    pub fn params(self, params: impl Into<Bytes>) -> Self {
        self.last(|node| node.params = params.into())
    }

    /// One attempt at an item may take so long; then it has failed. Default: for ever.
    pub fn timeout(self, limit: Duration) -> Self {
        self.last(|node| node.timeout = Some(limit))
    }

    /// An attempt that failed is repeated up to so many times, with backoff. Default: not at all.
    pub fn retry(self, times: u32) -> Self {
        self.last(|node| node.retries = times)
    }
}

/// Closures, which run in the client's process.
impl<T: DeserializeOwned + Send + 'static> Stream<T> {
    /// One output for each item, by a closure.
    pub fn map_local<Out, M, F>(self, f: F) -> Stream<Out>
    where
        Out: Serialize + 'static,
        F: Handler<M, T>,
        F::Output: Future<Output = Out> + Send + 'static,
    {
        self.closure("map_local", StageFunction::map(f))
    }

    /// One output for each item, by a closure that can fail.
    pub fn try_map_local<Out, M, F>(self, f: F) -> Stream<Out>
    where
        Out: Serialize + 'static,
        F: Handler<M, T>,
        F::Output: Future<Output = Result<Out, StageError>> + Send + 'static,
    {
        self.closure("try_map_local", StageFunction::try_map(f))
    }

    /// The items that a closure keeps.
    pub fn filter_local<M, F>(self, f: F) -> Self
    where
        F: Handler<M, T>,
        F::Output: Future<Output = bool> + Send + 'static,
    {
        self.closure("filter_local", StageFunction::filter(f))
    }

    /// The items that a closure, which can fail, keeps.
    pub fn try_filter_local<M, F>(self, f: F) -> Self
    where
        F: Handler<M, T>,
        F::Output: Future<Output = Result<bool, StageError>> + Send + 'static,
    {
        self.closure("try_filter_local", StageFunction::try_filter(f))
    }

    /// Any number of outputs for each item: the stream that a closure answers with.
    pub fn flat_map_local<Out, M, F>(self, f: F) -> Stream<Out>
    where
        Out: Serialize + 'static,
        F: Handler<M, T>,
        F::Output: futures_util::Stream<Item = Out> + Send + 'static,
    {
        self.closure("flat_map_local", StageFunction::flat_map(f))
    }

    /// Any number of outputs for each item, and at most one failure, which ends them.
    pub fn try_flat_map_local<Out, M, F>(self, f: F) -> Stream<Out>
    where
        Out: Serialize + 'static,
        F: Handler<M, T>,
        F::Output: futures_util::Stream<Item = Result<Out, StageError>> + Send + 'static,
    {
        self.closure("try_flat_map_local", StageFunction::try_flat_map(f))
    }

    fn closure<Out: 'static>(mut self, kind: &str, function: StageFunction) -> Stream<Out> {
        let place = self.next_id().0;
        let mut node = Node::new(format!("{kind}-{place}"), function.op(), Site::Client);
        node.function = format!("closure-{place}");
        let functions = std::mem::replace(&mut self.local.functions, Registry::new());
        self.local.functions = functions.function(&node.function, function);
        self.then(node)
    }
}

impl<T> std::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}
