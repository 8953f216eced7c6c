//! What may be delivered, what has been, and what is missing: each root ends in all its values, or in an
//! error that was told and the values before it.

use std::collections::BTreeSet;

use crate::workload::{Outcome, Workload, by_chance_at, finish, split, split_by_chance, work};

/// Holds every result against what may, and what must, come out.
#[derive(Debug)]
pub(crate) struct Oracle {
    workload: Workload,
    /// What may come out.
    possible: BTreeSet<Outcome>,
    /// How many results there are if nothing fails by chance.
    expected: u64,
    delivered: BTreeSet<Outcome>,
    /// Delivered more than once, or not possible at all.
    pub(crate) wrong: Vec<String>,
}

impl Oracle {
    pub(crate) fn new(workload: Workload) -> Self {
        let mut possible = BTreeSet::new();
        (0..workload.roots()).for_each(|n| expect(workload.root(n), &mut possible));
        let expected = possible.len() as u64;
        if workload.chance().is_some() {
            (0..workload.roots()).for_each(|n| expect_by_chance(workload.root(n), &mut possible));
        }
        Self { workload, possible, expected, delivered: BTreeSet::new(), wrong: Vec::new() }
    }

    pub(crate) const fn expected(&self) -> u64 {
        self.expected
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// The consumer has taken a result.
    pub(crate) fn deliver(&mut self, outcome: Outcome) {
        if !self.possible.contains(&outcome) {
            self.wrong.push(format!("nobody expected {outcome:?}"));
        } else if let Some(again) = self.delivered.replace(outcome) {
            self.wrong.push(format!("delivered twice: {again:?}"));
        }
    }

    /// What has not come out: the first of each root that has not ended.
    pub(crate) fn lost(&self) -> Vec<Outcome> {
        let roots = 0..self.workload.roots();
        roots.filter_map(|n| self.missing(self.workload.root(n))).collect()
    }

    fn told(&self, message: &str) -> bool {
        self.delivered.contains(&Err(message.to_owned()))
    }

    fn missing(&self, root: u64) -> Option<Outcome> {
        if self.told(&by_chance_at("work", root)) {
            return None;
        }
        let value = match work(root) {
            Ok(value) => value,
            Err(message) => return (!self.told(&message)).then_some(Err(message)),
        };
        let (mut outputs, mut end) = split(value);
        let most = outputs.len() as u64 + 1;
        // The end that came first closed what was behind it.
        if let Some(made) = (0..=most).find(|made| self.told(&split_by_chance(value, *made))) {
            outputs.truncate(usize::try_from(made).unwrap_or(usize::MAX));
            end = None;
        }
        let missing = outputs.into_iter().find_map(|output| {
            let due = finish(output);
            let by_chance = self.told(&by_chance_at("finish", output));
            (!by_chance && !self.delivered.contains(&due)).then_some(due)
        });
        missing.or_else(|| end.filter(|message| !self.told(message)).map(Err))
    }
}

/// What comes of a root if nothing fails by chance.
fn expect(root: u64, outcomes: &mut BTreeSet<Outcome>) {
    match work(root) {
        Ok(value) => {
            let (outputs, end) = split(value);
            outcomes.extend(outputs.into_iter().map(finish));
            outcomes.extend(end.map(Err));
        }
        Err(message) => {
            outcomes.insert(Err(message));
        }
    }
}

/// What may come of it otherwise.
fn expect_by_chance(root: u64, outcomes: &mut BTreeSet<Outcome>) {
    outcomes.insert(Err(by_chance_at("work", root)));
    let Ok(value) = work(root) else { return };
    let (outputs, _) = split(value);
    let steps = 0..=outputs.len() as u64 + 1;
    outcomes.extend(steps.map(|made| Err(split_by_chance(value, made))));
    outcomes.extend(outputs.into_iter().map(|output| Err(by_chance_at("finish", output))));
}
