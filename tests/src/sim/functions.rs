//! The stages' functions: pure but for what the schedule adds to an attempt, so that what may come out
//! of them can be computed beforehand.

use bytes::Bytes;
use fastrand::Rng;
use stageline_protocol::control::Function;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::run::Packer;
use stageline_protocol::{
    Body, Content, Encoding, ErrorKind, Item, ItemError, Lineage, StageId, Step, task::Finished,
};

use super::schedule::one_of;

pub(super) const SOURCE: StageId = StageId(0);

/// The pipeline, and what its functions do.
#[derive(Clone, Debug)]
pub(super) struct Work {
    seed: u64,
    pub(super) stages: Vec<Kind>,
    pub(super) manners: Manners,
    /// What the first two roots are when they are expanded: each makes so many outputs.
    large: Option<([u64; 2], u64)>,
}

/// A stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) op: Op,
    pub(super) site: Site,
    /// What makes its function another than those of its kind. Two stages of one salt have one function.
    salt: u64,
}

/// How the functions behave beyond what their inputs say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// One step of a call in so many fails, whatever its input.
    pub(super) failing: Option<u64>,
    /// One expansion in so many makes fewer outputs than it should, and says that it went well.
    pub(super) short: Option<u64>,
    /// What is made differs from run to run, in what nobody reads.
    pub(super) varying: bool,
    /// One input in so many kills its worker.
    pub(super) killing: Option<u64>,
    /// Some roots are errors.
    pub(super) bad_roots: bool,
}

/// What a stage makes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Value(u64),
    Keep,
    Drop,
    /// A sink has taken it.
    Taken,
    /// Its outputs, and whether it fails after them.
    Expand(Vec<u64>, bool),
    Fail,
    Kill,
}

