//! What a seed draws before anything runs: the pipeline, the workers, the limits, the faults.

use std::time::Duration;

use fastrand::Rng;
use stageline_protocol::StageId;
use stageline_protocol::control::Function;
use stageline_protocol::pipeline::{Op, Pipeline, Site};
use stageline_protocol::task::{Bug, Limits};

use super::Shape;
use super::functions::{Manners, SOURCE, Work};

/// How long a process counts as alive; everything else is in proportion.
pub(super) const LEASE: Duration = Duration::from_secs(4);
pub(super) const RESET_GRACE: Duration = Duration::from_secs(1);

/// Everything that is drawn beforehand.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) roots: u64,
    pub(super) work: Work,
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
    pub(super) call: Vec<u64>,
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
    /// The client and a worker that runs a stage next to it cannot reach each other for several leases,
    /// and the coordinator hears both.
    LongPartition,
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

/// How the cluster is set up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    shape: Shape,
    /// One slot a stage, no buffers, tiny windows.
    tight: bool,
    /// Each function is on one worker only.
    scarce: bool,
}

impl Schedule {
    pub(super) fn draw(rng: &mut Rng, seed: u64, shape: Shape, bug: Option<Bug>) -> Self {
        let roots = if shape == Shape::Large { 4 } else { rng.u64(50..=90) };
        // What has to come out of these is known to the item: nobody is satisfied or killed by chance.
        let plain = matches!(shape, Shape::Take | Shape::ClientDies);
        let work = work(rng, seed, shape, plain);
        let setup = Setup {
            shape,
            tight: !plain
                && shape != Shape::Large
                && rng.u8(..if shape == Shape::Killers { 2 } else { 8 }) == 0,
            scarce: !plain && rng.u8(..4) == 0,
        };
        let pipeline = pipeline(rng, &work, setup, roots);
        Self {
            roots,
            limits: limits(rng, setup, bug),
            least_window: rng.u64(16..=256),
            workers: workers(rng, &work, setup),
            faults: faults(rng, setup, roots),
            pace: pace(rng, &work, shape),
            pipeline,
            work,
        }
    }
}

/// What is done, and how well.
fn work(rng: &mut Rng, seed: u64, shape: Shape, plain: bool) -> Work {
    use Op::{Filter, FlatMap, Map, Sink};
    let standard = &[Map, Filter, FlatMap, Map][..];
    let nested = &[Map, FlatMap, Filter, FlatMap, Map][..];
    let chains = [standard, standard, nested, &[Map, FlatMap, Map, Sink], &[FlatMap, Map, FlatMap]];
    let ops = if plain { standard } else { one_of(rng, &chains) };
    let many = |rng: &mut Rng, choices: &[Option<u64>]| {
        let drawn = one_of(rng, choices);
        drawn.filter(|_| !plain)
    };
    let large = shape == Shape::Large;
    // An expansion to thousands fails, or not, as often as one to a few.
    let scale = if large { 1_000 } else { 1 };
    let manners = Manners {
        failing: many(rng, &[None, None, Some(12 * scale), Some(40 * scale)]),
        short: many(rng, &[None, None, None, Some(12 * scale)]),
        varying: !plain && rng.bool(),
        killing: (shape == Shape::Killers).then_some(40),
        bad_roots: !plain && rng.u8(..4) == 0,
    };
    let mut work = Work::new(seed, ops, shape == Shape::NamedSource, manners);
    if !plain && rng.u8(..4) == 0 {
        work = work.with_local_map(rng);
    }
    if !plain && rng.u8(..4) == 0 {
        work = work.with_shared_function(rng);
    }
    if large { work.with_large_roots(10_000) } else { work }
}

/// One of these.
pub(super) fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn pipeline(rng: &mut Rng, work: &Work, setup: Setup, roots: u64) -> Pipeline {
    let mut pipeline = work.pipeline();
    for stage in &mut pipeline.stages {
        if setup.tight && stage.op != Op::Source && stage.op != Op::Terminal {
            stage.workers = Some(1);
        } else if stage.site == Site::Fleet && stage.op != Op::Source {
            // Two at least, so that two workers run each stage.
            stage.workers = one_of(rng, &[None, None, Some(2), Some(3), Some(6)]);
            stage.workers_per = one_of(rng, &[None, None, Some(1), Some(2)]);
        }
    }
    for channel in &mut pipeline.channels {
        let large = setup.shape == Shape::Large;
        let buffer = one_of(rng, &[None, None, Some(0), Some(1), Some(4), Some(16)]);
        let buffer = if large { Some(256) } else { buffer };
        channel.buffer = if setup.tight { Some(0) } else { buffer };
    }
    pipeline.max_in_flight =
        one_of(rng, &[None, Some(3), Some(10), Some(roots / 2), Some(roots * 2)]);
    pipeline
}

