//! What a boundary has applied: so that nothing is applied twice.
//!
//! A lineage that arrives is *fresh* or a duplicate. A duplicate is acked only when the first copy
//! is: until then it waits beside it, because an ack says "safe", and nothing is safe yet. What
//! lies below a source's watermark is finished everywhere; its state is forgotten, and a late copy
//! is known by its root alone.
//!
//! Within a root, outputs of an expansion are kept as ranges. An expansion that is run again may
//! disagree with its earlier run (its function does not keep its promise): the first end marker
//! wins, and whatever contradicts it is *divergent*.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::StageId;
use crate::lineage::{Lineage, Step};
use crate::ranges::RangeSet;

/// The lineages that have been applied, with those still waiting to be settled.
#[derive(Clone, Debug, Default, Hash)]
pub struct Applied {
    sources: BTreeMap<StageId, OfSource>,
    /// Applied and not yet settled, by [family](Lineage::family): the places.
    pending: BTreeMap<Lineage, RangeSet>,
    /// The inputs of later copies, which wait for these.
    waiting: BTreeMap<Lineage, Vec<u64>>,
}

#[derive(Clone, Debug, Default, Hash)]
struct OfSource {
    watermark: u64,
    /// Roots that arrived as themselves, without steps.
    plain: RangeSet,
    /// Roots that were expanded or broadcast on the way.
    expanded: BTreeMap<u64, OfRoot>,
}

#[derive(Clone, Debug, Default, Hash)]
struct OfRoot {
    outputs: BTreeMap<Vec<Step>, RangeSet>,
    branches: BTreeMap<Vec<Step>, RangeSet>,
    ends: BTreeMap<Vec<Step>, u64>,
}

/// What a lineage that arrived is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Seen for the first time: apply it, and [`Applied::settle`] it when it is safe.
    Fresh,
    /// A copy of something that is safe: ack it.
    Safe,
    /// A copy of something that is not safe yet; it has been noted, and [`Applied::settle`] will
    /// hand it back.
    Waits,
    /// It contradicts an end marker that was applied: drop it, ack it, count it.
    Divergent,
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
            self.waiting.entry(lineage.clone()).or_default().push(input);
            return Verdict::Waits;
        }
        let verdict = source.apply(lineage);
        if verdict == Verdict::Fresh {
            self.pending.entry(family).or_default().insert(place);
        }
        verdict
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
        waited.flatten().collect()
    }

    /// All roots of the source below the watermark are acked: forgets them.
    pub fn advance(&mut self, source: StageId, watermark: u64) {
        let source = self.sources.entry(source).or_default();
        if watermark > source.watermark {
            source.watermark = watermark;
            source.plain.forget_below(watermark);
            source.expanded = source.expanded.split_off(&watermark);
        }
    }

    /// How many roots and ranges it remembers: what the window bounds.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of_root = |r: &OfRoot| {
            r.outputs.values().map(RangeSet::range_count).sum::<usize>() + r.ends.len()
        };
        self.sources
            .values()
            .map(|s| s.plain.range_count() + s.expanded.values().map(of_root).sum::<usize>())
            .sum()
    }
}

impl OfSource {
    /// Applies all of these places if none has been, and it is clear that none may not be.
    fn apply_fresh(&mut self, first: &Lineage, places: &Range<u64>) -> bool {
        let set = match first.steps.split_last() {
            None => &mut self.plain,
            Some((Step::Output(_), prefix)) => {
                let root = self.expanded.entry(first.root).or_default();
                if !root.ends.is_empty() {
                    return false;
                }
                root.outputs.entry(prefix.to_vec()).or_default()
            }
            Some(_) => return false,
        };
        let fresh = !set.touches(places);
        if fresh {
            set.insert_range(places.clone());
        }
        fresh
    }

    fn apply(&mut self, lineage: &Lineage) -> Verdict {
        let Some((last, prefix)) = lineage.steps.split_last() else {
            return fresh_if(self.plain.insert(lineage.root));
        };
        let root = self.expanded.entry(lineage.root).or_default();
        for (i, step) in lineage.steps.iter().enumerate() {
            if let Step::Output(n) = step
                && root.ends.get(&lineage.steps[..i]).is_some_and(|count| n >= count)
            {
                return Verdict::Divergent;
            }
        }
        match *last {
            Step::Output(n) => fresh_if(root.outputs.entry(prefix.to_vec()).or_default().insert(n)),
            Step::Branch(n) => {
                fresh_if(root.branches.entry(prefix.to_vec()).or_default().insert(n.into()))
            }
            Step::End(count) => match root.ends.get(prefix) {
                Some(first) if *first != count => Verdict::Divergent,
                Some(_) => Verdict::Safe,
                None => {
                    root.ends.insert(prefix.to_vec(), count);
                    Verdict::Fresh
                }
            },
        }
    }
}

