//! Items that travel together.
//!
//! Most items come and go in crowds: roots one after the other, each a small value, all treated alike.
//! A [`Run`] is such a crowd with what its items share written once: one identity that counts on, one
//! blob of contents with the places where it is cut. What a task does with a run costs the same for one
//! item as for hundreds, so queues, ledgers and links hold runs, and cut one only where the fates of its
//! items part. An item that nothing can be shared with is a run of one.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::item::{Body, Encoding, ITEM_OVERHEAD, Item, ItemError};
use crate::lineage::Lineage;

/// At least one item; each but the first has the lineage that [follows](Lineage::after) the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The identity of the first.
    pub lineage: Lineage,
    /// What they carry.
    pub content: Content,
    /// They, or what they were made of, were unacked when a process died: see [`crate::suspect`].
    pub marked: bool,
}

/// The contents of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Payloads, at least one.
    Values(Encoding, Packed),
    /// A failure, which passes later stages untouched: a run of one.
    Error(Box<ItemError>),
    /// The end of an expansion that went well: a run of one.
    End,
}

impl Content {
    /// How many items it is of.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Values(_, values) => values.len(),
            _ => 1,
        }
    }

    /// Never: there is always an item.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// What each item counts for: see [`Item::size`].
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let alike = |length| Sizes { lengths: Lengths::Alike { length, count: 1 } };
        match self {
            Self::Values(_, values) => Sizes { lengths: values.lengths.clone() },
            Self::Error(error) => alike(error.size()),
            Self::End => alike(0),
        }
    }

    /// The content of one item.
    #[must_use]
    pub fn body(&self, place: u64) -> Body {
        match self {
            Self::Values(encoding, values) => Body::Value(*encoding, values.get(place)),
            Self::Error(error) => Body::Error(error.clone()),
            Self::End => Body::End,
        }
    }

    /// Those of some of the items.
    #[must_use]
    pub fn slice(&self, places: Range<u64>) -> Self {
        match self {
            Self::Values(encoding, values) => Self::Values(*encoding, values.slice(places)),
            other => other.clone(),
        }
    }
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        match body {
            Body::Value(encoding, bytes) => Self::Values(encoding, bytes.into()),
            Body::Error(error) => Self::Error(error),
            Body::End => Self::End,
        }
    }
}

impl From<Item> for Run {
    fn from(item: Item) -> Self {
        Self { lineage: item.lineage, content: item.body.into(), marked: item.marked }
    }
}

impl Run {
    /// A run without a mark.
    #[must_use]
    pub const fn new(lineage: Lineage, content: Content) -> Self {
        Self { lineage, content, marked: false }
    }

    /// How many items.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// Never: there is always an item.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The bytes that they count for, in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Values(_, values) => {
                values.blob.len() as u64 + values.len().saturating_mul(ITEM_OVERHEAD)
            }
            other => other.sizes().total(),
        }
    }

    /// How many, from the first on, count for no more than so many bytes.
    #[must_use]
    pub fn fitting(&self, bytes: u64) -> u64 {
        if self.size() <= bytes { self.len() } else { self.content.sizes().fitting(bytes) }
    }

    /// As [`fitting`](Self::fitting), but all of them if they are too large by no more than a quarter: what
    /// came together stays together, though each stage may add to it.
    #[must_use]
    pub fn nearly_fitting(&self, bytes: u64) -> u64 {
        if self.size() <= nearly(bytes) { self.len() } else { self.fitting(bytes) }
    }

    /// Some of the items.
    #[must_use]
    pub fn slice(&self, places: Range<u64>) -> Self {
        if places == (0..self.len()) {
            return self.clone();
        }
        Self {
            lineage: self.lineage.after(places.start),
            content: self.content.slice(places),
            marked: self.marked,
        }
    }

    /// Keeps the first items, and answers the rest. There must be some of both.
    #[must_use]
    pub fn split_off(&mut self, at: u64) -> Self {
        let rest = self.slice(at..self.len());
        self.content = self.content.slice(0..at);
        rest
    }

    /// Gives the memory of a larger blob free, if little of it is left.
    pub(crate) fn compact(&mut self) {
        if let Content::Values(_, values) = &mut self.content {
            values.compact();
        }
    }

    /// The items one by one.
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        (0..self.len()).map(|place| Item {
            lineage: self.lineage.after(place),
            body: self.content.body(place),
            marked: self.marked,
        })
    }

    /// Whether there are values in it: markers are no items to people.
    pub(crate) const fn counts(&self) -> bool {
        !matches!(self.content, Content::End)
    }
}

