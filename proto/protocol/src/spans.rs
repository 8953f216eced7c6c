//! Entries under ascending numbers, where one entry may stand for many.

use std::collections::BTreeMap;
use std::ops::Range;

/// What holds for some numbers in a row, and can be cut where it no longer holds for all alike.
pub trait Span {
    /// For how many numbers it stands: at least one.
    fn count(&self) -> u64;

    /// Keeps the first `at`, and answers the rest. There are some of both.
    #[must_use]
    fn split_off(&mut self, at: u64) -> Self;
}

/// Spans numbered in the order in which they came, changed and removed by ranges of numbers: a span that
/// reaches beyond the range is cut first. So the cost follows the number of different fates, and not that
/// of numbers.
#[derive(Clone, Debug, Hash)]
pub struct Spans<T> {
    /// By their first numbers; they do not overlap.
    spans: BTreeMap<u64, T>,
    next: u64,
    live: u64,
}

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Spans<T> {
    /// None, and the next number is 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { spans: BTreeMap::new(), next: 0, live: 0 }
    }

    /// The number that comes next.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// How many numbers have an entry.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.live
    }

    /// Whether none has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The spans with their first numbers, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.spans.iter().map(|(first, span)| (*first, span))
    }

    /// Takes all out, in ascending order; the numbering goes on.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, T)> + use<T> {
        self.live = 0;
        std::mem::take(&mut self.spans).into_iter()
    }
}

impl<T: Span> Spans<T> {
    /// Adds a span; answers its first number.
    pub fn push(&mut self, span: T) -> u64 {
        let (first, count) = (self.next, span.count());
        self.next += count;
        self.live += count;
        self.spans.insert(first, span);
        first
    }

    /// Leaves the next numbers without an entry; answers the first of them.
    pub const fn skip(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    /// The span that a number is in, and its first number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<(u64, &T)> {
        let (first, span) = self.spans.range(..=number).next_back()?;
        (number - first < span.count()).then_some((*first, span))
    }

    /// The first span that has numbers of the range, with its own first number.
    #[must_use]
    pub fn first_in(&self, range: &Range<u64>) -> Option<(u64, &T)> {
        if range.is_empty() {
            return None;
        }
        self.get(range.start)
            .or_else(|| self.spans.range(range.clone()).next().map(|(first, span)| (*first, span)))
    }

    /// The entry of one number, cut free from its neighbours.
    pub fn one(&mut self, number: u64) -> Option<&mut T> {
        self.part(&(number..number.saturating_add(1))).map(|(_, span)| span)
    }

    /// The first span that has numbers of the range, cut to those of the range: its first number, and
    /// itself.
    pub fn part(&mut self, range: &Range<u64>) -> Option<(u64, &mut T)> {
        let (first, count) = self.first_in(range).map(|(first, span)| (first, span.count()))?;
        let start = first.max(range.start);
        if first < start {
            self.cut(first, start);
        }
        if range.end < first + count {
            self.cut(start, range.end);
        }
        self.spans.get_mut(&start).map(|span| (start, span))
    }

    /// Cuts the span that begins at `first` in two at `at`, which is within it.
    fn cut(&mut self, first: u64, at: u64) {
        if let Some(span) = self.spans.get_mut(&first) {
            let rest = span.split_off(at - first);
            self.spans.insert(at, rest);
        }
    }

    /// Changes all that the range has; `change` is told the first number of each span.
    pub fn change(&mut self, range: Range<u64>, mut change: impl FnMut(u64, &mut T)) {
        let mut rest = range;
        while let Some((first, span)) = self.part(&rest) {
            change(first, span);
            rest.start = first + span.count();
        }
    }

    /// Takes out the first span that has numbers of the range, cut to those of the range.
    pub fn take(&mut self, range: &Range<u64>) -> Option<(u64, T)> {
        let (first, _) = self.part(range)?;
        let span = self.spans.remove(&first)?;
        self.live -= span.count();
        Some((first, span))
    }

    /// The numbers of the range, in ascending order, as those that have an entry and those that have none.
    pub fn parts(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let (mut parts, mut rest) = (Vec::new(), range);
        while let Some((first, span)) = self.first_in(&rest) {
            let end = (first + span.count()).min(rest.end);
            if rest.start < first {
                parts.push((rest.start..first, false));
            }
            parts.push((first.max(rest.start)..end, true));
            rest.start = end;
        }
        if !rest.is_empty() {
            parts.push((rest, false));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers of its own, and how often it was changed.
    #[derive(Clone, Debug, PartialEq)]
    struct Own(Range<u64>, u8);

    impl Span for Own {
        fn count(&self) -> u64 {
            self.0.end - self.0.start
        }

        fn split_off(&mut self, at: u64) -> Self {
            let middle = self.0.start + at;
            let rest = Self(middle..self.0.end, self.1);
            self.0.end = middle;
            rest
        }
    }

    proptest! {
        #[test]
        fn spans_are_a_map_of_numbers(ops in prop::collection::vec((0u8..4, 0u64..40, 1u64..6), 0..60)) {
            let (mut spans, mut model) = (Spans::new(), std::collections::BTreeMap::new());
            let mut next = 0;
            for (op, start, count) in ops {
                let range = start..start + count;
                match op {
                    0 => {
                        prop_assert_eq!(spans.push(Own(next..next + count, 0)), next);
                        model.extend((next..next + count).map(|n| (n, 0)));
                        next += count;
                    }
                    1 => {
                        prop_assert_eq!(spans.skip(count), next);
                        next += count;
                    }
                    2 => {
                        spans.change(range.clone(), |first, span| {
                            assert_eq!(first, span.0.start);
                            span.1 += 1;
                        });
                        model.range_mut(range).for_each(|(_, changes)| *changes += 1);
                    }
                    _ => {
                        while let Some((first, span)) = spans.take(&range) {
                            prop_assert_eq!(first, span.0.start);
                            for n in span.0 {
                                prop_assert_eq!(model.remove(&n), Some(span.1));
                            }
                        }
                        prop_assert!(model.range(range).next().is_none());
                    }
                }
                let all: Vec<_> = spans.iter().flat_map(|(_, s)| s.0.clone().map(|n| (n, s.1))).collect();
                prop_assert_eq!(all, model.iter().map(|(n, c)| (*n, *c)).collect::<Vec<_>>());
                prop_assert_eq!((spans.len(), spans.next()), (model.len() as u64, next));
                for (part, there) in spans.parts(0..50) {
                    prop_assert!(part.clone().all(|n| model.contains_key(&n) == there), "{part:?}");
                }
                prop_assert_eq!(spans.parts(3..30).into_iter().flat_map(|(r, _)| r).count(), 27);
            }
        }
    }
}
