//! What the coordinator and the processes tell each other.
//!
//! A process says what is ([`Report`]); the coordinator says what should be ([`JobView`]), each time
//! the whole of what it speaks of. A lost or repeated message therefore needs no special case.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::VersionRange;
use crate::ids::{ChannelId, Epoch, Incarnation, JobId, StageId, TaskId, Term};
use crate::item::ErrorKind;
use crate::pipeline::{Op, Pipeline, TypeTag};
use crate::suspect::{MarkedItem, Verdicts};

/// A process introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol versions that it speaks.
    pub versions: VersionRange,
    /// Whether it offers functions or submits jobs.
    pub kind: ProcessKind,
    /// Its name: what people see, and what a restarted worker keeps.
    pub name: String,
    /// This life of it.
    pub incarnation: Incarnation,
    /// `host:port` where its tasks accept links; none for a client, which only dials. An empty host
    /// stands for the address that its session comes from.
    pub address: Option<String>,
    /// The functions that it offers.
    pub functions: Vec<Function>,
    /// It is about to leave: see [`Up::Leaving`].
    pub leaving: bool,
}

/// The kinds of process that hold a session with the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessKind {
    /// Offers its registry.
    Worker,
    /// Submits jobs, and hosts their sources and terminals.
    Client,
}

/// A registered function, as its process announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The operator that it is for.
    pub op: Op,
    /// How many items it may run at a time in that process.
    pub slots: u32,
    /// The type that it takes, if typed.
    pub input: Option<TypeTag>,
    /// The type that it makes, if typed.
    pub output: Option<TypeTag>,
    /// For a source: whether it gives the same roots again from a position.
    pub replayable: bool,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u32,
    /// The coordinator's life.
    pub term: Term,
    /// How long a process counts as alive without a heartbeat.
    pub lease: Duration,
}

/// What should be, of one job, in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// The coordinator's life that says so.
    pub term: Term,
    /// Counts the views of this job; a smaller number of the same term is older.
    pub revision: u64,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// What the job is doing.
    pub phase: JobPhase,
    /// The tasks that this process should run; any other task of the job should end.
    pub tasks: Vec<TaskPlan>,
    /// All tasks of the job, wherever they run.
    pub peers: Vec<Peer>,
    /// The highest epoch of the job so far: a task that is absent from `peers` is gone if its epoch
    /// is not above this, and newer than this view otherwise.
    pub highest_epoch: Epoch,
    /// How many roots a source may have admitted and not yet acked.
    pub window: u64,
    /// Sources must not admit roots: some task retains more than its budget.
    pub pause_sources: bool,
    /// Channels whose downstream end needs no more.
    pub cut: Vec<ChannelId>,
    /// Per named source: the stored position, which is also the announced watermark.
    pub positions: BTreeMap<StageId, u64>,
}

/// A task that a process should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// The task.
    pub id: TaskId,
    /// How many items it may run at a time.
    pub slots: u32,
    /// A source only: it takes the place of another, whose roots may have been in process.
    pub again: bool,
    /// It is to give back what has not started, finish the rest, and end: its process is leaving.
    pub drain: bool,
}

/// Where a task of the job is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The task.
    pub id: TaskId,
    /// The life of the process that runs it.
    pub process: Incarnation,
    /// Where that process accepts links; none if it only dials.
    pub address: Option<String>,
}

/// The states of a job. [`JobPhase::may_become`] is the whole table of legal changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobPhase {
    /// Waits for workers that register these functions.
    Waiting(Vec<String>),
    /// Its tasks are placed.
    Running,
    /// It is over, with this outcome, and its tasks are being ended.
    Ending(Outcome),
    /// It is over, and so are its tasks.
    Ended(Outcome),
}

impl JobPhase {
    /// Its name as people see it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Running => "running",
            Self::Ending(_) => "ending",
            Self::Ended(Outcome::Completed) => "completed",
            Self::Ended(Outcome::Cancelled(_)) => "cancelled",
            Self::Ended(Outcome::Failed(_)) => "failed",
        }
    }

    /// The legal changes of state.
    #[must_use]
    pub const fn may_become(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            (Self::Waiting(_), Self::Waiting(_) | Self::Running | Self::Ending(_))
                | (Self::Running, Self::Ending(_))
                | (Self::Ending(_), Self::Ended(_))
        )
    }
}

/// How a job came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every root was acked.
    Completed,
    /// Somebody ended it, or its client went away; the text says which.
    Cancelled(String),
    /// It could not go on.
    Failed(Failure),
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The sort of failure.
    pub kind: FailureKind,
    /// What happened, where, and what to do.
    pub message: String,
}

