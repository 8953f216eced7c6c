//! The typed constants that client and worker share, and what else may name a function.

use std::fmt;
use std::marker::PhantomData;

use stageline_protocol::pipeline::TypeTag;

use super::type_name::type_tag;

/// The name of a stage function, with the types that it takes and makes.
///
/// Declared once, used on both sides: the worker registers a function under it, the client builds
/// pipelines with it, and types that do not fit do not compile. A stage that takes or makes
/// [`serde_json::Value`] takes or makes any type.
///
/// ```
/// use stageline_worker::sdk::Stage;
///
/// pub struct Url(String);
/// pub struct Page { text: String }
///
/// pub const FETCH: Stage<Url, Page> = Stage::named("fetch");
/// pub const FETCH_2: Stage<Url, Page> = Stage::named("fetch-2").output_version(2);
///
/// assert_eq!(FETCH.output_tag().unwrap().to_string(), "Page");
/// assert_eq!(FETCH_2.output_tag().unwrap().to_string(), "Page v2");
/// ```
///
/// A function of other types does not compile:
///
/// ```compile_fail,E0277
/// use stageline_worker::sdk::{Registry, Stage};
///
/// const LENGTH: Stage<String, usize> = Stage::named("length");
/// Registry::new().map(LENGTH, |number: u64| async move { 0_usize });
/// ```
pub struct Stage<In, Out> {
    name: &'static str,
    input_version: u32,
    output_version: u32,
    types: PhantomData<fn(In) -> Out>,
}

impl<In, Out> Stage<In, Out> {
    /// The stage of that name, its types of version 1.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self { name, input_version: 1, output_version: 1, types: PhantomData }
    }

    /// Declares the version of both types: client and worker must have the same.
    #[must_use]
    pub const fn version(self, version: u32) -> Self {
        self.input_version(version).output_version(version)
    }

    /// Declares the version of the type that the stage takes.
    #[must_use]
    pub const fn input_version(mut self, version: u32) -> Self {
        self.input_version = version;
        self
    }

    /// Declares the version of the type that the stage makes.
    #[must_use]
    pub const fn output_version(mut self, version: u32) -> Self {
        self.output_version = version;
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<In: 'static, Out: 'static> Stage<In, Out> {
    /// The type that it takes; none if it takes any.
    #[must_use]
    pub fn input_tag(&self) -> Option<TypeTag> {
        type_tag::<In>(self.input_version)
    }

    /// The type that it makes; none if it makes any.
    #[must_use]
    pub fn output_tag(&self) -> Option<TypeTag> {
        type_tag::<Out>(self.output_version)
    }
}

/// The name of a source function, with the type that it makes.
pub struct Source<Out> {
    name: &'static str,
    version: u32,
    types: PhantomData<fn() -> Out>,
}

impl<Out> Source<Out> {
    /// The source of that name, its type of version 1.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self { name, version: 1, types: PhantomData }
    }

    /// Declares the version of the type: client and worker must have the same.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<Out: 'static> Source<Out> {
    /// The type that it makes; none if it makes any.
    #[must_use]
    pub fn output_tag(&self) -> Option<TypeTag> {
        type_tag::<Out>(self.version)
    }
}

/// The name of a sink function, with the type that it takes.
pub struct Sink<In> {
    name: &'static str,
    version: u32,
    types: PhantomData<fn(In)>,
}

impl<In> Sink<In> {
    /// The sink of that name, its type of version 1.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self { name, version: 1, types: PhantomData }
    }

    /// Declares the version of the type: client and worker must have the same.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<In: 'static> Sink<In> {
    /// The type that it takes; none if it takes any.
    #[must_use]
    pub fn input_tag(&self) -> Option<TypeTag> {
        type_tag::<In>(self.version)
    }
}

