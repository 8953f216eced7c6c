//! The benchmark: what it costs to carry items from stage to stage, for Stageline and for programs
//! that a careful programmer might write instead.
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin bench -- stages --payload 128
//! ```
//!
//! A **run** is one [plan] for one [system](plan::System): its processes are started, a short job
//! warms them up, then one job is timed from its submission to its end, with acks on. What the sinks
//! have counted and summed is compared with what must come out. What stages do with an item is the
//! same code for all systems ([`work`], [`payload`], [`record`]); what differs is the carrying:
//! [`sdk`], [`grpc`], [`tcp`]. All processes are the benchmark's own program ([`process`]).
//!
//! Absolute figures move with the machine, so systems are compared within one [`series`]: they take
//! turns, several times over, and medians are set beside each other. The baselines are honest programs
//! only while they are near to what the sockets can do; a series over `link` says whether they are.

pub mod cli;
pub mod grpc;
pub mod node;
pub mod outcome;
pub mod payload;
pub mod plan;
pub mod process;
pub mod record;
pub mod run;
pub mod sdk;
pub mod series;
pub mod stats;
pub mod table;
pub mod tally;
pub mod tcp;
pub mod window;
pub mod work;
