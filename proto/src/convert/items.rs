//! The packed batch: contents in one blob, everything else in columns beside it.
//!
//! Encoding copies each content once, into the blob; a batch of one value copies nothing. Decoding
//! copies nothing at all: the contents are slices that keep the received message alive. Columns in
//! which all items are alike cost nothing or one number, so the usual batch (values of one length,
//! consecutive roots) is its blob and some ten bytes.
//!
//! The number of items follows from the lengths and is checked against every column before anything
//! is allocated for it.

use bytes::Bytes;
use prost::Message;
use stageline_protocol::frame::Items;
use stageline_protocol::{Body, Encoding, Item, ItemError, Lineage, Run, StageId, Step};

use super::ids::{decode_roots, encode_roots};
use super::{DecodeError, Problem, Wire, WireEnum, wire_enum};
use crate::{MAX_BATCH, MAX_BLOB, MAX_STEPS, v1};

const STEP_OUTPUT: u64 = 0;
const STEP_BRANCH: u64 = 1;
const STEP_END: u64 = 2;

/// A sender's batch is at most [`MAX_BATCH`] items of at most [`MAX_STEPS`] steps, and at most
/// [`MAX_BLOB`] in bytes: its receiver refuses more.
impl Wire for Items {
    type Proto = v1::Items;

    fn encode(&self) -> v1::Items {
        let batch: Vec<Item> = self.batch.iter().flat_map(Run::items).collect();
        let (blob, lengths) = pack(&batch);
        // A length of zero says nothing about how many items there are, so zeros stand one by one.
        let (length, lengths) = match alike(lengths.iter().copied()) {
            Some(length) if length > 0 => (length, Vec::new()),
            _ => (0, lengths),
        };
        let (kind, kinds) = column(batch.iter().map(|item| kind_of(&item.body).number()));
        let (source, sources) = column(batch.iter().map(|item| item.lineage.source.0));
        let (root_delta, root_deltas) = root_deltas(&batch);
        let (steps, step_counts) = steps(&batch);
        let (marked, marks) = marks(&batch);
        v1::Items {
            blob,
            length,
            lengths,
            kind,
            kinds,
            source,
            sources,
            first_root: batch.first().map_or(0, |item| item.lineage.root),
            root_delta,
            root_deltas,
            steps,
            step_counts,
            backlog: self.backlog,
            forfeited: self.forfeited,
            watermarks: encode_roots(&self.watermarks),
            marked,
            marks,
        }
    }

    fn decode(p: v1::Items) -> Result<Self, DecodeError> {
        let lengths = Lengths::decode(&p.blob, p.length, p.lengths)?;
        let count = lengths.count;
        let kinds = Column::decode(p.kind, p.kinds, count, "kind", "kinds")?;
        let sources = Column::decode(p.source, p.sources, count, "source", "sources")?;
        let deltas = Deltas::decode(p.root_delta, p.root_deltas, count)?;
        let mut steps = StepReader::decode(&p.steps, p.step_counts, count)?;
        let mut marks = Marks::decode(p.marked, p.marks, count)?;

        let mut rest = p.blob;
        let mut root = p.first_root;
        let mut batch = Vec::with_capacity(count);
        for i in 0..count {
            if i > 0 {
                root = root.wrapping_add_signed(deltas.get(i));
            }
            let content = rest.split_to(lengths.get(i));
            let kind = Kind::from_number(kinds.get(i)).map_err(|e| match kinds.each.len() {
                0 => e.at("kind"),
                _ => e.at_index("kinds", i),
            })?;
            let lineage = Lineage { source: StageId(sources.get(i)), root, steps: steps.next(i)? };
            let item = Item { lineage, body: body(kind, content, i)?, marked: marks.next(i) };
            batch.push(Run::from(item));
        }
        Ok(Self {
            batch,
            backlog: p.backlog,
            forfeited: p.forfeited,
            watermarks: decode_roots(p.watermarks),
        })
    }
}

/// What an item is, as a column can say it.
#[derive(Clone, Copy)]
enum Kind {
    MessagePack,
    Raw,
    Error,
    End,
}

wire_enum!(Kind = ItemKind {
    MessagePack = MessagePack,
    Raw = Raw,
    Error = Error,
    End = End,
});

const fn kind_of(body: &Body) -> Kind {
    match body {
        Body::Value(Encoding::MessagePack, _) => Kind::MessagePack,
        Body::Value(Encoding::Raw, _) => Kind::Raw,
        Body::Error(_) => Kind::Error,
        Body::End => Kind::End,
    }
}

