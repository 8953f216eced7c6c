//! How others speak to a node: the handle, and the messages of its loop.

use std::time::Duration;

use stageline_protocol::control::{Census, Submit, TaskReport, Welcome};
use stageline_protocol::item::shortened;
use stageline_protocol::{JobId, Term};
use tokio::sync::{mpsc, oneshot, watch};

use super::census::Counters;
use super::ids::Ids;
use super::job::{JobUpdate, LocalJob};
use super::routes::Routes;
use super::session::SessionEvent;
use super::threads::Threads;

/// A handle to a running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub(super) events: mpsc::UnboundedSender<NodeEvent>,
    pub(super) routes: Routes,
    pub(super) counters: Counters,
    pub(super) welcome: watch::Receiver<Option<Welcome>>,
    pub(super) threads: Threads,
    pub(super) ids: Ids,
}

impl NodeHandle {
    /// An id for a job, to be submitted under it.
    #[must_use]
    pub fn draw_job(&self) -> JobId {
        JobId(self.ids.draw())
    }

    /// Submits a job. The receiver follows it; it ends when the node does. A job under an id that this
    /// node has in use is refused: its first update says so.
    #[must_use]
    pub fn submit(&self, submit: Submit, local: LocalJob) -> watch::Receiver<JobUpdate> {
        let (updates, updated) = watch::channel(JobUpdate::default());
        let command = Command::Submit(Box::new((submit, local)), updates);
        let _node_over = self.events.send(NodeEvent::Command(command));
        updated
    }

    /// Cancels a job that this node submitted, and ends its tasks here at once.
    pub fn cancel(&self, job: JobId, reason: impl Into<String>) {
        let _node_over =
            self.events.send(NodeEvent::Command(Command::Cancel(job, shortened(reason.into()))));
    }

    /// Leaves in good order: the node takes nothing more, gives back what has not started, and ends
    /// when what has is finished and acked; or after `grace`, as [`stop`](Self::stop) does. A client
    /// has nobody to leave its tasks to: it ends at once. Completes when the node has ended. Dropping
    /// the future takes nothing back; calling it again can only shorten the time.
    pub async fn leave(&self, grace: Duration) {
        let _node_over = self.events.send(NodeEvent::Command(Command::Leave(grace)));
        self.events.closed().await;
    }

    /// Ends the node: its tasks are stopped, the coordinator is told. Completes when that is done.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let command = NodeEvent::Command(Command::Stop(done));
        if self.events.send(command).is_ok() {
            let _node_over = stopped.await;
        }
    }

    /// Completes when the node has ended, and its tasks with it. Cancel safe.
    pub async fn ended(&self) {
        self.events.closed().await;
    }

    /// Ends the node as [`stop`](Self::stop) does, without waiting.
    pub fn stop_soon(&self) {
        let (done, _nobody_waits) = oneshot::channel();
        let _node_over = self.events.send(NodeEvent::Command(Command::Stop(done)));
    }

    /// Waits until the coordinator has welcomed this process; none if the node stopped before.
    /// Cancel safe.
    pub async fn welcomed(&self) -> Option<Welcome> {
        let mut welcome = self.welcome.clone();
        welcome.wait_for(Option::is_some).await.ok().and_then(|w| w.clone())
    }

    /// What the process runs now; other users of the caller's runtime are counted too.
    #[must_use]
    pub fn census(&self) -> Census {
        self.counters.census(&self.threads)
    }

    pub(super) const fn routes(&self) -> &Routes {
        &self.routes
    }
}

/// A view, by its term and revision: a later one is greater.
pub(super) type Applied = (Term, u64);

/// What the node's loop is told.
#[derive(Debug)]
pub(super) enum NodeEvent {
    /// What a task says of itself, and the view that it has applied.
    Report(JobId, Applied, Box<TaskReport>),
    Session(SessionEvent),
    Command(Command),
}

pub(super) enum Command {
    Submit(Box<(Submit, LocalJob)>, watch::Sender<JobUpdate>),
    Cancel(JobId, String),
    Leave(Duration),
    Stop(oneshot::Sender<()>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Submit(..) => "Submit",
            Self::Cancel(..) => "Cancel",
            Self::Leave(_) => "Leave",
            Self::Stop(_) => "Stop",
        })
    }
}
