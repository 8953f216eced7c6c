//! The whole cluster, and the scheduler that drives it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use stageline_coordinator::engine::{self, Engine, SessionId};
use stageline_coordinator::store::MemoryStore;
use stageline_protocol::control::{Down, Function, JobPhase, Outcome, ProcessKind, TaskStats};
use stageline_protocol::task::{Bug, LinkKey};
use stageline_protocol::{Frame, Incarnation, JobId, Lineage, StageId, TaskId, Term, Time};

use super::Shape;
use super::invariants::OnLinks;
use super::invariants::boundary::Boundary;
use super::invariants::finished::Finished;
use super::invariants::stored::Stored;
use super::log::Log;
use super::network::{Network, Pid};
use super::node::Node;
use super::schedule::{Fault, LEASE, RESET_GRACE, Schedule};
use super::sessions::Session;
use super::shell::Call;

/// After the last fault, the job is to complete within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// No run takes this many steps, unless something spins.
const MOST_STEPS: u64 = 400_000;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Faults injected while items were unacked, by name.
    pub faults: BTreeMap<String, u64>,
    /// Events handled.
    pub steps: u64,
    /// Items that the consumer has taken.
    pub delivered: u64,
    /// Items sent again because a link or a task went away.
    pub resent: u64,
    /// Copies that arrived at the boundary, and were dropped there.
    pub duplicates: u64,
    /// Frames and dials refused because they were superseded.
    pub stale: u64,
    /// Answers for marked items.
    pub asked: u64,
    /// Times that a suspect ran alone.
    pub alone: u64,
    /// Workers that an item killed.
    pub killers: u64,
    /// Second attempts of functions.
    pub retries: u64,
    /// Items given back unstarted.
    pub returned: u64,
    /// Items that carried over to a newer connection without being sent again.
    pub carried: u64,
    /// Dials, failed ones included.
    pub dials: u64,
    /// How long it took, in simulated time.
    pub lasted: Duration,
}

impl Figures {
    /// All faults.
    #[must_use]
    pub fn all_faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Adds another run's figures to these.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
        self.steps += other.steps;
        self.delivered += other.delivered;
        self.resent += other.resent;
        self.duplicates += other.duplicates;
        self.stale += other.stale;
        self.asked += other.asked;
        self.alone += other.alone;
        self.killers += other.killers;
        self.retries += other.retries;
        self.returned += other.returned;
        self.carried += other.carried;
        self.dials += other.dials;
        self.lasted += other.lasted;
    }

    pub(super) fn take(&mut self, stats: &TaskStats) {
        self.resent += stats.resent;
        self.duplicates += stats.duplicates;
        self.stale += stats.stale;
        self.retries += stats.retries;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} faults {:?}; {} items resent, {} carried over, {} returned; {} raw duplicates at the \
             boundary, {} delivered, none lost, none twice; {} stale refused, {} second attempts, \
             {} answers for marked items, {} of them ran alone, {} deaths of items that kill; {} \
             dials; {} steps, {:.0} simulated s",
            self.all_faults(),
            self.faults,
            self.resent,
            self.carried,
            self.returned,
            self.duplicates,
            self.delivered,
            self.stale,
            self.retries,
            self.asked,
            self.alone,
            self.killers,
            self.dials,
            self.steps,
            self.lasted.as_secs_f64(),
        )
    }
}

/// What the scheduler has in store.
#[derive(Debug)]
pub(super) enum Event {
    /// A dial reaches its process.
    Dialled(usize),
    /// A frame reaches an end of a connection.
    Frame(usize, usize, Frame),
    /// An end of a connection learns that it is down.
    Down(usize, usize),
    Timer(Pid, TaskId, Time),
    Unblock(Pid, TaskId, LinkKey),
    /// A task is asked what follows.
    Ask(Pid, TaskId),
    /// The process is empty for an input.
    Isolated(Pid, TaskId, u64),
    /// A function goes on with an input.
    Call(Pid, TaskId, u64, Call),
    /// The source has made roots.
    Pulled(Pid, TaskId, u64, u64),
    /// A process opens a session.
    Connect(Pid),
    ToEngine(engine::Event),
    EngineTimer(Time),
    /// The coordinator is started again.
    EngineStart,
    ToProcess(SessionId, Box<Down>),
    /// A process learns that its session is gone.
    SessionDown(SessionId),
    Heartbeat(SessionId),
    /// A worker starts, under this name.
    Start(String, Vec<Function>),
    /// Who leaves has had its time.
    GraceOver(Pid),
}

