//! What must outlive the coordinator's process.
//!
//! The engine emits a [`Record`] before every command that depends on it, and the shell makes it safe
//! before it goes on: nothing is ever announced that a restart would not remember. All records
//! together give a [`Stored`], which is all that an engine needs to go on where an earlier life of it
//! stopped. [`RedbStore`] keeps them in a file,
//! [`MemoryStore`] as long as the process lives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stageline_protocol::control::{Hello, JobStatus};
use stageline_protocol::pipeline::Pipeline;
use stageline_protocol::suspect::Death;
use stageline_protocol::{Epoch, Incarnation, JobId, Lineage, StageId, Term, Time};

mod fact;
mod redb;
mod stored;

pub use self::redb::RedbStore;
pub use self::stored::{Stored, StoredEnd, StoredJob, StoredTask};

/// One fact to be kept. Each is a level: putting the same one again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A life of the coordinator begins.
    Term(Term),
    /// A process counts as alive, and this is what it says of itself.
    Process(Box<Hello>),
    /// A process counts as alive no more.
    Gone(Incarnation),
    /// The lives that another of the same name has superseded: all that are remembered, the latest
    /// last.
    Superseded(Vec<Incarnation>),
    /// A job was submitted.
    Submitted {
        /// The job.
        job: JobId,
        /// The life of the client that it belongs to.
        client: Incarnation,
        /// That client's name.
        client_name: String,
        /// When.
        at: Time,
        /// What to run.
        pipeline: Pipeline,
        /// How long to wait for functions that no worker registers.
        wait_stages: Duration,
    },
    /// Epochs up to this one are given out: the job runs.
    Epochs {
        /// The job.
        job: JobId,
        /// The highest epoch that may be in use.
        highest: Epoch,
    },
    /// A task is placed, or has other slots now, or should end.
    Task {
        /// The job.
        job: JobId,
        /// The task.
        task: StoredTask,
    },
    /// A task runs no more.
    TaskOver {
        /// The job.
        job: JobId,
        /// Which life of a task it was.
        epoch: Epoch,
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
    /// A marked item was in process at these deaths; none: it is forgotten.
    Suspect {
        /// The job.
        job: JobId,
        /// The stage where it was in process.
        stage: StageId,
        /// The item.
        lineage: Lineage,
        /// All the deaths that count.
        deaths: Vec<Death>,
    },
    /// A source has no more roots, and all that it had are acked.
    Finished {
        /// The job.
        job: JobId,
        /// The source.
        stage: StageId,
    },
    /// A job is over; at most its tasks are still to be ended. Put again when they have, with the
    /// final figures.
    Ended {
        /// The job.
        job: JobId,
        /// The life of the client that it belongs to.
        client: Incarnation,
        /// When.
        at: Time,
        /// How it came out.
        status: Box<JobStatus>,
    },
    /// A job is no longer listed.
    Forgotten {
        /// The job.
        job: JobId,
    },
}

/// Why a store could not be read, or a record could not be kept. The coordinator must stop: what it
/// announces next would rest on it. The text says what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Keeps records. What was put is safe when `put` has returned.
pub trait Store: Send + 'static {
    /// All that is kept.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was put.
    fn load(&mut self) -> Result<Stored, StoreError>;

    /// Keeps records, in their order: all of them or none.
    ///
    /// # Errors
    /// When it is not certain that they are safe.
    fn put(&mut self, records: &[Record]) -> Result<(), StoreError>;
}

/// A store that lives as long as the process: for the embedded mode and for tests. Its clones share
/// what is kept, so that another coordinator can go on with it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    stored: Arc<Mutex<Stored>>,
}

impl MemoryStore {
    /// What is kept.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(self.stored())
    }

    fn put(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            stored.apply(record.clone());
        }
        Ok(())
    }
}
