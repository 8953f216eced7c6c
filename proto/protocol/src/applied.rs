//! What a boundary has applied: so that nothing is applied twice, and nothing vanishes.
//!
//! A lineage that arrives is *fresh* or a duplicate. A duplicate is acked only when the first copy
//! is: until then it waits beside it, because an ack says "safe", and nothing is safe yet. What
//! lies below a source's watermark is finished everywhere; its state is forgotten, and a late copy
//! is known by its root alone.
//!
//! # Expansions
//!
//! The first end marker of an expansion that arrives says how many outputs it has; outputs beyond
//! are *divergent*, and dropped. But a rerun may come to its end earlier than the first run did: a
//! timeout, a server that is busy. Its upstream is then acked for fewer outputs, and those that
//! the first run lost on their way are never made again. So a later end with a lower count closes
//! the places from there on that have not been applied; if there are any, an error has to be told
//! ([`Verdict::Closes`]). The same holds for the first end, where outputs of another run have come from
//! beyond it, and not all before the last of them. Thus each root ends in all its values, or in an error
//! that is told.
//!
//! A later end of the same or a higher count hides nothing: its run sent every output before it.
//!
//! # What is remembered
//!
//! Places are kept as ranges, by expansion. An expansion whose end and whose outputs have all been
//! applied is *finished*, and becomes one place of the expansion that it is an output of, or of the
//! roots. So memory follows what is open, and not what has passed. (Where a later stage drops
//! outputs, nobody says so here, and such an expansion stays open until its root is finished.)

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::StageId;
use crate::lineage::{Lineage, Step};
use crate::ranges::RangeSet;

#[cfg(test)]
mod tests;

/// The lineages that have been applied, with those still waiting to be settled.
#[derive(Clone, Debug, Default, Hash)]
pub struct Applied {
    sources: BTreeMap<StageId, OfSource>,
    /// Applied and not yet settled, by [family](Lineage::family): the places.
    pending: BTreeMap<Lineage, RangeSet>,
    /// The inputs of later copies, by what they wait for.
    waiting: BTreeMap<Lineage, Vec<Waiter>>,
}

/// A later copy, or something that was dropped for what has been applied.
#[derive(Clone, Debug, Hash)]
struct Waiter {
    input: u64,
    /// All that came of this is to be safe; if unset, just what it waits for now.
    under: Option<Lineage>,
}

#[derive(Clone, Debug, Default, Hash)]
struct OfSource {
    watermark: u64,
    /// Roots that arrived as themselves, or are finished, by the branches behind them.
    roots: BTreeMap<Vec<Step>, RangeSet>,
    /// Roots with an expansion that is not finished.
    open: BTreeMap<u64, OfRoot>,
}

/// The expansions of a root, by the steps of what was expanded.
type OfRoot = BTreeMap<Vec<Step>, Expansion>;

#[derive(Clone, Debug, Default, Hash)]
struct Expansion {
    /// Outputs that arrived as themselves, or are finished, by the branches behind them.
    places: BTreeMap<Vec<Step>, RangeSet>,
    end: Option<Ended>,
}

/// The end markers of an expansion that have been applied.
#[derive(Clone, Copy, Debug, Hash)]
struct Ended {
    /// The lowest count: places from there on are closed.
    count: u64,
    /// The count of the first.
    first: u64,
}

/// What a lineage that arrived is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Seen for the first time: apply it, and [`Applied::settle`] it when it is safe.
    Fresh,
    /// An end marker that closes places which have not been applied: tell an error, its own or one
    /// for it, and [`Applied::settle`] it when that is safe.
    Closes,
    /// A copy of something that is safe: ack it.
    Safe,
    /// A copy of something that is not safe yet; it has been noted, and [`Applied::settle`] will
    /// hand it back.
    Waits,
    /// It contradicts an end marker that was applied: drop it and count it. Ack it, unless it
    /// `waits` for the marker as a copy does.
    Divergent {
        /// [`Applied::settle`] will hand it back.
        waits: bool,
    },
}

/// What has been applied already, of a lineage that arrived.
enum Known {
    New,
    /// It, or all that ever comes of the first so many of its steps.
    Finished(usize),
    /// It is beyond the end of the expansion of the first so many of its steps.
    Beyond(usize),
}

