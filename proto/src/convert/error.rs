//! What is wrong with a message.

use std::fmt;

/// A message that does not stand for a value: which field, and what is wrong with it. The fault is
/// the sender's; receiving the same bytes again gives the same error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    path: String,
    problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be set, and is not (or holds a choice that this version does not know).
    #[error("is not set, or holds something that this version does not know")]
    Missing,
    /// An enum's number that this version does not know.
    #[error("has the value {0}, which this version does not know")]
    Unknown(i64),
    /// A column has another number of entries than its batch has items.
    #[error("has {found} entries where {expected} are due")]
    Count {
        /// How many are due.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// More than the format allows.
    #[error("amounts to {found}, where at most {limit} is allowed")]
    Limit {
        /// The most that is allowed.
        limit: usize,
        /// What there is.
        found: usize,
    },
    /// Two fields contradict each other, or a value cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The bytes are not a message at all.
    #[error("is not a message: {0}")]
    NotAMessage(String),
}

impl DecodeError {
    pub(super) fn new(field: &'static str, problem: Problem) -> Self {
        Self { path: field.to_owned(), problem }
    }

    pub(super) fn missing(field: &'static str) -> Self {
        Self::new(field, Problem::Missing)
    }

    pub(super) fn invalid(field: &'static str, why: &'static str) -> Self {
        Self::new(field, Problem::Invalid(why))
    }

    /// Of the value itself: the caller says where it stands.
    pub(super) const fn unknown(number: i32) -> Self {
        Self { path: String::new(), problem: Problem::Unknown(number as i64) }
    }

    /// The same, seen from the message that has this one in a field.
    pub(super) fn at(self, field: &str) -> Self {
        let path =
            if self.path.is_empty() { field.to_owned() } else { format!("{field}.{}", self.path) };
        Self { path, ..self }
    }

    /// The same, in a list.
    pub(super) fn at_index(self, field: &str, index: usize) -> Self {
        self.at(&format!("{field}[{index}]"))
    }

    /// The field, as a path from the outermost message: `Open.link.from`, `Items.lengths`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.problem)
    }
}

impl std::error::Error for DecodeError {}