/// A run.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) shape: Shape,
    pub(super) rng: Rng,
    pub(super) now: Time,
    queue: BTreeMap<(Time, u64), Box<Event>>,
    scheduled: u64,
    pub(super) log: Log,
    pub(super) schedule: Schedule,
    pub(super) boundary: Boundary,
    /// How many workers each item has killed, by the stage in which it did.
    pub(super) deaths: BTreeMap<(StageId, Lineage), u32>,
    pub(super) links: OnLinks,
    pub(super) network: Network,
    pub(super) nodes: Vec<Node>,
    /// The life of the coordinator.
    pub(super) term: Term,
    pub(super) config: engine::Config,
    pub(super) engine: Engine,
    /// What outlives it.
    pub(super) store: MemoryStore,
    pub(super) engine_is_down: bool,
    /// It dies when it has carried out so many commands more.
    pub(super) dies_after: Option<u32>,
    pub(super) engine_timer: Option<Time>,
    pub(super) engine_frozen_until: Time,
    pub(super) stored: Stored,
    pub(super) finished: Finished,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) job: JobId,
    pub(super) outcome: Option<Outcome>,
    pub(super) figures: Figures,
    /// Steps until the next fault may happen.
    pub(super) calm: u32,
    /// From when on the cluster has no excuse.
    pub(super) healed: Time,
    pub(super) names: u32,
    /// From when on the client can stand another outage.
    pub(super) client_well_from: Time,
}

impl Cluster {
    pub(super) fn new(seed: u64, shape: Shape, bug: Option<Bug>, keep_log: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let schedule = Schedule::draw(&mut rng, seed, shape, bug);
        let config = engine::Config {
            lease: LEASE,
            reset_grace: RESET_GRACE,
            least_window: schedule.least_window,
            forgets_finished: bug == Some(Bug::DeathsForgotten),
            ..engine::Config::default()
        };
        let mut cluster = Self {
            shape,
            now: Time::ZERO,
            queue: BTreeMap::new(),
            scheduled: 0,
            log: Log::new(keep_log),
            boundary: Boundary::new(schedule.work.clone(), schedule.roots),
            deaths: BTreeMap::new(),
            links: OnLinks::default(),
            network: Network::default(),
            nodes: Vec::new(),
            term: Term(1),
            engine: Engine::new(Term(1), config.clone()),
            config,
            store: MemoryStore::default(),
            engine_is_down: false,
            dies_after: None,
            engine_timer: None,
            engine_frozen_until: Time::ZERO,
            stored: Stored::default(),
            finished: Finished::default(),
            sessions: BTreeMap::new(),
            job: JobId(rng.u64(..)),
            outcome: None,
            figures: Figures::default(),
            calm: 0,
            healed: Time::ZERO,
            names: 0,
            client_well_from: Time::ZERO,
            rng,
            schedule,
        };
        if shape == Shape::Take {
            let most = cluster.boundary.expected();
            let wanted = cluster.rng.u64(1..=most);
            cluster.boundary.want(wanted);
        }
        let incarnation = Incarnation(cluster.rng.u64(..));
        let client = Node::new("client".to_owned(), incarnation, ProcessKind::Client, Vec::new());
        cluster.nodes.push(client);
        cluster.after(0, 1_000, Event::Connect(0));
        for functions in std::mem::take(&mut cluster.schedule.workers) {
            let name = cluster.new_name();
            cluster.after(0, 20_000, Event::Start(name, functions));
        }
        cluster
    }

    pub(super) fn new_name(&mut self) -> String {
        self.names += 1;
        format!("w{}", self.names)
    }

    pub(super) fn finish(mut self) -> (Figures, u64, Vec<String>) {
        for node in &self.nodes {
            for running in node.tasks.values() {
                self.figures.take(&running.task.stats());
            }
        }
        self.figures.delivered = self.boundary.delivered();
        self.figures.lasted = self.now.since(Time::ZERO);
        let (hash, lines) = self.log.finish();
        (self.figures, hash, lines)
    }

