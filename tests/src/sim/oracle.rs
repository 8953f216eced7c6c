//! The stages' functions, and exactly what must come out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stageline_protocol::{
    Body, Encoding, ErrorKind, Item, ItemError, Lineage, StageId, Step, task::Finished,
};

pub(super) const SOURCE: StageId = StageId(0);
pub(super) const MAP: StageId = StageId(1);
pub(super) const FILTER: StageId = StageId(2);
pub(super) const EXPAND: StageId = StageId(3);
pub(super) const LAST: StageId = StageId(4);
pub(super) const TERMINAL: StageId = StageId(5);

/// The stages' names, which are their functions' names too.
pub(super) const NAMES: [&str; 6] = ["source", "map", "filter", "expand", "last", "terminal"];

/// What an expansion does: its outputs, and how it ends.
pub(super) struct Expansion {
    pub(super) outputs: Vec<u64>,
    pub(super) fails: bool,
}

/// The content that a delivery must have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Value(u64),
    Error(StageId, u64),
}

/// A number that looks random, and is not.
const fn mix(value: u64, salt: u64) -> u64 {
    let mut z = value.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) const fn root(seed: u64, number: u64) -> u64 {
    mix(seed, number + 1)
}

fn map(value: u64) -> Option<u64> {
    (!mix(value, 11).is_multiple_of(13)).then(|| mix(value, 12))
}

fn keeps(value: u64) -> bool {
    !mix(value, 13).is_multiple_of(4)
}

fn expand(value: u64) -> Expansion {
    let outputs = (0..mix(value, 14) % 4).map(|i| mix(value, 100 + i)).collect();
    Expansion { outputs, fails: mix(value, 15).is_multiple_of(11) }
}

fn last(value: u64) -> Option<u64> {
    (!mix(value, 16).is_multiple_of(17)).then(|| mix(value, 17))
}

/// Some payloads are larger than others.
pub(super) fn encode(value: u64) -> Bytes {
    let mut bytes = value.to_le_bytes().to_vec();
    let padding = if mix(value, 18).is_multiple_of(7) { 300 } else { 0 };
    bytes.resize(8 + padding, 0);
    bytes.into()
}

pub(super) fn decode(body: &Body) -> Option<u64> {
    match body {
        Body::Value(_, bytes) => Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)),
        Body::Error(_) | Body::End => None,
    }
}

/// What the function of a stage answers for one value; an expansion's outputs come from
/// [`expansion`].
pub(super) fn call(stage: StageId, value: u64, worker: &str) -> Finished {
    let one = |output: Option<u64>| match output {
        Some(output) => Finished::One(Encoding::Raw, encode(output)),
        None => failed(stage, value, worker),
    };
    match stage {
        MAP => one(map(value)),
        LAST => one(last(value)),
        FILTER if keeps(value) => Finished::Keep,
        EXPAND if expand(value).fails => failed(stage, value, worker),
        EXPAND => Finished::Expanded,
        _ => Finished::Nothing,
    }
}

pub(super) fn expansion(value: u64) -> Vec<u64> {
    expand(value).outputs
}

fn failed(stage: StageId, value: u64, worker: &str) -> Finished {
    Finished::Failed(Box::new(ItemError {
        stage: NAMES[stage.0 as usize].to_owned(),
        kind: ErrorKind::Failed,
        message: value.to_string(),
        attempts: 1,
        worker: worker.to_owned(),
    }))
}

/// What must be delivered, and what has been.
#[derive(Debug)]
pub(super) struct Oracle {
    expected: BTreeMap<Lineage, Content>,
    delivered: BTreeSet<Lineage>,
    /// The consumer wants so many.
    wanted: Option<u64>,
}

impl Oracle {
    pub(super) fn new(seed: u64, roots: u64) -> Self {
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

    pub(super) fn expected(&self) -> u64 {
        self.expected.len() as u64
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// The consumer will want no more than so many.
    pub(super) fn want(&mut self, most: u64) {
        self.wanted = Some(most);
    }

    /// Whether the consumer has all that it wants.
    pub(super) fn is_satisfied(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.delivered() >= wanted)
    }

    /// The consumer has taken an item.
    pub(super) fn deliver(&mut self, lineage: &Lineage, body: &Body) -> Result<(), String> {
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
    pub(super) fn check_safe(&self, item: &Lineage) -> Result<(), Lineage> {
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
    pub(super) fn check_complete(&self) -> Result<(), String> {
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

/// A root as its source makes it.
pub(super) fn root_body(seed: u64, number: u64) -> Body {
    Body::Value(Encoding::Raw, encode(root(seed, number)))
}

/// The bytes that such a body counts for.
pub(super) fn size_of(body: &Body) -> u64 {
    Item::new(Lineage::root(SOURCE, 0), body.clone()).size()
}
