//! A whole cluster of the pure machines in one thread, over simulated time.
//!
//! The coordinator's engine, a client and several workers with their tasks, and the connections
//! between them are driven by one scheduler that draws every delay, every fault and every setting
//! from one seed. Functions take simulated time; connections delay, break and refuse; workers are
//! killed, frozen, cut off from the coordinator or asked to leave; others join. What runs is a chain:
//!
//! source (client or workers) → map → filter → flat_map → map → terminal (client)
//!
//! or one with two expansions, or with a user's sink. Some of its functions may run in the client, or be
//! used by two stages; they fail by their inputs, and by chance; make other outputs than before, or fewer;
//! and kill their worker. Most stages are on two workers or more.
//!
//! What may come out is known beforehand (`invariants/boundary.rs`). Checked after every step, not only at the
//! end:
//! - at the terminal: nothing twice, nothing that was not expected, nothing with another content; each
//!   root ends in all its values, or in an error that was told;
//! - on the wires (`watch`): sent ≤ granted; grants, acks and forfeits never fall; an ack for an item
//!   is sent only when all that comes of it has been delivered; nobody breaks the protocol;
//! - in every task that was touched: its own invariants, a source's window, timers that advance;
//! - and the job completes, with nothing lost, within a minute of simulated time after the last
//!   fault; afterwards no process runs anything of it.
//!
//! A run is a pure function of its seed: [`run`] twice gives the same log, which its hash shows.

mod carrier;
mod cluster;
mod faults;
mod functions;
mod gate;
mod invariants;
mod log;
mod network;
mod node;
mod schedule;
mod sessions;
mod shell;

use std::panic::{AssertUnwindSafe, catch_unwind};

use stageline_protocol::task::Bug;

use self::cluster::Cluster;
pub use self::cluster::Figures;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everything, from a source in the client.
    Whole,
    /// The same, and the consumer wants no more after some items: the terminal cuts its channel.
    Take,
    /// Everything, from a named source on the workers, which is replaced at its stored position.
    NamedSource,
    /// Everything, and the client is killed on the way: its job is cancelled everywhere.
    ClientDies,
    /// Everything, and some items kill their worker each time: they are convicted.
    Killers,
    /// A few roots, of which two are expanded to 10,000 outputs.
    Large,
}

/// A run that came out as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What happened in it.
    pub figures: Figures,
    /// A hash over the whole event log.
    pub log_hash: u64,
    /// The event log, if it was asked for.
    pub log: Vec<String>,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was run.
    pub shape: Shape,
    /// What should have held, and did not.
    pub invariant: String,
    /// The event log, if it was asked for.
    pub log: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const LAST: usize = 120;
        let skipped = self.log.len().saturating_sub(LAST);
        writeln!(f, "seed {} ({:?}): {}", self.seed, self.shape, self.invariant)?;
        writeln!(f, "the last events ({skipped} before them):")?;
        for line in &self.log[skipped..] {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "replay with the whole log: SEED={} SHAPE={:?} cargo test -p stageline-tests --test \
             simulation -- replay --nocapture",
            self.seed, self.shape
        )
    }
}

/// Runs the schedule of a seed and a shape, with a deliberate defect or none.
///
/// # Errors
/// The invariant that was broken; the log is in it if `keep_log` is set.
pub fn run(seed: u64, shape: Shape, bug: Option<Bug>, keep_log: bool) -> Result<Run, Box<Failure>> {
    let mut cluster = Cluster::new(seed, shape, bug, keep_log);
    // A machine that panics (an overflow, say) has broken an invariant too.
    let result = catch_unwind(AssertUnwindSafe(|| cluster.run()));
    let broken = match result {
        Ok(Ok(())) => None,
        Ok(Err(invariant)) => Some(invariant),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panicked: {}", text.unwrap_or("without a message")))
        }
    };
    let (figures, log_hash, log) = cluster.finish();
    match broken {
        None => Ok(Run { figures, log_hash, log }),
        Some(invariant) => Err(Box::new(Failure { seed, shape, invariant, log })),
    }
}