    /// Runs the schedule to its end.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while self.outcome.is_none() {
            self.step()?;
            if !self.nodes[0].alive && !self.engine_is_down {
                self.outcome = self.engine.job(self.job, self.now).and_then(|s| match s.phase {
                    JobPhase::Ended(outcome) => Some(outcome),
                    _ => None,
                });
            }
            self.inject_faults();
            let patience = if self.shape == Shape::Large { PATIENCE * 30 } else { PATIENCE };
            if self.schedule.faults.is_empty() && self.now > self.healed + patience {
                let missing = self.boundary.check_complete().err().unwrap_or_default();
                return Err(format!("not done {patience:?} after the last fault; {missing}"));
            }
            if self.now > self.healed + patience * 2 {
                return Err(format!("nothing to disturb any more after {:?}", patience * 2));
            }
        }
        let completed = self.outcome == Some(Outcome::Completed);
        let cancelled = matches!(self.outcome, Some(Outcome::Cancelled(_)));
        if !completed && (!cancelled || self.nodes[0].alive) {
            return Err(format!("the job did not complete: {:?}", self.outcome));
        }
        if completed {
            self.boundary.check_complete()?;
        }
        let of_items = ["Kill", "Break"].iter().filter_map(|name| self.figures.faults.get(*name));
        if of_items.sum::<u64>() < 2 && !matches!(self.shape, Shape::Take | Shape::ClientDies) {
            return Err("vacuous: fewer than two faults that items had to survive".to_owned());
        }
        // Everybody lets go of it.
        let ended = self.now;
        while self.nodes.iter().any(|node| node.alive && !node.tasks.is_empty()) {
            if self.now > ended + LEASE * 4 {
                return Err("the job is over, and some process still runs tasks of it".to_owned());
            }
            self.step()?;
        }
        Ok(())
    }

    /// Handles the next event.
    fn step(&mut self) -> Result<(), String> {
        let Some(((at, order), event)) = self.queue.pop_first() else {
            return Err("nothing is left to happen".to_owned());
        };
        self.now = at;
        if let Some(until) = self.frozen_until(&event) {
            self.queue.insert((until, order), event);
            return Ok(());
        }
        self.figures.steps += 1;
        let most = if self.shape == Shape::Large { MOST_STEPS * 20 } else { MOST_STEPS };
        if self.figures.steps > most {
            return Err(format!("no end after {most} steps"));
        }
        self.handle(*event)
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Dialled(conn) => self.dialled(conn),
            Event::Frame(conn, side, frame) => self.frame_arrived(conn, side, frame),
            Event::Down(conn, side) => self.conn_down(conn, side),
            Event::Timer(pid, task, at) => self.timer(pid, task, at),
            Event::Unblock(pid, task, key) => self.unblock(pid, task, key),
            Event::Isolated(pid, task, input) => self.isolated(pid, task, input),
            Event::Ask(pid, task) => self.ask(pid, task),
            Event::Call(pid, task, input, call) => self.call(pid, task, input, call),
            Event::Pulled(pid, task, items, bytes) => self.pulled(pid, task, items, bytes),
            Event::Connect(pid) => self.connect(pid),
            Event::ToEngine(event) => self.engine_event(event),
            Event::EngineTimer(at) => self.engine_timer(at),
            Event::EngineStart => self.start_engine(),
            Event::ToProcess(session, down) => self.message_arrived(session, *down),
            Event::SessionDown(session) => self.session_down(session),
            Event::Heartbeat(session) => self.heartbeat(session),
            Event::Start(name, functions) => self.start_worker(name, functions),
            Event::GraceOver(pid) => self.leave_now(pid),
        }
    }

    /// Whose event it is, if it is a process's.
    fn frozen_until(&mut self, event: &Event) -> Option<Time> {
        let pid = match event {
            Event::Dialled(conn) => self.network.get(*conn).ends[1].pid,
            Event::Frame(conn, side, _) | Event::Down(conn, side) => {
                self.network.get(*conn).ends[*side].pid
            }
            Event::Timer(pid, ..)
            | Event::Unblock(pid, ..)
            | Event::Ask(pid, _)
            | Event::Isolated(pid, ..)
            | Event::Call(pid, ..)
            | Event::Pulled(pid, ..)
            | Event::Connect(pid)
            | Event::GraceOver(pid) => *pid,
            Event::ToProcess(session, _)
            | Event::SessionDown(session)
            | Event::Heartbeat(session) => self.sessions.get(session)?.pid,
            Event::ToEngine(_) | Event::EngineTimer(_) => {
                return (self.engine_frozen_until > self.now).then_some(self.engine_frozen_until);
            }
            Event::Start(..) | Event::EngineStart => return None,
        };
        let until = self.nodes.get(pid).filter(|node| node.alive)?.frozen_until;
        (until > self.now).then_some(until)
    }

    /// Schedules an event for a moment.
    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at.max(self.now), self.scheduled), Box::new(event));
    }

    /// Schedules an event after a random time, in microseconds.
    pub(super) fn after(&mut self, least: u64, most: u64, event: Event) {
        let at = self.later(least, most);
        self.at(at, event);
    }

    /// A moment after a random time, in microseconds.
    pub(super) fn later(&mut self, least: u64, most: u64) -> Time {
        self.now + Duration::from_micros(self.rng.u64(least..=most.max(least)))
    }

    /// True once in so many.
    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.rng.u64(..one_in) == 0
    }

    pub(super) fn count_fault(&mut self, fault: Fault) {
        *self.figures.faults.entry(format!("{fault:?}")).or_default() += 1;
    }
}
