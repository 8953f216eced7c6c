//! What a seed draws before anything runs: the pipeline, the workers, the limits, the faults.

use std::time::Duration;

use fastrand::Rng;
use stageline_protocol::StageId;
use stageline_protocol::control::Function;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::task::{Bug, Limits};

use super::Shape;
use super::functions::{EXPAND, FILTER, LAST, MAP, NAMES, SOURCE, TERMINAL};

/// The stages that workers run.
pub(super) const ON_FLEET: [StageId; 4] = [MAP, FILTER, EXPAND, LAST];

/// How long a process counts as alive; everything else is in proportion.
pub(super) const LEASE: Duration = Duration::from_secs(4);
pub(super) const RESET_GRACE: Duration = Duration::from_secs(1);

/// Everything that is drawn beforehand.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) roots: u64,
    pub(super) pipeline: Pipeline,
    pub(super) limits: Limits,
    pub(super) least_window: u64,
    /// The functions of each worker that is there from the start.
    pub(super) workers: Vec<Vec<Function>>,
    /// The faults, each with the number of deliveries after which it happens.
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) pace: Pace,
}

/// How long things take, at most, in microseconds.
#[derive(Debug)]
pub(super) struct Pace {
    /// A function, by its stage.
    pub(super) call: [u64; 6],
    /// A frame between two processes.
    pub(super) frame: u64,
    /// A message of a session.
    pub(super) message: u64,
    /// One dial in so many fails.
    pub(super) failing_dials: u64,
    /// One call in so many needs a second attempt.
    pub(super) second_attempts: u64,
    /// One frame in so many fills its wire for a while.
    pub(super) full_wires: u64,
    /// One call in so many finds the shell of a task busy.
    pub(super) busy_shells: u64,
    /// Whether shells send frames before they do anything else, or after.
    pub(super) frames_first: bool,
}

/// What may happen to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A worker is gone, with all that it had.
    Kill,
    /// A connection between two tasks breaks.
    Break,
    /// A process loses its session, and is back in time.
    Reset,
    /// A worker cannot reach the coordinator until it counts as dead; its links live on.
    Isolate,
    /// Two processes cannot reach each other for a while, shorter or longer than a lease; one of them
    /// may hear the other for longer.
    Partition,
    /// A worker can reach nobody for a while.
    CutOff,
    /// The client can reach nobody, for less than its lease.
    ClientCutOff,
    /// A process stands still, and then goes on as if nothing had been; a client for less than its
    /// lease.
    Freeze,
    /// The coordinator stands still for a while.
    Stall,
    /// The coordinator is gone, perhaps in the middle of what it is doing, and back after a while with
    /// what it had stored.
    Crash,
    /// A worker is asked to leave.
    Leave,
    /// Another worker joins.
    Join,
    /// The client is gone.
    KillClient,
}

impl Schedule {
    pub(super) fn draw(rng: &mut Rng, shape: Shape, bug: Option<Bug>) -> Self {
        let roots = rng.u64(50..=90);
        let pipeline = pipeline(rng, shape, roots);
        Self {
            roots,
            limits: limits(rng, bug),
            least_window: rng.u64(16..=256),
            workers: workers(rng, shape),
            faults: faults(rng, shape, roots),
            pace: pace(rng),
            pipeline,
        }
    }
}

/// One of these.
pub(super) fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn pipeline(rng: &mut Rng, shape: Shape, roots: u64) -> Pipeline {
    let ops = [Op::Source, Op::Map, Op::Filter, Op::FlatMap, Op::Map, Op::Terminal];
    let mut pipeline = Pipeline { name: "simulated".to_owned(), ..Pipeline::default() };
    for (id, (name, op)) in (0..).map(StageId).zip(NAMES.into_iter().zip(ops)) {
        let named = shape == Shape::NamedSource;
        let on_client = (id == SOURCE && !named) || id == TERMINAL;
        let site = if on_client { Site::Client } else { Site::Fleet };
        let mut stage = Stage::new(name, op, site);
        if !on_client && id != SOURCE {
            // Two at least, so that two workers run each stage.
            stage.workers = one_of(rng, &[None, None, Some(2), Some(3), Some(6)]);
            stage.workers_per = one_of(rng, &[None, None, Some(1), Some(2)]);
        }
        pipeline.stages.push(stage);
    }
    for from in 0..5 {
        let buffer = one_of(rng, &[None, None, Some(0), Some(1), Some(4), Some(16)]);
        let (from, to) = (StageId(from), StageId(from + 1));
        pipeline.channels.push(Channel { from, to, carries: Carries::All, buffer });
    }
    pipeline.max_in_flight =
        one_of(rng, &[None, Some(3), Some(10), Some(roots / 2), Some(roots * 2)]);
    pipeline
}

