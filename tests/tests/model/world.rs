//! The state of the model: the tasks, what is under way between them, and what has come out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stageline_protocol::Frame;
use stageline_protocol::control::TaskStats;
use stageline_protocol::frame::Open;
use stageline_protocol::ids::{ChannelId, ConnId, TaskId};
use stageline_protocol::lineage::{Lineage, Step};
use stageline_protocol::task::{LinkKey, Task};
use stageline_protocol::time::Time;

use crate::setup::{Action, Fault, OUTPUTS, SOURCE, Setup, Shape, Timers};

/// Timers that are due before this fire; the others (a lease, a forfeit) never do.
const HORIZON: Time = Time::from_micros(1_000_000_000);

/// A state of the model. Two are the same if their fingerprints are.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) tasks: BTreeMap<TaskId, Shared>,
    pub(crate) conns: Vec<Arc<Conn>>,
    /// What a function or the consumer has.
    pub(crate) runs: BTreeMap<TaskId, Vec<Run>>,
    /// The tasks that the coordinator wants.
    pub(crate) wanted: BTreeSet<TaskId>,
    /// The tasks that have not been told so.
    pub(crate) to_tell: BTreeSet<TaskId>,
    /// Roots that the source has not admitted.
    pub(crate) left: u64,
    pub(crate) faults: u8,
    /// How often the consumer was given each item.
    pub(crate) given: BTreeMap<Lineage, u8>,
    /// What it has taken.
    pub(crate) taken: BTreeSet<Lineage>,
    /// Roots of which the terminal has had the end of an expansion that went well, and of which nothing
    /// had failed by then.
    pub(crate) ended_well: BTreeSet<Lineage>,
    pub(crate) broken: Option<String>,
}

/// An input with a function or the consumer.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Run {
    pub(crate) input: u64,
    pub(crate) lineage: Lineage,
    /// Outputs that an expansion has made of it.
    pub(crate) made: u64,
}

/// A task, shared by all states in which it is the same, with its fingerprint.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    task: Arc<Task>,
    fingerprint: u64,
}

/// A connection's name: a task counts its dials of each link, so the acceptor is a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    /// The task that was dialled.
    pub acceptor: TaskId,
    /// What both ends call it.
    pub id: ConnId,
}

impl Name {
    /// What a task calls a connection of one of its links.
    pub(crate) fn of(own: TaskId, peer: TaskId, id: ConnId) -> Self {
        Self { acceptor: if id.dialler == own.epoch { peer } else { own }, id }
    }
}

/// A connection. Its ends are the dialler's and the acceptor's.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Conn {
    pub(crate) name: Name,
    pub(crate) channel: ChannelId,
    pub(crate) ends: [End; 2],
}

/// One end of a connection, and what is under way to it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct End {
    pub(crate) task: TaskId,
    pub(crate) open: bool,
    pub(crate) inbox: VecDeque<Message>,
}

/// What goes over a connection.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Open(Arc<Open>),
    /// With its fingerprint.
    Frame(Arc<Frame>, u64),
    /// The other end has hung up, or is dead.
    Gone,
}

impl From<Frame> for Message {
    fn from(frame: Frame) -> Self {
        let fingerprint = fingerprint(&frame);
        Self::Frame(Arc::new(frame), fingerprint)
    }
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Open(open) => open.hash(state),
            Self::Frame(_, fingerprint) => fingerprint.hash(state),
            Self::Gone => 0.hash(state),
        }
    }
}

impl Shared {
    pub(crate) fn new(task: Task) -> Self {
        let fingerprint = task.fingerprint();
        Self { task: Arc::new(task), fingerprint }
    }

    pub(crate) fn get(&self) -> &Task {
        &self.task
    }

    /// The task, to be changed in this state only; then [`Self::seal`] it.
    pub(crate) fn open(&mut self) -> &mut Task {
        Arc::make_mut(&mut self.task)
    }

    pub(crate) fn seal(&mut self) {
        self.fingerprint = self.task.fingerprint();
    }

    pub(crate) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { tasks, conns, runs, wanted, to_tell, left, faults, given, taken, .. } = self;
        for (id, shared) in tasks {
            (id, shared.fingerprint).hash(state);
        }
        (conns, runs, wanted, to_tell).hash(state);
        (left, faults, given, taken, &self.ended_well, &self.broken).hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}

impl Conn {
    /// Which of the ends is at that task.
    pub(crate) fn end_at(&self, task: TaskId) -> Option<usize> {
        self.ends.iter().position(|end| end.task == task)
    }

    pub(crate) const fn key(&self, end: usize) -> LinkKey {
        LinkKey { channel: self.channel, peer: self.ends[1 - end].task }
    }
}

