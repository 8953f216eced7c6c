//! The packed batch: contents in one blob, everything else in columns beside it.
//!
//! Encoding goes by runs: what the items of a run share is looked at once. Each content is copied once,
//! into the blob; a batch of one run copies nothing. Decoding copies nothing at all: the contents are
//! parts of the received message. Columns in which all items are alike cost nothing or one number, so
//! the usual batch (values of one length, consecutive roots) is its blob and some ten bytes, and neither
//! end looks at its single items.
//!
//! What is decoded is in as few runs as can be, however the sender had cut it: items whose lineages
//! follow each other, of one kind and one mark, are one run.
//!
//! The number of items follows from the lengths and is checked against every column before anything
//! is allocated for it.

mod columns;
mod steps;

use bytes::Bytes;
use prost::Message;
use stageline_protocol::frame::Items;
use stageline_protocol::{Content, Encoding, ItemError, Packed, Run};

use self::columns::{ColumnWriter, Columns, Place, both, column, limit, marks, root_deltas};
use self::steps::steps;
pub(super) use self::steps::{decode_steps, encode_steps};
use super::ids::{decode_roots, encode_roots};
use super::{DecodeError, Problem, Wire, WireEnum, wire_enum};
use crate::{MAX_BATCH, MAX_BLOB, v1};

/// A sender's batch is at most [`MAX_BATCH`] items of at most [`MAX_STEPS`](crate::MAX_STEPS) steps, and
/// at most [`MAX_BLOB`] in bytes: its receiver refuses more.
impl Wire for Items {
    type Proto = v1::Items;

