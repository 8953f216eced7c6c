//! Packs: the payloads one behind the other, and a column of lengths.

use bytes::{Bytes, BytesMut};

use super::wire::Pack;

/// The most items of a pack.
const ITEMS: usize = 256;
/// The most bytes of a pack; a payload of that size or more is one by itself.
pub(super) const BYTES: usize = 64 << 10;

/// Makes packs of payloads.
#[derive(Debug, Default)]
pub(super) struct Packer {
    blob: BytesMut,
    lengths: Vec<u32>,
}

impl Packer {
    /// Whether such a payload still belongs into what is packed so far; otherwise that is to be taken
    /// first.
    pub(super) fn has_room_for(&self, payload: &Bytes) -> bool {
        self.lengths.is_empty()
            || (self.lengths.len() < ITEMS && self.blob.len() + payload.len() <= BYTES)
    }

    /// Adds a payload.
    pub(super) fn push(&mut self, payload: &Bytes) {
        if self.lengths.is_empty() {
            // Payloads are mostly of one size.
            self.blob.reserve((payload.len() * ITEMS).min(BYTES));
            self.lengths.reserve(ITEMS);
        }
        self.blob.extend_from_slice(payload);
        self.lengths.push(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    }

    /// Packs into the memory of an old pack, if nobody else holds that.
    pub(super) fn reuse(&mut self, old: Pack) {
        if self.lengths.is_empty()
            && let Ok(mut blob) = old.blob.try_into_mut()
        {
            blob.clear();
            self.blob = blob;
            self.lengths = old.lengths;
            self.lengths.clear();
        }
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
        let mut packs = Vec::new();
        for payload in &payloads {
            if !packer.has_room_for(payload) {
                packs.extend(packer.take());
            }
            packer.push(payload);
        }
        packs.extend(packer.take());
        assert!(packer.take().is_none());
        let sizes: Vec<usize> = packs.iter().map(|pack| pack.lengths.len()).collect();
        assert_eq!(sizes, [256, 46, 1, 1, 1]);
        let found: Vec<Bytes> = packs.iter().flat_map(Pack::payloads).collect();
        assert_eq!(found, payloads);
    }
}
