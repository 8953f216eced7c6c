//! What must be delivered, and what has been.

use std::collections::BTreeSet;

use crate::workload::Outcome;

/// Holds every result against what must come out.
#[derive(Debug)]
pub(crate) struct Oracle {
    expected: BTreeSet<Outcome>,
    delivered: BTreeSet<Outcome>,
    /// Delivered more than once, or not expected at all.
    pub(crate) wrong: Vec<String>,
}

impl Oracle {
    pub(crate) fn new(expected: BTreeSet<Outcome>) -> Self {
        Self { expected, delivered: BTreeSet::new(), wrong: Vec::new() }
    }

    pub(crate) fn expected(&self) -> u64 {
        self.expected.len() as u64
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// The consumer has taken a result.
    pub(crate) fn deliver(&mut self, outcome: Outcome) {
        if !self.expected.contains(&outcome) {
            self.wrong.push(format!("nobody expected {outcome:?}"));
        } else if let Some(again) = self.delivered.replace(outcome) {
            self.wrong.push(format!("delivered twice: {again:?}"));
        }
    }

    /// What has not come out.
    pub(crate) fn lost(&self) -> Vec<&Outcome> {
        self.expected.difference(&self.delivered).collect()
    }
}
