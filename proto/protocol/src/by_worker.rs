//! Figures by worker, of bounded size: a worker that is started again may have another name each time, and what
//! people are told must not grow with that.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// So many workers are named, at the most.
pub const NAMED: usize = 32;
/// The name of all others together.
pub const OTHERS: &str = "others";

/// Keeps the figures of the workers that did most, and adds up the others'. Who did nothing is not named.
pub fn fold(by_worker: &mut BTreeMap<String, u64>) {
    by_worker.retain(|_, figure| *figure > 0);
    if by_worker.keys().filter(|name| *name != OTHERS).count() <= NAMED {
        return;
    }
    let mut all: Vec<(String, u64)> = std::mem::take(by_worker).into_iter().collect();
    // By name where they are even; the others stay the last.
    all.sort_by_key(|(name, figure)| (name == OTHERS, Reverse(*figure)));
    let others = all.split_off(NAMED);
    let sum = others.iter().fold(0, |sum: u64, (_, figure)| sum.saturating_add(*figure));
    by_worker.extend(all);
    by_worker.insert(OTHERS.to_owned(), sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_did_most_are_named_and_no_figure_is_lost() {
        let mut figures = BTreeMap::new();
        for n in 0..100_u64 {
            figures.insert(format!("w{n}"), n);
            fold(&mut figures);
        }
        assert_eq!((figures.len(), figures.values().sum::<u64>()), (NAMED + 1, 99 * 50));
        assert!(figures.contains_key("w99") && figures.contains_key(OTHERS));
        assert!(!figures.contains_key("w0"), "it did nothing");

        let few = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let mut same = few.clone();
        fold(&mut same);
        assert_eq!(same, few);
    }
}
