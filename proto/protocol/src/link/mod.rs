//! A link: one channel between one upstream and one downstream task.
//!
//! Its two ends are the [`Sender`] and the [`Receiver`]. They agree on a *connection*, an incarnation
//! of the link; on each, items are numbered from 0 in the order in which they are sent. The
//! receiver's grants (leave to send) and acks (what is safe) are cumulative and speak of these
//! numbers. The sender retains an item until it is acked.
//!
//! When a connection breaks, the next one first settles what became of the items of the last:
//!
//! 1. The receiver summarises the older connection: what is acked, what it still holds. Held items
//!    carry over; in the order of their old numbers they become 0, 1, 2, … of the new connection,
//!    and need neither sending nor credit. What is neither acked nor held is sent again, to whoever
//!    has credit.
//! 2. The sender moves to the new numbers when the first grant of the new connection arrives: only
//!    then does it know that the receiver has moved. If the connection breaks before that, it still
//!    speaks of the older one; so the receiver keeps the last summary until the new connection has
//!    itself been summarised.
//!
//! Both ends are pure; [`crate::task::Task`] owns them.

mod receiver;
mod sender;

pub use receiver::{Receiver, Resumed};
pub use sender::{Flush, Freed, Inputs, Sender};

/// What a peer did that the protocol forbids. Its link is closed; the process lives on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Hash)]
pub enum Violation {
    /// More items than were granted.
    #[error("sent {sent} items with leave for {limit}")]
    ItemCredit {
        /// Items received and forfeited on this connection, with the offending ones.
        sent: u64,
        /// The limit that was granted.
        limit: u64,
    },
    /// More bytes than were granted, with others in flight.
    #[error("sent {sent} bytes with leave for {limit}")]
    ByteCredit {
        /// Bytes received on this connection, with the offending ones.
        sent: u64,
        /// The limit that was granted.
        limit: u64,
    },
    /// A payload above the largest one.
    #[error("sent a payload of {size} bytes; the largest is {max}")]
    PayloadTooLarge {
        /// The payload.
        size: u64,
        /// The largest payload.
        max: u64,
    },
    /// An ack or return of a number that was never sent.
    #[error("settled item {number}, but only {sent} were sent")]
    SettledUnsent {
        /// One past the highest number that was settled.
        number: u64,
        /// How many were sent.
        sent: u64,
    },
    /// A summary that does not fit what was sent.
    #[error("its summary of connection {0} does not fit what was sent on it")]
    Summary(crate::ConnId),
    /// A counter that went down.
    #[error("its cumulative count of {0} went down")]
    CounterFell(&'static str),
    /// A frame that this end of a link never receives, or not in this state.
    #[error("unexpected frame: {0}")]
    Unexpected(&'static str),
}

#[cfg(test)]
mod tests;
