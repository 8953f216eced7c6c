//! The command line `stageline`.
//!
//! Its parts are plain and meet in one place: [`args`] is the grammar; [`file`] reads a pipeline
//! file; [`source`] makes its roots, and [`sink`] takes its results; [`progress`] shows how it goes,
//! and how it went; [`logging`] writes the log; [`check`] does all of that which needs no run.
//!
//! Results go to standard output, everything else to standard error.

pub mod args;
pub mod check;
#[cfg(test)]
mod example;
pub mod file;
pub mod logging;
pub mod progress;
pub mod sink;
pub mod source;
pub mod units;
