//! A job as one process sees it: the newest view, the tasks here, and what they last reported.

use std::collections::{BTreeMap, BTreeSet};

use stageline_protocol::control::{JobStatus, JobView, Peer, Submit, TaskEnd, TaskReport};
use stageline_protocol::item::shortened;
use stageline_protocol::task::{Dials, Plan};
use stageline_protocol::{StageId, TaskId};
use tokio::sync::watch;

use super::handle::Applied;
use super::routes::Routes;
use super::task::{Event, Peers, TaskSender};
use super::terminal::Consumer;
use crate::sdk::{Registry, Roots};

/// The parts of a job that run in its client's process.
#[derive(Default)]
pub struct LocalJob {
    /// Its sources and terminals.
    pub stages: BTreeMap<StageId, LocalStage>,
    /// Its closures, under the names that the pipeline gives them.
    pub functions: Registry,
}

/// A source or a terminal in the client's process.
pub enum LocalStage {
    /// The roots, in order.
    Source(Roots),
    /// Where the items go.
    Terminal(Consumer),
}

/// What a client is told of its job.
#[derive(Clone, Debug, Default)]
pub struct JobUpdate {
    /// How it goes, once the coordinator has said so.
    pub status: Option<JobStatus>,
    /// The coordinator does not know the job: it was restarted without its memory.
    pub forgotten: bool,
}

pub(super) struct Job {
    pub(super) view: Option<JobView>,
    pub(super) local: LocalJob,
    pub(super) tasks: BTreeMap<TaskId, Entry>,
    pub(super) updates: Option<watch::Sender<JobUpdate>>,
    /// Sent again over each new session until the coordinator has answered.
    pub(super) submit: Option<Submit>,
    /// Its client does not want it any more, for this reason: said over each new session until the
    /// coordinator has ended it.
    pub(super) cancelled: Option<String>,
    /// Whether there is something new to report.
    pub(super) news: bool,
}

pub(super) struct Entry {
    /// None once it has ended.
    pub(super) sender: Option<TaskSender>,
    /// The newest view that the task has applied.
    pub(super) applied: Applied,
    pub(super) report: TaskReport,
}

impl Job {
    pub(super) fn new(local: LocalJob) -> Self {
        Self {
            view: None,
            local,
            tasks: BTreeMap::new(),
            updates: None,
            submit: None,
            cancelled: None,
            news: false,
        }
    }

    /// A task that could not start: reported as ended for that reason.
    pub(super) fn failed_to_start(&mut self, id: TaskId, reason: String) {
        let ended = Some(TaskEnd::Failed(shortened(reason)));
        let report = TaskReport { id, ended, ..TaskReport::default() };
        self.tasks.insert(id, Entry { sender: None, applied: Applied::default(), report });
        self.news = true;
    }

    /// Takes a task's report. True if the coordinator waits for what it says.
    pub(super) fn reported(&mut self, view: Applied, report: TaskReport) -> bool {
        let applied = self.applied();
        let Some(entry) = self.tasks.get_mut(&report.id) else { return false };
        let old = &entry.report;
        let urgent = (&report.ended, &report.source, &report.cut, report.over_budget)
            != (&old.ended, &old.source, &old.cut, old.over_budget)
            || report.marked != old.marked;
        self.news |= report != entry.report;
        if report.ended.is_some() {
            entry.sender = None;
        }
        entry.report = report;
        entry.applied = entry.applied.max(view);
        urgent || self.applied() > applied
    }

    /// The newest view that is in force here: every task that runs has applied it. What it takes away
    /// is free, as far as the reports say.
    pub(super) fn applied(&self) -> Applied {
        let view = self.view.as_ref();
        let newest = view.map_or(Applied::default(), |view| (view.term, view.revision));
        let running = self.tasks.values().filter(|entry| entry.sender.is_some());
        running.map(|entry| entry.applied).fold(newest, Applied::min)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (TaskId, &TaskSender)> {
        self.tasks.iter().filter_map(|(id, e)| e.sender.as_ref().map(|sender| (*id, sender)))
    }

    pub(super) fn stop_all(&self) {
        for (_, sender) in self.running() {
            let _ended_already = sender.send(Event::Stop);
        }
    }

    pub(super) fn links(&self) -> u64 {
        self.tasks.values().filter(|e| e.sender.is_some()).map(|e| e.report.stats.links).sum()
    }
}

/// What a task of this process should be like, by the view.
pub(super) fn plan(
    view: &JobView,
    id: TaskId,
    slots: u32,
    routes: &Routes,
    only_dials: bool,
) -> Plan {
    let upstream: BTreeSet<StageId> = view.pipeline.inputs(id.stage).map(|(_, c)| c.from).collect();
    let downstream: BTreeSet<StageId> =
        view.pipeline.outputs(id.stage).map(|(_, c)| c.to).collect();
    let dials = |peer: &Peer| {
        let is_downstream = downstream.contains(&peer.id.stage);
        if routes.is_local(peer.process) {
            if is_downstream { Dials::We } else { Dials::They }
        } else if only_dials {
            Dials::We
        } else if peer.address.is_none() {
            Dials::They
        } else if is_downstream {
            Dials::We
        } else {
            Dials::They
        }
    };
    Plan {
        slots,
        peers: view
            .peers
            .iter()
            .filter(|p| upstream.contains(&p.id.stage) || downstream.contains(&p.id.stage))
            .map(|p| (p.id, dials(p)))
            .collect(),
        highest_epoch: view.highest_epoch,
        window: view.window,
        pause: view.pause_sources,
        cut: view.cut.iter().copied().collect(),
        position: view.positions.get(&id.stage).copied(),
        again: view.tasks.iter().any(|task| task.id == id && task.again),
    }
}

/// Where the tasks of other processes are.
pub(super) fn peers(view: &JobView, routes: &Routes) -> Peers {
    let elsewhere = view.peers.iter().filter(|p| !routes.is_local(p.process));
    Peers { remote: elsewhere.map(|p| (p.id, p.address.clone())).collect() }
}
