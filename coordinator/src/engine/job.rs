//! One job: its phase, its tasks' lives, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stageline_protocol::by_worker::fold;
use stageline_protocol::control::{JobPhase, Outcome, TaskReport, TaskStats};
use stageline_protocol::graph::Graph;
use stageline_protocol::pipeline::{Op, Stage};
use stageline_protocol::{ChannelId, Epoch, Incarnation, JobId, StageId, TaskId, Time};

use super::Config;
use super::record::Level;
use super::suspects::Suspects;

/// A job that is not over.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) graph: Graph,
    pub(super) client: Incarnation,
    pub(super) client_name: String,
    pub(super) submitted: Time,
    pub(super) wait_stages: Duration,
    /// Until when it waits for functions that no worker registers.
    pub(super) wait_until: Time,
    pub(super) phase: JobPhase,
    /// Since when it is ending.
    pub(super) ending: Option<Time>,
    /// Every life of a task that is current, or may still run, or has ended on a living process.
    pub(super) tasks: BTreeMap<Epoch, Task>,
    /// The highest epoch given out.
    pub(super) highest: Epoch,
    /// The processes that run, or ran, tasks of it: all are told its views.
    pub(super) involved: BTreeSet<Incarnation>,
    pub(super) revision: u64,
    pub(super) window: u64,
    pub(super) paused: bool,
    pub(super) cut: BTreeSet<ChannelId>,
    /// The stored positions of its named sources.
    pub(super) positions: BTreeMap<StageId, u64>,
    /// Sources that are exhausted and all of whose roots are acked.
    pub(super) finished: BTreeSet<StageId>,
    /// Stages of which there has been a task.
    pub(super) begun: BTreeSet<StageId>,
    /// Its items that may have killed a process.
    pub(super) suspects: Suspects,
    /// Stages of which a task has had a link downstream.
    pub(super) reached: BTreeSet<StageId>,
    /// How often a task of a stage that has had none has ended because it reached nobody.
    pub(super) unreached: BTreeMap<StageId, u32>,
    /// Sources that reach nobody, and since when.
    pub(super) cut_off: BTreeMap<StageId, Time>,
    /// Where tasks of a stage are not to be while they can be elsewhere, and until when: they reached
    /// nobody there, or were not reached.
    pub(super) parted: BTreeMap<(StageId, Incarnation), Time>,
    /// Figures of tasks that were struck off with their process.
    pub(super) past: BTreeMap<StageId, Past>,
    /// Tasks that are no longer listed here, and still are in the store.
    pub(super) struck: Vec<Epoch>,
    /// What is kept of its tasks may be out of date.
    pub(super) touched: bool,
    /// Its views are out of date.
    pub(super) stale: bool,
    /// Its plan is out of date.
    pub(super) replan: bool,
    /// A stage waits for slots to fall idle.
    pub(super) unsettled: bool,
    /// When its client was last told how it goes, and when it is to be told again.
    pub(super) status_sent: Option<Time>,
    pub(super) status_due: Option<Time>,
}

/// Figures of tasks that are gone, for one stage.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) totals: TaskStats,
    pub(super) by_worker: BTreeMap<String, u64>,
}

/// One life of a task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) process: Incarnation,
    pub(super) worker: String,
    pub(super) life: Life,
    /// Its slots; 0 once it should end, or takes no more.
    pub(super) slots: u32,
    /// Slots that were taken away by the view of this revision, until its process confirms that.
    pub(super) held: Option<(u64, u32)>,
    /// For a source: the root that it began with.
    pub(super) start: u64,
    /// For a source: there was another before.
    pub(super) again: bool,
    /// What it last said.
    pub(super) report: TaskReport,
    /// What is kept of it.
    pub(super) recorded: Option<Level>,
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It should run.
    Current,
    /// Its process is leaving: it should finish what it has started, with as many slots as it had,
    /// and it stays a neighbour until it has.
    Leaving {
        /// Those slots.
        slots: u32,
    },
    /// It should end, and may still run.
    Retiring,
    /// It runs no more.
    Over,
}