// By hand: derived ones would ask the same of the types, which are never held.
impl<In, Out> Copy for Stage<In, Out> {}
impl<In, Out> Clone for Stage<In, Out> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<In, Out> fmt::Debug for Stage<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stage({:?})", self.name)
    }
}
impl<Out> Copy for Source<Out> {}
impl<Out> Clone for Source<Out> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Out> fmt::Debug for Source<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.name)
    }
}
impl<In> Copy for Sink<In> {}
impl<In> Clone for Sink<In> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<In> fmt::Debug for Sink<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({:?})", self.name)
    }
}

/// A name to register under, with the types that it declares.
#[derive(Clone, Debug)]
pub struct Name {
    /// The name itself.
    pub name: String,
    /// The type that it takes, if declared.
    pub input: Option<TypeTag>,
    /// The type that it makes, if declared.
    pub output: Option<TypeTag>,
}

/// What names a stage that takes `In` and makes `Out`: a [`Stage`] constant, or a text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a stage from `{In}` to `{Out}`",
    label = "expected a `Stage<{In}, {Out}>` or a `&str`",
    note = "the function's types are those of the constant it is registered under; a filter's are `Stage<T, T>`"
)]
pub trait StageName<In, Out> {
    /// The name with its types.
    fn into_name(self) -> Name;
}

impl<In: 'static, Out: 'static> StageName<In, Out> for Stage<In, Out> {
    fn into_name(self) -> Name {
        Name { name: self.name.to_owned(), input: self.input_tag(), output: self.output_tag() }
    }
}

impl<In: 'static, Out: 'static> StageName<In, Out> for &str {
    fn into_name(self) -> Name {
        Name { name: self.to_owned(), input: type_tag::<In>(1), output: type_tag::<Out>(1) }
    }
}

/// What names a source that makes `Out`: a [`Source`] constant, or a text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a source of `{Out}`",
    label = "expected a `Source<{Out}>` or a `&str`"
)]
pub trait SourceName<Out> {
    /// The name with its type.
    fn into_name(self) -> Name;
}

impl<Out: 'static> SourceName<Out> for Source<Out> {
    fn into_name(self) -> Name {
        Name { name: self.name.to_owned(), input: None, output: self.output_tag() }
    }
}

impl<Out: 'static> SourceName<Out> for &str {
    fn into_name(self) -> Name {
        Name { name: self.to_owned(), input: None, output: type_tag::<Out>(1) }
    }
}

/// What names a sink of `In`: a [`Sink`] constant, or a text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a sink of `{In}`",
    label = "expected a `Sink<{In}>` or a `&str`"
)]
pub trait SinkName<In> {
    /// The name with its type.
    fn into_name(self) -> Name;
}

impl<In: 'static> SinkName<In> for Sink<In> {
    fn into_name(self) -> Name {
        Name { name: self.name.to_owned(), input: self.input_tag(), output: None }
    }
}

impl<In: 'static> SinkName<In> for &str {
    fn into_name(self) -> Name {
        Name { name: self.to_owned(), input: type_tag::<In>(1), output: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NotClone;

    #[test]
    fn a_constant_is_copied_whatever_its_types_are() {
        const FETCH: Stage<NotClone, Vec<NotClone>> = Stage::named("fetch").input_version(3);
        let (a, b) = (FETCH, FETCH);
        let c = a;
        assert_eq!((a.name(), b.name(), c.name()), ("fetch", "fetch", "fetch"));
        assert_eq!(c.input_tag(), Some(TypeTag { name: "NotClone".into(), version: 3 }));
        assert_eq!(c.output_tag(), Some(TypeTag { name: "Vec<NotClone>".into(), version: 1 }));
    }

    #[test]
    fn sources_and_sinks_declare_one_type() {
        const ORDERS: Source<NotClone> = Source::named("orders").version(2);
        const STORE: Sink<NotClone> = Sink::named("store");
        assert_eq!(ORDERS.output_tag().unwrap().to_string(), "NotClone v2");
        assert_eq!(STORE.input_tag().unwrap().to_string(), "NotClone");
    }
}