fn limits(rng: &mut Rng, bug: Option<Bug>) -> Limits {
    Limits {
        window_bytes: one_of(rng, &[100, 400, 2_000, 2 << 20]),
        batch_items: one_of(rng, &[1, 3, 16, 256]),
        batch_bytes: one_of(rng, &[100, 1_000, 64 << 10]),
        flush: Duration::from_millis(one_of(rng, &[1, 5, 20])),
        watermark: Duration::from_millis(one_of(rng, &[5, 1_000])),
        forfeit: Duration::from_millis(one_of(rng, &[5, 100])),
        lease: LEASE,
        budget: one_of(rng, &[3_000, 1 << 20, 256 << 20]),
        bug,
        ..Limits::default()
    }
}

/// Every stage is on two workers at least.
fn workers(rng: &mut Rng, shape: Shape) -> Vec<Vec<Function>> {
    let count = rng.usize(2..=6);
    let mut stages: Vec<Vec<StageId>> = vec![Vec::new(); count];
    let source = (shape == Shape::NamedSource).then_some(SOURCE);
    for stage in source.into_iter().chain(ON_FLEET) {
        let mut order: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut order);
        let on = rng.usize(2..=count.min(3));
        for worker in &order[..on] {
            stages[*worker].push(stage);
        }
    }
    stages
        .into_iter()
        .map(|stages| stages.into_iter().map(|s| function(rng, s)).collect())
        .collect()
}

/// The functions of a worker that joins later.
pub(super) fn joining(rng: &mut Rng) -> Vec<Function> {
    let mut stages: Vec<StageId> = ON_FLEET.into_iter().filter(|_| rng.bool()).collect();
    if stages.is_empty() {
        stages.push(one_of(rng, &ON_FLEET));
    }
    stages.into_iter().map(|stage| function(rng, stage)).collect()
}

fn function(rng: &mut Rng, stage: StageId) -> Function {
    let ops = [Op::Source, Op::Map, Op::Filter, Op::FlatMap, Op::Map, Op::Terminal];
    Function {
        name: NAMES[stage.0 as usize].to_owned(),
        op: ops[stage.0 as usize],
        slots: one_of(rng, &[1, 2, 4, 8]),
        input: None,
        output: None,
        replayable: true,
    }
}

/// Two faults at least that items unacked must survive, and some more.
fn faults(rng: &mut Rng, shape: Shape, roots: u64) -> Vec<(u64, Fault)> {
    use Fault::{
        Break, ClientCutOff, Crash, CutOff, Freeze, Isolate, Join, Kill, KillClient, Leave,
        Partition, Reset, Stall,
    };
    let mut faults = Vec::new();
    let moment = |rng: &mut Rng| rng.u64(0..roots / 2);
    for _ in 0..rng.usize(2..=4) {
        let at = moment(rng);
        faults.push((at, one_of(rng, &[Kill, Kill, Break])));
        // What comes on top of it, while the cluster still recovers.
        if rng.u8(..3) == 0 {
            faults.push((at, one_of(rng, &[Kill, Break, Break])));
        }
    }
    for _ in 0..rng.usize(0..=4) {
        let also = [
            Break,
            Reset,
            Reset,
            Isolate,
            Partition,
            Partition,
            CutOff,
            ClientCutOff,
            Freeze,
            Leave,
            Leave,
            Stall,
        ];
        faults.push((moment(rng), one_of(rng, &also)));
    }
    for _ in 0..one_of(rng, &[0, 0, 1, 1, 2]) {
        faults.push((moment(rng), Crash));
    }
    faults.push((moment(rng), Join));
    faults.sort();
    if shape == Shape::ClientDies {
        faults.truncate(rng.usize(1..=faults.len()));
        faults.push((moment(rng), KillClient));
    }
    faults
}

fn pace(rng: &mut Rng) -> Pace {
    let mut call = [0; 6];
    for longest in &mut call {
        *longest = one_of(rng, &[200, 2_000, 20_000, 80_000]);
    }
    // A slow consumer lets copies arrive before the first is safe.
    call[TERMINAL.0 as usize] = one_of(rng, &[200, 20_000, 80_000, 400_000]);
    Pace {
        call,
        frame: one_of(rng, &[200, 2_000, 15_000]),
        message: one_of(rng, &[500, 5_000, 50_000]),
        failing_dials: one_of(rng, &[4, 10, 50]),
        second_attempts: one_of(rng, &[5, 20, 1_000]),
        full_wires: one_of(rng, &[10, 50, 10_000]),
        busy_shells: one_of(rng, &[2, 5, 1_000]),
        frames_first: rng.bool(),
    }
}