/// A number that looks random, and is not.
const fn mix(value: u64, salt: u64) -> u64 {
    let mut z = value.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Work {
    /// A chain of these operators after the source, which and the terminal are in the client unless the
    /// source is `named`.
    pub(super) fn new(seed: u64, ops: &[Op], named: bool, manners: Manners) -> Self {
        let fleet = if named { Site::Fleet } else { Site::Client };
        let mut stages = vec![Kind { op: Op::Source, site: fleet, salt: 0 }];
        for (place, op) in (1..).zip(ops) {
            stages.push(Kind { op: *op, site: Site::Fleet, salt: 10 + place });
        }
        stages.push(Kind { op: Op::Terminal, site: Site::Client, salt: 0 });
        Self { seed, stages, manners, large: None }
    }

    /// Puts one of the maps into the client.
    pub(super) fn with_local_map(mut self, rng: &mut Rng) -> Self {
        if let Some(place) = self.a_map(rng) {
            self.stages[place].site = Site::Client;
        }
        self
    }

    /// Gives one map the function of another, if there are two.
    pub(super) fn with_shared_function(mut self, rng: &mut Rng) -> Self {
        if let (Some(one), Some(other)) = (self.a_map(rng), self.a_map(rng)) {
            self.stages[one].salt = self.stages[other].salt;
        }
        self
    }

    /// Lets the first two roots make so many outputs at their first expansion.
    pub(super) fn with_large_roots(mut self, outputs: u64) -> Self {
        let first = |number| {
            let mut value = self.root(number);
            for (place, kind) in self.stages.iter().enumerate().skip(1) {
                if kind.op == Op::FlatMap {
                    break;
                }
                if let Outcome::Value(next) = self.run(place, value) {
                    value = next;
                }
            }
            value
        };
        self.large = Some(([first(0), first(1)], outputs));
        self
    }

    fn a_map(&self, rng: &mut Rng) -> Option<usize> {
        let maps = self.stages.iter().enumerate();
        let maps: Vec<usize> = maps.filter(|(_, k)| k.op == Op::Map).map(|(i, _)| i).collect();
        (!maps.is_empty()).then(|| one_of(rng, &maps))
    }

    /// The pipeline as a client declares it, with nothing set.
    pub(super) fn pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline { name: "simulated".to_owned(), ..Pipeline::default() };
        for (id, kind) in self.ids().zip(&self.stages) {
            let mut stage = Stage::new(self.name(id), kind.op, kind.site);
            stage.function = self.function(id);
            pipeline.stages.push(stage);
        }
        for (from, to) in self.ids().zip(self.ids().skip(1)) {
            let sink = self.kind(from).op == Op::Sink;
            let carries = if sink { Carries::Errors } else { Carries::All };
            pipeline.channels.push(Channel { from, to, carries, buffer: None });
        }
        pipeline
    }

    /// What a worker registers so that it can run a stage.
    pub(super) fn register(&self, stage: StageId, slots: u32) -> Function {
        Function {
            name: self.function(stage),
            op: self.kind(stage).op,
            slots,
            input: None,
            output: None,
            replayable: true,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = StageId> + use<> {
        (0..self.stages.len() as u32).map(StageId)
    }

    /// The stages that workers run.
    pub(super) fn on_fleet(&self) -> Vec<StageId> {
        self.ids().filter(|id| self.kind(*id).site == Site::Fleet).collect()
    }

    pub(super) fn kind(&self, stage: StageId) -> Kind {
        self.stages[stage.0 as usize]
    }

    pub(super) fn terminal(&self) -> StageId {
        StageId(self.stages.len() as u32 - 1)
    }

    /// A stage's name: `s2-filter`.
    pub(super) fn name(&self, stage: StageId) -> String {
        format!("s{}-{}", stage.0, self.kind(stage).op.name())
    }

    pub(super) fn by_name(&self, name: &str) -> Option<StageId> {
        self.ids().find(|id| self.name(*id) == name)
    }

    fn function(&self, stage: StageId) -> String {
        format!("{}-{}", self.kind(stage).op.name(), self.kind(stage).salt)
    }

    /// What a root is: as a value, and for the first of a large pipeline one that reaches the expansion.
    pub(super) fn root(&self, number: u64) -> u64 {
        mix(self.seed, number + 1)
    }

    pub(super) fn root_fails(&self, number: u64) -> bool {
        self.manners.bad_roots && mix(self.root(number), 9).is_multiple_of(23)
    }

    fn is_large(&self, value: u64) -> bool {
        self.large.is_some_and(|(large, _)| large.contains(&value))
    }

    /// What the stage at a place makes of a value, if nothing comes in between.
    pub(super) fn run(&self, place: usize, value: u64) -> Outcome {
        let Kind { op, site, salt } = self.stages[place];
        let one_in = |many: u64, of: u64| mix(value, salt * 100 + of).is_multiple_of(many);
        let kills = self.manners.killing.is_some_and(|many| one_in(many, 1));
        // What is before the first expansion of a large root lets it pass.
        let passes =
            self.large.is_some() && !self.stages[..place].iter().any(|k| k.op == Op::FlatMap);
        match op {
            Op::FlatMap if self.is_large(value) => {
                let (_, outputs) = self.large.unwrap_or_default();
                Outcome::Expand((0..outputs).map(|i| mix(value, 1_000 + i)).collect(), false)
            }
            Op::Map | Op::Filter if passes => match op {
                Op::Map => Outcome::Value(mix(value, salt)),
                _ => Outcome::Keep,
            },
            Op::Map | Op::Filter | Op::FlatMap | Op::Sink if kills && site == Site::Fleet => {
                Outcome::Kill
            }
            Op::Map if one_in(13, 2) => Outcome::Fail,
            Op::Map => Outcome::Value(mix(value, salt)),
            Op::Filter if one_in(4, 3) => Outcome::Drop,
            Op::Filter => Outcome::Keep,
            Op::FlatMap => {
                let outputs = mix(value, salt * 100 + 4) % 4;
                let outputs = (0..outputs).map(|i| mix(value, 1_000 * salt + i)).collect();
                Outcome::Expand(outputs, one_in(11, 5))
            }
            Op::Sink if one_in(17, 6) => Outcome::Fail,
            Op::Sink | Op::Terminal | Op::Source => Outcome::Taken,
        }
    }

    /// Whether an expansion stands at this place or behind it.
    pub(super) fn expands_from(&self, place: usize) -> bool {
        self.stages[place..].iter().any(|kind| kind.op == Op::FlatMap)
    }

    /// The value that an item of this lineage has in front of the stage at a place; none if there is no
    /// such item.
    pub(super) fn value_at(&self, lineage: &Lineage, place: usize) -> Option<u64> {
        if self.root_fails(lineage.root) {
            return None;
        }
        let mut value = self.root(lineage.root);
        let mut steps = lineage.steps.iter();
        for before in 1..place {
            value = match self.run(before, value) {
                Outcome::Value(next) => next,
                Outcome::Keep => value,
                Outcome::Expand(outputs, _) => match steps.next() {
                    Some(Step::Output(n)) => *outputs.get(usize::try_from(*n).ok()?)?,
                    _ => return None,
                },
                Outcome::Drop | Outcome::Taken | Outcome::Fail | Outcome::Kill => return None,
            };
        }
        Some(value)
    }

    /// Some payloads are larger than others, and may have something in them that nobody reads.
    pub(super) fn encode(&self, value: u64, rng: &mut Rng) -> Bytes {
        let mut bytes = value.to_le_bytes().to_vec();
        let padding = if mix(value, 18).is_multiple_of(7) { 300 } else { 0 };
        bytes.resize(8 + padding, 0);
        if self.manners.varying {
            bytes.resize(bytes.len() + rng.usize(..20), rng.u8(..));
        }
        bytes.into()
    }

    /// A root as its source makes it.
    pub(super) fn root_body(&self, number: u64, rng: &mut Rng) -> Body {
        if self.root_fails(number) {
            let value = self.root(number);
            return Body::Error(self.error(SOURCE, ErrorKind::Failed, value, "source"));
        }
        Body::Value(Encoding::Raw, self.encode(self.root(number), rng))
    }

    fn error(&self, stage: StageId, kind: ErrorKind, value: u64, worker: &str) -> Box<ItemError> {
        Box::new(ItemError {
            stage: self.name(stage),
            kind,
            message: value.to_string(),
            attempts: 1,
            worker: worker.to_owned(),
        })
    }

    /// A failure that is the value's.
    pub(super) fn fails(&self, stage: StageId, value: u64, worker: &str) -> Finished {
        Finished::Failed(self.error(stage, ErrorKind::Failed, value, worker))
    }

    /// A failure that is the attempt's.
    pub(super) fn fails_now(&self, stage: StageId, value: u64, worker: &str) -> Finished {
        Finished::Failed(self.error(stage, ErrorKind::Timeout, value, worker))
    }
}

pub(super) fn decode(body: &Body) -> Option<u64> {
    match body {
        Body::Value(_, bytes) => Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)),
        Body::Error(_) | Body::End => None,
    }
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
