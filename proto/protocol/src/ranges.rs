//! A set of numbers, kept as ranges: compact when what it holds is mostly contiguous.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64`, stored as disjoint, non-adjacent, half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeSet {
    /// start → end, exclusive.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Adds one number. False if it was there.
    pub fn insert(&mut self, n: u64) -> bool {
        if self.contains(n) || n == u64::MAX {
            return false;
        }
        let mut start = n;
        let mut end = n + 1;
        if let Some((&s, &e)) = self.ranges.range(..n).next_back()
            && e == n
        {
            start = s;
        }
        if let Some(after) = self.ranges.remove(&end) {
            end = after;
        }
        self.ranges.insert(start, end);
        true
    }

    /// Adds all numbers of a range.
    pub fn insert_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&s, &e)) = self.ranges.range(..=start).next_back()
            && e >= start
        {
            start = s;
            end = end.max(e);
        }
        let swallowed: Vec<u64> = self.ranges.range(start..=end).map(|(&s, _)| s).collect();
        for s in swallowed {
            if let Some(e) = self.ranges.remove(&s) {
                end = end.max(e);
            }
        }
        self.ranges.insert(start, end);
    }

    /// Removes all numbers of a range.
    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&s, &e)) = self.ranges.range(..range.start).next_back()
            && e > range.start
        {
            self.ranges.insert(s, range.start);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
        while let Some((&s, &e)) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, n: u64) -> bool {
        self.ranges.range(..=n).next_back().is_some_and(|(_, &e)| n < e)
    }

    /// Whether any number of the range is in the set.
    #[must_use]
    pub fn touches(&self, range: &Range<u64>) -> bool {
        !range.is_empty()
            && self.ranges.range(..range.end).next_back().is_some_and(|(_, &e)| e > range.start)
    }

    /// Whether every number of the range is in the set.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &e)| e >= range.end)
    }

    /// The range in ascending order, as parts that are in the set and parts that are not.
    #[must_use]
    pub fn parts(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let (mut parts, mut at) = (Vec::new(), range.start);
        let before = self.ranges.range(..=at).next_back().map_or(at, |(&s, _)| s);
        for (&s, &e) in self.ranges.range(before..range.end.max(before)) {
            let (start, end) = (s.max(at), e.min(range.end));
            if start < end {
                if at < start {
                    parts.push((at..start, false));
                }
                parts.push((start..end, true));
                at = end;
            }
        }
        if at < range.end {
            parts.push((at..range.end, false));
        }
        parts
    }

    /// Removes everything below `bound`.
    pub fn forget_below(&mut self, bound: u64) {
        while let Some((&s, &e)) = self.ranges.first_key_value() {
            if s >= bound {
                return;
            }
            self.ranges.remove(&s);
            if e > bound {
                self.ranges.insert(bound, e);
                return;
            }
        }
    }

    /// If the set starts exactly at `at`, takes its first range away and answers where that ended.
    /// So a prefix that grows by ranges swallows what has become contiguous with it.
    pub fn take_prefix(&mut self, at: u64) -> Option<u64> {
        self.ranges.remove(&at)
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&s, &e)| s..e)
    }

    /// The numbers of this set that are not in `other`, as ranges.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Vec<Range<u64>> {
        let mut rest = Vec::new();
        for range in self.iter() {
            let mut start = range.start;
            let before = other.ranges.range(..=start).next_back().map(|(&s, _)| s).unwrap_or(start);
            for (&s, &e) in other.ranges.range(before..range.end) {
                if s > start {
                    rest.push(start..s);
                }
                start = start.max(e);
            }
            if start < range.end {
                rest.push(start..range.end);
            }
        }
        rest
    }

    /// How many ranges it takes.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The largest number in it.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, &e)| e - 1)
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert_range(range);
        }
        set
    }
}

/// Numbers that are settled: everything below `prefix`, and some more above it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settled {
    prefix: u64,
    above: RangeSet,
}