    fn encode(&self) -> v1::Items {
        let batch = &self.batch[..];
        let items = self.count() as usize;
        let (blob, lengths) = pack(batch, items);
        // A length of zero says nothing about how many items there are, so zeros stand one by one.
        let (length, lengths) = match lengths.finish() {
            (Some(length), _) if length > 0 => (length, Vec::new()),
            (Some(_), _) => (0, vec![0; items]),
            (None, lengths) => (0, lengths),
        };
        let (kind, kinds) = column(batch, items, |run| kind_of(&run.content).number());
        let (source, sources) = column(batch, items, |run| run.lineage.source.0);
        let (root_delta, root_deltas) = root_deltas(batch, items);
        let (steps, step_counts) = steps(batch, items);
        let (marked, marks) = marks(batch);
        v1::Items {
            blob,
            length,
            lengths,
            kind,
            kinds,
            source,
            sources,
            first_root: batch.first().map_or(0, |run| run.lineage.root),
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

    fn decode(mut p: v1::Items) -> Result<Self, DecodeError> {
        let (blob, lengths) = (std::mem::take(&mut p.blob), std::mem::take(&mut p.lengths));
        let contents = cut(blob, p.length, lengths)?;
        let items = contents.as_ref().map_or(0, Packed::len) as usize;
        let (backlog, forfeited) = (p.backlog, p.forfeited);
        let watermarks = decode_roots(std::mem::take(&mut p.watermarks));
        let columns = Columns::decode(p, items)?;
        let batch = contents.map_or_else(|| Ok(Vec::new()), |all| runs(&all, &columns))?;
        Ok(Self { batch, backlog, forfeited, watermarks })
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

const fn kind_of(content: &Content) -> Kind {
    match content {
        Content::Values(Encoding::MessagePack, _) => Kind::MessagePack,
        Content::Values(Encoding::Raw, _) => Kind::Raw,
        Content::Error(_) => Kind::Error,
        Content::End => Kind::End,
    }
}

/// The contents behind each other, and the length of each.
fn pack(batch: &[Run], items: usize) -> (Bytes, ColumnWriter<u64>) {
    let mut lengths = ColumnWriter::new(items);
    if let [Run { content: Content::Values(_, values), .. }] = batch {
        push_lengths(&mut lengths, values);
        return (values.blob().clone(), lengths);
    }
    let size = batch.iter().map(|run| match &run.content {
        Content::Values(_, values) => values.blob().len(),
        // What an error counts for is more than its message takes.
        other => other.sizes().total() as usize,
    });
    let mut blob = Vec::with_capacity(size.sum());
    for run in batch {
        match &run.content {
            Content::Values(_, values) => {
                blob.extend_from_slice(values.blob());
                push_lengths(&mut lengths, values);
            }
            Content::Error(error) => {
                let start = blob.len();
                blob.extend_from_slice(&error.encode().encode_to_vec());
                lengths.push((blob.len() - start) as u64, 1);
            }
            Content::End => lengths.push(0, 1),
        }
    }
    (blob.into(), lengths)
}

fn push_lengths(lengths: &mut ColumnWriter<u64>, values: &Packed) {
    match values.length() {
        Some(length) => lengths.push(length, values.len() as usize),
        None => values.lengths().for_each(|length| lengths.push(length, 1)),
    }
}

/// The contents of all items; none if there is no item.
fn cut(blob: Bytes, length: u64, each: Vec<u64>) -> Result<Option<Packed>, DecodeError> {
    if blob.len() > MAX_BLOB {
        return Err(limit("blob", MAX_BLOB, blob.len()));
    }
    if let Some(count) = (blob.len() as u64).checked_div(length) {
        if !each.is_empty() {
            return Err(both("length"));
        }
        if count > MAX_BATCH as u64 {
            return Err(limit("length", MAX_BATCH, count as usize));
        }
        let contents = Packed::alike(blob, length, count).map(Some);
        return contents.ok_or_else(|| DecodeError::invalid("length", "does not divide the blob"));
    }
    let wrong = || DecodeError::invalid("lengths", "do not add up to the blob");
    let sum = each.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
    if sum != Some(blob.len() as u64) {
        return Err(wrong());
    }
    if each.len() > MAX_BATCH {
        return Err(limit("lengths", MAX_BATCH, each.len()));
    }
    let Some(&first) = each.first() else { return Ok(None) };
    let contents = if each.iter().all(|&length| length == first) {
        Packed::alike(blob, first, each.len() as u64)
    } else {
        let mut end = 0;
        // The sum of all is at most `MAX_BLOB`.
        let ends = each.iter().map(|&length| {
            end += length as u32;
            end
        });
        let ends = ends.collect();
        Packed::cut(blob, ends)
    };
    contents.map(Some).ok_or_else(wrong)
}

/// The items in as few runs as can be.
fn runs(contents: &Packed, columns: &Columns) -> Result<Vec<Run>, DecodeError> {
    let mut batch = Vec::new();
    let mut place = columns.first();
    while (place.item as u64) < contents.len() {
        let kind = kind_at(columns, &place)?;
        let next = match kind {
            Kind::MessagePack | Kind::Raw => columns.next_apart(&place),
            Kind::Error | Kind::End => columns.next(&place),
        };
        let lineage = columns.lineage(&place)?;
        let own = place.item as u64..next.item as u64;
        let content = content(kind, contents.slice(own), place.item)?;
        batch.push(Run { lineage, content, marked: columns.is_marked(&place) });
        place = next;
    }
    Ok(batch)
}

fn kind_at(columns: &Columns, place: &Place) -> Result<Kind, DecodeError> {
    let (number, is_of_all) = columns.kind(place);
    Kind::from_number(number).map_err(|e| match is_of_all {
        true => e.at("kind"),
        false => e.at_index("kinds", place.item),
    })
}

fn content(kind: Kind, contents: Packed, item: usize) -> Result<Content, DecodeError> {
    match kind {
        Kind::MessagePack => Ok(Content::Values(Encoding::MessagePack, contents)),
        Kind::Raw => Ok(Content::Values(Encoding::Raw, contents)),
        Kind::Error => v1::ItemError::decode(contents.blob().clone())
            .map_err(|e| DecodeError::new("", Problem::NotAMessage(e.to_string())))
            .and_then(ItemError::decode)
            .map(|error| Content::Error(Box::new(error)))
            .map_err(|e| e.at_index("blob", item)),
        Kind::End if contents.blob().is_empty() => Ok(Content::End),
        Kind::End => Err(DecodeError::invalid("", "is the content of an end, which has none")
            .at_index("blob", item)),
    }
}
