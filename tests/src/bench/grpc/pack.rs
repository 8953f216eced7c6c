//! Packs: the payloads one behind the other, and a column of lengths.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::Pack;

/// The most items of a pack.
const ITEMS: usize = 256;
/// The most bytes of a pack; a larger payload is one by itself.
const BYTES: usize = 64 << 10;

/// None to two packs.
pub(super) type Packs = std::iter::Flatten<std::array::IntoIter<Option<Pack>, 2>>;

/// Makes packs of payloads.
#[derive(Debug, Default)]
pub(super) struct Packer {
    blob: BytesMut,
    lengths: Vec<u32>,
}

impl Packer {
    /// Adds a payload. What it fills up, it answers.
    pub(super) fn push(&mut self, payload: &Bytes) -> Packs {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let before = if self.blob.len() + payload.len() > BYTES { self.take() } else { None };
        if payload.len() >= BYTES {
            // It is not copied to be alone.
            let alone = Pack { blob: payload.clone(), lengths: vec![length] };
            return [before, Some(alone)].into_iter().flatten();
        }
        if self.lengths.is_empty() {
            self.blob.reserve(BYTES);
            self.lengths.reserve(ITEMS);
        }
        self.blob.put_slice(payload);
        self.lengths.push(length);
        let after = if self.lengths.len() == ITEMS { self.take() } else { None };
        [before, after].into_iter().flatten()
    }

    /// What is packed so far, if anything.
    pub(super) fn take(&mut self) -> Option<Pack> {
        if self.lengths.is_empty() {
            return None;
        }
        let blob = self.blob.split().freeze();
        Some(Pack { blob, lengths: std::mem::take(&mut self.lengths) })
    }
}

impl Pack {
    /// The payloads.
    pub(super) fn payloads(&self) -> impl Iterator<Item = Bytes> {
        let mut from = 0;
        self.lengths.iter().map(move |length| {
            let upto = from + *length as usize;
            let payload = self.blob.slice(from..upto);
            from = upto;
            payload
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload;

    #[test]
    fn what_is_packed_comes_out_again() {
        let lengths = std::iter::repeat_n(3, 300).chain([0, 40_000, 40_000, 70_000, 5]);
        let payloads: Vec<Bytes> =
            (0..).zip(lengths).map(|(i, len)| payload::make(i, len)).collect();
        let mut packer = Packer::default();
        let mut packs: Vec<Pack> = payloads.iter().flat_map(|p| packer.push(p)).collect();
        packs.extend(packer.take());
        assert!(packer.take().is_none());
        let sizes: Vec<usize> = packs.iter().map(|pack| pack.lengths.len()).collect();
        assert_eq!(sizes, [256, 46, 1, 1, 1]);
        let found: Vec<Bytes> = packs.iter().flat_map(Pack::payloads).collect();
        assert_eq!(found, payloads);
    }
}