impl Applied {
    /// Nothing applied yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An item of this lineage arrived, as this input.
    pub fn apply(&mut self, lineage: &Lineage, input: u64) -> Verdict {
        let source = self.sources.entry(lineage.source).or_default();
        if lineage.root < source.watermark {
            return Verdict::Safe;
        }
        let (family, place) = (lineage.family(), lineage.place().unwrap_or(0));
        if self.pending.get(&family).is_some_and(|places| places.contains(place)) {
            self.wait(lineage.clone(), Waiter { input, under: None });
            return Verdict::Waits;
        }
        let under = |steps: usize| Lineage {
            source: lineage.source,
            root: lineage.root,
            steps: lineage.steps[..steps].to_vec(),
        };
        match source.look_up(lineage) {
            Known::Finished(steps) => self.copy(input, under(steps)),
            Known::Beyond(steps) => {
                let waits = self.copy(input, under(steps)) == Verdict::Waits;
                Verdict::Divergent { waits }
            }
            Known::New => {
                let verdict = source.apply(lineage);
                match verdict {
                    Verdict::Fresh | Verdict::Closes => {
                        self.pending.entry(family).or_default().insert(place);
                        verdict
                    }
                    _ => {
                        // An end marker that says nothing new.
                        let copy = self.copy(input, under(lineage.steps.len() - 1));
                        match verdict {
                            Verdict::Divergent { .. } => {
                                Verdict::Divergent { waits: copy == Verdict::Waits }
                            }
                            _ => copy,
                        }
                    }
                }
            }
        }
    }

    /// So many items, of this lineage and those that follow it, arrived. If they are known at a glance
    /// to be fresh, all are applied; if not, nothing is, and they are to be looked at one by one.
    #[must_use]
    pub fn apply_fresh(&mut self, first: &Lineage, count: u64) -> bool {
        let source = self.sources.entry(first.source).or_default();
        let Some(place) = first.place() else { return false };
        let places = place..place.saturating_add(count);
        if first.root < source.watermark || !source.apply_fresh(first, &places) {
            return false;
        }
        self.pending.entry(first.family()).or_default().insert_range(places);
        true
    }

    /// Fresh items, of this lineage and those that follow it, are safe: answers the copies that waited
    /// for them, to be acked with them.
    #[must_use]
    pub fn settle(&mut self, first: &Lineage, count: u64) -> Vec<u64> {
        let (family, place) = (first.family(), first.place().unwrap_or(0));
        if let Some(places) = self.pending.get_mut(&family) {
            places.remove_range(place..place.saturating_add(count));
            if places.is_empty() {
                self.pending.remove(&family);
            }
        }
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let waited = (0..count).filter_map(|n| self.waiting.remove(&first.after(n)));
        let waited: Vec<Waiter> = waited.flatten().collect();
        waited.into_iter().filter_map(|waiter| self.release(waiter)).collect()
    }

    /// All roots of the source below the watermark are acked: forgets them.
    pub fn advance(&mut self, source: StageId, watermark: u64) {
        let source = self.sources.entry(source).or_default();
        if watermark > source.watermark {
            source.watermark = watermark;
            source.roots.values_mut().for_each(|roots| roots.forget_below(watermark));
            source.open = source.open.split_off(&watermark);
        }
    }

    /// How many ranges, expansions and waiting copies it remembers: what the window bounds.
    #[must_use]
    pub fn weight(&self) -> usize {
        let ranges = |sets: &BTreeMap<Vec<Step>, RangeSet>| {
            sets.values().map(RangeSet::range_count).sum::<usize>()
        };
        let of_root = |root: &OfRoot| root.values().map(|e| 1 + ranges(&e.places)).sum::<usize>();
        let of_source =
            |s: &OfSource| ranges(&s.roots) + s.open.values().map(of_root).sum::<usize>();
        self.sources.values().map(of_source).sum::<usize>()
            + self.pending.values().map(RangeSet::range_count).sum::<usize>()
            + self.waiting.values().map(Vec::len).sum::<usize>()
    }

    /// A copy of what came of an item: it waits for as long as anything of that is not safe.
    fn copy(&mut self, input: u64, under: Lineage) -> Verdict {
        match self.release(Waiter { input, under: Some(under) }) {
            Some(_) => Verdict::Safe,
            None => Verdict::Waits,
        }
    }