/// The sorts of failure of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The pipeline itself is wrong.
    Invalid,
    /// No worker registers a function that it needs.
    MissingStage,
    /// Types of neighbouring stages, or of a stage and its function, do not fit.
    TypeMismatch,
    /// A source that cannot be replayed lost its task.
    SourceLost,
    /// Something that should not happen.
    Internal,
}

/// What a process says of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// The term of the newest view of the job that the process had applied when it said this.
    pub term: Term,
    /// That view's revision; 0 if it had none.
    /// A task that this view no longer has, and that the report does not list, does not run there;
    /// slots that it took away are in use only as far as the report says.
    pub revision: u64,
    /// The tasks that it runs, and those that it has ended and not yet been told to forget.
    pub tasks: Vec<TaskReport>,
}

/// What a process says of one task. All of it is a level, reported until it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskReport {
    /// The task.
    pub id: TaskId,
    /// Whether it has ended, and if by itself, why: its counters are final then.
    pub ended: Option<TaskEnd>,
    /// Its counters and gauges.
    pub stats: TaskStats,
    /// For a source.
    pub source: Option<SourceReport>,
    /// Output channels that have been cut downstream, and input channels that it cuts.
    pub cut: Vec<ChannelId>,
    /// It retains more bytes than its budget.
    pub over_budget: bool,
    /// Per source: the oldest root that it holds.
    pub oldest: Vec<(StageId, u64)>,
    /// Marked items that are, or want to be, in process: no more than its slots.
    pub marked: Vec<MarkedItem>,
    /// It has had a link to a task downstream.
    pub reached: bool,
    /// Output channels on which it has reached nobody for two leases, although the coordinator counts
    /// those at the other end as alive.
    pub unreached: Vec<ChannelId>,
}

/// Why a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TaskEnd {
    /// It was told to.
    Stopped,
    /// It lost all its output links for longer than the lease: it is to be replaced.
    LostLinks,
    /// It could not start or go on; the job fails with this message.
    Failed(String),
}

/// What a source reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceReport {
    /// The lowest root that is not yet acked.
    pub watermark: u64,
    /// The number of roots, once the source has no more.
    pub exhausted: Option<u64>,
    /// Its window has no room: the root at the watermark keeps it from admitting more.
    pub full: bool,
}

/// Counters (since the task began) and gauges (now) of a task. The end marker of an
/// expansion that went well is no item to the counters of what was received, sent, sent again or
/// dropped as a copy; the gauges have it, since it takes room and credit as an item does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStats {
    /// Items received; for a source, roots admitted.
    pub received: u64,
    /// Items handed to the function, first attempts only.
    pub started: u64,
    /// Items sent on for the first time; for a terminal or sink, items applied.
    pub sent: u64,
    /// Frames with items in them that were given to links. Its ratio to `sent` tells how full they are.
    pub frames: u64,
    /// Items that yielded nothing.
    pub filtered: u64,
    /// Error items made here, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Items sent again because a link or task went away.
    pub resent: u64,
    /// Copies of an item that a boundary dropped.
    pub duplicates: u64,
    /// Items dropped because an expansion disagreed with an earlier run of itself.
    pub divergent: u64,
    /// Frames refused because their epoch or connection was superseded.
    pub stale: u64,
    /// Items dropped because their channel was cut.
    pub cut: u64,
    /// Slots in use now.
    pub busy: u64,
    /// Items received and not yet started, now.
    pub queued: u64,
    /// Items made and waiting for credit, now.
    pub waiting_for_credit: u64,
    /// Items sent and not yet acked, now.
    pub unacked: u64,
    /// Bytes retained, now.
    pub retained_bytes: u64,
    /// Links that are up, now.
    pub links: u64,
}