impl Life {
    /// Whether views have it, as a task and as a neighbour.
    pub(super) const fn in_views(self) -> bool {
        matches!(self, Self::Current | Self::Leaving { .. })
    }
}

impl Task {
    /// Slots that are, or may be, in use beside or instead of those that it has.
    pub(super) fn in_use(&self) -> u32 {
        if self.life == Life::Over {
            return 0;
        }
        let busy = u32::try_from(self.report.stats.busy).unwrap_or(u32::MAX);
        busy.max(self.held.map_or(0, |(_, slots)| slots))
    }

    /// Changes its slots, in the view of that revision.
    pub(super) fn set_slots(&mut self, slots: u32, revision: u64) {
        if slots < self.slots {
            let before = self.held.map_or(0, |(_, held)| held);
            self.held = Some((revision, before.max(self.slots)));
        }
        self.slots = slots;
    }
}

impl Job {
    pub(super) fn new(id: JobId, graph: Graph, client: (Incarnation, &str), now: Time) -> Self {
        Self {
            id,
            graph,
            client: client.0,
            client_name: client.1.to_owned(),
            submitted: now,
            wait_stages: Duration::ZERO,
            wait_until: now,
            phase: JobPhase::Waiting(Vec::new()),
            ending: None,
            tasks: BTreeMap::new(),
            highest: Epoch::default(),
            involved: BTreeSet::from([client.0]),
            revision: 0,
            window: 0,
            paused: false,
            cut: BTreeSet::new(),
            positions: BTreeMap::new(),
            finished: BTreeSet::new(),
            begun: BTreeSet::new(),
            suspects: Suspects::default(),
            reached: BTreeSet::new(),
            unreached: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            parted: BTreeMap::new(),
            past: BTreeMap::new(),
            struck: Vec::new(),
            touched: false,
            stale: false,
            replan: false,
            unsettled: false,
            status_sent: None,
            status_due: None,
        }
    }

    /// Changes the phase, legally.
    pub(super) fn turn(&mut self, now: Time, next: JobPhase) {
        debug_assert!(self.phase.may_become(&next), "{:?} → {next:?}", self.phase);
        self.phase = next;
        self.status_due = Some(now);
    }

    /// The job is over; its tasks are to end.
    pub(super) fn end(&mut self, now: Time, outcome: Outcome) {
        self.turn(now, JobPhase::Ending(outcome));
        self.ending = Some(now);
        // Nothing of it starts any more, and its record is closed.
        self.suspects = Suspects::default();
        self.stale = true;
        let epochs: Vec<Epoch> = self.in_views().map(|task| task.id.epoch).collect();
        for epoch in epochs {
            self.retire(epoch);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, JobPhase::Ending(_) | JobPhase::Ended(_))
    }

    /// The revision that the next view will have.
    pub(super) const fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    pub(super) fn stage(&self, id: StageId) -> Option<&Stage> {
        self.graph.pipeline().stage(id)
    }

    pub(super) fn stage_name(&self, id: StageId) -> &str {
        self.stage(id).map_or("", |stage| &stage.name)
    }

