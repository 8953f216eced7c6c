//! The columns of a packed batch: one value for all items, or one for each.

use std::ops::Range;

use stageline_protocol::{Lineage, Run, StageId, Step};

use super::steps::Steps;
use crate::convert::{DecodeError, Problem};
use crate::v1;

/// A column to be written.
pub(super) struct ColumnWriter<T> {
    items: usize,
    /// The value of all so far, and how many these are, until one differs.
    alike: Option<(T, usize)>,
    each: Vec<T>,
}

impl<T: Copy + PartialEq> ColumnWriter<T> {
    /// For so many items.
    pub(super) const fn new(items: usize) -> Self {
        Self { items, alike: None, each: Vec::new() }
    }

    /// Some items more, of one value.
    pub(super) fn push(&mut self, value: T, times: usize) {
        match &mut self.alike {
            _ if times == 0 => {}
            _ if !self.each.is_empty() => self.each.extend(std::iter::repeat_n(value, times)),
            Some((all, count)) if *all == value => *count += times,
            None => self.alike = Some((value, times)),
            Some((all, count)) => {
                self.each.reserve_exact(self.items);
                self.each.extend(std::iter::repeat_n(*all, *count));
                self.each.extend(std::iter::repeat_n(value, times));
                self.alike = None;
            }
        }
    }

    /// The value that all share, if there are any and they do; else one for each.
    pub(super) fn finish(self) -> (Option<T>, Vec<T>) {
        (self.alike.map(|(all, _)| all), self.each)
    }
}

/// A column of a value for each run.
pub(super) fn column<T: Copy + Default + PartialEq>(
    batch: &[Run],
    items: usize,
    value: impl Fn(&Run) -> T,
) -> (T, Vec<T>) {
    let mut column = ColumnWriter::new(items);
    batch.iter().for_each(|run| column.push(value(run), run.len() as usize));
    let (all, each) = column.finish();
    (all.unwrap_or_default(), each)
}

/// The differences between the roots of neighbours.
pub(super) fn root_deltas(batch: &[Run], items: usize) -> (Option<i64>, Vec<i64>) {
    let mut deltas = ColumnWriter::new(items.saturating_sub(1));
    let mut before: Option<u64> = None;
    for run in batch {
        let Lineage { root, steps, .. } = &run.lineage;
        if let Some(before) = before {
            deltas.push(root.wrapping_sub(before).cast_signed(), 1);
        }
        // What a run counts is its roots, or the outputs of one.
        let further = run.len() - 1;
        let counts_roots = steps.iter().all(|step| matches!(step, Step::Branch(_)));
        deltas.push(counts_roots.into(), further as usize);
        before = Some(if counts_roots { root.wrapping_add(further) } else { *root });
    }
    let (all, each) = deltas.finish();
    (all.filter(|&delta| delta != 1), each)
}

/// Whether all items are marked; if only some are, which.
pub(super) fn marks(batch: &[Run]) -> (bool, Vec<u32>) {
    if batch.iter().all(|run| !run.marked) {
        return (false, Vec::new());
    }
    if batch.iter().all(|run| run.marked) {
        return (true, Vec::new());
    }
    let (mut places, mut next) = (Vec::new(), 0);
    for run in batch {
        let end = next + run.len() as u32;
        if run.marked {
            places.extend(next..end);
        }
        next = end;
    }
    (false, places)
}

/// All columns of a received batch; as long as the batch, each.
pub(super) struct Columns {
    items: usize,
    first_root: u64,
    kinds: Column<i32>,
    sources: Column<u32>,
    deltas: Deltas,
    steps: Steps,
    marks: Marks,
}

/// Where the columns tell of an item.
pub(super) struct Place {
    /// Which item it is of the batch.
    pub(super) item: usize,
    root: u64,
    steps: Range<usize>,
    /// How many are marked before it.
    marks: usize,
}

impl Columns {
    pub(super) fn decode(p: v1::Items, items: usize) -> Result<Self, DecodeError> {
        Ok(Self {
            items,
            first_root: p.first_root,
            kinds: Column::decode(p.kind, p.kinds, items, "kind", "kinds")?,
            sources: Column::decode(p.source, p.sources, items, "source", "sources")?,
            deltas: Deltas::decode(p.root_delta, p.root_deltas, items)?,
            steps: Steps::decode(p.steps, p.step_counts, items)?,
            marks: Marks::decode(p.marked, p.marks, items)?,
        })
    }

    /// Where the first item is, if there is one.
    pub(super) fn first(&self) -> Place {
        Place { item: 0, root: self.first_root, steps: self.steps.first(), marks: 0 }
    }

    /// The next item's, which may not be there.
    pub(super) fn next(&self, place: &Place) -> Place {
        let item = place.item + 1;
        Place {
            item,
            root: place.root.wrapping_add_signed(self.deltas.get(item)),
            steps: self.steps.next(item, &place.steps),
            marks: place.marks + usize::from(self.marks.is_listed(place)),
        }
    }

