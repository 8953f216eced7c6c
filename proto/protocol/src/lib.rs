//! The protocol of Stageline as pure state machines.
//!
//! Nothing here reads a clock, opens a socket, draws a random number or spawns a task. A machine is
//! told facts and the time, and answers with frames, effects or commands; so one sequence of calls
//! reproduces any bug, and whole clusters of these machines run in a loop.
//!
//! - [`ids`], [`lineage`], [`item`], [`run`], [`frame`]: the vocabulary.
//! - [`pipeline`]: what a user declares; [`graph`]: the same, checked, and cut into sections.
//! - [`link`]: one channel between two tasks, sender and receiver, with credits, acks and resume.
//! - [`task`]: one stage of one job on one worker: its links, slots, ack ledger and boundary.
//! - [`suspect`]: what is said of items that may have killed a process.
//! - [`text`]: names and messages of others, as people may see them.
//! - [`control`]: what coordinator and processes tell each other; [`placement`]: who runs what.

pub mod applied;
pub mod by_worker;
pub mod control;
pub mod frame;
pub mod graph;
pub mod ids;
pub mod item;
pub mod lineage;
pub mod link;
pub mod pipeline;
pub mod placement;
pub mod ranges;
mod round_trip;
pub mod run;
pub mod spans;
pub mod suspect;
pub mod task;
pub mod text;
pub mod time;
pub mod window;

pub use frame::Frame;
pub use ids::{ChannelId, ConnId, Epoch, Incarnation, JobId, LinkId, StageId, TaskId, Term};
pub use item::{Body, Encoding, ErrorKind, Item, ItemError};
pub use lineage::{Lineage, Step};
pub use run::{Content, Packed, Run};
pub use time::Time;

/// The protocol versions that this build speaks, oldest and newest.
pub const VERSIONS: VersionRange = VersionRange { oldest: 1, newest: 1 };

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// The oldest version that is understood.
    pub oldest: u32,
    /// The newest version that is understood.
    pub newest: u32,
}

impl VersionRange {
    /// The newest version that both sides understand, if there is one.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oldest == self.newest {
            write!(f, "{}", self.oldest)
        } else {
            write!(f, "{} to {}", self.oldest, self.newest)
        }
    }
}
