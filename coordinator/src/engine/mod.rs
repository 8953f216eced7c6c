//! The coordinator's decisions: events in, commands out; no clock, no I/O.
//!
//! The engine is level-triggered. An event changes what is known; then `Engine::settle` compares
//! what should be with what is: who is still alive, which waiting jobs can start, who runs what,
//! which jobs are over; and it announces the difference, each time as the whole desired state. So
//! a lost message, a repeated one and a reconnection need no case of their own.
//!
//! Guarantees:
//! - Commands are to be carried out in order, and a [`Command::Persist`] is to be safe before any
//!   later one is begun: no task, position or outcome is announced before it is stored.
//! - What is stored is all that is needed: [`Engine::restore`] makes of it the engine as it was, all
//!   of whose sessions have just broken.
//! - Epochs of a job only rise. A source or terminal has at most one current task.
//! - The slots of a stage under `workers(n)`, and those taken away and possibly still in use, are
//!   never more than `n` in all.
//! - The same events at the same times give the same commands.
//!
//! Where to read: [`fleet`](self) knows the processes, `sessions` what they say, `submit` how a job
//! starts, `plan` who runs what, `part` what follows where two processes cannot reach each other, `report`
//! what comes back, `suspects` what an item may have killed,
//! `conclude` how a job ends, `view` and
//! `status` what is announced, `record` what is kept, and `restore` how an engine goes on from that.

mod conclude;
mod fleet;
mod job;
mod part;
mod plan;
mod record;
mod report;
mod restore;
mod sessions;
mod status;
mod submit;
mod suspects;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use stageline_protocol::control::{Down, Hello, JobStatus, ProcessStatus, Up};
use stageline_protocol::{Incarnation, JobId, Term, Time};

use self::fleet::Fleet;
use self::job::Job;
use self::plan::Shares;
pub use self::restore::RestoreError;
use crate::store::Record;

/// One session of a process with the coordinator; the shell numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a process counts as alive without a sign of life. 10 s by default.
    pub lease: Duration,
    /// A worker whose session broke and that is not back after this counts as dead. 2 s by default.
    pub reset_grace: Duration,
    /// A job's client is told how it goes at most this often. 500 ms by default.
    pub status_every: Duration,
    /// So many jobs that have ended stay listed. 100 by default.
    pub history: usize,
    /// The automatic window is never smaller than this many roots. 16,384 by default.
    pub least_window: u64,
    /// A deliberate defect: of items that are finished, it is forgotten that they are.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub forgets_finished: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            reset_grace: Duration::from_secs(2),
            status_every: Duration::from_millis(500),
            history: 100,
            least_window: 16_384,
            #[cfg(any(test, feature = "planted-bugs"))]
            forgets_finished: false,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process opened a session and introduced itself.
    SessionOpened {
        /// The new session.
        session: SessionId,
        /// The introduction.
        hello: Hello,
    },
    /// A process said something.
    Message {
        /// Its session.
        session: SessionId,
        /// What it said.
        message: Up,
    },
    /// A session is gone, however.
    SessionClosed {
        /// The session.
        session: SessionId,
    },
    /// Somebody other than its client ends a job.
    CancelJob {
        /// The job.
        job: JobId,
        /// Who, or why.
        reason: String,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say this.
    Send {
        /// To whom.
        session: SessionId,
        /// What.
        message: Down,
    },
    /// End a session, once what was said is sent.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Keep this, and go on only when it is safe.
    Persist(Record),
    /// Whoever runs the coordinator should know this.
    Warn(String),
}

/// The pure coordinator.
#[derive(Debug)]
pub struct Engine {
    term: Term,
    config: Config,
    fleet: Fleet,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that have ended, the latest last.
    history: VecDeque<Ended>,
    shares: Shares,
    /// Workers, or the jobs that they are shared among, have changed: every job is planned anew.
    replan: bool,
    /// Processes that have just opened a session, and are to hear what they may have missed.
    back: Vec<Incarnation>,
    /// When the engine was last called.
    woken: Time,
    out: VecDeque<Command>,
}

/// What is remembered of a job that has ended.
#[derive(Debug)]
struct Ended {
    status: JobStatus,
    client: Incarnation,
    /// When it ended; after a restart, when that was.
    at: Time,
}

