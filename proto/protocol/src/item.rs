//! What flows: values, errors, and the ends of expansions.

use std::fmt;

use bytes::Bytes;

use crate::lineage::Lineage;

/// Bytes that every item counts for, on top of its payload, against byte credits and budgets:
/// about what its bookkeeping takes.
pub const ITEM_OVERHEAD: u64 = 32;

/// The longest text of a failure that travels, in bytes. Errors can quote what they are about, which
/// may be a payload.
pub const MAX_TEXT: usize = 16 << 10;

/// A text of at most [`MAX_TEXT`] bytes: a longer one is cut, and says so.
#[must_use]
pub fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        const MARK: &str = "… (cut)";
        let end = text.floor_char_boundary(MAX_TEXT - MARK.len());
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

/// How a payload is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// MessagePack with named fields: self-describing.
    #[default]
    MessagePack,
    /// The user's own bytes, as they are.
    Raw,
}

/// What one link hands to the next task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Its identity.
    pub lineage: Lineage,
    /// What it carries.
    pub body: Body,
    /// It, or what it was made of, was unacked when a process died: see [`crate::suspect`].
    pub marked: bool,
}

/// The content of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A payload.
    Value(Encoding, Bytes),
    /// A failure, which passes later stages untouched.
    Error(Box<ItemError>),
    /// The end of an expansion that went well; its lineage has the count.
    End,
}

impl Item {
    /// An item without a mark.
    #[must_use]
    pub const fn new(lineage: Lineage, body: Body) -> Self {
        Self { lineage, body, marked: false }
    }

    /// The bytes that it counts for: both ends of a link compute the same.
    #[must_use]
    pub fn size(&self) -> u64 {
        ITEM_OVERHEAD
            + match &self.body {
                Body::Value(_, bytes) => bytes.len() as u64,
                Body::Error(error) => error.size(),
                Body::End => 0,
            }
    }

    /// Whether it is an error item.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self.body, Body::Error(_))
    }
}

/// Why an item failed, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemError {
    /// The stage whose function failed.
    pub stage: String,
    /// What sort of failure it was.
    pub kind: ErrorKind,
    /// The failure in words.
    pub message: String,
    /// How often the function was tried.
    pub attempts: u32,
    /// The name of the process where it ran.
    pub worker: String,
}

impl ItemError {
    pub(crate) fn size(&self) -> u64 {
        (self.stage.len() + self.message.len() + self.worker.len()) as u64
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {:?}: {}: {}", self.stage, self.kind, self.message)?;
        if self.attempts > 1 {
            write!(f, " (after {} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

impl std::error::Error for ItemError {}

/// The sorts of failure of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The function answered with an error.
    Failed,
    /// The function took longer than its timeout.
    Timeout,
    /// The function panicked.
    Panicked,
    /// The payload did not decode as the type that the function takes.
    Decode,
    /// What the function made could not be encoded.
    Encode,
    /// What the function made is above the largest payload.
    TooLarge,
    /// It was in process whenever its process died: it is not tried again.
    Crashed,
    /// An expansion made fewer outputs when it ran again, and some of those it made before are missing.
    Divergent,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::Timeout,
        Self::Panicked,
        Self::Decode,
        Self::Encode,
        Self::TooLarge,
        Self::Crashed,
        Self::Divergent,
    ];

    /// Its name as people and files see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Panicked => "panicked",
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::TooLarge => "too_large",
            Self::Crashed => "crashed",
            Self::Divergent => "divergent",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(shortened("as it is".to_owned()), "as it is");
        let long = shortened("ä".repeat(MAX_TEXT));
        assert!(long.len() <= MAX_TEXT && long.ends_with("ä… (cut)"), "{}", long.len());
    }
}
