//! The record of `typed`: eight fields, in Protocol Buffers for the baselines (the natural choice
//! beside gRPC), and as any type of a user for Stageline.

use bytes::Bytes;
use prost::{DecodeError, Message};

use super::payload;

pub use super::grpc::wire::Record;

/// The record of that index, with a body of so many bytes.
#[must_use]
pub fn make(index: u64, body: usize) -> Record {
    Record {
        id: index,
        at: 1_700_000_000_000 + index * 37,
        host: format!("host-{:04}.example.net", index % 1000),
        path: format!("/v1/items/{index}"),
        status: if index.is_multiple_of(97) { 503 } else { 200 },
        took: (index % 1000) as f64 / 8.0,
        digest: 0,
        body: payload::make(index, body),
    }
}

/// What each map does: takes the hash of all fields into one of them.
#[must_use]
pub fn digested(mut record: Record) -> Record {
    record.digest = hash(&record);
    record
}

/// The hash of all fields.
#[must_use]
pub fn hash(record: &Record) -> u64 {
    let mut numbers = [0; 64];
    let fields = [
        record.id,
        record.at,
        u64::from(record.status),
        record.took.to_bits(),
        record.digest,
        payload::hash(record.host.as_bytes()),
        payload::hash(record.path.as_bytes()),
        payload::hash(&record.body),
    ];
    for (place, field) in numbers.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    payload::hash(&numbers)
}

/// As a payload of the baselines.
///
/// # Panics
/// Never: encoding fails only where there is no room, and the buffer grows.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    payload::build(record.encoded_len(), |buffer| {
        record.encode(buffer).expect("a buffer that grows has room");
    })
}

/// A payload of the baselines.
///
/// # Errors
/// When it is no record.
pub fn decode(payload: &[u8]) -> Result<Record, DecodeError> {
    Record::decode(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_encoding() {
        let record = digested(make(1234, 100));
        assert_ne!(record.digest, 0);
        assert_eq!(decode(&encode(&record)).unwrap(), record);
        assert_ne!(hash(&make(1, 8)), hash(&make(2, 8)));
    }
}
