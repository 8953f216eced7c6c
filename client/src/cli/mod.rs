//! The command line `stageline`: pipeline files, sources, sinks, progress.

pub mod file;
pub mod sink;
pub mod source;
pub mod units;