/// Counters are for people: two tasks that differ in them alone behave alike, and hash alike, so that
/// whoever explores all states of a task visits it once.
impl Hash for TaskStats {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl TaskStats {
    /// Adds another task's figures to these. They come from the network, so no sum overflows.
    pub fn add(&mut self, other: &Self) {
        self.received = self.received.saturating_add(other.received);
        self.started = self.started.saturating_add(other.started);
        self.sent = self.sent.saturating_add(other.sent);
        self.frames = self.frames.saturating_add(other.frames);
        self.filtered = self.filtered.saturating_add(other.filtered);
        for (kind, count) in &other.errors {
            let sum = self.errors.entry(*kind).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.retries = self.retries.saturating_add(other.retries);
        self.resent = self.resent.saturating_add(other.resent);
        self.duplicates = self.duplicates.saturating_add(other.duplicates);
        self.divergent = self.divergent.saturating_add(other.divergent);
        self.stale = self.stale.saturating_add(other.stale);
        self.cut = self.cut.saturating_add(other.cut);
        self.busy = self.busy.saturating_add(other.busy);
        self.queued = self.queued.saturating_add(other.queued);
        self.waiting_for_credit = self.waiting_for_credit.saturating_add(other.waiting_for_credit);
        self.unacked = self.unacked.saturating_add(other.unacked);
        self.retained_bytes = self.retained_bytes.saturating_add(other.retained_bytes);
        self.links = self.links.saturating_add(other.links);
    }
}

/// What a process runs in all: it must return to what it was when its jobs are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Tasks of the async runtime.
    pub runtime_tasks: u64,
    /// Stage tasks.
    pub tasks: u64,
    /// Links, connected or not.
    pub links: u64,
    /// Child processes.
    pub children: u64,
    /// Timers of stage tasks and links.
    pub timers: u64,
}

/// Calls of one blocking function in a process that nobody waits for any more (they timed out, or their job
/// is over) and that still run. Each keeps a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbandonedCalls {
    /// The function.
    pub function: String,
    /// How many.
    pub calls: u32,
    /// How many slots it has there. With all of them taken it can run nothing more.
    pub slots: u32,
    /// How long ago the oldest was given up.
    pub oldest: Duration,
    /// Which that is, in words.
    pub example: String,
}

impl AbandonedCalls {
    /// Whether the function can run nothing more there.
    #[must_use]
    pub const fn all_slots(&self) -> bool {
        self.calls >= self.slots
    }
}

/// A job as the coordinator sees it, for people and for the client that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// The pipeline's name.
    pub name: String,
    /// What it is doing.
    pub phase: JobPhase,
    /// The name of the client that submitted it.
    pub client: String,
    /// How long ago it was submitted; when it has ended, how long it took.
    pub age: Duration,
    /// Its stages, in the pipeline's order.
    pub stages: Vec<StageStatus>,
    /// Per source that waits for its window: the root that holds it up, and the stage where it is.
    pub held_up_by: Vec<HeldUp>,
}

/// One stage of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageStatus {
    /// The stage's name.
    pub name: String,
    /// Its operator.
    pub op: Op,
    /// Its slots in all.
    pub slots: u32,
    /// Sums over its tasks, living and ended.
    pub totals: TaskStats,
    /// Items started, by the name of the worker, ended tasks included; [folded](crate::by_worker::fold).
    pub by_worker: BTreeMap<String, u64>,
}

/// The root that keeps a source from admitting more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// The source's stage name.
    pub source: String,
    /// The root.
    pub root: u64,
    /// The last stage where it is.
    pub stage: String,
}

/// A process as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ProcessKind,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Where it accepts links.
    pub address: Option<String>,
    /// The functions that it offers.
    pub functions: Vec<Function>,
    /// What it runs, as of its last heartbeat.
    pub census: Census,
    /// Whether its session is up.
    pub connected: bool,
    /// Suspects that were told to run alone there, and have not left: its death now would convict
    /// one. Who kills processes on purpose spares it.
    pub suspects: u64,
    /// Whether it is leaving: it finishes what it has begun, and takes no more.
    pub leaving: bool,
    /// Calls there that never returned, by function.
    pub abandoned: Vec<AbandonedCalls>,
}

/// What a process sends over its session, after its [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up {
    /// Sent first, and only then.
    Hello(Hello),
    /// It is alive.
    Heartbeat(Census),
    /// Calls that nobody waits for any more, and that still run: always all of it. Said with each
    /// heartbeat while there are some, and once when there are none any more.
    Abandoned(Vec<AbandonedCalls>),
    /// What it runs of a job.
    Report(Report),
    /// A client submits a job of its own.
    Submit(Submit),
    /// A client ends a job of its own.
    Cancel(JobId, String),
    /// It is about to leave: it takes nothing more, finishes what it has begun, and then says
    /// goodbye. Each later hello says so too; it is never taken back.
    Leaving,
    /// It leaves in good order; nothing of it is to be waited for.
    Goodbye,
}

/// A job to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// The job's name, drawn at random by the client.
    pub job: JobId,
    /// What to run.
    pub pipeline: Pipeline,
    /// How long to wait for functions that no worker registers; zero fails at once.
    pub wait_stages: Duration,
}

/// What the coordinator sends over a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The answer to the hello.
    Welcome(Welcome),
    /// The hello or a later message is refused, and the session ends; the text says why.
    Refused(String),
    /// The answer to a heartbeat.
    Alive,
    /// What should be, of a job.
    View(Box<JobView>),
    /// To a job's client: how it goes. The last one has the phase [`JobPhase::Ended`].
    Status(Box<JobStatus>),
    /// What it says of marked items that a task asked for.
    Verdicts(Verdicts),
    /// The coordinator no longer knows the job: forget it, and stop reporting it.
    Forget(JobId),
}
