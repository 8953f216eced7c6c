//! Where an item comes from: its identity.
//!
//! A lineage names the source, the root, and one step for each place on the way where one item can
//! become several. Recomputing an item gives the same lineage, so a boundary that has applied one
//! knows a repetition when it sees it. Nobody draws ids, and nobody compares contents.

use std::fmt;

use crate::ids::StageId;

/// The most steps of a lineage, and so the most expansions and broadcasts on one path of a pipeline.
pub const MAX_STEPS: usize = 64;

/// One step of a lineage: which of several it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The output of an expansion (flat_map), counted from 0.
    Output(u64),
    /// The branch of a broadcast, by the place of the output channel.
    Branch(u32),
    /// The end of an expansion, with the count of the outputs before it. Orders after every output.
    End(u64),
}

/// An item's identity: source, root, steps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage {
    /// The source stage that made the root.
    pub source: StageId,
    /// The root's number, counted from 0 by its source.
    pub root: u64,
    /// The steps since; none for the root itself.
    pub steps: Vec<Step>,
}

impl Lineage {
    /// The lineage of a root.
    #[must_use]
    pub const fn root(source: StageId, root: u64) -> Self {
        Self { source, root, steps: Vec::new() }
    }

    /// This lineage and one step more.
    #[must_use]
    pub fn with(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.steps.len() + 1);
        steps.extend_from_slice(&self.steps);
        steps.push(step);
        Self { source: self.source, root: self.root, steps }
    }

    /// The lineage that is so many places further: that of the root if its last steps are branches, else
    /// that of the output. An end marker has none after it, and is answered itself.
    #[must_use]
    pub fn after(&self, places: u64) -> Self {
        let mut after = self.clone();
        if let Some(number) = after.number() {
            *number = number.wrapping_add(places);
        }
        after
    }

    /// Whether `next` comes right after this.
    #[must_use]
    pub fn is_before(&self, next: &Self) -> bool {
        match self.place().zip(next.place()) {
            Some((own, other)) => {
                own.checked_add(1) == Some(other) && self.family() == next.family()
            }
            None => false,
        }
    }

    /// The number by which lineages follow each other; none for an end marker.
    #[must_use]
    pub fn place(&self) -> Option<u64> {
        let last = self.steps.iter().rev().find(|step| !matches!(step, Step::Branch(_)));
        match last {
            None => Some(self.root),
            Some(Step::Output(n)) => Some(*n),
            _ => None,
        }
    }

    /// What all lineages have in common that follow each other: the one at the place 0.
    #[must_use]
    pub fn family(&self) -> Self {
        let mut family = self.clone();
        if let Some(number) = family.number() {
            *number = 0;
        }
        family
    }

    fn number(&mut self) -> Option<&mut u64> {
        let last = self.steps.iter_mut().rev().find(|step| !matches!(step, Step::Branch(_)));
        match last {
            None => Some(&mut self.root),
            Some(Step::Output(n)) => Some(n),
            _ => None,
        }
    }

    /// Whether those that follow it are of other roots.
    #[must_use]
    pub fn is_of_roots(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Branch(_)))
    }

    /// Whether it is the end marker of an expansion, which every later stage passes on untouched.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.steps.last(), Some(Step::End(_)))
    }
}

/// `7`, `7.0.2`, `7.#3` (the end of an expansion of three), `7.b1` (a branch); the source is in
/// front only when it is not stage 0.
impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.0 != 0 {
            write!(f, "s{}:", self.source.0)?;
        }
        write!(f, "{}", self.root)?;
        for step in &self.steps {
            match step {
                Step::Output(n) => write!(f, ".{n}")?,
                Step::Branch(n) => write!(f, ".b{n}")?,
                Step::End(n) => write!(f, ".#{n}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_expansion_orders_after_its_outputs() {
        let root = Lineage::root(StageId(0), 7);
        assert!(root < root.with(Step::Output(0)));
        assert!(root.with(Step::Output(9)) < root.with(Step::End(2)));
        assert!(root.with(Step::End(2)) < Lineage::root(StageId(0), 8));
        assert_eq!(root.with(Step::Output(3)).with(Step::End(0)).to_string(), "7.3.#0");
    }
}
