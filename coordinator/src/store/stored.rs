//! What all records together say: what an engine is restored from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stageline_protocol::control::{Hello, JobPhase, JobStatus, Outcome};
use stageline_protocol::pipeline::Pipeline;
use stageline_protocol::suspect::Death;
use stageline_protocol::{Epoch, Incarnation, JobId, Lineage, StageId, TaskId, Term, Time};

use super::Record;

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The latest life of the coordinator.
    pub term: Term,
    /// The processes that count as alive.
    pub processes: BTreeMap<Incarnation, Hello>,
    /// The lives that another of the same name has superseded, the latest last.
    pub superseded: Vec<Incarnation>,
    /// The jobs that are not over.
    pub jobs: BTreeMap<JobId, StoredJob>,
    /// The jobs that are over, and still listed.
    pub ended: BTreeMap<JobId, StoredEnd>,
}

/// What is kept of a job that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The life of the client that it belongs to.
    pub client: Incarnation,
    /// That client's name.
    pub client_name: String,
    /// When it was submitted.
    pub submitted: Time,
    /// What it runs.
    pub pipeline: Pipeline,
    /// How long to wait for functions that no worker registers.
    pub wait_stages: Duration,
    /// The highest epoch that may be in use; 0 while the job waits.
    pub highest: Epoch,
    /// The tasks that run or may run.
    pub tasks: BTreeMap<Epoch, StoredTask>,
    /// The positions of its named sources.
    pub positions: BTreeMap<StageId, u64>,
    /// The sources that are exhausted and all of whose roots are acked.
    pub finished: BTreeSet<StageId>,
    /// Its marked items that were in process when a process died, by stage.
    pub suspects: BTreeMap<(StageId, Lineage), Vec<Death>>,
}

/// What is kept of a task that runs or may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTask {
    /// The task.
    pub id: TaskId,
    /// The life of the process that runs it.
    pub process: Incarnation,
    /// That process's name.
    pub worker: String,
    /// Its slots; 0 if it should end.
    pub slots: u32,
    /// Slots that are, or may be, in use: its own at least, and those taken away and not yet idle.
    pub held: u32,
    /// For a source: the root that it began with.
    pub start: u64,
    /// It should end, and may still run.
    pub retiring: bool,
}

/// What is kept of a job that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEnd {
    /// The life of the client that it belonged to.
    pub client: Incarnation,
    /// When it ended.
    pub at: Time,
    /// How it came out.
    pub status: JobStatus,
}

impl Stored {
    /// Takes one more record. One about a job that is not known, or is over, changes nothing.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Term(term) => self.term = self.term.max(term),
            Record::Process(hello) => {
                self.processes.insert(hello.incarnation, *hello);
            }
            Record::Gone(process) => {
                self.processes.remove(&process);
            }
            Record::Superseded(lives) => self.superseded = lives,
            Record::Submitted { job, client, client_name, at, pipeline, wait_stages } => {
                self.jobs.entry(job).or_insert_with(|| StoredJob {
                    client,
                    client_name,
                    submitted: at,
                    pipeline,
                    wait_stages,
                    highest: Epoch::default(),
                    tasks: BTreeMap::new(),
                    positions: BTreeMap::new(),
                    finished: BTreeSet::new(),
                    suspects: BTreeMap::new(),
                });
            }
            Record::Epochs { job, highest } => {
                self.change(job, |stored| stored.highest = stored.highest.max(highest));
            }
            Record::Task { job, task } => self.change(job, |stored| {
                stored.tasks.insert(task.id.epoch, task);
            }),
            Record::TaskOver { job, epoch } => self.change(job, |stored| {
                stored.tasks.remove(&epoch);
            }),
            Record::Position { job, stage, position } => self.change(job, |stored| {
                let kept = stored.positions.entry(stage).or_default();
                *kept = position.max(*kept);
            }),
            Record::Finished { job, stage } => self.change(job, |stored| {
                stored.finished.insert(stage);
            }),
            Record::Suspect { job, stage, lineage, deaths } => self.change(job, |stored| {
                if deaths.is_empty() {
                    stored.suspects.remove(&(stage, lineage));
                } else {
                    stored.suspects.insert((stage, lineage), deaths);
                }
            }),
            Record::Ended { job, client, at, status } => {
                self.jobs.remove(&job);
                self.ended.insert(job, StoredEnd { client, at, status: *status });
            }
            Record::Forgotten { job } => {
                self.ended.remove(&job);
            }
        }
    }

    /// Whether the job that a record is about is known, if it must be.
    #[must_use]
    pub(super) fn knows(&self, record: &Record) -> bool {
        match record {
            Record::Epochs { job, .. }
            | Record::Task { job, .. }
            | Record::Position { job, .. }
            | Record::Suspect { job, .. }
            | Record::Finished { job, .. } => self.jobs.contains_key(job),
            _ => true,
        }
    }

    /// How a job came out, if it is over and still listed.
    #[must_use]
    pub fn outcome(&self, job: JobId) -> Option<&Outcome> {
        match &self.ended.get(&job)?.status.phase {
            JobPhase::Ending(outcome) | JobPhase::Ended(outcome) => Some(outcome),
            JobPhase::Waiting(_) | JobPhase::Running => None,
        }
    }

    fn change(&mut self, job: JobId, change: impl FnOnce(&mut StoredJob)) {
        if let Some(stored) = self.jobs.get_mut(&job) {
            change(stored);
        }
    }
}