    /// The first item's that does not [follow](Self::follows) the one before it. Each item is looked at
    /// once, and none at all if they are alike.
    pub(super) fn next_apart(&self, place: &Place) -> Place {
        if self.are_alike() {
            // Roots do not follow each other beyond the largest.
            let rest = (self.items - place.item) as u64;
            let count = (u64::MAX - place.root).saturating_add(1).min(rest);
            return Place {
                item: place.item + count as usize,
                root: place.root.wrapping_add(count),
                steps: 0..0,
                marks: 0,
            };
        }
        let mut next = self.next(place);
        if !self.follows(place, &next) {
            return next;
        }
        loop {
            let further = self.next(&next);
            if !self.follows(&next, &further) {
                return further;
            }
            next = further;
        }
    }

    /// The number of its kind, and whether all share it.
    pub(super) fn kind(&self, place: &Place) -> (i32, bool) {
        (self.kinds.get(place.item), self.kinds.each.is_empty())
    }

    /// # Errors
    /// If it has steps that are none.
    pub(super) fn lineage(&self, place: &Place) -> Result<Lineage, DecodeError> {
        let source = StageId(self.sources.get(place.item));
        Ok(Lineage { source, root: place.root, steps: self.steps.get(place.steps.clone())? })
    }

    pub(super) fn is_marked(&self, place: &Place) -> bool {
        self.marks.all || self.marks.is_listed(place)
    }

    /// Whether all items are roots of one source in a row, of one kind and one mark.
    const fn are_alike(&self) -> bool {
        self.kinds.each.is_empty()
            && self.sources.each.is_empty()
            && self.deltas.each.is_empty()
            && self.deltas.all == 1
            && self.steps.is_empty()
            && self.marks.each.is_empty()
    }

    /// Whether an item is there and goes on with what the one before it is.
    fn follows(&self, place: &Place, next: &Place) -> bool {
        next.item < self.items
            && self.kinds.get(place.item) == self.kinds.get(next.item)
            && self.sources.get(place.item) == self.sources.get(next.item)
            && self.is_marked(place) == self.is_marked(next)
            && self.steps.follow((place.root, &place.steps), (next.root, &next.steps))
    }
}

/// One value for all items, or one for each.
struct Column<T> {
    all: T,
    each: Vec<T>,
}

impl<T: Copy + Default + PartialEq> Column<T> {
    fn decode(
        all: T,
        each: Vec<T>,
        items: usize,
        all_field: &'static str,
        each_field: &'static str,
    ) -> Result<Self, DecodeError> {
        if !each.is_empty() {
            if all != T::default() {
                return Err(both(all_field));
            }
            expect(each_field, items, each.len())?;
        }
        Ok(Self { all, each })
    }

    fn get(&self, item: usize) -> T {
        self.each.get(item).copied().unwrap_or(self.all)
    }
}

/// The differences between the roots of neighbours.
struct Deltas {
    all: i64,
    each: Vec<i64>,
}

impl Deltas {
    fn decode(all: Option<i64>, each: Vec<i64>, items: usize) -> Result<Self, DecodeError> {
        if !each.is_empty() {
            if all.is_some() {
                return Err(both("root_delta"));
            }
            expect("root_deltas", items.saturating_sub(1), each.len())?;
        }
        Ok(Self { all: all.unwrap_or(1), each })
    }

    /// Between an item, not the first, and the one before.
    fn get(&self, item: usize) -> i64 {
        self.each.get(item - 1).copied().unwrap_or(self.all)
    }
}

/// Which items are marked.
struct Marks {
    all: bool,
    /// The places of those that are, unless all are.
    each: Vec<u32>,
}

impl Marks {
    fn decode(all: bool, each: Vec<u32>, items: usize) -> Result<Self, DecodeError> {
        if all && !each.is_empty() {
            return Err(both("marked"));
        }
        if !each.is_sorted_by(|a, b| a < b) || each.last().is_some_and(|&n| n as usize >= items) {
            return Err(DecodeError::invalid("marks", "are not ascending places of items"));
        }
        Ok(Self { all, each })
    }

    fn is_listed(&self, place: &Place) -> bool {
        self.each.get(place.marks).is_some_and(|&n| n as usize == place.item)
    }
}

pub(super) fn expect(
    field: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), DecodeError> {
    if found == expected {
        Ok(())
    } else {
        Err(DecodeError::new(field, Problem::Count { expected, found }))
    }
}

pub(super) fn limit(field: &'static str, limit: usize, found: usize) -> DecodeError {
    DecodeError::new(field, Problem::Limit { limit, found })
}

pub(super) fn both(field: &'static str) -> DecodeError {
    DecodeError::invalid(field, "is set beside the column that replaces it")
}
