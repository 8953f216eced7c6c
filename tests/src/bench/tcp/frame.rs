//! Frames: packed for the socket, and found in what came from it.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What is written at a time, in bytes.
const BATCH: usize = 64 << 10;
/// Payloads of this size and above are not copied to be written.
const LARGE: usize = 4 << 10;
const HEADER: usize = 4;

/// Frames on their way to the socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    segments: VecDeque<Bytes>,
    /// How many frames.
    pub(super) items: u64,
    /// Their bytes.
    pub(super) bytes: usize,
}

/// Packs payloads into a batch.
#[derive(Debug, Default)]
pub(super) struct Packer {
    batch: Batch,
    open: BytesMut,
}

impl Packer {
    pub(super) fn push(&mut self, payload: Bytes) {
        if self.open.capacity() - self.open.len() < HEADER + LARGE {
            self.close();
            self.open.reserve(BATCH + LARGE + HEADER);
        }
        self.batch.items += 1;
        self.batch.bytes += HEADER + payload.len();
        self.open.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        if payload.len() < LARGE {
            self.open.put_slice(&payload);
        } else {
            self.close();
            self.batch.segments.push_back(payload);
        }
    }

    /// Whether there is enough for a write.
    pub(super) const fn is_full(&self) -> bool {
        self.batch.bytes >= BATCH
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.batch.items == 0
    }

    pub(super) fn take(&mut self) -> Batch {
        self.close();
        std::mem::take(&mut self.batch)
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.batch.segments.push_back(self.open.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |first| first)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let pairs = out.iter_mut().zip(&self.segments);
        pairs.map(|(slot, segment)| *slot = IoSlice::new(segment)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0
            && let Some(first) = self.segments.front_mut()
        {
            let step = count.min(first.len());
            first.advance(step);
            count -= step;
            if first.is_empty() {
                self.segments.pop_front();
            }
        }
    }
}

/// The next whole frame at the start of what was read, if there is one: where its payload is, and
/// where the frame ends.
pub(super) fn next(read: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = read.split_first_chunk::<HEADER>()?;
    let length = u32::from_le_bytes(*length) as usize;
    Some((rest.get(..length)?, HEADER + length))
}

/// How many more bytes would complete the frame that `read` begins with.
pub(super) fn missing(read: &[u8]) -> usize {
    let Some((length, rest)) = read.split_first_chunk::<HEADER>() else { return HEADER };
    (u32::from_le_bytes(*length) as usize).saturating_sub(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload;

    #[test]
    fn what_is_packed_comes_out_again() {
        let lengths = [0, 1, 100, 4095, 4096, 70_000, 3];
        let payloads: Vec<Bytes> =
            (0..).zip(lengths).map(|(i, len)| payload::make(i, len)).collect();
        let mut packer = Packer::default();
        assert!(packer.is_empty());
        payloads.iter().for_each(|payload| packer.push(payload.clone()));
        assert!(packer.is_full());
        let mut batch = packer.take();
        assert!(packer.is_empty());
        assert_eq!(batch.items, 7);
        assert_eq!(batch.remaining(), batch.bytes);

        let mut wire = Vec::new();
        while batch.has_remaining() {
            // As a socket that takes a little at a time.
            let step = batch.chunk().len().min(1000);
            wire.extend_from_slice(&batch.chunk()[..step]);
            batch.advance(step);
        }
        let mut rest = &wire[..];
        for payload in &payloads {
            assert_eq!(next(&rest[..3]), None);
            let (found, end) = next(rest).unwrap();
            assert_eq!(found, payload);
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
        assert_eq!(missing(&wire[..2]), HEADER);
        assert_eq!(missing(&wire[HEADER..HEADER + 4]), 1);
    }
}
