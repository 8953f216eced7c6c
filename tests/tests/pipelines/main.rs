//! Scenarios of the client SDK, each in one process and over a coordinator and two workers: the same
//! program, the same results, by one oracle.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test says so when it fails"
)]

mod ids;
mod operators;
mod panics;
mod policies;
mod refusals;
mod slots;
mod sources;
mod terminals;
mod world;
