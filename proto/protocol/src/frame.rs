//! What travels over a link.
//!
//! Grants and acks are cumulative within one connection: losing one is made good by the next, and a
//! repetition changes nothing. Items are numbered by their place on the connection; the number does
//! not travel.

use crate::VersionRange;
use crate::ids::{ConnId, LinkId, StageId};
use crate::ranges::{RangeSet, Settled};
use crate::run::Run;

/// One message of a link, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The dialler's first frame: which link, which connection, and what became of the older one.
    Open(Open),
    /// The answer to it.
    Accept(Accept),
    /// Downstream: a batch, and what the sender has to say about itself.
    Items(Items),
    /// Upstream: leave to send.
    Grant(Grant),
    /// Upstream: what is settled because everything that came of it is safe.
    Ack(Ack),
    /// Upstream: items given back unstarted. It settles their numbers, is never an ack, and ends
    /// the credit of the link: the receiver is leaving.
    Return(Return),
    /// Either way: the link ends, and why.
    Close(Close),
}

/// Which end of the link the dialler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The upstream task.
    Sender,
    /// The downstream task.
    Receiver,
}

/// The dialler's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// The protocol versions that the dialler speaks.
    pub versions: VersionRange,
    /// The link.
    pub link: LinkId,
    /// Which end dials.
    pub role: Role,
    /// The new connection.
    pub conn: ConnId,
    /// From a sender: the connection whose items it still holds as unacked, if there was one.
    pub resume: Option<ConnId>,
    /// From a receiver: what became of the connections that the sender may resume from.
    pub summaries: Vec<Summary>,
    /// From a receiver: its policy.
    pub policy: Option<LinkPolicy>,
}

/// The acceptor's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    /// The protocol version that both will speak.
    pub version: u32,
    /// From a sender: the connection that it resumes from, one of the summarised.
    pub resume: Option<ConnId>,
    /// From a receiver: what became of the connection that the sender wants to resume.
    pub summary: Option<Summary>,
    /// From a receiver: its policy.
    pub policy: Option<LinkPolicy>,
}

/// What the receiver of a link decides, so that nothing depends on two processes having been
/// configured alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkPolicy {
    /// The byte window: how far the byte grant runs ahead of what has been released.
    pub window_bytes: u64,
    /// The largest payload that is taken.
    pub max_payload: u64,
}

/// What became of the items of an older connection, as its receiver saw it. What is neither settled
/// nor held never arrived, or was given back: the sender sends it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Summary {
    /// The older connection.
    pub conn: ConnId,
    /// The numbers that are acked.
    pub acked: Settled,
    /// The numbers that the receiver holds, not yet acked. In ascending order they become the
    /// numbers 0, 1, 2, … of the new connection.
    pub held: RangeSet,
}

/// A batch of items, possibly empty, and the sender's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Items {
    /// The items, in the order of their numbers.
    pub batch: Vec<Run>,
    /// How many more items the sender has queued for this channel.
    pub backlog: u64,
    /// How much item credit the sender has given up on this connection, in all.
    pub forfeited: u64,
    /// Per source: the lowest root that is not yet acked.
    pub watermarks: Vec<(StageId, u64)>,
}

impl Items {
    /// How many items are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.batch.iter().map(Run::len).sum()
    }
}

/// Leave to send, counted from the connection's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Items with a number below this (less what was forfeited) may be sent.
    pub items: u64,
    /// So many bytes may be sent.
    pub bytes: u64,
}

/// The numbers for which everything that came of them is safe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    /// All of them, not only the new ones.
    pub settled: Settled,
}

/// Numbers given back unstarted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Return {
    /// All of them, not only the new ones.
    pub numbers: RangeSet,
}

/// The end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Close {
    /// Why.
    pub reason: CloseReason,
    /// The reason in words, for logs and errors.
    pub message: String,
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The downstream end needs no more of this channel: what was sent counts as acked.
    Cut,
    /// The task that was named is not, or no longer, here.
    NoSuchTask,
    /// The frame's epoch or connection has been superseded.
    Stale,
    /// The other end broke the protocol.
    Violation,
    /// No protocol version is common to both ends.
    Version,
    /// This end is done with the link and holds nothing of it: its task is ending in good order.
    /// From a receiver: what it has not acked it has not started, nor will it. A sender answers with
    /// the same, so that the receiver knows that its last acks were heard.
    Done,
}
