//! Conversions between the pure types and their messages, one file for each concept.
//!
//! All follow one pattern, [`Wire`]. What every conversion of a field may need is here: a message
//! that must be there, one that may be missing, lists, enums and durations.

mod error;
mod frame;
mod ids;
mod item;
mod items;
mod job;
mod pipeline;
mod process;
mod ranges;
mod report;
mod session;
mod status;
mod suspect;

use std::time::Duration;

pub use error::{DecodeError, Problem};

/// A type of the pure protocol that travels as a message.
///
/// For every value, `T::decode(value.encode())` gives the value back, except that durations are
/// rounded up to whole microseconds, at most `u64::MAX` of them, and that the items of a batch come
/// back in as few runs as can be.
pub trait Wire: Sized {
    /// The message that it travels as.
    type Proto: prost::Message + Default;

    /// The message for this value.
    fn encode(&self) -> Self::Proto;

    /// The value that a message stands for.
    ///
    /// # Errors
    /// If a field is missing or has a value that this version does not know, or if fields disagree
    /// with each other. The error names the field.
    fn decode(proto: Self::Proto) -> Result<Self, DecodeError>;
}

/// A type of the pure protocol that travels as the number of an enum.
/// The bytes that a value takes on the wire.
pub fn encoded_size<T: Wire>(value: &T) -> usize {
    prost::Message::encoded_len(&value.encode())
}

trait WireEnum: Sized + Copy {
    fn number(self) -> i32;
    fn from_number(number: i32) -> Result<Self, DecodeError>;
}

/// Pairs the variants of a pure enum with those of a generated one. Numbers of variants that are
/// not listed, "not set" among them, are refused.
macro_rules! wire_enum {
    ($pure:ty = $wire:ident { $($p:ident = $w:ident),* $(,)? }) => {
        impl $crate::convert::WireEnum for $pure {
            fn number(self) -> i32 {
                match self {
                    $(Self::$p => $crate::v1::$wire::$w.into(),)*
                }
            }

            fn from_number(number: i32) -> Result<Self, $crate::convert::DecodeError> {
                match $crate::v1::$wire::try_from(number) {
                    $(Ok($crate::v1::$wire::$w) => Ok(Self::$p),)*
                    _ => Err($crate::convert::DecodeError::unknown(number)),
                }
            }
        }
    };
}
use wire_enum;

/// An enum's field.
fn enumerated<T: WireEnum>(number: i32, field: &'static str) -> Result<T, DecodeError> {
    T::from_number(number).map_err(|e| e.at(field))
}

/// A message that must be there.
fn required<T: Wire>(message: Option<T::Proto>, field: &'static str) -> Result<T, DecodeError> {
    T::decode(message.ok_or_else(|| DecodeError::missing(field))?).map_err(|e| e.at(field))
}

/// A message that may be missing.
fn optional<T: Wire>(
    message: Option<T::Proto>,
    field: &'static str,
) -> Result<Option<T>, DecodeError> {
    message.map(|m| T::decode(m).map_err(|e| e.at(field))).transpose()
}

/// A list of messages.
fn list<T: Wire>(messages: Vec<T::Proto>, field: &'static str) -> Result<Vec<T>, DecodeError> {
    messages
        .into_iter()
        .enumerate()
        .map(|(i, m)| T::decode(m).map_err(|e| e.at_index(field, i)))
        .collect()
}

fn encode_list<T: Wire>(values: &[T]) -> Vec<T::Proto> {
    values.iter().map(Wire::encode).collect()
}

/// Whole microseconds, rounded up so that a short time never becomes none; at most `u64::MAX`, which
/// is half a million years.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}