impl Engine {
    /// An engine that knows of nobody. `term` is its life: a later one must have a higher one.
    #[must_use]
    pub fn new(term: Term, config: Config) -> Self {
        Self {
            term,
            config,
            fleet: Fleet::default(),
            jobs: BTreeMap::new(),
            history: VecDeque::new(),
            shares: Shares::default(),
            replan: false,
            back: Vec::new(),
            woken: Time::ZERO,
            out: VecDeque::new(),
        }
    }

    /// Takes note of what happened. Commands follow from [`Self::poll_command`].
    pub fn handle(&mut self, now: Time, event: Event) {
        self.wake(now);
        match event {
            Event::SessionOpened { session, hello } => self.session_opened(now, session, hello),
            Event::Message { session, message } => self.message(now, session, message),
            Event::SessionClosed { session } => self.session_closed(now, session),
            Event::CancelJob { job, reason } => self.cancel(now, job, reason),
        }
        self.settle(now);
    }

    /// Takes note of the time. To be called when [`Self::poll_timeout`] has come; earlier is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        self.wake(now);
        self.settle(now);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<Command> {
        self.out.pop_front()
    }

    /// When [`Self::handle_timeout`] is due; none while there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let tick = (!self.fleet.is_empty() || !self.jobs.is_empty())
            .then(|| self.woken + self.config.lease / 4);
        let jobs = self.jobs.values().filter_map(|job| job.timeout(&self.config));
        tick.into_iter().chain(self.fleet.timeout()).chain(jobs).min()
    }

    /// The jobs: those that are not over, oldest first; then those that are, latest first. Without their figures
    /// by worker, which [`Self::job`] has: a list has many jobs.
    #[must_use]
    pub fn jobs(&self, now: Time) -> Vec<JobStatus> {
        let mut living: Vec<&Job> = self.jobs.values().collect();
        living.sort_by_key(|job| (job.submitted, job.id));
        let ended = self.history.iter().rev().map(|ended| ended.status.clone());
        let mut all: Vec<_> = living.into_iter().map(|job| job.status(now)).chain(ended).collect();
        for stage in all.iter_mut().flat_map(|job| &mut job.stages) {
            stage.by_worker.clear();
        }
        all
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: JobId, now: Time) -> Option<JobStatus> {
        let ended = || self.ended(id).map(|ended| ended.status.clone());
        self.jobs.get(&id).map(|job| job.status(now)).or_else(ended)
    }

    /// The processes that count as alive, by kind and name.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessStatus> {
        let mut statuses = self.fleet.statuses();
        for status in &mut statuses {
            let told = |job: &Job| job.suspects.told(status.incarnation);
            status.suspects = self.jobs.values().map(told).sum();
        }
        statuses
    }

    /// How many jobs are not over.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// How many processes have a session.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.fleet.statuses().iter().filter(|process| process.connected).count() as u64
    }

    /// Lease time counts only while the engine runs: one that was paused fences nobody. It asks to
    /// be called every quarter of a lease, so a gap of more than half of one is a pause.
    fn wake(&mut self, now: Time) {
        if now.since(self.woken) > self.config.lease / 2 {
            self.fleet.renew_all(now, &self.config);
            for job in self.jobs.values_mut() {
                job.renew(now);
            }
        }
        self.woken = self.woken.max(now);
    }

    /// Brings what is to what should be, and announces the difference. What one step changes may be
    /// news to an earlier one: a job that has ended gives its slots to the others.
    fn settle(&mut self, now: Time) {
        self.expire(now);
        self.reunite(now);
        loop {
            self.start_waiting(now);
            self.place(now);
            self.conclude(now);
            if !self.replan {
                break;
            }
        }
        self.trim(now);
        self.record();
        self.answer_due(now);
        let announced = self.announce();
        for process in std::mem::take(&mut self.back) {
            self.catch_up(now, process, &announced);
        }
        self.push_statuses(now);
    }

    fn ended(&self, id: JobId) -> Option<&Ended> {
        self.history.iter().rev().find(|ended| ended.status.job == id)
    }

    /// Says something to a process, if it has a session; if not, it hears the state of things when
    /// it is back.
    fn send(&mut self, to: Incarnation, message: Down) {
        if let Some(session) = self.fleet.session_of(to) {
            self.out.push_back(Command::Send { session, message });
        }
    }

    fn persist(&mut self, record: Record) {
        self.out.push_back(Command::Persist(record));
    }
}

#[cfg(test)]
mod tests;
