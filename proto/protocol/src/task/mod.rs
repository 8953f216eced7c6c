//! One task: one stage of one job on one worker, for one life. It owns its links, its slots, its ack
//! ledger, and, if it is a boundary, what it has applied.
//!
//! The shell around it does the I/O: it turns [`Effect`]s into dials, function calls and reports,
//! carries the frames of [`Task::poll_frame`] to the wire, and feeds back what happens. Every call
//! that may change something takes the time.
//!
//! # The life of an item
//!
//! received → (a boundary asks: applied already?) → queued → started in a slot → outputs queued →
//! outputs sent: the input is *taken*, its slot is free, its credit may be granted anew → all outputs
//! acked downstream: the input is *settled*, and acked upstream.
//!
//! Error items and end markers skip the queue and the slot; a terminal has no outputs, so its items
//! are settled when the consumer has them.
//!
//! Items that came together travel as a [`Run`] and are treated as one for as long as their fates agree.
//!
//! # When something goes away
//!
//! A downstream task that is gone gives back all that was not acked: it is dispatched again. An
//! upstream task that is gone leaves orphans: those not started are dropped (somebody upstream still
//! holds them), those running go on, and acks for them have nobody to go to.
//!
//! A task that is to leave goes in good order instead: see `leave`.
//!
//! What a downstream task that is gone had not acked is marked, for its process may have died of it: a
//! marked input asks the coordinator before it starts (`marks`), and its outputs are marked.

mod credit;
mod inputs;
mod leave;
mod marks;
mod outputs;
mod pace;
mod peers;
mod report;
mod slots;
mod source;
#[cfg(test)]
mod tests;
mod transmit;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::applied::Applied;
use crate::control::{TaskEnd, TaskStats};
use crate::frame::{LinkPolicy, Open};
use crate::ids::{ChannelId, ConnId, Epoch, JobId, StageId, TaskId};
use crate::item::{Encoding, ItemError};
use crate::lineage::Lineage;
use crate::link::Receiver;
use crate::pipeline::{Op, Pipeline, Site};
use crate::run::Run;
use crate::spans::Spans;
use crate::time::Time;
use crate::window::Window;

use inputs::Input;
use outputs::OutPort;
use wire::Wire;

/// Sizes and times of a task. [`Limits::default`] is what design and benchmarks settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The byte window of each input link. Default 2 MiB.
    pub window_bytes: u64,
    /// The largest payload. Default 64 MiB.
    pub max_payload: u64,
    /// The most items in one frame. Default 1,024.
    pub batch_items: u64,
    /// The most bytes in one frame of more than one item; a quarter more if they came together.
    /// Default 128 KiB.
    pub batch_bytes: u64,
    /// How long acks and grants that nobody waits for are gathered. Default 5 ms.
    pub flush: Duration,
    /// How long a watermark waits for a frame that goes its way. Default 1 s.
    pub watermark: Duration,
    /// How long a sender keeps credit that it does not use. Default 100 ms.
    pub forfeit: Duration,
    /// How long a link may be down before its other end counts as lost. Default 10 s.
    pub lease: Duration,
    /// Bytes retained beyond which the job's sources pause. Default 256 MiB.
    pub budget: u64,
    /// A deliberate defect, so that tests can show that they would find it.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub bug: Option<Bug>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_bytes: 2 << 20,
            max_payload: 64 << 20,
            batch_items: 1_024,
            batch_bytes: 128 << 10,
            flush: Duration::from_millis(5),
            watermark: Duration::from_secs(1),
            forfeit: Duration::from_millis(100),
            lease: Duration::from_secs(10),
            budget: 256 << 20,
            #[cfg(any(test, feature = "planted-bugs"))]
            bug: None,
        }
    }
}

/// Deliberate defects, for tests of the tests.
#[cfg(any(test, feature = "planted-bugs"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// An input is acked when its outputs are sent, not when they are acked.
    EarlyAck,
    /// An input is acked when the first of its outputs is.
    AckedAfterFirstChild,
    /// A copy is acked although the first is not safe yet.
    DuplicateAckedFirst,
    /// A boundary applies copies, too.
    NoDeduplication,
    /// Some credit is never granted anew.
    LostCredit,
    /// One unacked item is not sent again when its link is lost.
    ForgottenUnacked,
    /// A task that has been replaced may connect.
    StaleEpochAccepted,
    /// A frame of a superseded connection counts for the present one.
    OldConnectionAccepted,
    /// A source announces the root that holds it up as finished.
    WatermarkTooHigh,
    /// What is given back unstarted counts as acked.
    ReturnTakenAsAck,
    /// An expansion that ends earlier when it runs again has its second end dropped.
    LowerEndSwallowed,
    /// What lies below the watermark is taken for new.
    FinishedStartedAgain,
    /// A source ends when it reaches none of the tasks that it sends to.
    SourceGivesUp,
    /// The coordinator's: of what is finished, it forgets also that it is.
    DeathsForgotten,
}