fn body(kind: Kind, content: Bytes, index: usize) -> Result<Body, DecodeError> {
    match kind {
        Kind::MessagePack => Ok(Body::Value(Encoding::MessagePack, content)),
        Kind::Raw => Ok(Body::Value(Encoding::Raw, content)),
        Kind::Error => v1::ItemError::decode(content)
            .map_err(|e| DecodeError::new("", Problem::NotAMessage(e.to_string())))
            .and_then(ItemError::decode)
            .map(|error| Body::Error(Box::new(error)))
            .map_err(|e| e.at_index("blob", index)),
        Kind::End if content.is_empty() => Ok(Body::End),
        Kind::End => Err(DecodeError::invalid("", "is the content of an end, which has none")
            .at_index("blob", index)),
    }
}

/// The contents behind each other, and the length of each.
fn pack(batch: &[Item]) -> (Bytes, Vec<u64>) {
    if let [Item { body: Body::Value(_, content), .. }] = batch {
        return (content.clone(), vec![content.len() as u64]);
    }
    let size = batch.iter().map(|item| item.size()).sum::<u64>();
    let mut blob = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let lengths = batch
        .iter()
        .map(|item| {
            let start = blob.len();
            match &item.body {
                Body::Value(_, content) => blob.extend_from_slice(content),
                Body::Error(error) => blob.extend_from_slice(&error.encode().encode_to_vec()),
                Body::End => {}
            }
            (blob.len() - start) as u64
        })
        .collect();
    (blob.into(), lengths)
}

/// Where the blob is cut.
struct Lengths {
    count: usize,
    /// Of all items, unless `each` has one for each.
    length: usize,
    each: Vec<u64>,
}

impl Lengths {
    fn decode(blob: &Bytes, length: u64, each: Vec<u64>) -> Result<Self, DecodeError> {
        if blob.len() > MAX_BLOB {
            return Err(limit("blob", MAX_BLOB, blob.len()));
        }
        let (count, length) = if length == 0 {
            let sum = each.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
            if sum != Some(blob.len() as u64) {
                return Err(DecodeError::invalid("lengths", "do not add up to the blob"));
            }
            (each.len(), 0)
        } else {
            if !each.is_empty() {
                return Err(both("length"));
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if blob.is_empty() || !blob.len().is_multiple_of(length) {
                return Err(DecodeError::invalid("length", "does not divide the blob"));
            }
            (blob.len() / length, length)
        };
        if count > MAX_BATCH {
            return Err(limit(if length == 0 { "lengths" } else { "length" }, MAX_BATCH, count));
        }
        Ok(Self { count, length, each })
    }

    /// The sum of all is the length of the blob, so each fits a `usize` and what is left of it.
    fn get(&self, i: usize) -> usize {
        self.each.get(i).map_or(self.length, |&n| usize::try_from(n).unwrap_or(0))
    }
}

/// A column: one value for all items, or one for each.
struct Column<T> {
    all: T,
    each: Vec<T>,
}

impl<T: Copy + Default + PartialEq> Column<T> {
    fn decode(
        all: T,
        each: Vec<T>,
        count: usize,
        all_field: &'static str,
        each_field: &'static str,
    ) -> Result<Self, DecodeError> {
        if !each.is_empty() {
            if all != T::default() {
                return Err(both(all_field));
            }
            expect(each_field, count, each.len())?;
        }
        Ok(Self { all, each })
    }

    fn get(&self, i: usize) -> T {
        self.each.get(i).copied().unwrap_or(self.all)
    }
}

/// As [`Column`], to be written.
fn column<T: Copy + Default + PartialEq>(values: impl Iterator<Item = T> + Clone) -> (T, Vec<T>) {
    match alike(values.clone()) {
        Some(all) => (all, Vec::new()),
        None => (T::default(), values.collect()),
    }
}

/// The value that all share, if there are any and they do.
fn alike<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// The differences between the roots of neighbours.
struct Deltas {
    all: i64,
    each: Vec<i64>,
}

impl Deltas {
    fn decode(all: Option<i64>, each: Vec<i64>, count: usize) -> Result<Self, DecodeError> {
        if !each.is_empty() {
            if all.is_some() {
                return Err(both("root_delta"));
            }
            expect("root_deltas", count.saturating_sub(1), each.len())?;
        }
        Ok(Self { all: all.unwrap_or(1), each })
    }

    /// Between item `i`, not the first, and the one before.
    fn get(&self, i: usize) -> i64 {
        self.each.get(i - 1).copied().unwrap_or(self.all)
    }
}

fn root_deltas(batch: &[Item]) -> (Option<i64>, Vec<i64>) {
    let deltas =
        batch.windows(2).map(|w| w[1].lineage.root.wrapping_sub(w[0].lineage.root).cast_signed());
    match alike(deltas.clone()) {
        Some(1) => (None, Vec::new()),
        Some(all) => (Some(all), Vec::new()),
        None => (None, deltas.collect()),
    }
}

fn steps(batch: &[Item]) -> (Vec<u64>, Vec<u32>) {
    let counts = batch.iter().map(|item| item.lineage.steps.len());
    let steps = batch.iter().flat_map(|item| encode_steps(&item.lineage.steps));
    let counts = match alike(counts.clone()) {
        Some(_) => Vec::new(),
        None => counts.map(|n| u32::try_from(n).unwrap_or(u32::MAX)).collect(),
    };
    (steps.collect(), counts)
}

/// Hands out the steps of one item after the other.
struct StepReader<'a> {
    rest: &'a [[u64; 2]],
    all: usize,
    each: Vec<u32>,
    /// How many have been handed out, to name the place of an error.
    read: usize,
}

