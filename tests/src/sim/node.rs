//! A process: it turns the coordinator's views into tasks and their plans, and says what it runs.

use std::collections::{BTreeMap, BTreeSet};

use stageline_protocol::control::{
    Census, Function, Hello, JobView, Peer, ProcessKind, Report, TaskReport,
};
use stageline_protocol::pipeline::Pipeline;
use stageline_protocol::suspect::MarkState;
use stageline_protocol::task::{Dials, Plan, Task};
use stageline_protocol::{Incarnation, JobId, Lineage, StageId, TaskId, Term, Time, VERSIONS};

use stageline_coordinator::engine::SessionId;

use super::gate::Gate;

/// One life of a process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    pub(super) kind: ProcessKind,
    pub(super) functions: Vec<Function>,
    pub(super) alive: bool,
    pub(super) frozen_until: Time,
    pub(super) isolated_until: Time,
    /// It drains its tasks, and then leaves.
    pub(super) leaving: bool,
    pub(super) session: Option<SessionId>,
    pub(super) view: Option<JobView>,
    pub(super) tasks: BTreeMap<TaskId, Running>,
    /// What is in process.
    pub(super) gate: Gate,
    /// Tasks that have ended by themselves: reported until the job is forgotten.
    pub(super) ended: BTreeMap<TaskId, TaskReport>,
}

/// A task, and what its shell remembers of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) task: Task,
    /// The next root, if it is a source.
    pub(super) next_root: u64,
    /// The timer that is set.
    pub(super) timer: Option<Time>,
    /// It will be asked in a moment what follows from what it was told.
    pub(super) asked: bool,
    /// Inputs whose function waits between two attempts or for room: their values, and the outputs made.
    pub(super) backoff: BTreeMap<u64, (u64, usize)>,
    /// Of the inputs that have started.
    pub(super) lineages: BTreeMap<u64, Lineage>,
}

/// What a view means for the tasks that are here.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) begin: Vec<TaskId>,
    pub(super) end: Vec<TaskId>,
}

impl Node {
    pub(super) fn new(
        name: String,
        incarnation: Incarnation,
        kind: ProcessKind,
        functions: Vec<Function>,
    ) -> Self {
        Self {
            name,
            incarnation,
            kind,
            functions,
            alive: true,
            frozen_until: Time::ZERO,
            isolated_until: Time::ZERO,
            leaving: false,
            session: None,
            view: None,
            tasks: BTreeMap::new(),
            gate: Gate::default(),
            ended: BTreeMap::new(),
        }
    }

    pub(super) fn hello(&self) -> Hello {
        let worker = self.kind == ProcessKind::Worker;
        Hello {
            versions: VERSIONS,
            kind: self.kind,
            name: self.name.clone(),
            incarnation: self.incarnation,
            address: worker.then(|| format!("{}:1", self.name)),
            functions: self.functions.clone(),
            leaving: self.leaving,
        }
    }

    pub(super) fn census(&self) -> Census {
        Census { tasks: self.tasks.len() as u64, ..Census::default() }
    }

    pub(super) fn report(&self, job: JobId) -> Report {
        let ended = self.ended.values().cloned();
        Report {
            job,
            term: self.view.as_ref().map_or(Term(0), |view| view.term),
            revision: self.view.as_ref().map_or(0, |view| view.revision),
            tasks: self.tasks.values().map(|r| r.task.report(None)).chain(ended).collect(),
        }
    }

    /// Takes a view, unless a newer one is known. Answers what it changes.
    pub(super) fn take_view(&mut self, view: JobView) -> Option<Difference> {
        let known = self.view.as_ref().map(|view| (view.term, view.revision));
        if known.is_some_and(|known| (view.term, view.revision) <= known) {
            return None;
        }
        let wanted: BTreeSet<TaskId> = view.tasks.iter().map(|plan| plan.id).collect();
        let begin = |id: &&TaskId| !self.tasks.contains_key(id) && !self.ended.contains_key(id);
        let difference = Difference {
            begin: wanted.iter().filter(begin).copied().collect(),
            end: self.tasks.keys().filter(|id| !wanted.contains(id)).copied().collect(),
        };
        self.view = Some(view);
        Some(difference)
    }

    /// Whether an item has it to itself: its end would convict that one, who did nothing.
    pub(super) fn has_suspect(&self) -> bool {
        let waits = |state| matches!(state, MarkState::Asking | MarkState::Running);
        let marked = self.tasks.values().flat_map(|running| running.task.report(None).marked);
        marked.into_iter().any(|item| !waits(item.state))
    }

    /// The plan of a task, as the present view has it.
    pub(super) fn plan(&self, id: TaskId) -> Option<Plan> {
        let view = self.view.as_ref()?;
        let slots = view.tasks.iter().find(|plan| plan.id == id)?.slots;
        let peers =
            view.peers.iter().filter_map(|peer| Some((peer.id, self.dials(view, id, peer)?)));
        Some(Plan {
            slots,
            peers: peers.collect(),
            highest_epoch: view.highest_epoch,
            window: view.window,
            pause: view.pause_sources,
            cut: view.cut.iter().copied().collect(),
            position: view.positions.get(&id.stage).copied(),
            again: view.tasks.iter().any(|plan| plan.id == id && plan.again),
        })
    }

    /// Who dials a neighbour: the end without an address; else the upstream one.
    fn dials(&self, view: &JobView, own: TaskId, peer: &Peer) -> Option<Dials> {
        let upstream = if leads(&view.pipeline, own.stage, peer.id.stage) {
            true
        } else if leads(&view.pipeline, peer.id.stage, own.stage) {
            false
        } else {
            return None;
        };
        let other = peer.process != self.incarnation;
        let we = match (self.kind, &peer.address) {
            (ProcessKind::Client, _) if other => true,
            (_, None) if other => false,
            _ => upstream,
        };
        Some(if we { Dials::We } else { Dials::They })
    }
}

fn leads(pipeline: &Pipeline, from: StageId, to: StageId) -> bool {
    pipeline.outputs(from).any(|(_, channel)| channel.to == to)
}
