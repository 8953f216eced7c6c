//! The baseline `tcp`: what a careful programmer writes by hand on sockets.
//!
//! Frames are a length in four bytes and the payload. They are written in batches of 64 KiB, together
//! with what large payloads are written from where they are. Upstream go the items that are safe, as
//! one cumulative count of eight bytes; a sender retains what is not among them, up to
//! [`WINDOW`](super::window::WINDOW). A map acks what the next process has acked.

mod frame;
mod nodes;

pub use nodes::{serve, source};