impl<'a> StepReader<'a> {
    fn decode(steps: &'a [u64], each: Vec<u32>, count: usize) -> Result<Self, DecodeError> {
        let (rest, odd) = steps.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(DecodeError::invalid("steps", "has a kind without an index"));
        }
        let mut all = 0;
        if each.is_empty() {
            all = rest.len().checked_div(count).unwrap_or(0);
            if all * count != rest.len() {
                return Err(DecodeError::invalid("steps", "does not divide by the items"));
            }
            if all > MAX_STEPS {
                return Err(limit("steps", MAX_STEPS, all));
            }
        } else {
            expect("step_counts", count, each.len())?;
            let mut sum = 0_usize;
            for &n in &each {
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                if n > MAX_STEPS {
                    return Err(limit("step_counts", MAX_STEPS, n));
                }
                sum += n;
            }
            if sum != rest.len() {
                return Err(DecodeError::invalid("step_counts", "do not add up to the steps"));
            }
        }
        Ok(Self { rest, all, each, read: 0 })
    }

    /// Of item `i`; to be called for each in turn.
    fn next(&mut self, i: usize) -> Result<Vec<Step>, DecodeError> {
        let n = self.each.get(i).map_or(self.all, |&n| n as usize);
        // The counts add up to the steps, so the split is always there.
        let Some((mine, rest)) = self.rest.split_at_checked(n) else {
            return Err(DecodeError::invalid("step_counts", "do not add up to the steps"));
        };
        self.rest = rest;
        let before = self.read;
        self.read += n;
        mine.iter()
            .enumerate()
            .map(|(j, &[kind, n])| {
                step(kind, n).map_err(|problem| {
                    DecodeError::new("", problem).at_index("steps", 2 * (before + j))
                })
            })
            .collect()
    }
}

/// Each step as two numbers.
pub(super) fn encode_steps(steps: &[Step]) -> impl Iterator<Item = u64> {
    steps.iter().flat_map(|step| match *step {
        Step::Output(n) => [STEP_OUTPUT, n],
        Step::Branch(n) => [STEP_BRANCH, n.into()],
        Step::End(n) => [STEP_END, n],
    })
}

/// The steps of one lineage.
pub(super) fn decode_steps(steps: &[u64]) -> Result<Vec<Step>, DecodeError> {
    StepReader::decode(steps, Vec::new(), 1)?.next(0)
}

/// Whether all items are marked; if only some are, which.
fn marks(batch: &[Item]) -> (bool, Vec<u32>) {
    match alike(batch.iter().map(|item| item.marked)) {
        Some(all) => (all, Vec::new()),
        None => {
            (false, (0..).zip(batch).filter(|(_, i)| i.marked).map(|(place, _)| place).collect())
        }
    }
}

/// Says of one item after the other whether it is marked.
struct Marks {
    all: bool,
    each: std::iter::Peekable<std::vec::IntoIter<u32>>,
}

impl Marks {
    fn decode(all: bool, each: Vec<u32>, count: usize) -> Result<Self, DecodeError> {
        if all && !each.is_empty() {
            return Err(both("marked"));
        }
        if !each.is_sorted_by(|a, b| a < b) || each.last().is_some_and(|&n| n as usize >= count) {
            return Err(DecodeError::invalid("marks", "are not ascending places of items"));
        }
        Ok(Self { all, each: each.into_iter().peekable() })
    }

    /// Of item `i`; to be called for each in turn.
    fn next(&mut self, i: usize) -> bool {
        self.all || self.each.next_if(|&n| n as usize == i).is_some()
    }
}

fn step(kind: u64, n: u64) -> Result<Step, Problem> {
    match kind {
        STEP_OUTPUT => Ok(Step::Output(n)),
        STEP_BRANCH => u32::try_from(n)
            .map(Step::Branch)
            .map_err(|_| Problem::Invalid("is a branch with an index above the largest")),
        STEP_END => Ok(Step::End(n)),
        other => Err(Problem::Unknown(i64::try_from(other).unwrap_or(i64::MAX))),
    }
}

fn expect(field: &'static str, expected: usize, found: usize) -> Result<(), DecodeError> {
    if found == expected {
        Ok(())
    } else {
        Err(DecodeError::new(field, Problem::Count { expected, found }))
    }
}

fn limit(field: &'static str, limit: usize, found: usize) -> DecodeError {
    DecodeError::new(field, Problem::Limit { limit, found })
}

fn both(field: &'static str) -> DecodeError {
    DecodeError::invalid(field, "is set beside the column that replaces it")
}
