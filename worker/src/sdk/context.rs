//! What a function may know about the item that it works on.

use std::fmt;
use std::sync::Arc;

use stageline_protocol::{JobId, Lineage};
use tokio_util::sync::CancellationToken;

/// What all calls of one task share. The runtime makes one for each task, and [`Context`]s of it.
#[derive(Clone, Debug)]
pub struct TaskContext {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    job: JobId,
    stage: String,
    worker: String,
    cancelled: CancellationToken,
}

impl TaskContext {
    /// The context of a task: its job, the stage's name in the pipeline, the name of the process,
    /// and the token that is cancelled when the task ends before its work is done.
    #[must_use]
    pub fn new(
        job: JobId,
        stage: impl Into<String>,
        worker: impl Into<String>,
        cancelled: CancellationToken,
    ) -> Self {
        let (stage, worker) = (stage.into(), worker.into());
        Self { shared: Arc::new(Shared { job, stage, worker, cancelled }) }
    }

    /// The context of the first attempt at one item.
    #[must_use]
    pub fn item(&self, lineage: Lineage) -> Context {
        Context { task: self.clone(), lineage, attempt: 1 }
    }
}

/// What a function may know about the item that it works on. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    task: TaskContext,
    lineage: Lineage,
    attempt: u32,
}

impl Context {
    /// The item's identity: the same whenever and wherever the item is made again.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// A text that names this item within its job: the same for every attempt at it, also for those
    /// on other workers. A function that changes the outside world passes it on, with the
    /// [`job`](Self::job), so that doing the same twice has the effect of once.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        self.lineage.to_string()
    }

    /// Which attempt of this call it is, from 1. A rerun after the death of a worker counts from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.task.shared.job
    }

    /// The stage's name in the pipeline.
    #[must_use]
    pub fn stage(&self) -> &str {
        &self.task.shared.stage
    }

    /// The name of the process that runs it.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.task.shared.worker
    }

    /// Waits until the call's result is no longer wanted: the job was cancelled, or the task ends.
    /// An async function is dropped then and need not look; a blocking one should, now and then,
    /// through [`is_cancelled`](Self::is_cancelled): nothing else stops it. Cancel safe.
    pub async fn cancelled(&self) {
        self.task.shared.cancelled.cancelled().await;
    }

    /// Whether the call's result is no longer wanted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.shared.cancelled.is_cancelled()
    }

    /// The token behind [`cancelled`](Self::cancelled), to hand to other code.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.task.shared.cancelled.clone()
    }

    pub(crate) const fn next_attempt(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("job", &format_args!("{}", self.job()))
            .field("stage", &self.stage())
            .field("worker", &self.worker())
            .field("lineage", &format_args!("{}", self.lineage))
            .field("attempt", &self.attempt)
            .finish()
    }
}

#[cfg(test)]
pub(crate) fn test_context() -> Context {
    use stageline_protocol::StageId;

    TaskContext::new(JobId(7), "stage", "worker-1", CancellationToken::new())
        .item(Lineage::root(StageId(0), 42))
}

#[cfg(test)]
mod tests {
    use stageline_protocol::{StageId, Step};

    use super::*;

    #[tokio::test]
    async fn a_context_tells_who_is_asked_about_what() {
        let token = CancellationToken::new();
        let task = TaskContext::new(JobId(7), "fetch", "worker-1", token.clone());
        let cx = task.item(Lineage::root(StageId(0), 42).with(Step::Output(3)));
        assert_eq!((cx.job(), cx.stage(), cx.worker()), (JobId(7), "fetch", "worker-1"));
        assert_eq!((cx.idempotency_key().as_str(), cx.attempt()), ("42.3", 1));

        assert!(!cx.is_cancelled());
        token.cancel();
        cx.clone().cancelled().await;
        assert!(cx.is_cancelled());
    }
}