/// Payloads behind each other in one blob.
#[derive(Clone)]
pub struct Packed {
    /// Just these payloads.
    blob: Bytes,
    lengths: Lengths,
    /// The size of the blob that this one is a part of, and keeps in memory.
    of: usize,
}

/// Where a blob is cut.
#[derive(Clone, Debug)]
enum Lengths {
    Alike {
        length: u64,
        count: u64,
    },
    /// The places `from..to` of a column of ends, counted from `start`.
    Each {
        ends: Arc<[u32]>,
        from: usize,
        to: usize,
    },
}

impl Lengths {
    fn len(&self) -> u64 {
        match self {
            Self::Alike { count, .. } => *count,
            Self::Each { from, to, .. } => (to - from) as u64,
        }
    }

    /// The bytes of the first so many.
    #[inline]
    fn sum(&self, count: u64) -> u64 {
        match self {
            Self::Alike { length, .. } => length.saturating_mul(count),
            Self::Each { ends, from, .. } => {
                let end = |place: usize| place.checked_sub(1).map_or(0, |i| u64::from(ends[i]));
                end(from + count as usize) - end(*from)
            }
        }
    }

    fn slice(&self, places: Range<u64>) -> Self {
        match self {
            Self::Alike { length, .. } => {
                Self::Alike { length: *length, count: places.end - places.start }
            }
            Self::Each { ends, from, .. } => Self::Each {
                ends: ends.clone(),
                from: from + places.start as usize,
                to: from + places.end as usize,
            },
        }
    }
}

impl From<Bytes> for Packed {
    fn from(blob: Bytes) -> Self {
        let (length, of) = (blob.len() as u64, blob.len());
        Self { blob, lengths: Lengths::Alike { length, count: 1 }, of }
    }
}

impl Packed {
    /// Payloads of one length. None if the blob is not so many of them, or there is none.
    #[must_use]
    pub fn alike(blob: Bytes, length: u64, count: u64) -> Option<Self> {
        let fits = count > 0 && length.checked_mul(count) == Some(blob.len() as u64);
        let of = blob.len();
        fits.then_some(Self { blob, lengths: Lengths::Alike { length, count }, of })
    }

    /// Payloads that end at these places of the blob. None if the ends do not ascend to the blob's, or
    /// there is none.
    #[must_use]
    pub fn cut(blob: Bytes, ends: Vec<u32>) -> Option<Self> {
        let last = ends.last().map(|end| *end as usize);
        let of = blob.len();
        let fits = last == Some(of) && ends.is_sorted();
        let (ends, to): (Arc<[u32]>, _) = (ends.into(), 0);
        let lengths = Lengths::Each { from: to, to: ends.len(), ends };
        fits.then_some(Self { blob, lengths, of })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lengths.len()
    }

    /// Never: there is always one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// One of them; it shares the blob.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline]
    #[must_use]
    pub fn get(&self, place: u64) -> Bytes {
        let (start, end) = (self.lengths.sum(place), self.lengths.sum(place + 1));
        self.blob.slice(start as usize..end as usize)
    }

    /// All behind each other.
    #[must_use]
    pub const fn blob(&self) -> &Bytes {
        &self.blob
    }

    /// The length of all, if that is known to be one.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        match &self.lengths {
            Lengths::Alike { length, .. } => Some(*length),
            Lengths::Each { .. } => None,
        }
    }

    /// The length of each.
    pub fn lengths(&self) -> impl Iterator<Item = u64> + '_ {
        let (alike, ends, mut before) = match &self.lengths {
            Lengths::Alike { length, count } => ((*length, *count as usize), &[][..], 0),
            Lengths::Each { ends, from, to } => {
                let before = from.checked_sub(1).map_or(0, |place| ends[place]);
                ((0, 0), &ends[*from..*to], before)
            }
        };
        let each =
            ends.iter().map(move |end| u64::from(end - std::mem::replace(&mut before, *end)));
        std::iter::repeat_n(alike.0, alike.1).chain(each)
    }

    /// Some of them.
    #[must_use]
    pub fn slice(&self, places: Range<u64>) -> Self {
        let (start, end) = (self.lengths.sum(places.start), self.lengths.sum(places.end));
        Self {
            blob: self.blob.slice(start as usize..end as usize),
            lengths: self.lengths.slice(places),
            of: self.of,
        }
    }

    /// Gives the memory of a larger blob free, if little of it is left.
    pub(crate) fn compact(&mut self) {
        if self.blob.len() < self.of / 4 {
            self.blob = Bytes::copy_from_slice(&self.blob);
            self.of = self.blob.len();
        }
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob && self.lengths().eq(other.lengths())
    }
}

