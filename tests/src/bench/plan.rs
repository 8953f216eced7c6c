//! What is measured: the systems, the workloads, and one run of one of them.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What carries the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// This project: the SDK, the coordinator, the workers, with default settings.
    Stageline,
    /// A gRPC stream with an item a message.
    TonicItem,
    /// A gRPC stream with many items a message, packed into one blob.
    TonicPacked,
    /// A TCP connection with length-prefixed frames.
    Tcp,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stageline, Self::TonicItem, Self::TonicPacked, Self::Tcp];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stageline => "stageline",
            Self::TonicItem => "tonic-item",
            Self::TonicPacked => "tonic-packed",
            Self::Tcp => "tcp",
        }
    }
}

/// What is done with the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Source → sink, in two processes.
    Link,
    /// Source → map → map → sink, in four; each map appends a hash.
    Stages,
    /// As `stages`, the first map waiting 2 ms for each item, in two processes of 16 slots.
    Fanout,
    /// As `stages`, at a given rate: how long an item takes.
    Latency,
    /// As `stages`, with records instead of bytes.
    Typed,
    /// As `stages`, in one process.
    Embedded,
}

impl Workload {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Stages => "stages",
            Self::Fanout => "fanout",
            Self::Latency => "latency",
            Self::Typed => "typed",
            Self::Embedded => "embedded",
        }
    }

    /// How many maps stand between source and sink.
    #[must_use]
    pub const fn maps(self) -> usize {
        if matches!(self, Self::Link) { 0 } else { 2 }
    }
}

/// Which maps of `fanout` wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// The first.
    First,
    /// The first and the second.
    Both,
}

/// A run of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is done.
    pub workload: Workload,
    /// What the source makes, in bytes; of a record, its body.
    pub payload: usize,
    /// How many items it makes.
    pub items: u64,
    /// Of `latency`: how many a second.
    pub rate: u64,
    /// Stageline's worker processes for each map and for the sink.
    pub workers: usize,
    /// Which maps of `fanout` wait.
    pub wait: Wait,
}

/// How long a map of `fanout` waits for each item.
pub const WAIT: Duration = Duration::from_millis(2);
/// How many items a process of such a map has in hand at a time.
pub const SLOTS: u32 = 16;
/// How many processes such a map has.
pub const SPREAD: usize = 2;

/// What a process of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Makes the items.
    Source,
    /// The first map.
    First,
    /// The second map.
    Second,
    /// Takes the items.
    Sink,
}

impl Role {
    /// Its name, in logs and as a stage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::First => "first",
            Self::Second => "second",
            Self::Sink => "sink",
        }
    }
}

impl Plan {
    /// The stages of the run, in the order of the items.
    #[must_use]
    pub const fn roles(&self) -> &'static [Role] {
        match self.workload {
            Workload::Link => &[Role::Source, Role::Sink],
            _ => &[Role::Source, Role::First, Role::Second, Role::Sink],
        }
    }

    /// Whether a stage of it waits for each item.
    #[must_use]
    pub fn waits(&self, role: Role) -> bool {
        self.workload == Workload::Fanout
            && (role == Role::First || (role == Role::Second && self.wait == Wait::Both))
    }

    /// How many processes a stage of it has in Stageline. A source is always exactly one task.
    #[must_use]
    pub fn processes(&self, role: Role) -> usize {
        match role {
            Role::Source => 1,
            _ if self.waits(role) => SPREAD,
            _ => self.workers,
        }
    }

    /// The job that is run before, to warm everything up.
    #[must_use]
    pub fn warm_up(&self) -> Self {
        Self { items: (self.items / 10).clamp(1, 50_000), ..*self }
    }
}
