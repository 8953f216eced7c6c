//! The control plane of Stageline.
//!
//! [`engine`] decides, and is pure: events in, commands out. [`store`] keeps what must outlive the
//! process.

pub mod engine;
pub mod store;