fn limits(rng: &mut Rng, setup: Setup, bug: Option<Bug>) -> Limits {
    let small = |rng: &mut Rng, choices: &[u64], large: u64| match setup.shape {
        Shape::Large => large,
        _ if setup.tight => choices[0],
        _ => one_of(rng, choices),
    };
    Limits {
        window_bytes: small(rng, &[100, 400, 2_000, 2 << 20], 64 << 10),
        batch_items: small(rng, &[1, 3, 16, 256], 256),
        batch_bytes: small(rng, &[100, 1_000, 64 << 10], 64 << 10),
        flush: Duration::from_millis(one_of(rng, &[1, 5, 20])),
        watermark: Duration::from_millis(one_of(rng, &[5, 1_000])),
        forfeit: Duration::from_millis(one_of(rng, &[5, 100])),
        lease: LEASE,
        budget: one_of(rng, &[3_000, 1 << 20, 256 << 20]),
        bug,
        ..Limits::default()
    }
}

/// Every stage is on two workers at least, unless they are scarce.
fn workers(rng: &mut Rng, work: &Work, setup: Setup) -> Vec<Vec<Function>> {
    let count = rng.usize(2..=6);
    let mut functions: Vec<Vec<Function>> = vec![Vec::new(); count];
    for stage in work.on_fleet() {
        let mut order: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut order);
        let on = if setup.scarce { 1 } else { rng.usize(2..=count.min(3)) };
        for worker in &order[..on] {
            register(rng, work, stage, &mut functions[*worker]);
        }
    }
    functions
}

/// The functions of a worker that joins later.
pub(super) fn joining(rng: &mut Rng, work: &Work) -> Vec<Function> {
    let fleet = work.on_fleet();
    let fleet: Vec<StageId> = fleet.into_iter().filter(|stage| *stage != SOURCE).collect();
    let mut stages: Vec<StageId> = fleet.iter().copied().filter(|_| rng.bool()).collect();
    if stages.is_empty() {
        stages.push(one_of(rng, &fleet));
    }
    let mut functions = Vec::new();
    stages.into_iter().for_each(|stage| register(rng, work, stage, &mut functions));
    functions
}

fn register(rng: &mut Rng, work: &Work, stage: StageId, functions: &mut Vec<Function>) {
    let function = work.register(stage, one_of(rng, &[1, 2, 4, 8]));
    if functions.iter().all(|known| known.name != function.name) {
        functions.push(function);
    }
}

/// Two faults at least that items unacked must survive, and some more.
fn faults(rng: &mut Rng, setup: Setup, roots: u64) -> Vec<(u64, Fault)> {
    use Fault::{
        Break, ClientCutOff, Crash, CutOff, Freeze, Isolate, Join, Kill, KillClient, Leave,
        LongPartition, Partition, Reset, Stall,
    };
    let mut faults = Vec::new();
    let latest = if setup.shape == Shape::Large { 8_000 } else { roots / 2 };
    let moment = |rng: &mut Rng| rng.u64(0..latest);
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
    if setup.scarce {
        faults.push((moment(rng), LongPartition));
    }
    faults.push((moment(rng), Join));
    faults.sort();
    if setup.shape == Shape::ClientDies {
        faults.truncate(rng.usize(1..=faults.len()));
        faults.push((moment(rng), KillClient));
    }
    faults
}

fn pace(rng: &mut Rng, work: &Work, shape: Shape) -> Pace {
    let longest = if shape == Shape::Large { &[200][..] } else { &[200, 2_000, 20_000, 80_000] };
    let mut call: Vec<u64> = work.ids().map(|_| one_of(rng, longest)).collect();
    // A slow consumer lets copies arrive before the first is safe.
    if shape != Shape::Large {
        call[work.terminal().0 as usize] = one_of(rng, &[200, 20_000, 80_000, 400_000]);
    }
    Pace {
        call,
        frame: if shape == Shape::Large { 200 } else { one_of(rng, &[200, 2_000, 15_000]) },
        message: one_of(rng, &[500, 5_000, 50_000]),
        failing_dials: one_of(rng, &[4, 10, 50]),
        second_attempts: one_of(rng, &[5, 20, 1_000]),
        full_wires: one_of(rng, &[10, 50, 10_000]),
        busy_shells: one_of(rng, &[2, 5, 1_000]),
        frames_first: rng.bool(),
    }
}
