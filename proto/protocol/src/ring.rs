//! A ring of entries under ascending numbers.

use std::collections::VecDeque;

/// Entries numbered in the order they came, removed in any order. Looking one up is an index;
/// memory follows the span from the oldest entry that is left to the newest.
#[derive(Clone, Debug, Hash)]
pub struct Ring<T> {
    base: u64,
    slots: VecDeque<Option<T>>,
    live: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Ring<T> {
    /// An empty ring whose first entry will have the number 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { base: 0, slots: VecDeque::new(), live: 0 }
    }

    /// Adds an entry and answers its number.
    pub fn push(&mut self, entry: T) -> u64 {
        let number = self.next();
        self.slots.push_back(Some(entry));
        self.live += 1;
        number
    }

    /// Leaves the next number without an entry.
    pub fn skip(&mut self) -> u64 {
        let number = self.next();
        self.slots.push_back(None);
        self.trim();
        number
    }

    /// The number that the next entry will have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// The smallest number that may still have an entry: below it, all are gone.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    fn index(&self, number: u64) -> Option<usize> {
        number.checked_sub(self.base).and_then(|i| usize::try_from(i).ok())
    }

    /// The entry under a number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&T> {
        self.slots.get(self.index(number)?)?.as_ref()
    }

    /// The entry under a number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = self.index(number)?;
        self.slots.get_mut(index)?.as_mut()
    }

    /// Takes an entry out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let index = self.index(number)?;
        let entry = self.slots.get_mut(index)?.take()?;
        self.live -= 1;
        if index == 0 {
            self.trim();
        }
        Some(entry)
    }

    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }

    /// The entries with their numbers, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.base..).zip(&self.slots).filter_map(|(n, e)| e.as_ref().map(|e| (n, e)))
    }

    /// The entries with their numbers, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        (self.base..).zip(&mut self.slots).filter_map(|(n, e)| e.as_mut().map(|e| (n, e)))
    }

    /// Takes all entries out, oldest first; the numbering goes on.
    pub fn drain(&mut self) -> Vec<(u64, T)> {
        let base = self.base;
        self.base = self.next();
        self.live = 0;
        (base..)
            .zip(std::mem::take(&mut self.slots))
            .filter_map(|(n, e)| e.map(|e| (n, e)))
            .collect()
    }

    /// How many entries are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_is_a_map_of_ascending_numbers(ops in prop::collection::vec((0u8..4, 0u64..20), 0..80)) {
            let (mut ring, mut model, mut next) = (Ring::new(), BTreeMap::new(), 0u64);
            for (op, n) in ops {
                match op {
                    0 | 1 => { prop_assert_eq!(ring.push(n), next); model.insert(next, n); next += 1; }
                    2 => { prop_assert_eq!(ring.skip(), next); next += 1; }
                    _ => prop_assert_eq!(ring.remove(n), model.remove(&n)),
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert!(ring.iter().map(|(k, v)| (k, *v)).eq(model.iter().map(|(k, v)| (*k, *v))));
            }
            prop_assert_eq!(ring.next(), next);
            let drained: Vec<_> = ring.drain();
            prop_assert_eq!(drained, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(ring.next(), next);
        }
    }
}