impl Eq for Packed {}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blob.hash(state);
        self.lengths().for_each(|length| length.hash(state));
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..self.len()).map(|place| self.get(place))).finish()
    }
}

/// What is not worth a cut for being beyond so many bytes.
const fn nearly(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
}

/// What each item of a run counts for, without its content.
#[derive(Clone, Debug)]
pub struct Sizes {
    lengths: Lengths,
}

impl Sizes {
    /// How many items.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lengths.len()
    }

    /// In all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.first(self.count())
    }

    /// Of the first so many.
    #[must_use]
    pub fn first(&self, count: u64) -> u64 {
        self.lengths.sum(count).saturating_add(count.saturating_mul(ITEM_OVERHEAD))
    }

    /// How many, from the first on, are no more than so many bytes.
    #[must_use]
    pub fn fitting(&self, bytes: u64) -> u64 {
        let (mut fit, mut above) = (0, self.count() + 1);
        while above - fit > 1 {
            let middle = fit + (above - fit) / 2;
            if self.first(middle) <= bytes { fit = middle } else { above = middle }
        }
        fit
    }

    /// As [`Run::nearly_fitting`].
    #[must_use]
    pub fn nearly_fitting(&self, bytes: u64) -> u64 {
        if self.total() <= nearly(bytes) { self.count() } else { self.fitting(bytes) }
    }

    /// Keeps the first, and answers the rest.
    #[must_use]
    pub(crate) fn split_off(&mut self, at: u64) -> Self {
        let rest = self.lengths.slice(at..self.count());
        self.lengths = self.lengths.slice(0..at);
        Self { lengths: rest }
    }
}

impl Hash for Sizes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (1..=self.count()).for_each(|count| self.first(count).hash(state));
    }
}

/// Packs payloads. Small ones are copied behind each other; a large one stays as it is, in a blob of its
/// own.
#[derive(Debug)]
pub struct Packer {
    blob: BytesMut,
    ends: Vec<u32>,
    /// How large the last blob was: room for the next one is made at once.
    room: usize,
}

