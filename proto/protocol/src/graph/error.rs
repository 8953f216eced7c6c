//! What can be wrong with a pipeline: which stage, and what to do about it.

use crate::control::FailureKind;
use crate::ids::{ChannelId, StageId};
use crate::pipeline::{Op, TypeTag};
use crate::text::NOT_PLAIN;

/// Why a pipeline is no graph, or a function does not fit a stage of it. The fault is the
/// pipeline's author's; trying again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Nothing was declared.
    #[error("pipeline {0:?} has no stages: give it a source, stages and a terminal")]
    NoStages(String),
    /// A stage cannot be named in any message.
    #[error("{0} has an empty name: name it")]
    EmptyName(StageId),
    /// A stage on the fleet has nothing to call.
    #[error("stage {stage:?} names no function: name one that a worker registers")]
    EmptyFunction {
        /// The stage.
        stage: String,
    },
    /// A name would steer the terminal of whoever lists it.
    #[error("the name {0:?} {NOT_PLAIN}")]
    NotPlain(String),
    /// Two stages have one name.
    #[error(
        "the name {name:?} is used by {first} and by {second}: give one of them another with name(..)"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// Who has it.
        first: StageId,
        /// Who has it too.
        second: StageId,
    },
    /// A channel begins or ends nowhere.
    #[error(
        "{channel} goes from {from} to {to}, but {unknown} does not exist: the stages are 0 to {last}",
        last = stages - 1
    )]
    UnknownStage {
        /// The channel.
        channel: ChannelId,
        /// Its upstream end.
        from: StageId,
        /// Its downstream end.
        to: StageId,
        /// Which of the two does not exist.
        unknown: StageId,
        /// How many stages there are.
        stages: usize,
    },
    /// Nothing would ever flow.
    #[error("pipeline {0:?} has no source: begin it with one")]
    NoSource(String),
    /// The stages feed each other.
    #[error("stages {} form a cycle: a pipeline flows one way; remove a channel between them", join(.0))]
    Cycle(Vec<String>),
    /// A lineage has a step for each expansion and broadcast, and only so many of them.
    #[error(
        "stage {stage:?} is expansion or broadcast number {depth} on its path; there may be {max}: let one stage do the work of several"
    )]
    TooDeep {
        /// The stage.
        stage: String,
        /// How many there are up to it.
        depth: usize,
        /// How many there may be.
        max: usize,
    },
    /// A source takes nothing.
    #[error(
        "source {stage:?} has an input from stage {from:?}: a source makes items; use map or flat_map for a stage that takes some"
    )]
    SourceWithInput {
        /// The source.
        stage: String,
        /// What leads to it.
        from: String,
    },
    /// A terminal is the end.
    #[error(
        "terminal {stage:?} has an output to stage {to:?}: a terminal is the end of the pipeline; put {to:?} before it"
    )]
    TerminalWithOutput {
        /// The terminal.
        stage: String,
        /// What it leads to.
        to: String,
    },
    /// A terminal belongs to the client.
    #[error(
        "terminal {stage:?} is placed on the fleet, but a terminal runs in its client's process: use for_each for a sink on workers"
    )]
    TerminalOnFleet {
        /// The terminal.
        stage: String,
    },
    /// No source reaches the stage.
    #[error("stage {stage:?} has no input, so no source reaches it: connect it, or remove it")]
    NoInput {
        /// The stage.
        stage: String,
    },
    /// What the stage makes goes nowhere.
    #[error(
        "stage {stage:?} leads to no terminal and no sink: end the pipeline with collect, count, for_each or the like"
    )]
    NoBoundary {
        /// The stage.
        stage: String,
    },
    /// A number that must not be zero.
    #[error(
        "stage {stage:?} has {setting}(0), with which nothing could run: use at least 1, or leave it out"
    )]
    ZeroSetting {
        /// The stage.
        stage: String,
        /// The setting.
        setting: &'static str,
    },
    /// A setting that means nothing there.
    #[error(
        "{op} {stage:?} has {setting}(..), which means nothing there: a {op} is one task and calls no stage function; leave it out"
    )]
    Meaningless {
        /// The stage.
        stage: String,
        /// Its operator.
        op: Op,
        /// The setting.
        setting: &'static str,
    },
    /// Only a sink has an errors channel.
    #[error(
        "{op} {stage:?} has a channel of errors only, which only a for_each has: let the channel carry everything"
    )]
    ErrorsFromNonSink {
        /// The stage.
        stage: String,
        /// Its operator.
        op: Op,
    },
    /// A sink makes nothing.
    #[error(
        "for_each {stage:?} has an output to stage {to:?}, but a sink only takes items: use map if something is to follow"
    )]
    SinkWithOutput {
        /// The sink.
        stage: String,
        /// What it leads to.
        to: String,
    },
    /// Failed items of a sink must arrive somewhere.
    #[error(
        "for_each {stage:?} needs exactly one channel of errors, to a terminal in the client: without it failed items would be lost"
    )]
    SinkWithoutErrors {
        /// The sink.
        stage: String,
    },
    /// A window of nothing.
    #[error(
        "pipeline {0:?} has max_in_flight(0), with which no source could admit an item: use at least 1, or leave it out"
    )]
    NothingInFlight(String),
    /// Neighbours do not fit.
    #[error(
        "stage {from:?} makes {made}, but stage {to:?} takes {taken}: change one of them, or put a stage between that converts"
    )]
    TypeMismatch {
        /// The stage upstream.
        from: String,
        /// What it makes.
        made: TypeTag,
        /// The stage downstream.
        to: String,
        /// What it takes.
        taken: TypeTag,
    },
    /// A filter passes on what it takes.
    #[error(
        "filter {stage:?} takes {taken} and is declared to make {made}: a filter passes items on unchanged; use map to convert"
    )]
    FilterConverts {
        /// The filter.
        stage: String,
        /// What it takes.
        taken: TypeTag,
        /// What it is declared to make.
        made: TypeTag,
    },
    /// The function is for another operator.
    #[error(
        "stage {stage:?} is a {op}, but {function:?} is registered as a {registered}: use the operator that it is registered for (in a pipeline file, `op: {registered}`), or register it as a {op}"
    )]
    WrongOp {
        /// The stage.
        stage: String,
        /// Its operator.
        op: Op,
        /// The function.
        function: String,
        /// What the function is registered for.
        registered: Op,
    },
    /// The function has other types than the stage declares.
    #[error("stage {stage:?} {} {declared}, but the function {function:?} is registered to {} {registered}: build client and worker from the same declaration", if *.input { "takes" } else { "makes" }, if *.input { "take" } else { "make" })]
    FunctionType {
        /// The stage.
        stage: String,
        /// The function.
        function: String,
        /// Whether it is what is taken, rather than what is made.
        input: bool,
        /// The type that the stage declares.
        declared: TypeTag,
        /// The type that the function was registered with.
        registered: TypeTag,
    },
}

impl GraphError {
    /// What sort of failure of a job it is.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::TypeMismatch { .. } | Self::FilterConverts { .. } | Self::FunctionType { .. } => {
                FailureKind::TypeMismatch
            }
            _ => FailureKind::Invalid,
        }
    }
}

fn join(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
