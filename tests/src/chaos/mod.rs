//! Real processes under seeded faults.
//!
//! A coordinator, workers for every kind of stage and a client, each a process of its own, run jobs
//! whose results are known beforehand. Meanwhile a driver kills, stops, continues, terminates, cuts
//! and restarts them, at moments that it draws from a seed. An [oracle] compares what came
//! out with what had to, item by item; a run in which nothing was sent again and no copy came twice
//! proves nothing, and fails.
//!
//! The same seed draws the same faults; when exactly they meet which item is up to the machine.
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin chaos -- --help
//! ```

pub mod client;
pub mod fleet;
pub mod kills;
pub mod net;
pub mod oracle;
pub mod partitions;
pub mod series;
pub mod small;
pub mod stall;
pub mod work;
pub mod zombies;

/// How a run came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was promised was seen.
    Held,
    /// Something was not; what, has been printed.
    Broken,
    /// This machine does not allow it; why, has been printed.
    Skipped,
}

impl Outcome {
    /// Held or broken.
    #[must_use]
    pub const fn of(held: bool) -> Self {
        if held { Self::Held } else { Self::Broken }
    }
}