/// A payload above this is not copied to be packed: a run of its own costs less.
const LARGE: usize = 4 << 10;
/// What the payloads of one blob count for, at the most, unless it is one: as much as a frame takes of one
/// run by default, so that the blob is a frame's, uncut.
const FULL: u64 = nearly(128 << 10);

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl Packer {
    /// Nothing packed yet.
    #[must_use]
    pub fn new() -> Self {
        Self { blob: BytesMut::new(), ends: Vec::new(), room: 0 }
    }

    /// Adds a payload behind the others. False if it wants a blob of its own, or this one is full.
    #[inline]
    #[must_use]
    pub fn push(&mut self, payload: &[u8]) -> bool {
        let end = self.blob.len() + payload.len();
        let size = end as u64 + (self.ends.len() as u64 + 1) * ITEM_OVERHEAD;
        if payload.len() > LARGE || (size > FULL && !self.ends.is_empty()) {
            return false;
        }
        if self.blob.is_empty() {
            self.blob.reserve(self.room.max(payload.len()));
        }
        self.blob.put_slice(payload);
        // At most `FULL` and `LARGE`.
        self.ends.push(end as u32);
        true
    }

    /// What has been packed, if anything; the next blob begins.
    #[must_use]
    pub fn take(&mut self) -> Option<Packed> {
        let (first, count) = (u64::from(*self.ends.first()?), self.ends.len() as u64);
        let blob = self.blob.split().freeze();
        self.room = blob.len();
        let alike = self.ends.iter().zip(1..).all(|(end, n)| u64::from(*end) == first * n);
        let lengths = if alike {
            Lengths::Alike { length: first, count }
        } else {
            Lengths::Each { ends: self.ends.as_slice().into(), from: 0, to: self.ends.len() }
        };
        self.ends.clear();
        Some(Packed { of: blob.len(), blob, lengths })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::StageId;
    use crate::lineage::Step;

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let alike = (0_usize..20, 1_usize..40).prop_map(|(length, count)| vec![length; count]);
        let each =
            prop::collection::vec(prop_oneof![0_usize..20, Just(LARGE), Just(LARGE + 1)], 1..40);
        let filled = |(n, length): (usize, usize)| vec![n as u8; length];
        prop_oneof![alike, each].prop_map(move |l| l.into_iter().enumerate().map(filled).collect())
    }

    fn pack(payloads: &[Vec<u8>]) -> Vec<Packed> {
        let (mut packer, mut all) = (Packer::new(), Vec::new());
        for payload in payloads {
            if !packer.push(payload) {
                all.extend(packer.take());
                if !packer.push(payload) {
                    all.push(Bytes::from(payload.clone()).into());
                }
            }
        }
        all.extend(packer.take());
        all
    }

    proptest! {
        #[test]
        fn what_is_packed_is_there_again(payloads in payloads(), at in any::<prop::sample::Index>()) {
            let packed = pack(&payloads);
            let all = packed.iter().flat_map(|p| (0..p.len()).map(|n| p.get(n)));
            prop_assert!(all.eq(payloads.iter().map(|p| Bytes::from(p.clone()))));

            for values in packed {
                let whole = Run::new(
                    Lineage::root(StageId(0), 7),
                    Content::Values(Encoding::Raw, values.clone()),
                );
                let items: Vec<Item> = whole.items().collect();
                prop_assert_eq!(whole.size(), items.iter().map(Item::size).sum::<u64>());
                prop_assert!(items.iter().zip(7..).all(|(item, root)| item.lineage.root == root));
                for fitting in 0..=whole.len() {
                    let bytes = items.iter().take(fitting as usize).map(Item::size).sum();
                    prop_assert_eq!(whole.fitting(bytes), fitting);
                }
                let at = at.index(values.len() as usize) as u64;
                if at > 0 {
                    let mut first = whole.clone();
                    let mut rest = first.split_off(at);
                    let sizes = (first.size(), rest.size());
                    rest.compact();
                    prop_assert_eq!(sizes, (first.size(), rest.size()));
                    prop_assert!(first.items().chain(rest.items()).eq(items));
                    let mut head = whole.content.sizes();
                    let tail = head.split_off(at);
                    prop_assert_eq!((head.total(), tail.total()), sizes);
                }
            }
        }
    }

    #[test]
    fn little_of_a_large_blob_does_not_keep_all_of_it() {
        let blob = Bytes::from(vec![1; 1_000]);
        let mut few = Packed::alike(blob.clone(), 10, 100).map(|all| all.slice(3..5));
        few.as_mut().into_iter().for_each(Packed::compact);
        assert_eq!(few.map(|few| few.blob), Some(Bytes::from(vec![1; 20])));
        assert!(blob.is_unique(), "nobody else has it");
    }

    #[test]
    fn payloads_that_do_not_fit_their_blob_are_none() {
        let blob = Bytes::from_static(b"abcdef");
        assert!(Packed::alike(blob.clone(), 2, 3).is_some());
        assert!(Packed::alike(blob.clone(), 2, 2).is_none());
        assert!(Packed::alike(Bytes::new(), 5, 0).is_none());
        assert!(Packed::alike(blob.clone(), u64::MAX, u64::MAX).is_none());
        assert!(Packed::cut(blob.clone(), vec![2, 2, 6]).is_some());
        assert!(Packed::cut(blob.clone(), vec![2, 1, 6]).is_none());
        assert!(Packed::cut(blob.clone(), vec![2, 5]).is_none());
        assert!(Packed::cut(Bytes::new(), vec![]).is_none());
    }

    #[test]
    fn a_run_counts_on_along_roots_or_outputs_and_past_branches() {
        let root = Lineage::root(StageId(0), 5);
        let output = root.with(Step::Output(2));
        let branch = output.with(Step::Branch(1));
        assert_eq!(root.after(2).to_string(), "7");
        assert_eq!(output.after(2).to_string(), "5.4");
        assert_eq!(branch.after(1).to_string(), "5.3.b1");
        assert_eq!(root.with(Step::Branch(0)).after(1).to_string(), "6.b0");
        assert!(branch.is_before(&branch.after(1)) && !branch.is_before(&branch.after(2)));
        let end = root.with(Step::End(1));
        assert!(!end.is_before(&end.after(1)) && end.place().is_none());
    }
}