#[cfg(any(test, feature = "planted-bugs"))]
impl Bug {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::EarlyAck,
        Self::AckedAfterFirstChild,
        Self::DuplicateAckedFirst,
        Self::NoDeduplication,
        Self::LostCredit,
        Self::ForgottenUnacked,
        Self::StaleEpochAccepted,
        Self::OldConnectionAccepted,
        Self::WatermarkTooHigh,
        Self::ReturnTakenAsAck,
        Self::LowerEndSwallowed,
        Self::FinishedStartedAgain,
        Self::SourceGivesUp,
        Self::DeathsForgotten,
    ];
}

/// A link, as its task sees it: the channel, and the task at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    /// The channel.
    pub channel: ChannelId,
    /// The other end.
    pub peer: TaskId,
}

/// What a task should be like, as far as others decide it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// How many items it may run at a time.
    pub slots: u32,
    /// The tasks of the job, and whether this end dials them.
    pub peers: BTreeMap<TaskId, Dials>,
    /// A task not in `peers` is gone if its epoch is not above this.
    pub highest_epoch: Epoch,
    /// For a source: how many roots may be admitted and not yet acked.
    pub window: u64,
    /// For a source: admit nothing for now.
    pub pause: bool,
    /// Channels that are cut.
    pub cut: BTreeSet<ChannelId>,
    /// For a source that can be replaced: its stored position, once something is stored.
    pub position: Option<u64>,
    /// For a source: it takes the place of another, whose roots may have been in process.
    pub again: bool,
}

/// Which end of a link dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dials {
    /// This one.
    We,
    /// The other one.
    They,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Dial the peer and send this frame first. Answer with frames, or with [`Task::on_down`].
    Dial(LinkKey, Box<Open>),
    /// The connection is superseded or at its end: close it.
    HangUp(LinkKey, ConnId),
    /// Run the function on each of these (a terminal: hand them to the consumer); each has a slot, unless
    /// it is part of a [burst](Task::set_burst). Answer
    /// with [`Task::emit`] and [`Task::finish`], or for several at once with [`Task::emit_all`],
    /// [`Task::finish_each`] and [`Task::finish_all`].
    Start {
        /// The first input's number in this task; the others follow.
        input: u64,
        /// The items; an error only at a terminal.
        run: Run,
    },
    /// The function of this input, which waited (between two attempts, or as a [parked](Task::park)
    /// expansion), may go on.
    Resume {
        /// The input's number in this task.
        input: u64,
    },
    /// Empty the process for this input: let running functions end and start no others, in any task,
    /// until [`Effect::Rejoin`]. Answer with [`Task::isolated`]. It never comes for a task in a client.
    Isolate {
        /// The input's number in this task.
        input: u64,
        /// Its identity.
        lineage: Lineage,
    },
    /// The process is no longer to be kept, or emptied, for this input.
    Rejoin {
        /// The input's number in this task.
        input: u64,
    },
    /// This input, whose function waits to go on, has its answer: drop the call.
    Drop {
        /// The input's number in this task.
        input: u64,
    },
    /// Nobody needs what the running functions make: drop them, without an answer.
    Abort,
    /// Make some roots: up to so many, and no more once so many bytes are reached. Answer with
    /// [`Task::roots`].
    Pull {
        /// The most roots.
        items: u64,
        /// Stop after this many bytes.
        bytes: u64,
    },
    /// Something changed that the coordinator waits for: report now.
    Report,
    /// The task is over.
    End(TaskEnd),
}

/// How a function call ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Finished {
    /// A map's output.
    One(Encoding, Bytes),
    /// A filter that keeps its input.
    Keep,
    /// A filter that drops it, a sink or terminal that has taken it.
    Nothing,
    /// An expansion that has made all its outputs.
    Expanded,
    /// A failure; for an expansion, after the outputs that it has made.
    Failed(Box<ItemError>),
}

