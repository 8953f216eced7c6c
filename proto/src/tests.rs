//! The whole wire format, through real bytes.

mod broken;
mod hostile;
mod packed;
mod round_trip;
mod values;

use bytes::Bytes;
use prost::Message;

use crate::{DecodeError, Problem, Wire};

/// As a peer sends it.
fn to_bytes<T: Wire>(value: &T) -> Bytes {
    value.encode().encode_to_vec().into()
}

/// As a peer reads it.
fn from_bytes<T: Wire>(bytes: Bytes) -> Result<T, String> {
    let proto = T::Proto::decode(bytes).map_err(|e| e.to_string())?;
    T::decode(proto).map_err(|e| e.to_string())
}

/// Where, and what.
fn complaint<T: Wire + std::fmt::Debug>(proto: T::Proto) -> (String, Problem) {
    let error: DecodeError = T::decode(proto).unwrap_err();
    (error.path().to_owned(), error.problem().clone())
}