    /// Answers the input if it has nothing more to wait for.
    fn release(&mut self, waiter: Waiter) -> Option<u64> {
        match waiter.under.as_ref().and_then(|under| self.pending_under(under)) {
            None => Some(waiter.input),
            Some(lineage) => {
                self.wait(lineage, waiter);
                None
            }
        }
    }

    fn wait(&mut self, lineage: Lineage, waiter: Waiter) {
        self.waiting.entry(lineage).or_default().push(waiter);
    }

    /// Something that came of this item and is not safe yet, the item itself included.
    fn pending_under(&self, item: &Lineage) -> Option<Lineage> {
        let (family, place) = (item.family(), item.place().unwrap_or(0));
        if self.pending.get(&family).is_some_and(|places| places.contains(place)) {
            return Some(item.clone());
        }
        let of_item = |family: &Lineage| {
            (family.source, family.root) == (item.source, item.root)
                && family.steps.starts_with(&item.steps)
        };
        // Families of the item itself, and of roots, begin as it does and are no part of it.
        let behind = |family: &Lineage| {
            let behind = family.steps.get(item.steps.len()..).unwrap_or_default();
            behind.iter().any(|step| !matches!(step, Step::Branch(_)))
        };
        let families = self.pending.range(item.clone()..).take_while(|(family, _)| of_item(family));
        let mut families = families.filter(|(family, _)| behind(family));
        families.find_map(|(family, places)| Some(family.after(places.iter().next()?.start)))
    }
}

impl Expansion {
    /// Whether all these places have been applied. Of branches it is not known how many there are,
    /// so what lies in them never counts as all.
    fn covers(&self, places: &Range<u64>) -> bool {
        let all = self.places.get(&[][..]);
        places.is_empty() || all.is_some_and(|all| all.covers(places))
    }

    /// One that closed places is kept, so that what comes late for them is known for what it is.
    fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| end.count == end.first && self.covers(&(0..end.count)))
    }

    /// How many outputs there must have been, by the last that was applied.
    fn made(&self) -> u64 {
        let last = self.places.values().filter_map(RangeSet::last).max();
        last.map_or(0, |last| last.saturating_add(1))
    }

    fn is_beyond(&self, place: u64) -> bool {
        self.end.is_some_and(|end| place >= end.count)
    }

    fn has(&self, place: u64, branches: &[Step]) -> bool {
        self.places.get(branches).is_some_and(|places| places.contains(place))
    }
}

/// Whether an output from this place on is itself an expansion, of which something is applied and something
/// is missing.
fn has_begun(root: &OfRoot, expanded: &[Step], from: u64) -> bool {
    let mut first = expanded.to_vec();
    first.push(Step::Output(from));
    let mut behind = root.range(first..).map(|(steps, _)| steps);
    behind.next().is_some_and(|steps| {
        steps.starts_with(expanded) && matches!(steps.get(expanded.len()), Some(Step::Output(_)))
    })
}

/// The branches that begin these steps.
fn branches(steps: &[Step]) -> &[Step] {
    let count = steps.iter().take_while(|step| matches!(step, Step::Branch(_))).count();
    &steps[..count]
}

/// The outputs on the way: where each stands among the steps, which it is, and the branches behind it.
fn outputs(steps: &[Step]) -> impl DoubleEndedIterator<Item = (usize, u64, &[Step])> {
    steps.iter().enumerate().filter_map(move |(at, step)| match step {
        Step::Output(place) => Some((at, *place, branches(&steps[at + 1..]))),
        _ => None,
    })
}

impl OfSource {
    fn look_up(&self, lineage: &Lineage) -> Known {
        let steps = match lineage.steps.split_last() {
            Some((Step::End(_), head)) => head,
            _ => &lineage.steps,
        };
        let first = branches(steps);
        if self.roots.get(first).is_some_and(|roots| roots.contains(lineage.root)) {
            return Known::Finished(first.len());
        }
        let Some(root) = self.open.get(&lineage.root) else { return Known::New };
        let mut beyond = None;
        for (at, place, branches) in outputs(steps) {
            let Some(expansion) = root.get(&steps[..at]) else { continue };
            if expansion.has(place, branches) {
                return Known::Finished(at + 1 + branches.len());
            }
            if expansion.is_beyond(place) {
                beyond.get_or_insert(at);
            }
        }
        beyond.map_or(Known::New, Known::Beyond)
    }

