//! What must outlive the coordinator's process.
//!
//! The engine emits a [`Record`] before every command that depends on it, and the shell puts each
//! into the store before it goes on to the next command. So nothing is ever announced that a restart
//! would not remember.

use std::collections::BTreeMap;
use std::time::Duration;

use stageline_protocol::control::Outcome;
use stageline_protocol::pipeline::Pipeline;
use stageline_protocol::{Epoch, Incarnation, JobId, StageId};

/// One fact to be kept. Putting the same one again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A job was submitted.
    Submitted {
        /// The job.
        job: JobId,
        /// The life of the client that it belongs to.
        client: Incarnation,
        /// What to run.
        pipeline: Pipeline,
        /// How long to wait for functions that no worker registers.
        wait_stages: Duration,
    },
    /// Epochs up to this one are given out.
    Epochs {
        /// The job.
        job: JobId,
        /// The highest epoch that may be in use.
        highest: Epoch,
    },
    /// All roots of a named source below this are acked.
    Position {
        /// The job.
        job: JobId,
        /// The source.
        stage: StageId,
        /// The lowest root that is not acked.
        position: u64,
    },
    /// A job is over; only its tasks are still to be ended.
    Ended {
        /// The job.
        job: JobId,
        /// How it came out.
        outcome: Outcome,
    },
    /// A job is no longer listed.
    Forgotten {
        /// The job.
        job: JobId,
    },
}

/// Why a record could not be kept. The coordinator must stop: what it announces next would rest on it.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator's store failed: {0}")]
pub struct StoreError(pub String);

/// Keeps records. A record is safe when `put` has returned.
pub trait Store: Send + 'static {
    /// Keeps a record.
    ///
    /// # Errors
    /// When it is not certain that the record is safe.
    fn put(&mut self, record: Record) -> Result<(), StoreError>;
}

/// A store that lives as long as the process: for the embedded mode and for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    jobs: BTreeMap<JobId, StoredJob>,
}

/// What is kept of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The life of the client that it belongs to.
    pub client: Incarnation,
    /// What it runs.
    pub pipeline: Pipeline,
    /// How long to wait for functions that no worker registers.
    pub wait_stages: Duration,
    /// The highest epoch that may be in use.
    pub highest: Epoch,
    /// The positions of its named sources.
    pub positions: BTreeMap<StageId, u64>,
    /// How it came out, if it is over.
    pub outcome: Option<Outcome>,
}

impl MemoryStore {
    /// What is kept, by job.
    #[must_use]
    pub const fn jobs(&self) -> &BTreeMap<JobId, StoredJob> {
        &self.jobs
    }
}

impl Store for MemoryStore {
    fn put(&mut self, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Submitted { job, client, pipeline, wait_stages } => {
                self.jobs.entry(job).or_insert_with(|| StoredJob {
                    client,
                    pipeline,
                    wait_stages,
                    highest: Epoch::default(),
                    positions: BTreeMap::new(),
                    outcome: None,
                });
            }
            Record::Epochs { job, highest } => {
                self.change(job, |stored| stored.highest = stored.highest.max(highest));
            }
            Record::Position { job, stage, position } => self.change(job, |stored| {
                let kept = stored.positions.entry(stage).or_default();
                *kept = position.max(*kept);
            }),
            Record::Ended { job, outcome } => {
                self.change(job, |stored| {
                    stored.outcome.get_or_insert(outcome);
                });
            }
            Record::Forgotten { job } => {
                self.jobs.remove(&job);
            }
        }
        Ok(())
    }
}

impl MemoryStore {
    fn change(&mut self, job: JobId, change: impl FnOnce(&mut StoredJob)) {
        if let Some(stored) = self.jobs.get_mut(&job) {
            change(stored);
        }
    }
}
