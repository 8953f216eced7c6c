//! The wire format of Stageline, and its conversions to and from the pure protocol.
//!
//! The `.proto` files (package `stageline.v1`) say what travels and why it has its shape; [`v1`] is
//! the code made of them. Nobody else works with that: [`Wire`] turns each type of
//! `stageline-protocol` into its message and back.
//!
//! Decoding trusts nothing. Whatever bytes a peer sends, the answer is a value whose parts agree
//! with each other or a [`DecodeError`] that names the field, never a panic; and no number that
//! merely stands in a message decides how much memory it takes. Payloads are slices of the received
//! message, not copies. Whether a message makes sense *now* (a number that was never sent, a task
//! that is not here) is for the state machines to judge.
//!
//! [`door`] is what stands before the server on a port of ours, coordinator's or worker's.

mod convert;
pub mod door;
#[cfg(test)]
mod tests;

/// The code generated of the `.proto` files: messages, clients and servers.
#[allow(missing_docs, reason = "the comments are in the .proto files, where they have readers")]
pub mod v1 {
    tonic::include_proto!("stageline.v1");
}

pub use convert::{DecodeError, Problem, Wire, encoded_size};

/// The port that a coordinator listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7400;

/// The largest payload of an item unless configured otherwise, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// The largest message of a session or of the jobs service, in bytes. Smaller than that of a link,
/// because a list of empty messages takes some hundred times its bytes in memory.
pub const MAX_CONTROL_MESSAGE: usize = 4 << 20;

/// The largest message of a link, in bytes: what tonic's `max_decoding_message_size` and
/// `max_encoding_message_size` are set to. One item of the largest payload fits, with a batch of
/// smaller ones before it and the columns of all.
pub const MAX_MESSAGE: usize = MAX_PAYLOAD + (16 << 20);

/// The largest pipeline, as a message, in bytes: a view carries it together with all peers.
pub const MAX_PIPELINE: usize = 1 << 20;

/// The largest blob of a batch, in bytes: a bound of the format itself, whatever the transport takes.
pub const MAX_BLOB: usize = 128 << 20;

/// The most items in one batch. A sender's own cap is to be at most this.
pub const MAX_BATCH: usize = 65_536;

/// The most steps in one lineage.
pub const MAX_STEPS: usize = stageline_protocol::lineage::MAX_STEPS;
