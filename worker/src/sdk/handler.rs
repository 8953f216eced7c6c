//! What may be registered: a function of its input, or of a context and its input.

use super::context::Context;

/// A stage function: `Fn(In) -> R` or `Fn(Context, In) -> R`. What `R` must be is up to the operator
/// that it is registered as: a future for async ones, a plain value for blocking ones, a stream for
/// expansions and sources.
///
/// `Shape` tells the two forms apart, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stage function of `{In}`",
    label = "expected `Fn({In}) -> _` or `Fn(Context, {In}) -> _`",
    note = "a stage function takes its input, `|input: {In}| ..`, or a context first, `|cx: Context, input: {In}| ..`",
    note = "it is called from many tasks: it must be `Send + Sync + 'static`, and a closure that changes what it captured needs a Mutex or an atomic"
)]
pub trait Handler<Shape, In>: Send + Sync + 'static {
    /// What a call gives.
    type Output;

    /// Calls the function. Its context is made only if it takes one.
    fn call(&self, cx: impl FnOnce() -> Context, input: In) -> Self::Output;
}

/// The shape of a function that takes its input only.
#[derive(Debug)]
pub enum InputOnly {}

/// The shape of a function that takes a [`Context`] and its input.
#[derive(Debug)]
pub enum ContextAndInput {}

impl<F, In, R> Handler<InputOnly, In> for F
where
    F: Fn(In) -> R + Send + Sync + 'static,
{
    type Output = R;

    fn call(&self, _: impl FnOnce() -> Context, input: In) -> R {
        self(input)
    }
}

impl<F, In, R> Handler<ContextAndInput, In> for F
where
    F: Fn(Context, In) -> R + Send + Sync + 'static,
{
    type Output = R;

    fn call(&self, cx: impl FnOnce() -> Context, input: In) -> R {
        self(cx(), input)
    }
}
