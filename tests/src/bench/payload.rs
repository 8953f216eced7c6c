//! What the stages do with an item: the same functions in every system, so that what differs is the
//! carrying.
//!
//! The memory of an item is the user's matter: here an allocation of the exact size, which costs less
//! than counting the references to a shared chunk.

use bytes::{BufMut, Bytes};
use twox_hash::XxHash3_64;

/// How many bytes a map appends.
pub const APPENDED: usize = 8;

/// What payloads are cut from.
static PATTERN: [u8; 1 << 16] = pattern();

const fn pattern() -> [u8; 1 << 16] {
    let mut bytes = [0; 1 << 16];
    let (mut at, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while at < bytes.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[at] = (state >> 32) as u8;
        at += 1;
    }
    bytes
}

/// The payload of that index: the index, then a piece of the pattern. Shorter than 8 bytes, only the
/// lower bytes of the index.
#[must_use]
pub fn make(index: u64, len: usize) -> Bytes {
    build(len, |buffer| start(buffer, &index.to_le_bytes(), index, len))
}

/// As [`make`], with a time behind the index. At least 16 bytes.
#[must_use]
pub fn stamped(index: u64, nanos: u64, len: usize) -> Bytes {
    let len = len.max(16);
    build(len, |buffer| {
        buffer.put_u64_le(index);
        start(buffer, &nanos.to_le_bytes(), index, len - 8);
    })
}

fn start(buffer: &mut Vec<u8>, head: &[u8], index: u64, len: usize) {
    let head = &head[..head.len().min(len)];
    buffer.put_slice(head);
    let mut missing = len - head.len();
    // Where it begins depends on the index, so that payloads differ in all of their length.
    let mut from = usize::try_from(index % 251).unwrap_or_default();
    while missing > 0 {
        let piece = missing.min(PATTERN.len() - from);
        buffer.put_slice(&PATTERN[from..from + piece]);
        missing -= piece;
        from = 0;
    }
}

/// The hash of a payload: xxh3, 64 bits.
#[must_use]
pub fn hash(payload: &[u8]) -> u64 {
    XxHash3_64::oneshot(payload)
}

/// What each map does: the payload with its hash behind it.
#[must_use]
pub fn appended(payload: &[u8]) -> Bytes {
    let hash = hash(payload);
    build(payload.len() + APPENDED, |buffer| {
        buffer.put_slice(payload);
        buffer.put_u64_le(hash);
    })
}

/// The index in a payload that [`stamped`] made and maps have appended to, and its time; none if what
/// was appended last is not the hash of what stands before it.
#[must_use]
pub fn read_stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let (before, last) = payload.split_last_chunk::<APPENDED>()?;
    let (index, rest) = payload.split_first_chunk::<8>()?;
    let nanos = rest.first_chunk::<8>()?;
    (hash(before) == u64::from_le_bytes(*last))
        .then(|| (u64::from_le_bytes(*index), u64::from_le_bytes(*nanos)))
}

/// So many bytes, written by `fill`.
pub fn build(len: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(len);
    fill(&mut buffer);
    buffer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_length_and_differ() {
        for len in [0, 1, 7, 8, 9, 128, 4096, 4097, 200_000] {
            let (one, two) = (make(1, len), make(258, len));
            assert_eq!((one.len(), two.len()), (len, len));
            assert!(len == 0 || one != two, "{len}");
            assert_eq!(one, make(1, len));
        }
    }

    #[test]
    fn a_map_appends_the_hash() {
        let payload = make(7, 100);
        let mapped = appended(&payload);
        assert_eq!(mapped[..100], payload);
        assert_eq!(mapped[100..], hash(&payload).to_le_bytes());
    }

    #[test]
    fn a_stamp_comes_back_unless_something_changed() {
        let mapped = appended(&appended(&stamped(3, 99, 5)));
        assert_eq!(read_stamp(&mapped), Some((3, 99)));
        for at in 0..mapped.len() {
            let mut broken = mapped.to_vec();
            broken[at] ^= 1;
            assert_eq!(read_stamp(&broken), None);
        }
    }
}
