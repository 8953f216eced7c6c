//! The worker of Stageline: the SDK for stage functions, and the runtime that runs them.
//!
//! [`sdk`] is what a user writes against: a [`sdk::Registry`] of named functions. [`runtime`] is what
//! runs them: the same in a worker's process, in a client's, and in embedded mode.

pub mod runtime;
pub mod sdk;
mod worker;

pub use worker::{RunningWorker, StartError, Worker};
