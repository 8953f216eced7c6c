//! Which tasks run in this process, and how their loops are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stageline_protocol::{Incarnation, JobId, TaskId};
use tokio::sync::Notify;

use super::task::TaskSender;

/// Where the tasks of this process are, for those who dial them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    tasks: Arc<Mutex<BTreeMap<(JobId, TaskId), TaskSender>>>,
    added: Arc<Notify>,
    /// The nodes of this operating system process: embedded mode has two.
    nodes: Arc<Mutex<BTreeSet<Incarnation>>>,
}

impl Routes {
    /// Whether the tasks of that node are in this process, so that links to them need no network.
    pub(super) fn is_local(&self, node: Incarnation) -> bool {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    pub(super) fn add_node(&self, node: Incarnation) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    pub(crate) fn find(&self, job: JobId, task: TaskId) -> Option<TaskSender> {
        self.lock().get(&(job, task)).cloned()
    }

    /// Waits for a task that the coordinator may have told others of first.
    pub(super) async fn wait(
        &self,
        job: JobId,
        task: TaskId,
        limit: Duration,
    ) -> Option<TaskSender> {
        let found = async {
            loop {
                let added = self.added.notified();
                let mut added = std::pin::pin!(added);
                added.as_mut().enable();
                if let Some(sender) = self.find(job, task) {
                    return sender;
                }
                added.await;
            }
        };
        tokio::time::timeout(limit, found).await.ok()
    }

    pub(super) fn add(&self, job: JobId, task: TaskId, sender: TaskSender) {
        self.lock().insert((job, task), sender);
        self.added.notify_waiters();
    }

    pub(super) fn remove(&self, job: JobId, task: TaskId) {
        self.lock().remove(&(job, task));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(JobId, TaskId), TaskSender>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
