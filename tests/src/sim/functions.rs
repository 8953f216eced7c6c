//! The stages' functions: pure, so that what must come out of them can be computed beforehand.

use bytes::Bytes;
use stageline_protocol::run::Packer;
use stageline_protocol::{
    Body, Content, Encoding, ErrorKind, Item, ItemError, Lineage, StageId, task::Finished,
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

pub(super) fn map(value: u64) -> Option<u64> {
    (!mix(value, 11).is_multiple_of(13)).then(|| mix(value, 12))
}

pub(super) fn keeps(value: u64) -> bool {
    !mix(value, 13).is_multiple_of(4)
}

pub(super) fn expand(value: u64) -> Expansion {
    let outputs = (0..mix(value, 14) % 4).map(|i| mix(value, 100 + i)).collect();
    Expansion { outputs, fails: mix(value, 15).is_multiple_of(11) }
}

pub(super) fn last(value: u64) -> Option<u64> {
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

/// A root as its source makes it.
pub(super) fn root_body(seed: u64, number: u64) -> Body {
    Body::Value(Encoding::Raw, encode(root(seed, number)))
}

/// The bytes that such a body counts for.
pub(super) fn size_of(body: &Body) -> u64 {
    Item::new(Lineage::root(SOURCE, 0), body.clone()).size()
}

/// Roots as a source hands them over: packed.
#[derive(Debug, Default)]
pub(super) struct Roots {
    count: u64,
    packer: Packer,
    packed: Vec<Content>,
}

impl Roots {
    pub(super) fn push(&mut self, body: Body) {
        self.count += 1;
        match &body {
            Body::Value(Encoding::Raw, bytes) if self.packer.push(bytes) => {}
            _ => {
                self.flush();
                self.packed.push(body.into());
            }
        }
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn take(mut self) -> Vec<Content> {
        self.flush();
        self.packed
    }

    fn flush(&mut self) {
        let packed = self.packer.take();
        self.packed.extend(packed.map(|values| Content::Values(Encoding::Raw, values)));
    }
}
