//! A pipeline as its user declares it: data, unchecked. [`crate::graph::Graph`] checks it.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{ChannelId, StageId};

/// A declared pipeline: stages, and channels between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// A name for people.
    pub name: String,
    /// The stages; a [`StageId`] is a place in this list.
    pub stages: Vec<Stage>,
    /// The channels; a [`ChannelId`] is a place in this list.
    pub channels: Vec<Channel>,
    /// At most so many roots of a source are admitted and not yet acked. Unset: automatic.
    pub max_in_flight: Option<u64>,
}

/// A node of the graph: an operator with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Where it runs.
    pub site: Site,
    /// The registered function that it calls.
    pub function: String,
    /// Settings for the function (the text of a jq expression, say), handed to it as they are.
    pub params: Bytes,
    /// The declared type of what it takes, if the pipeline's author declared one.
    pub input: Option<TypeTag>,
    /// The declared type of what it makes.
    pub output: Option<TypeTag>,
    /// Cap on its slots in all. Unset: every slot of every worker that registers the function.
    pub workers: Option<u32>,
    /// Cap on its slots on each worker.
    pub workers_per: Option<u32>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How often a failed attempt is repeated.
    pub retries: u32,
}

impl Stage {
    /// A stage with default settings.
    #[must_use]
    pub fn new(name: impl Into<String>, op: Op, site: Site) -> Self {
        let name = name.into();
        Self {
            function: name.clone(),
            name,
            op,
            site,
            params: Bytes::new(),
            input: None,
            output: None,
            workers: None,
            workers_per: None,
            timeout: None,
            retries: 0,
        }
    }
}

/// The operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Makes the roots. Exactly one task.
    Source,
    /// One output for each input (or an error).
    Map,
    /// The input, or nothing.
    Filter,
    /// Any number of outputs for each input.
    FlatMap,
    /// A user's sink function; only errors go on, to the implicit error terminal.
    Sink,
    /// The end of the pipeline in the client's process, applied exactly once. Exactly one task.
    Terminal,
}

impl Op {
    /// Its name as people see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Map => "map",
            Self::Filter => "filter",
            Self::FlatMap => "flat_map",
            Self::Sink => "for_each",
            Self::Terminal => "terminal",
        }
    }

    /// Whether the stage is exactly one task.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Source | Self::Terminal)
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// In the process of the client that submitted the job.
    Client,
    /// On the workers that register its function.
    Fleet,
}

/// A type by its name and version; two are compatible when both are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeTag {
    /// The type's name, without the paths of modules and crates.
    pub name: String,
    /// The version that its author declared; 1 by default.
    pub version: u32,
}

impl std::fmt::Display for TypeTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.version != 1 {
            write!(f, " v{}", self.version)?;
        }
        Ok(())
    }
}

/// An edge of the graph: bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The stage upstream.
    pub from: StageId,
    /// The stage downstream.
    pub to: StageId,
    /// What it carries.
    pub carries: Carries,
    /// How many items it buffers, for each downstream task, beyond those in its slots. Unset: automatic.
    pub buffer: Option<u32>,
}

/// What a channel carries of what its upstream stage makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// Values, errors and markers.
    All,
    /// Errors only: the way from a sink to the implicit error terminal.
    Errors,
}

impl Pipeline {
    /// The stage of that id, if it has one.
    #[must_use]
    pub fn stage(&self, id: StageId) -> Option<&Stage> {
        self.stages.get(id.0 as usize)
    }

    /// The stages with their ids.
    pub fn stages(&self) -> impl Iterator<Item = (StageId, &Stage)> {
        (0..).map(StageId).zip(&self.stages)
    }

    /// The channels with their ids.
    pub fn channels(&self) -> impl Iterator<Item = (ChannelId, &Channel)> {
        (0..).map(ChannelId).zip(&self.channels)
    }

    /// The channels that lead into a stage.
    pub fn inputs(&self, stage: StageId) -> impl Iterator<Item = (ChannelId, &Channel)> {
        self.channels().filter(move |(_, c)| c.to == stage)
    }

    /// The names of the expansions on the way to a stage, the first one first. Where branches meet, the
    /// way is that through the first of them.
    pub(crate) fn expansions_before(&self, stage: StageId) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = stage;
        // No way is longer, were it a circle.
        for _ in 0..self.stages.len() {
            let Some((_, channel)) = self.inputs(at).next() else { break };
            at = channel.from;
            let expansion = self.stage(at).filter(|stage| stage.op == Op::FlatMap);
            names.extend(expansion.map(|stage| stage.name.clone()));
        }
        names.reverse();
        names
    }

    /// The channels that lead out of a stage.
    pub fn outputs(&self, stage: StageId) -> impl Iterator<Item = (ChannelId, &Channel)> {
        self.channels().filter(move |(_, c)| c.from == stage)
    }
}