impl World {
    /// What is wrong, if something is.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(crate) fn given_at_most_once(&self) -> bool {
        self.given.values().all(|times| *times <= 1)
    }

    fn watermark(&self) -> (u64, bool) {
        let report = self.tasks[&SOURCE].get().report(None);
        let source = report.source.unwrap_or_default();
        (source.watermark, source.exhausted == Some(source.watermark))
    }

    pub(crate) fn acked_is_taken(&self, setup: &Setup) -> bool {
        let (watermark, _) = self.watermark();
        (0..watermark).all(|root| self.has_ended(setup, root))
    }

    pub(crate) fn is_done(&self, setup: &Setup) -> bool {
        self.left == 0
            && self.watermark().1
            && (0..setup.items).all(|root| self.has_ended(setup, root))
    }

    /// Whether an error has been told of a root that had ended well before.
    pub(crate) fn closed_something(&self) -> bool {
        self.ended_well
            .iter()
            .any(|root| (0..OUTPUTS).any(|count| self.taken.contains(&root.with(Step::End(count)))))
    }

    /// Whether a root has come out in all its values, or in an error with the values before it.
    fn has_ended(&self, setup: &Setup, root: u64) -> bool {
        let root = Lineage::root(SOURCE.stage, root);
        if setup.shape != Shape::Expansion {
            return self.taken.contains(&root);
        }
        let told = (0..=OUTPUTS).find(|count| self.taken.contains(&root.with(Step::End(*count))));
        let values = told.unwrap_or(OUTPUTS);
        (0..values).all(|n| self.taken.contains(&root.with(Step::Output(n))))
    }

    /// The counters of all tasks that live.
    pub(crate) fn stats(&self) -> TaskStats {
        let mut sum = TaskStats::default();
        for task in self.tasks.values() {
            sum.add(&task.get().stats());
        }
        sum
    }

    /// All that can happen without a fault.
    pub(crate) fn progress(&self, setup: &Setup, actions: &mut Vec<Action>) {
        if setup.shape == Shape::Expansion {
            // What happens between the source and the expansion is what the chain is about: here it takes
            // no time, nor does it to hear of a replacement.
            let told = self.to_tell.iter().map(|id| Action::Plan(*id));
            let near = self.conns.iter().filter(|conn| conn.end_at(SOURCE).is_some());
            let near = near.flat_map(|conn| conn.ends.iter().map(|end| (conn.name, end)));
            let near =
                near.filter(|(_, e)| !e.inbox.is_empty() && self.tasks.contains_key(&e.task));
            let near = near.map(|(name, end)| Action::Deliver(name, end.task));
            if let Some(first) = told.chain(near).next() {
                return actions.push(first);
            }
        }
        for conn in &self.conns {
            for end in &conn.ends {
                // What reaches a task that is not there yet, waits for it.
                if !end.inbox.is_empty() && self.tasks.contains_key(&end.task) {
                    actions.push(Action::Deliver(conn.name, end.task));
                }
            }
        }
        for (id, runs) in &self.runs {
            actions.extend(runs.iter().map(|run| Action::Finish(*id, run.input)));
        }
        actions.extend(self.to_tell.iter().map(|id| Action::Plan(*id)));
        if setup.timers == Timers::WhenIdle && !actions.is_empty() {
            return;
        }
        for (id, task) in &self.tasks {
            if task.get().poll_timeout().is_some_and(|at| at < HORIZON) {
                actions.push(Action::Timer(*id));
            }
        }
    }

    /// All that can break.
    pub(crate) fn faults(&self, setup: &Setup, actions: &mut Vec<Action>) {
        if self.faults == 0 {
            return;
        }
        // Where there is much else, connections only break as their tasks die.
        let breakable = self.conns.iter().filter(|_| setup.shape != Shape::Expansion);
        for conn in breakable.filter(|conn| conn.ends.iter().all(|end| end.open)) {
            actions.push(Action::Fault(Fault::Break(conn.name)));
            for end in conn.ends.iter().filter(|end| self.tasks.contains_key(&end.task)) {
                actions.push(Action::Fault(Fault::HangUp(conn.name, end.task)));
            }
        }
        if matches!(setup.shape, Shape::Chain | Shape::Expansion) && self.worker().is_some() {
            let kill = |lost| Action::Fault(Fault::Kill { lost });
            actions.push(kill(false));
            if setup.shape == Shape::Chain {
                actions.push(kill(true));
            }
        }
        if setup.shape == Shape::Expansion
            && let Some(worker) = self.worker()
        {
            let runs = self.runs.get(&worker).into_iter().flatten();
            actions.extend(runs.map(|run| Action::Fault(Fault::Fail(worker, run.input))));
        }
    }

    /// The task of the stage, if one lives.
    pub(crate) fn worker(&self) -> Option<TaskId> {
        self.tasks.keys().copied().find(|id| id.stage.0 == 1)
    }
}
