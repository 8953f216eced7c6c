//! What goes wrong in a stage function: as its author says it, and as the runtime hears it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use stageline_protocol::ErrorKind;

/// The failure of a fallible stage function. Any [`std::error::Error`] turns into one with `?`; its
/// message then has the whole chain of sources.
///
/// A failed attempt is repeated as often as the stage's `retry` says, after a backoff; a
/// [`permanent`](Self::permanent) failure is not repeated, and [`retry_after`](Self::retry_after)
/// replaces the backoff.
///
/// ```
/// use std::time::Duration;
/// use stageline_worker::sdk::StageError;
///
/// fn check(status: u16) -> Result<(), StageError> {
///     match status {
///         200 => Ok(()),
///         429 => Err(StageError::msg("busy").retry_after(Duration::from_secs(30))),
///         404 => Err(StageError::msg("no such page").permanent()),
///         other => Err(StageError::msg(format_args!("status {other}"))),
///     }
/// }
/// assert!(check(404).unwrap_err().is_permanent());
/// ```
// It is no `std::error::Error` itself: `From<E: Error>` would then overlap with `From<Self>`.
pub struct StageError {
    message: String,
    advice: Advice,
}

/// What a failure says about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Another attempt may go better, after the usual backoff.
    Backoff,
    /// Another attempt may go better after that time.
    After(Duration),
    /// Another attempt would fail the same way.
    Never,
}

impl StageError {
    /// A failure in words.
    #[must_use]
    pub fn msg(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), advice: Advice::Backoff }
    }

    /// The next attempt, if the stage has retries left, starts that long from now, not earlier. An
    /// attempt is not lost by it: `retry(n)` still means n repetitions.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.advice = Advice::After(wait);
        self
    }

    /// Another attempt would fail the same way: the stage's retries do not apply.
    #[must_use]
    pub const fn permanent(mut self) -> Self {
        self.advice = Advice::Never;
        self
    }

    /// Whether retries do not apply.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.advice == Advice::Never
    }

    /// Says in front what was being done.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for StageError {
    fn from(error: E) -> Self {
        Self { message: with_sources(&error), advice: Advice::Backoff }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageError")
            .field("message", &self.message)
            .field("advice", &self.advice)
            .finish()
    }
}

/// The error and its sources, from outside in. Many errors print their source already: what the text has
/// has at its end is not said again.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = inner.source();
    }
    text
}

/// Why a call gave nothing: what the runtime makes an error item of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What sort of failure it was.
    pub kind: ErrorKind,
    /// The failure in words.
    pub message: String,
    /// How often the function was tried.
    pub attempts: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl Error for Fault {}

/// The failure of one attempt, before the policies have looked at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) advice: Advice,
}

impl Failure {
    /// A failure that another attempt would not mend.
    pub(crate) fn permanent(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), advice: Advice::Never }
    }

    /// A panic is a mistake in the function, and the same input would most likely show it again; so
    /// it is not repeated.
    pub(crate) fn panicked(said: String) -> Self {
        Self::permanent(ErrorKind::Panicked, said)
    }

    pub(crate) fn timeout(message: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Timeout, message: message.to_string(), advice: Advice::Backoff }
    }

    pub(crate) fn into_fault(self, attempts: u32) -> Fault {
        Fault { kind: self.kind, message: self.message, attempts }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self { kind: ErrorKind::Failed, message: error.message, advice: error.advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot fetch")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("transport error: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn the_message_has_the_chain_of_sources_and_says_nothing_twice() {
        let io = std::io::Error::other("connection reset");
        let error = StageError::from(Outer(Middle(io))).context("page 3");
        assert_eq!(error.to_string(), "page 3: cannot fetch: transport error: connection reset");
        assert!(!error.is_permanent());
    }

    #[test]
    fn the_last_advice_counts() {
        let error = StageError::msg("busy").permanent().retry_after(Duration::from_secs(1));
        assert_eq!(error.advice, Advice::After(Duration::from_secs(1)));
    }
}
