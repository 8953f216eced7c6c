//! What can go wrong with a job, and whose turn it is.

use stageline_protocol::ItemError;
use stageline_protocol::control::{Failure, Outcome};
use stageline_worker::runtime::Stopped;

/// What a terminal ends with instead of results.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An item failed, in a stage function or on the way. The rest of the job is not affected, unless
    /// the terminal ends with its first error.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The job itself failed.
    #[error(transparent)]
    Job(#[from] JobError),
}

/// Why a job failed as a whole: what happened, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The coordinator refused or failed it: the pipeline is wrong, a stage is missing, types do not
    /// fit, a source is lost.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Somebody cancelled it, or its client was taken for dead.
    #[error("the job was cancelled: {0}")]
    Cancelled(String),
    /// The coordinator was restarted and no longer knows the job.
    #[error(
        "the coordinator no longer knows the job: it was restarted without its memory; submit the job again"
    )]
    Forgotten,
    /// This process has no coordinator any more.
    #[error(transparent)]
    Disconnected(#[from] Stopped),
}

impl JobError {
    /// Whether submitting the same job again may succeed without a change to it.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Failed(failure) => {
                use stageline_protocol::control::FailureKind as Kind;
                matches!(failure.kind, Kind::MissingStage | Kind::SourceLost)
            }
            Self::Cancelled(_) => false,
            Self::Forgotten | Self::Disconnected(_) => true,
        }
    }

    pub(crate) fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Completed => None,
            Outcome::Cancelled(reason) => Some(Self::Cancelled(reason.clone())),
            Outcome::Failed(failure) => Some(Self::Failed(failure.clone())),
        }
    }
}