    /// Applies all of these places if none has been, and it is clear that none may not be.
    fn apply_fresh(&mut self, first: &Lineage, places: &Range<u64>) -> bool {
        let Some((at, _, behind)) = outputs(&first.steps).next_back() else {
            let roots = self.roots.entry(first.steps.clone()).or_default();
            let fresh = !roots.touches(places);
            if fresh {
                roots.insert_range(places.clone());
            }
            return fresh;
        };
        if !matches!(self.look_up(first), Known::New) {
            return false;
        }
        let root = self.open.entry(first.root).or_default();
        let expansion = root.entry(first.steps[..at].to_vec()).or_default();
        let set = expansion.places.entry(behind.to_vec()).or_default();
        let fresh = !set.touches(places) && expansion.end.is_none_or(|end| places.end <= end.count);
        if fresh {
            set.insert_range(places.clone());
            if expansion.is_finished() {
                self.finish(first.root, first.steps[..at].to_vec());
            }
        }
        fresh
    }

    /// Applies what is new; an end marker may turn out to say nothing new.
    fn apply(&mut self, lineage: &Lineage) -> Verdict {
        let (expanded, verdict) = match lineage.steps.split_last() {
            Some((Step::End(count), expanded)) => {
                let root = self.open.entry(lineage.root).or_default();
                let begun_beyond = has_begun(root, expanded, *count);
                let expansion = root.entry(expanded.to_vec()).or_default();
                let verdict = match expansion.end {
                    None => {
                        let made = expansion.made();
                        let gap = !expansion.covers(&(*count..made)) || begun_beyond;
                        let first = if gap { made.max(count.saturating_add(1)) } else { *count };
                        expansion.end = Some(Ended { count: *count, first });
                        if gap { Verdict::Closes } else { Verdict::Fresh }
                    }
                    Some(end) if *count == end.count || *count == end.first => Verdict::Safe,
                    Some(end) if *count > end.count => Verdict::Divergent { waits: false },
                    Some(end) if expansion.covers(&(*count..end.count)) => Verdict::Safe,
                    Some(end) => {
                        expansion.end = Some(Ended { count: *count, ..end });
                        Verdict::Closes
                    }
                };
                (expanded, verdict)
            }
            _ => match outputs(&lineage.steps).next_back() {
                Some((at, place, behind)) => {
                    let root = self.open.entry(lineage.root).or_default();
                    let expansion = root.entry(lineage.steps[..at].to_vec()).or_default();
                    expansion.places.entry(behind.to_vec()).or_default().insert(place);
                    (&lineage.steps[..at], Verdict::Fresh)
                }
                None => {
                    self.roots.entry(lineage.steps.clone()).or_default().insert(lineage.root);
                    return Verdict::Fresh;
                }
            },
        };
        self.finish(lineage.root, expanded.to_vec());
        verdict
    }

    /// An expansion that is finished is a place of what it is part of; which may be finished by that.
    fn finish(&mut self, root: u64, mut expanded: Vec<Step>) {
        while let Some(of_root) = self.open.get_mut(&root)
            && of_root.get(&expanded).is_some_and(Expansion::is_finished)
        {
            let within = of_root.range(expanded.clone()..);
            let within = within.map(|(steps, _)| steps).take_while(|s| s.starts_with(&expanded));
            let within: Vec<Vec<Step>> = within.cloned().collect();
            within.iter().for_each(|steps| drop(of_root.remove(steps)));
            let part_of = outputs(&expanded).next_back().map(|(at, place, _)| (at, place));
            let Some((at, place)) = part_of else {
                if of_root.is_empty() {
                    self.open.remove(&root);
                }
                self.roots.entry(expanded).or_default().insert(root);
                return;
            };
            let behind = expanded.split_off(at + 1);
            expanded.truncate(at);
            let parent = of_root.entry(expanded.clone()).or_default();
            parent.places.entry(behind).or_default().insert(place);
        }
    }
}