    /// The tasks that should run.
    pub(super) fn current(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.life == Life::Current)
    }

    /// The tasks that views have: those that should run, and those that are leaving.
    pub(super) fn in_views(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.life.in_views())
    }

    /// The tasks of a stage that should run.
    pub(super) fn current_of(&self, stage: StageId) -> impl Iterator<Item = &Task> {
        self.current().filter(move |task| task.id.stage == stage)
    }

    /// Begins a new life of a task. The new highest epoch is to be stored before it is announced.
    pub(super) fn begin(&mut self, stage: StageId, process: Incarnation, worker: &str, slots: u32) {
        self.highest = Epoch(self.highest.0 + 1);
        let id = TaskId { stage, epoch: self.highest };
        let source = self.stage(stage).is_some_and(|stage| stage.op == Op::Source);
        let again = !self.begun.insert(stage) && source;
        let task = Task {
            id,
            process,
            worker: worker.to_owned(),
            life: Life::Current,
            slots,
            held: None,
            start: self.positions.get(&stage).copied().unwrap_or(0),
            again,
            report: TaskReport { id, ..TaskReport::default() },
            recorded: None,
        };
        self.tasks.insert(id.epoch, task);
        self.involved.insert(process);
        self.touched = true;
        self.stale = true;
    }

    /// A task should run no more.
    pub(super) fn retire(&mut self, epoch: Epoch) {
        let revision = self.next_revision();
        if let Some(task) = self.tasks.get_mut(&epoch)
            && task.life.in_views()
        {
            task.life = Life::Retiring;
            task.set_slots(0, revision);
            self.touched = true;
            self.stale = true;
        }
    }

    /// A process is leaving: what it runs goes on until it is done.
    pub(super) fn leave(&mut self, process: Incarnation) {
        let revision = self.next_revision();
        for task in self.tasks.values_mut() {
            if task.process == process && task.life == Life::Current {
                task.life = Life::Leaving { slots: task.slots };
                task.set_slots(0, revision);
                self.touched = true;
                self.stale = true;
            }
        }
    }

    /// A task has ended by itself.
    pub(super) fn over(&mut self, epoch: Epoch) {
        if let Some(task) = self.tasks.get_mut(&epoch) {
            self.stale |= task.life.in_views();
            self.replan |= task.life.in_views();
            (task.life, task.slots, task.held) = (Life::Over, 0, None);
            self.suspects.task_over(epoch);
            self.touched = true;
        }
    }

    /// A process is gone: what it ran is over, and only the figures are kept. Answers the stages
    /// that lost a task that should run.
    pub(super) fn strike(&mut self, process: Incarnation) -> Vec<StageId> {
        self.involved.remove(&process);
        let gone: Vec<Epoch> =
            self.tasks.values().filter(|t| t.process == process).map(|t| t.id.epoch).collect();
        let mut lost = Vec::new();
        for task in gone.into_iter().filter_map(|epoch| self.tasks.remove(&epoch)) {
            if task.life.in_views() {
                lost.push(task.id.stage);
                self.stale = true;
                self.replan = true;
            }
            if task.recorded.is_some() {
                self.struck.push(task.id.epoch);
                self.touched = true;
            }
            let past = self.past.entry(task.id.stage).or_default();
            let started = past.by_worker.entry(task.worker).or_default();
            *started = started.saturating_add(task.report.stats.started);
            fold(&mut past.by_worker);
            past.totals.add(&without_gauges(task.report.stats));
        }
        lost
    }

    /// Whether it still has to be waited for tasks to end.
    pub(super) fn has_running_tasks(&self) -> bool {
        self.tasks.values().any(|task| task.life != Life::Over)
    }

    /// Its figures have changed: its client is told, but not too often.
    pub(super) fn changed(&mut self, now: Time, config: &Config) {
        let earliest = self.status_sent.map_or(now, |sent| sent + config.status_every);
        self.status_due.get_or_insert(now.max(earliest));
    }

    /// The coordinator was paused: waiting for others starts anew.
    pub(super) fn renew(&mut self, now: Time) {
        self.ending = self.ending.map(|_| now);
    }

    pub(super) fn timeout(&self, config: &Config) -> Option<Time> {
        let waiting = matches!(self.phase, JobPhase::Waiting(_)).then_some(self.wait_until);
        let ending = self.ending.map(|since| since + config.lease);
        let parted = self.parted.values().min().copied();
        let times = [waiting, ending, parted, self.status_due, self.suspects.timeout()];
        times.into_iter().flatten().min()
    }
}

/// The counters alone: what is gone holds nothing now.
pub(super) fn without_gauges(stats: TaskStats) -> TaskStats {
    TaskStats {
        busy: 0,
        queued: 0,
        waiting_for_credit: 0,
        unacked: 0,
        retained_bytes: 0,
        links: 0,
        ..stats
    }
}
