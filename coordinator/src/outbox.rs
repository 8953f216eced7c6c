//! What is still to be said over one session.
//!
//! Every message down is the whole of what it speaks of, so of each sort only the latest for each
//! job is kept: a process that reads slowly, or not at all, costs no more memory than there are
//! jobs. The place in the queue is that of the first, so nothing starves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stageline_protocol::control::{Down, JobStatus, JobView, Welcome};
use stageline_protocol::suspect::Verdicts;
use stageline_protocol::{JobId, TaskId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A process that lets so many messages wait is beyond hope: its session is closed.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    news: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Slot>,
    waiting: BTreeSet<Slot>,
    welcome: Option<Welcome>,
    refused: Option<String>,
    views: BTreeMap<JobId, Box<JobView>>,
    statuses: BTreeMap<JobId, Box<JobStatus>>,
    /// The latest answer what the latest report asks.
    verdicts: BTreeMap<(JobId, TaskId), Verdicts>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Welcome,
    Refused,
    Alive,
    View(JobId),
    Status(JobId),
    Verdicts(JobId, TaskId),
    Forget(JobId),
}

impl Outbox {
    pub(crate) fn push(&self, message: Down) {
        let mut state = self.lock();
        if self.is_closed() {
            return;
        }
        let slot = match message {
            Down::Welcome(welcome) => {
                state.welcome = Some(welcome);
                Slot::Welcome
            }
            Down::Refused(why) => {
                state.refused = Some(why);
                Slot::Refused
            }
            Down::Alive => Slot::Alive,
            Down::View(view) => {
                let slot = Slot::View(view.job);
                state.views.insert(view.job, view);
                slot
            }
            Down::Status(status) => {
                let slot = Slot::Status(status.job);
                state.statuses.insert(status.job, status);
                slot
            }
            Down::Verdicts(verdicts) => {
                let of = (verdicts.job, verdicts.task);
                state.verdicts.insert(of, verdicts);
                Slot::Verdicts(of.0, of.1)
            }
            Down::Forget(job) => {
                // What should be of a job that is to be forgotten need not be said any more, and
                // must not be said after.
                if state.views.remove(&job).is_some() {
                    state.waiting.remove(&Slot::View(job));
                    state.order.retain(|slot| *slot != Slot::View(job));
                }
                state.verdicts.retain(|(of, _), _| *of != job);
                Slot::Forget(job)
            }
        };
        if state.waiting.insert(slot) {
            state.order.push_back(slot);
        }
        if state.order.len() > MOST {
            self.closed.cancel();
        }
        drop(state);
        self.news.notify_one();
    }

    /// Nothing more is said; what waits is.
    pub(crate) fn close(&self) {
        // Under the lock, so that nothing is pushed after.
        let state = self.lock();
        self.closed.cancel();
        drop(state);
        self.news.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The next message; none once it is closed and empty. Cancel safe. For one reader.
    pub(crate) async fn recv(&self) -> Option<Down> {
        loop {
            {
                let mut state = self.lock();
                if let Some(message) = state.pop() {
                    return Some(message);
                }
                if self.is_closed() {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under the lock that another holder could see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Option<Down> {
        while let Some(slot) = self.order.pop_front() {
            self.waiting.remove(&slot);
            let message = match slot {
                Slot::Welcome => self.welcome.take().map(Down::Welcome),
                Slot::Refused => self.refused.take().map(Down::Refused),
                Slot::Alive => Some(Down::Alive),
                Slot::View(job) => self.views.remove(&job).map(Down::View),
                Slot::Status(job) => self.statuses.remove(&job).map(Down::Status),
                Slot::Verdicts(job, task) => self.verdicts.remove(&(job, task)).map(Down::Verdicts),
                Slot::Forget(job) => Some(Down::Forget(job)),
            };
            if message.is_some() {
                return message;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use stageline_protocol::control::JobPhase;
    use stageline_protocol::pipeline::Pipeline;
    use stageline_protocol::{Epoch, Term};

    use super::*;

    #[tokio::test]
    async fn of_each_job_only_the_latest_view_is_kept() {
        let outbox = Outbox::default();
        outbox.push(view(1, 1));
        outbox.push(Down::Alive);
        outbox.push(view(2, 1));
        for revision in 2..1000 {
            outbox.push(view(1, revision));
            outbox.push(Down::Alive);
        }
        outbox.close();
        assert_eq!(outbox.recv().await, Some(view(1, 999)));
        assert_eq!(outbox.recv().await, Some(Down::Alive));
        assert_eq!(outbox.recv().await, Some(view(2, 1)));
        assert_eq!(outbox.recv().await, None);
        outbox.push(Down::Alive);
        assert_eq!(outbox.recv().await, None, "nothing is said after the end");
    }

    #[tokio::test]
    async fn no_view_follows_the_word_to_forget() {
        let outbox = Outbox::default();
        outbox.push(view(1, 1));
        outbox.push(Down::Forget(JobId(1)));
        outbox.push(Down::Forget(JobId(1)));
        outbox.push(view(1, 2));
        outbox.close();
        assert_eq!(outbox.recv().await, Some(Down::Forget(JobId(1))));
        assert_eq!(outbox.recv().await, Some(view(1, 2)), "a new life of the job is told after it");
        assert_eq!(outbox.recv().await, None);
    }

    #[tokio::test]
    async fn a_process_that_never_reads_is_given_up() {
        let outbox = Outbox::default();
        for job in 0..=MOST as u64 {
            outbox.push(Down::Forget(JobId(job)));
        }
        assert!(outbox.is_closed());
    }

    fn view(job: u64, revision: u64) -> Down {
        Down::View(Box::new(JobView {
            job: JobId(job),
            term: Term(1),
            revision,
            pipeline: Pipeline::default(),
            phase: JobPhase::Running,
            tasks: Vec::new(),
            peers: Vec::new(),
            highest_epoch: Epoch(0),
            window: 0,
            pause_sources: false,
            cut: Vec::new(),
            positions: BTreeMap::new(),
        }))
    }
}
