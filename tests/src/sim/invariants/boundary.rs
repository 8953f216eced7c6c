//! The boundary: nothing comes twice, nothing that was not expected, nothing with another content,
//! and at the end nothing is missing.

use std::collections::{BTreeMap, BTreeSet};

use stageline_protocol::{Body, Lineage, StageId, Step};

use crate::sim::functions::{
    EXPAND, Expansion, LAST, MAP, NAMES, SOURCE, decode, expand, keeps, last, map, root,
};

/// The content that a delivery must have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Value(u64),
    Error(StageId, u64),
}

/// What must be delivered, and what has been.
#[derive(Debug)]
pub(in crate::sim) struct Boundary {
    expected: BTreeMap<Lineage, Content>,
    delivered: BTreeSet<Lineage>,
    /// The consumer wants so many.
    wanted: Option<u64>,
}

impl Boundary {
    pub(in crate::sim) fn new(seed: u64, roots: u64) -> Self {
        let mut expected = BTreeMap::new();
        for number in 0..roots {
            let (lineage, value) = (Lineage::root(SOURCE, number), root(seed, number));
            let Some(value) = map(value) else {
                // An error that passes the expansion is its end.
                expected.insert(lineage.with(Step::End(0)), Content::Error(MAP, value));
                continue;
            };
            if !keeps(value) {
                continue;
            }
            let Expansion { outputs, fails } = expand(value);
            let count = outputs.len() as u64;
            for (place, output) in (0..).zip(outputs) {
                let content = last(output).map_or(Content::Error(LAST, output), Content::Value);
                expected.insert(lineage.with(Step::Output(place)), content);
            }
            if fails {
                expected.insert(lineage.with(Step::End(count)), Content::Error(EXPAND, value));
            }
        }
        Self { expected, delivered: BTreeSet::new(), wanted: None }
    }

    pub(in crate::sim) fn expected(&self) -> u64 {
        self.expected.len() as u64
    }

    pub(in crate::sim) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// The consumer will want no more than so many.
    pub(in crate::sim) fn want(&mut self, most: u64) {
        self.wanted = Some(most);
    }

    /// Whether the consumer has all that it wants.
    pub(in crate::sim) fn is_satisfied(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.delivered() >= wanted)
    }

    /// The consumer has taken an item.
    pub(in crate::sim) fn deliver(&mut self, lineage: &Lineage, body: &Body) -> Result<(), String> {
        let Some(expected) = self.expected.get(lineage) else {
            return Err(format!("delivered what nobody expected: {lineage} {body:?}"));
        };
        let content = match body {
            Body::Error(error) => {
                let stage = (0..).zip(NAMES).find(|(_, name)| *name == error.stage);
                stage
                    .zip(error.message.parse().ok())
                    .map(|((stage, _), value)| Content::Error(StageId(stage), value))
            }
            body => decode(body).map(Content::Value),
        };
        if content.as_ref() != Some(expected) {
            return Err(format!("{lineage} delivered as {body:?}, expected {expected:?}"));
        }
        if !self.delivered.insert(lineage.clone()) {
            return Err(format!("duplicate: {lineage} was delivered twice"));
        }
        Ok(())
    }

    /// Whether everything that comes of an item has been delivered; if not, the first that was not.
    pub(in crate::sim) fn check_safe(&self, item: &Lineage) -> Result<(), Lineage> {
        if self.is_satisfied() {
            return Ok(());
        }
        let of_item = self.expected.range(item.clone()..).map(|(lineage, _)| lineage);
        let mut of_item = of_item.take_while(|lineage| {
            lineage.source == item.source
                && lineage.root == item.root
                && lineage.steps.starts_with(&item.steps)
        });
        match of_item.find(|lineage| !self.delivered.contains(lineage)) {
            None => Ok(()),
            Some(missing) => Err(missing.clone()),
        }
    }

    /// Nothing is missing at the end.
    pub(in crate::sim) fn check_complete(&self) -> Result<(), String> {
        if let Some(wanted) = self.wanted {
            let delivered = self.delivered();
            return (delivered == wanted)
                .then_some(())
                .ok_or_else(|| format!("{delivered} delivered, {wanted} wanted"));
        }
        let lost: Vec<String> = self
            .expected
            .keys()
            .filter(|lineage| !self.delivered.contains(lineage))
            .map(ToString::to_string)
            .collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("lost: {}", lost.join(", "))) }
    }
}