const fn fresh_if(new: bool) -> Verdict {
    if new { Verdict::Fresh } else { Verdict::Safe }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const S: StageId = StageId(0);

    fn root(n: u64) -> Lineage {
        Lineage::root(S, n)
    }

    #[test]
    fn a_copy_waits_for_the_first_and_is_acked_with_it() {
        let mut applied = Applied::new();
        assert_eq!(applied.apply(&root(3), 10), Verdict::Fresh);
        assert_eq!(applied.apply(&root(3), 11), Verdict::Waits);
        assert_eq!(applied.apply(&root(3), 12), Verdict::Waits);
        assert_eq!(applied.settle(&root(3), 1), [11, 12]);
        assert_eq!(applied.apply(&root(3), 13), Verdict::Safe);
    }

    #[test]
    fn the_first_end_of_an_expansion_wins() {
        let mut applied = Applied::new();
        let out = |n| root(0).with(Step::Output(n));
        assert_eq!(applied.apply(&out(0), 0), Verdict::Fresh);
        assert_eq!(applied.apply(&root(0).with(Step::End(2)), 1), Verdict::Fresh);
        assert_eq!(applied.apply(&out(1), 2), Verdict::Fresh);
        assert_eq!(applied.apply(&out(2), 3), Verdict::Divergent);
        assert_eq!(applied.apply(&out(2).with(Step::Output(0)), 3), Verdict::Divergent);
        assert_eq!(applied.apply(&root(0).with(Step::End(3)), 4), Verdict::Divergent);
        assert_eq!(applied.apply(&root(0).with(Step::End(2)), 5), Verdict::Waits);
    }

    #[test]
    fn below_the_watermark_everything_is_a_copy_and_nothing_is_remembered() {
        let mut applied = Applied::new();
        for n in 0..10 {
            let lineage = root(n).with(Step::Output(n));
            assert_eq!(applied.apply(&lineage, n), Verdict::Fresh);
            assert!(applied.settle(&lineage, 1).is_empty());
        }
        applied.advance(S, 9);
        assert_eq!(applied.weight(), 1);
        assert_eq!(applied.apply(&root(3).with(Step::Output(77)), 0), Verdict::Safe);
        applied.advance(S, 4);
        assert_eq!(applied.apply(&root(8), 0), Verdict::Safe, "a watermark does not fall");
    }

    fn lineages() -> impl Strategy<Value = Lineage> {
        let step = prop_oneof![(0u64..3).prop_map(Step::Output), (0u32..2).prop_map(Step::Branch),];
        (0u64..4, prop::collection::vec(step, 0..3)).prop_map(|(n, steps)| Lineage {
            source: S,
            root: n,
            steps,
        })
    }

    proptest! {
        #[test]
        fn a_run_is_applied_as_its_items_are(
            arrivals in prop::collection::vec((lineages(), 1u64..4, any::<bool>()), 0..60),
        ) {
            let (mut runs, mut items) = (Applied::new(), Applied::new());
            for (input, (first, count, settle)) in arrivals.into_iter().enumerate() {
                let input = input as u64;
                let all = || (0..count).map(|n| first.after(n));
                let one_by_one: Vec<_> = all().map(|l| items.apply(&l, input)).collect();
                if runs.apply_fresh(&first, count) {
                    prop_assert!(one_by_one.iter().all(|verdict| *verdict == Verdict::Fresh));
                } else {
                    let verdicts: Vec<_> = all().map(|l| runs.apply(&l, input)).collect();
                    prop_assert_eq!(verdicts, one_by_one);
                }
                if settle {
                    let waited: Vec<u64> = all().flat_map(|l| items.settle(&l, 1)).collect();
                    prop_assert_eq!(runs.settle(&first, count), waited);
                }
            }
            prop_assert_eq!(runs.weight(), items.weight());
        }

        #[test]
        fn a_lineage_is_fresh_once(arrivals in prop::collection::vec((lineages(), any::<bool>()), 0..80)) {
            let (mut applied, mut seen, mut unsettled) = (Applied::new(), BTreeSet::new(), BTreeSet::new());
            for (input, (lineage, settle)) in arrivals.into_iter().enumerate() {
                let verdict = applied.apply(&lineage, input as u64);
                let expected = if seen.insert(lineage.clone()) {
                    unsettled.insert(lineage.clone());
                    Verdict::Fresh
                } else if unsettled.contains(&lineage) {
                    Verdict::Waits
                } else {
                    Verdict::Safe
                };
                prop_assert_eq!(verdict, expected);
                if settle {
                    let waited = applied.settle(&lineage, 1);
                    prop_assert!(waited.is_empty() || unsettled.contains(&lineage));
                    unsettled.remove(&lineage);
                }
            }
        }
    }
}