/// One task. See the module's story.
#[derive(Clone, Debug, Hash)]
pub struct Task {
    id: TaskId,
    job: JobId,
    op: Op,
    /// The stage's name.
    stage: String,
    /// Of a terminal: the expansions before it, from the source on.
    expansions: Vec<String>,
    /// Whether marked inputs ask before they start: functions on workers.
    asks: bool,
    limits: Limits,
    slots: u32,
    highest_epoch: Epoch,
    /// Input channels with their declared buffers.
    in_channels: BTreeMap<ChannelId, Option<u32>>,
    /// The stage that each input channel comes from.
    upstream: BTreeMap<ChannelId, StageId>,
    in_links: BTreeMap<LinkKey, InLink>,
    out_ports: Vec<OutPort>,
    /// The ack ledger: every input that is not settled.
    ledger: Spans<Input>,
    /// Those that wait for slots.
    ready: VecDeque<Range<u64>>,
    /// Inputs in backoff that want their slot back.
    resuming: VecDeque<u64>,
    busy: u32,
    /// How many inputs the shell would run on the spot.
    burst: u64,
    marks: marks::Marks,
    applied: Applied,
    window: Option<Window>,
    source: source::State,
    /// The sources of the pipeline.
    sources: BTreeSet<StageId>,
    /// Per source: the highest watermark seen.
    watermarks: Vec<(StageId, u64)>,
    cut: BTreeSet<ChannelId>,
    draining: bool,
    /// An output link has been up.
    reached: bool,
    /// Output channels on which nobody has been reached for long.
    unreached: BTreeSet<ChannelId>,
    ended: bool,
    /// Since when the coordinator has been heard without a gap, and when last.
    heard: Option<(Time, Time)>,
    credit: credit::Pool,
    dirty: BTreeSet<LinkKey>,
    blocked: BTreeSet<LinkKey>,
    flush_at: Option<Time>,
    /// When risen watermarks go out alone.
    watermarks_at: Option<Time>,
    effects: VecDeque<Effect>,
    stats: TaskStats,
    /// An item that was started although it was known to be finished.
    #[cfg(any(test, feature = "planted-bugs"))]
    began_finished: Option<Lineage>,
}

/// An input link.
#[derive(Clone, Debug, Hash)]
struct InLink {
    wire: Wire,
    receiver: Receiver,
    flush: bool,
    done: leave::Done,
}

impl Task {
    /// A task of a stage of the pipeline. `position` is where a source begins. None if the pipeline
    /// has no such stage.
    #[must_use]
    pub fn new(
        job: JobId,
        id: TaskId,
        pipeline: &Pipeline,
        position: u64,
        limits: Limits,
    ) -> Option<Self> {
        let stage = pipeline.stage(id.stage)?;
        let is_source = stage.op == Op::Source;
        Some(Self {
            id,
            job,
            op: stage.op,
            stage: stage.name.clone(),
            expansions: if stage.op == Op::Terminal {
                pipeline.expansions_before(id.stage)
            } else {
                Vec::new()
            },
            asks: stage.site == Site::Fleet && !matches!(stage.op, Op::Source | Op::Terminal),
            limits,
            slots: 0,
            highest_epoch: Epoch(0),
            in_channels: pipeline
                .inputs(id.stage)
                .map(|(c, channel)| (c, channel.buffer))
                .collect(),
            upstream: pipeline.inputs(id.stage).map(|(c, channel)| (c, channel.from)).collect(),
            in_links: BTreeMap::new(),
            out_ports: OutPort::of_stage(pipeline, id.stage),
            ledger: Spans::new(),
            ready: VecDeque::new(),
            resuming: VecDeque::new(),
            busy: 0,
            burst: 0,
            marks: marks::Marks::default(),
            applied: Applied::new(),
            window: is_source.then(|| Window::starting_at(position, 0)),
            source: source::State::new(stage.site == Site::Fleet, pipeline.max_in_flight, position),
            sources: (0..)
                .zip(&pipeline.stages)
                .filter(|(_, stage)| stage.op == Op::Source)
                .map(|(id, _)| StageId(id))
                .collect(),
            watermarks: is_source.then_some((id.stage, position)).into_iter().collect(),
            cut: BTreeSet::new(),
            draining: false,
            reached: false,
            unreached: BTreeSet::new(),
            ended: false,
            heard: None,
            credit: credit::Pool::default(),
            dirty: BTreeSet::new(),
            blocked: BTreeSet::new(),
            flush_at: None,
            watermarks_at: None,
            effects: VecDeque::new(),
            stats: TaskStats::default(),
            #[cfg(any(test, feature = "planted-bugs"))]
            began_finished: None,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Its operator.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// The next thing to do. Ask until there is none, after every call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    const fn policy(&self) -> LinkPolicy {
        LinkPolicy { window_bytes: self.limits.window_bytes, max_payload: self.limits.max_payload }
    }

    /// What follows from any change: items are dispatched and started, credit is granted, and a
    /// source asks for roots.
    fn settle_down(&mut self, now: Time) {
        if self.ended {
            return;
        }
        self.start_ready(now);
        self.dispatch(now);
        self.start_ready(now);
        self.settle_marks();
        self.regrant(now);
        self.pull(now);
        if self.draining && self.ledger.is_empty() {
            for (key, link) in &mut self.in_links {
                link.flush = true;
                self.dirty.insert(*key);
            }
        }
    }

    fn end(&mut self, why: TaskEnd) {
        if !self.ended {
            self.ended = true;
            self.effects.push_back(Effect::End(why));
        }
    }

    fn flush_soon(&mut self, now: Time) {
        self.flush_at.get_or_insert(now + self.limits.flush);
    }

    #[cfg(any(test, feature = "planted-bugs"))]
    fn has_bug(&self, bug: Bug) -> bool {
        self.limits.bug == Some(bug)
    }
}
