//! The operators that a function may be registered as: a method of [`Registry`] each.

use futures_util::stream::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StageError;
use super::function::StageFunction;
use super::handler::Handler;
use super::name::{SinkName, SourceName, StageName};
use super::registry::Registry;

impl Registry {
    /// An async function: one output for each input.
    #[must_use]
    pub fn map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Out> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::map(function))
    }

    /// A fallible async function: one output for each input.
    #[must_use]
    pub fn try_map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<Out, StageError>> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_map(function))
    }

    /// An async predicate: the input goes on as it is where it says true, and is dropped and counted
    /// as filtered where it says false.
    #[must_use]
    pub fn filter<T, M, F>(self, name: impl StageName<T, T>, function: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Handler<M, T>,
        F::Output: Future<Output = bool> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::filter(function))
    }

    /// A fallible async predicate: see [`filter`](Self::filter).
    #[must_use]
    pub fn try_filter<T, M, F>(self, name: impl StageName<T, T>, function: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Handler<M, T>,
        F::Output: Future<Output = Result<bool, StageError>> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_filter(function))
    }

    /// A function that answers with a stream of outputs; no future around it. The same input is to
    /// give the same outputs in the same order, however often it is run: that is how they are told
    /// apart when a part of them has to be made again.
    #[must_use]
    pub fn flat_map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Stream<Item = Out> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::flat_map(function))
    }

    /// Like [`flat_map`](Self::flat_map), of a stream that may fail. A failure before the first output
    /// is repeated as the stage's retries say; a later one ends the outputs with an error item.
    #[must_use]
    pub fn try_flat_map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Stream<Item = Result<Out, StageError>> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_flat_map(function))
    }

    /// An async function that answers with a collection of outputs: a `Vec`, an array, an iterator
    /// that does not block. The same input is to give the same outputs in the same order.
    #[must_use]
    pub fn flat_map_iter<In, Out, M, F, I>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = I> + Send + 'static,
        I: IntoIterator<Item = Out> + 'static,
        I::IntoIter: Send + 'static,
    {
        self.add(name.into_name(), StageFunction::flat_map_iter(function))
    }

    /// A fallible async function that answers with a collection of outputs: see
    /// [`flat_map_iter`](Self::flat_map_iter).
    #[must_use]
    pub fn try_flat_map_iter<In, Out, M, F, I>(
        self,
        name: impl StageName<In, Out>,
        function: F,
    ) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<I, StageError>> + Send + 'static,
        I: IntoIterator<Item = Out> + 'static,
        I::IntoIter: Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_flat_map_iter(function))
    }

    /// An async sink. An item counts as done when the function returns; it may be called more than
    /// once for an item if a worker dies, each time with the same
    /// [`idempotency_key`](super::Context::idempotency_key).
    #[must_use]
    pub fn for_each<In, M, F>(self, name: impl SinkName<In>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = ()> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::for_each(function))
    }

    /// A fallible async sink: see [`for_each`](Self::for_each).
    #[must_use]
    pub fn try_for_each<In, M, F>(self, name: impl SinkName<In>, function: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Handler<M, In>,
        F::Output: Future<Output = Result<(), StageError>> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_for_each(function))
    }

    /// A blocking function (file system, computation, C libraries), run on a thread for it: one output
    /// for each input.
    #[must_use]
    pub fn blocking_map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Out>,
    {
        self.add(name.into_name(), StageFunction::blocking_map(function))
    }

    /// A fallible blocking function: see [`blocking_map`](Self::blocking_map).
    #[must_use]
    pub fn try_blocking_map<In, Out, M, F>(self, name: impl StageName<In, Out>, function: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Result<Out, StageError>>,
    {
        self.add(name.into_name(), StageFunction::try_blocking_map(function))
    }

    /// A blocking predicate: see [`filter`](Self::filter) and [`blocking_map`](Self::blocking_map).
    #[must_use]
    pub fn blocking_filter<T, M, F>(self, name: impl StageName<T, T>, function: F) -> Self
    where
        T: DeserializeOwned + 'static,
        F: Handler<M, T, Output = bool>,
    {
        self.add(name.into_name(), StageFunction::blocking_filter(function))
    }

    /// A fallible blocking predicate: see [`blocking_filter`](Self::blocking_filter).
    #[must_use]
    pub fn try_blocking_filter<T, M, F>(self, name: impl StageName<T, T>, function: F) -> Self
    where
        T: DeserializeOwned + 'static,
        F: Handler<M, T, Output = Result<bool, StageError>>,
    {
        self.add(name.into_name(), StageFunction::try_blocking_filter(function))
    }

    /// A blocking function that answers with an iterator of outputs, which may block too. It is read
    /// as the outputs are sent, at most a few ahead, on the thread that made it.
    #[must_use]
    pub fn blocking_flat_map<In, Out, M, F>(
        self,
        name: impl StageName<In, Out>,
        function: F,
    ) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In>,
        F::Output: IntoIterator<Item = Out> + 'static,
    {
        self.add(name.into_name(), StageFunction::blocking_flat_map(function))
    }

    /// A fallible blocking function that answers with an iterator whose outputs may fail: see
    /// [`blocking_flat_map`](Self::blocking_flat_map) and [`try_flat_map`](Self::try_flat_map).
    #[must_use]
    pub fn try_blocking_flat_map<In, Out, M, F, I>(
        self,
        name: impl StageName<In, Out>,
        function: F,
    ) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Handler<M, In, Output = Result<I, StageError>>,
        I: IntoIterator<Item = Result<Out, StageError>> + 'static,
    {
        self.add(name.into_name(), StageFunction::try_blocking_flat_map(function))
    }

    /// A blocking sink: see [`for_each`](Self::for_each) and [`blocking_map`](Self::blocking_map).
    #[must_use]
    pub fn blocking_for_each<In, M, F>(self, name: impl SinkName<In>, function: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = ()>,
    {
        self.add(name.into_name(), StageFunction::blocking_for_each(function))
    }

    /// A fallible blocking sink: see [`blocking_for_each`](Self::blocking_for_each).
    #[must_use]
    pub fn try_blocking_for_each<In, M, F>(self, name: impl SinkName<In>, function: F) -> Self
    where
        In: DeserializeOwned + 'static,
        F: Handler<M, In, Output = Result<(), StageError>>,
    {
        self.add(name.into_name(), StageFunction::try_blocking_for_each(function))
    }

    /// A source: a function from a position to the stream of its roots from there on. The same
    /// position is to give the same roots: a source whose worker dies goes on elsewhere from the
    /// first root not yet done. One that cannot is declared [`not_replayable`](Self::not_replayable).
    #[must_use]
    pub fn source<Out, M, F>(self, name: impl SourceName<Out>, function: F) -> Self
    where
        Out: Serialize + 'static,
        F: Handler<M, u64>,
        F::Output: Stream<Item = Out> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::source(function))
    }

    /// A fallible source: a failure becomes an error item in the place of a root, and the source goes
    /// on after it. See [`source`](Self::source).
    #[must_use]
    pub fn try_source<Out, M, F>(self, name: impl SourceName<Out>, function: F) -> Self
    where
        Out: Serialize + 'static,
        F: Handler<M, u64>,
        F::Output: Stream<Item = Result<Out, StageError>> + Send + 'static,
    {
        self.add(name.into_name(), StageFunction::try_source(function))
    }
}
