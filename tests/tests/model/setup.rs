//! The model: which job, what may happen, and what must hold.

use stageline_protocol::ids::{Epoch, StageId, TaskId};
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::task::{Bug, Dials};
use stateright::{Model, Property};

use crate::world::{Name, World};

/// A small job, and what may befall it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// How many roots the source has.
    pub(crate) items: u64,
    /// How many faults may happen.
    pub(crate) faults: u8,
    /// The tasks between source and terminal: none, or one stage of one task.
    pub(crate) shape: Shape,
    /// When timers fire.
    pub(crate) timers: Timers,
    /// Slots of the stage and the terminal.
    pub(crate) slots: u32,
    /// The buffer in front of each of them.
    pub(crate) buffer: u32,
    /// A defect to be found.
    pub(crate) bug: Option<Bug>,
}

/// Which tasks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Source and terminal, with one link between them that this end of it dials.
    Link(Dialler),
    /// Source, one stage, terminal. The stage's task is dialled by both, as a worker is by a client.
    Chain,
    /// Source, an expansion, a stage, terminal. The expansion's task dies, and its calls fail by chance.
    Expansion,
}

/// When timers fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timers {
    /// At any moment.
    Anytime,
    /// When nothing else can happen: where all moments would be too many.
    WhenIdle,
}

/// Which end of a link dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialler {
    /// The source.
    Upstream,
    /// The terminal.
    Downstream,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The oldest message of a connection reaches its end at this task.
    Deliver(Name, TaskId),
    /// A timer of the task fires.
    Timer(TaskId),
    /// The task's function is done with this input; the consumer of a terminal has taken it.
    Finish(TaskId, u64),
    /// The task hears who its neighbours are; a new one begins with it.
    Plan(TaskId),
    /// Something breaks.
    Fault(Fault),
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A connection, with all that is under way on it; both ends notice, each in its own time.
    Break(Name),
    /// A connection, as this task sees it at once; the other end first receives what is under way to it.
    HangUp(Name, TaskId),
    /// The task of the stage dies and is replaced. What it has sent still arrives, or is lost.
    Kill {
        /// Whether it is lost.
        lost: bool,
    },
    /// The call of this input fails, after what it has made.
    Fail(TaskId, u64),
}

/// What an expansion makes of each root.
pub(crate) const OUTPUTS: u64 = 2;

/// The source.
pub(crate) const SOURCE: TaskId = TaskId { stage: StageId(0), epoch: Epoch(1) };

impl Setup {
    pub(crate) fn pipeline(&self) -> Pipeline {
        let stage = |name: &str, op, site| Stage::new(name, op, site);
        let mut stages = vec![stage("source", Op::Source, Site::Client)];
        match self.shape {
            Shape::Link(_) => {}
            Shape::Chain => stages.push(stage("work", Op::Map, Site::Fleet)),
            Shape::Expansion => {
                stages.push(stage("expand", Op::FlatMap, Site::Fleet));
                stages.push(stage("work", Op::Map, Site::Fleet));
            }
        }
        stages.push(stage("out", Op::Terminal, Site::Client));
        let channels = (1..stages.len() as u32).map(|to| Channel {
            from: StageId(to - 1),
            to: StageId(to),
            carries: Carries::All,
            buffer: Some(self.buffer),
        });
        Pipeline { channels: channels.collect(), stages, ..Pipeline::default() }
    }

    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        let stages = self.pipeline().stages.len() as u32;
        (0..stages).map(|n| TaskId { stage: StageId(n), epoch: Epoch(u64::from(n) + 1) }).collect()
    }

    /// Whether `own` dials `peer`.
    pub(crate) fn dials(&self, own: TaskId, peer: TaskId) -> Dials {
        let we = match self.shape {
            Shape::Link(Dialler::Upstream) => own.stage < peer.stage,
            Shape::Link(Dialler::Downstream) => own.stage > peer.stage,
            Shape::Chain => own.stage != StageId(1),
            // Between workers the upstream dials; the source and the terminal are a client's.
            Shape::Expansion if own.stage.max(peer.stage) == StageId(3) => own.stage == StageId(3),
            Shape::Expansion => own.stage < peer.stage,
        };
        if we { Dials::We } else { Dials::They }
    }
}

impl Model for Setup {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // One thing that went wrong is enough; what follows from it is of no interest.
        if world.broken().is_none() {
            world.progress(self, actions);
            world.faults(self, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

/// The property that a defect breaks, by its name.
const NO_VIOLATION: &str = "no machine breaks an invariant or is told what the protocol forbids";
/// Nothing twice.
const EXACTLY_ONCE: &str = "the consumer gets no item twice";
/// Nothing lost.
pub(crate) const ACK_MEANS_SAFE: &str = "what the source counts as acked, the consumer has taken";
/// It ends.
pub(crate) const ENDS: &str = "where nothing more happens, all has come out and is acked";

fn properties() -> Vec<Property<Setup>> {
    vec![
        Property::always(NO_VIOLATION, |_, world: &World| world.broken().is_none()),
        Property::always(EXACTLY_ONCE, |_, world: &World| world.given_at_most_once()),
        Property::always(ACK_MEANS_SAFE, |setup, world: &World| world.acked_is_taken(setup)),
        Property::always(ENDS, |setup, world: &World| {
            let mut actions = Vec::new();
            world.progress(setup, &mut actions);
            !actions.is_empty() || world.broken().is_some() || world.is_done(setup)
        }),
        // A check in which nothing is sent again, or nothing arrives twice, would show little.
        Property::sometimes(DONE, |setup, world: &World| world.is_done(setup)),
        Property::sometimes(RESENT, |setup: &Setup, world: &World| {
            setup.faults == 0 || world.stats().resent > 0
        }),
        Property::sometimes(CLOSED, |setup: &Setup, world: &World| {
            setup.shape != Shape::Expansion || setup.faults < 2 || world.closed_something()
        }),
        Property::sometimes(COPIES, |setup: &Setup, world: &World| {
            setup.faults == 0
                || matches!(setup.shape, Shape::Link(_))
                || world.stats().duplicates > 0
        }),
    ]
}

/// Something ends well.
const DONE: &str = "all has come out and is acked";
/// Something is sent again.
const RESENT: &str = "an item is sent again";
/// A rerun that ends earlier hides something, and says so.
const CLOSED: &str = "an error is told for an end that is lower than the first";
/// A copy arrives.
const COPIES: &str = "the terminal drops a copy";
