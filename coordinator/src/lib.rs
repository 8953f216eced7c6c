//! The control plane of Stageline.
//!
//! [`engine`] decides, and is pure: events in, commands out. [`store`] keeps what must outlive the
//! process. [`server`] is the loop around both, with sessions in memory; [`service`] is the same over
//! gRPC.

pub mod engine;
mod outbox;
pub mod server;
pub mod service;
pub mod store;