impl Settled {
    /// Nothing settled yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefix: 0, above: RangeSet::new() }
    }

    /// As it travels: a prefix and ranges above it. Ranges that touch the prefix are folded into it.
    #[must_use]
    pub fn from_parts(prefix: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut set = Self { prefix, above: ranges.into_iter().collect() };
        set.above.forget_below(prefix);
        set.fold();
        set
    }

    /// Settles one number. False if it was settled.
    pub fn insert(&mut self, n: u64) -> bool {
        if n == self.prefix {
            self.prefix += 1;
            self.fold();
            return true;
        }
        n > self.prefix && self.above.insert(n)
    }

    /// Settles all numbers of a range.
    pub fn insert_range(&mut self, range: Range<u64>) {
        if range.start <= self.prefix {
            self.prefix = self.prefix.max(range.end);
            self.above.forget_below(self.prefix);
            self.fold();
        } else {
            self.above.insert_range(range);
        }
    }

    /// The range in ascending order, as parts that are settled and parts that are not.
    #[must_use]
    pub fn parts(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let below = range.start..range.end.min(self.prefix);
        let mut parts = self.above.parts(range.start.max(self.prefix)..range.end);
        if !below.is_empty() {
            parts.insert(0, (below, true));
        }
        parts
    }

    fn fold(&mut self) {
        while let Some(end) = self.above.take_prefix(self.prefix) {
            self.prefix = end;
        }
    }

    /// Whether the number is settled.
    #[must_use]
    pub fn contains(&self, n: u64) -> bool {
        n < self.prefix || self.above.contains(n)
    }

    /// Everything below this is settled; this is not.
    #[must_use]
    pub const fn prefix(&self) -> u64 {
        self.prefix
    }

    /// What is settled above the prefix.
    #[must_use]
    pub const fn above(&self) -> &RangeSet {
        &self.above
    }

    /// One past the largest settled number.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.above.last().map_or(self.prefix, |n| n + 1)
    }

    /// What is settled here and was not in `older`, as ranges.
    #[must_use]
    pub fn since(&self, older: &Self) -> Vec<Range<u64>> {
        let mut new = self.above.clone();
        new.insert_range(older.prefix..self.prefix.max(older.prefix));
        new.forget_below(older.prefix);
        new.minus(&older.above)
    }

    /// Adds all that `other` has settled.
    pub fn merge(&mut self, other: &Self) {
        self.above.insert_range(self.prefix..other.prefix.max(self.prefix));
        for range in other.above.iter() {
            self.above.insert_range(range);
        }
        self.above.forget_below(self.prefix);
        self.fold();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_set_is_a_set(ops in prop::collection::vec((0u64..40, 0u64..6, 0u8..3), 0..60), cut in 0u64..40) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (start, len, op) in ops {
                let range = start..start + len;
                prop_assert_eq!(set.touches(&range), model.range(range.clone()).next().is_some());
                match op {
                    0 => prop_assert_eq!(set.insert(start), model.insert(start)),
                    1 => {
                        set.insert_range(range.clone());
                        model.extend(range);
                    }
                    _ => {
                        set.remove_range(range.clone());
                        model.retain(|n| !range.contains(n));
                    }
                }
                let parts = set.parts(start..start + 9);
                prop_assert!(parts.windows(2).all(|w| w[0].0.end == w[1].0.start && w[0].1 != w[1].1));
                let flat: Vec<_> = parts.into_iter().flat_map(|(r, there)| r.map(move |n| (n, there))).collect();
                let expected: Vec<_> = (start..start + 9).map(|n| (n, model.contains(&n))).collect();
                prop_assert_eq!(flat, expected);
            }
            set.forget_below(cut);
            model.retain(|&n| n >= cut);
            let flat: Vec<u64> = set.iter().flatten().collect();
            prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].end < w[1].start), "ranges touch: {all:?}");
            prop_assert_eq!(set.last(), model.last().copied());
        }

        #[test]
        fn settled_numbers_fold_into_the_prefix(numbers in prop::collection::vec(0u64..30, 0..40), more in prop::collection::vec(0u64..30, 0..40)) {
            let (mut a, mut b, mut model) = (Settled::new(), Settled::new(), BTreeSet::new());
            for n in numbers { prop_assert_eq!(a.insert(n), model.insert(n)); }
            for n in more { b.insert_range(n..n + n % 3); model.extend(n..n + n % 3); }
            let (old, seen) = (a.clone(), (0..40).filter(|&n| a.contains(n)).count());
            a.merge(&b);
            let new: Vec<u64> = a.since(&old).into_iter().flatten().collect();
            prop_assert!(new.iter().all(|&n| a.contains(n) && !old.contains(n)));
            prop_assert_eq!(new.len() + seen, model.len());
            let prefix = (0..).find(|n| !model.contains(n)).unwrap();
            prop_assert_eq!(a.prefix(), prefix);
            for n in 0..40 { prop_assert_eq!(a.contains(n), model.contains(&n)); }
            for (range, there) in a.parts(0..40) { prop_assert!(range.clone().all(|n| a.contains(n) == there)); }
            prop_assert_eq!(Settled::from_parts(a.prefix(), a.above().iter()), a);
        }
    }
}
