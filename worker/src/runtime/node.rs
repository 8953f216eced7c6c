//! The runtime of one process: its session, its jobs, their tasks.
//!
//! One loop owns all of it. What the coordinator wants comes as views of whole jobs; the loop compares
//! each with what runs here, starts and stops the difference, and reports what is. When the session
//! breaks, tasks and links go on; a job that has neither for a lease ends here, unless it is this
//! process that submitted it: then the coordinator, once it is back, says whether it came back in time.

mod leave;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stageline_proto::MAX_PIPELINE;
use stageline_protocol::control::{
    Down, Failure, FailureKind, Hello, JobPhase, JobStatus, JobView, Outcome, ProcessKind, Report,
    Submit, TaskReport, Up, Welcome,
};
use stageline_protocol::item::shortened;
use stageline_protocol::pipeline::{Op, Site};
use stageline_protocol::suspect::Verdicts;
use stageline_protocol::task::{Limits, Task};
use stageline_protocol::{Incarnation, JobId, TaskId, Term, VERSIONS};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::leave::Leaving;
use super::alarm::sleep_until;
use super::census::Counters;
use super::dial::Transports;
use super::gate::Gate;
use super::handle::{Applied, Command, NodeEvent, NodeHandle};
use super::ids::Ids;
use super::job::{self, Entry, Job, LocalJob, LocalStage};
use super::network::Dialler;
use super::routes::Routes;
use super::session::{self, SessionError, SessionEvent, SessionOpener};
use super::task::{Event, TaskLoop};
use super::threads::Threads;
use super::work::{Place, Work};
use crate::sdk::{Registry, TaskContext, caught, discard};

const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Until the coordinator has said otherwise.
const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// What a process is.
#[derive(Debug)]
pub struct NodeConfig {
    /// Worker or client.
    pub kind: ProcessKind,
    /// Its name, for people; a worker that is started again keeps it.
    pub name: String,
    /// `HOST:PORT` where its tasks accept links; none if it only dials.
    pub address: Option<String>,
    /// The functions that it offers.
    pub registry: Arc<Registry>,
    /// Sizes and times of its tasks.
    pub limits: Limits,
    /// How its tasks reach those of other processes.
    pub dialler: Dialler,
    /// Where it runs: [`Node::run`] is to be spawned on [`Threads::session`].
    pub threads: Threads,
    /// How long to look for the coordinator at first; none: for ever. A session that breaks later is
    /// dialled again without end.
    pub give_up: Option<Duration>,
    /// Where its ids come from.
    pub ids: Ids,
}

/// Why a node stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was told to.
    #[error("told to stop")]
    Told,
    /// The coordinator refuses this process, and says why.
    #[error("the coordinator refuses this process: {0}")]
    Refused(String),
    /// There was no coordinator for as long as it was to look.
    #[error(
        "{last}; tried {attempts} times in {:.1} s. Start one with `stageline coordinator`, or name another address with --coordinator",
        .waited.as_secs_f64()
    )]
    NoCoordinator {
        /// The last failure.
        last: SessionError,
        /// How many sessions were tried.
        attempts: u32,
        /// For how long.
        waited: Duration,
    },
}

/// The runtime of one process. [`Node::run`] drives it.
pub struct Node {
    config: NodeConfig,
    incarnation: Incarnation,
    opener: Arc<dyn SessionOpener>,
    events: mpsc::UnboundedReceiver<NodeEvent>,
    handle: NodeHandle,
    welcomed: watch::Sender<Option<Welcome>>,
    session: Option<mpsc::UnboundedSender<Up>>,
    session_lost: Option<Instant>,
    leaving: Option<Leaving>,
    /// The last session was with a coordinator whose life was over; it has been said.
    superseded: bool,
    lease: Duration,
    jobs: BTreeMap<JobId, Job>,
    transports: Transports,
    gate: Gate,
    /// Whether calls were told to be abandoned.
    has_abandoned: bool,
    loops: JoinSet<(JobId, TaskId)>,
    handles: BTreeMap<(JobId, TaskId), AbortHandle>,
    started: Instant,
    failures: u32,
}

impl Node {
    /// A node that reaches its coordinator by `opener`, and the handle to it.
    #[must_use]
    pub fn new(config: NodeConfig, opener: Arc<dyn SessionOpener>) -> (Self, NodeHandle) {
        Self::with_routes(config, opener, Routes::default())
    }

    /// A node whose tasks reach those of `other`, in the same process, without a network.
    #[must_use]
    pub fn beside(
        other: &NodeHandle,
        config: NodeConfig,
        opener: Arc<dyn SessionOpener>,
    ) -> (Self, NodeHandle) {
        Self::with_routes(config, opener, other.routes.clone())
    }

    fn with_routes(
        config: NodeConfig,
        opener: Arc<dyn SessionOpener>,
        routes: Routes,
    ) -> (Self, NodeHandle) {
        let incarnation = Incarnation(config.ids.draw());
        routes.add_node(incarnation);
        let (sender, events) = mpsc::unbounded_channel();
        let (welcomed, welcome) = watch::channel(None);
        let (counters, threads) = (Counters::default(), config.threads.clone());
        let ids = config.ids.clone();
        let handle = NodeHandle { events: sender, routes, counters, welcome, threads, ids };
        let transports = Transports::new(config.dialler.clone());
        let node = Self {
            config,
            incarnation,
            opener,
            events,
            handle: handle.clone(),
            welcomed,
            session: None,
            session_lost: None,
            leaving: None,
            superseded: false,
            lease: DEFAULT_LEASE,
            jobs: BTreeMap::new(),
            transports,
            gate: Gate::default(),
            has_abandoned: false,
            loops: JoinSet::new(),
            handles: BTreeMap::new(),
            started: Instant::now(),
            failures: 0,
        };
        (node, handle)
    }

    /// Runs until it is stopped, refused, or gives up looking for its coordinator.
    pub async fn run(mut self) -> Stopped {
        let keeper = tokio::spawn(session::keep(self.opener.clone(), self.handle.events.clone()));
        let stopped = self.drive().await;
        keeper.abort();
        self.stop_tasks().await;
        stopped
    }

    async fn drive(&mut self) -> Stopped {
        let mut reports = tokio::time::interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heartbeats = tokio::time::interval(DEFAULT_LEASE / 10);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_left() {
            let until = self.leaving.as_ref().map(|leaving| leaving.until);
            tokio::select! {
                event = self.events.recv() => match event {
                    None => return Stopped::Told,
                    Some(NodeEvent::Report(job, view, report)) => {
                        self.reported(job, view, *report);
                    }
                    Some(NodeEvent::Session(event)) => {
                        if let Some(stopped) = self.session_event(event) {
                            return stopped;
                        }
                    }
                    Some(NodeEvent::Command(Command::Stop(done))) => {
                        self.go().await;
                        let _nobody_waits = done.send(());
                        return Stopped::Told;
                    }
                    Some(NodeEvent::Command(command)) => self.command(command),
                },
                Some(ended) = self.loops.join_next(), if !self.loops.is_empty() => {
                    self.loop_ended(ended);
                }
                _ = reports.tick(), if !self.jobs.is_empty() => self.tick(),
                _ = heartbeats.tick(), if self.session.is_some() => {
                    let census = self.handle.census();
                    self.send(Up::Heartbeat(census));
                    self.tell_abandoned();
                }
                () = sleep_until(until) => {
                    tracing::warn!("the time to leave is over: what still runs is stopped");
                    break;
                }
            }
        }
        self.go().await;
        Stopped::Told
    }

    /// Says which calls never returned: always, while there are some, and once when there are none.
    fn tell_abandoned(&mut self) {
        let calls = self.config.registry.abandoned();
        let some = !calls.is_empty();
        if some || std::mem::replace(&mut self.has_abandoned, some) {
            self.has_abandoned = some;
            self.send(Up::Abandoned(calls));
        }
    }

    fn send(&self, up: Up) {
        if let Some(session) = &self.session {
            let _session_over = session.send(up);
        }
    }

    fn session_event(&mut self, event: SessionEvent) -> Option<Stopped> {
        match event {
            SessionEvent::Opened(up) => {
                self.session = Some(up);
                self.send(Up::Hello(Hello {
                    versions: VERSIONS,
                    kind: self.config.kind,
                    name: self.config.name.clone(),
                    incarnation: self.incarnation,
                    address: self.config.address.clone(),
                    functions: self.config.registry.functions(),
                    leaving: self.leaving.is_some(),
                }));
            }
            // What comes over a session that was given up here counts for nothing.
            SessionEvent::Message(_) if self.session.is_none() => {}
            SessionEvent::Message(down) => return self.message(down),
            SessionEvent::Closed => {
                self.session = None;
                if self.session_lost.is_none() {
                    self.session_lost = Some(Instant::now());
                    tracing::warn!(
                        "lost the coordinator at {}: items under way go on, and it is dialled \
                         until it is back; if it has ended, start it again as it was started",
                        self.opener.address()
                    );
                }
            }
            SessionEvent::Failed(error) => {
                self.failures += 1;
                let waited = self.started.elapsed();
                let welcomed = self.welcomed.borrow().is_some();
                let give_up = self.config.give_up.filter(|limit| !welcomed && waited >= *limit);
                if give_up.is_some() {
                    let (last, attempts) = (error, self.failures);
                    return Some(Stopped::NoCoordinator { last, attempts, waited });
                }
                // One that starts together with its coordinator may be the first of the two.
                // Who has lost it has been told so.
                if self.session_lost.is_some() {
                    tracing::debug!(attempts = self.failures, "{error}; trying again");
                } else if self.failures == 3 || self.failures.is_multiple_of(10) {
                    tracing::warn!(attempts = self.failures, "{error}; trying again");
                }
            }
        }
        None
    }

    fn message(&mut self, down: Down) -> Option<Stopped> {
        match down {
            Down::Welcome(welcome) => {
                let known = self.welcomed.borrow().as_ref().map_or(Term(0), |it| it.term);
                if welcome.term < known {
                    self.give_up_on(welcome.term, known);
                    return None;
                }
                self.superseded = false;
                if let Some(since) = self.session_lost.take() {
                    let away = since.elapsed().as_secs_f64();
                    let address = self.opener.address();
                    tracing::info!("the coordinator at {address} is back after {away:.1} s");
                }
                self.failures = 0;
                self.lease = welcome.lease;
                self.welcomed.send_replace(Some(welcome));
                for (id, job) in &self.jobs {
                    if let Some(submit) = &job.submit {
                        self.send(Up::Submit(submit.clone()));
                    }
                    // The session that it was told to may have broken, or not been there yet.
                    if let Some(reason) = &job.cancelled {
                        self.send(Up::Cancel(*id, reason.clone()));
                    }
                }
                let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
                for job in jobs {
                    self.report(job);
                }
            }
            Down::Refused(reason) => return Some(Stopped::Refused(reason)),
            Down::Alive => self.coordinator_heard(),
            Down::View(view) => self.apply(*view),
            Down::Status(status) => {
                if let Some(job) = self.jobs.get_mut(&status.job) {
                    job.submit = None;
                    if let Some(updates) = &job.updates {
                        updates.send_modify(|update| update.status = Some(*status));
                    }
                }
            }
            Down::Verdicts(said) => self.verdicts(said),
            Down::Forget(id) => self.forget(id),
        }
        None
    }

    /// The session is with an earlier life of the coordinator, or with one that lost its store: what
    /// it wants has been overtaken. The later one is looked for.
    fn give_up_on(&mut self, term: Term, known: Term) {
        self.session = None;
        if !std::mem::replace(&mut self.superseded, true) {
            tracing::warn!(
                "the coordinator at {} has the {term}, and a later one, {known}, has been seen: it \
                 is not obeyed; end it, or start it again with the store of the later one",
                self.opener.address()
            );
        }
    }

    /// Tasks that reach nobody end themselves only while the coordinator is there.
    fn coordinator_heard(&self) {
        for (_, sender) in self.jobs.values().flat_map(Job::running) {
            let _ended_already = sender.send(Event::CoordinatorHeard);
        }
    }

    fn verdicts(&self, said: Verdicts) {
        let current = self.welcomed.borrow().as_ref().map(|welcome| welcome.term);
        let entry = self.jobs.get(&said.job).and_then(|job| job.tasks.get(&said.task));
        if let (true, Some(sender)) =
            (current == Some(said.term), entry.and_then(|e| e.sender.as_ref()))
        {
            let _ended_already = sender.send(Event::Verdicts(said.verdicts));
        }
    }

    fn forget(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            job.stop_all();
            if let Some(updates) = &job.updates {
                updates.send_modify(|update| update.forgotten = true);
            }
            discard(job);
        }
        let used: BTreeSet<String> = self
            .jobs
            .values()
            .filter_map(|job| job.view.as_ref())
            .flat_map(|view| view.peers.iter().filter_map(|peer| peer.address.clone()))
            .collect();
        self.transports.keep(&used);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit(boxed, updates) => {
                let (submit, local) = *boxed;
                if let Some(status) = self.too_large(&submit).or_else(|| self.in_use(&submit)) {
                    discard(local);
                    updates.send_modify(|update| update.status = Some(status));
                    return;
                }
                let mut job = Job::new(local);
                job.updates = Some(updates);
                job.submit = Some(submit.clone());
                self.jobs.insert(submit.job, job);
                if self.welcomed.borrow().is_some() {
                    self.send(Up::Submit(submit));
                }
            }
            Command::Cancel(id, reason) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.stop_all();
                    job.cancelled.get_or_insert_with(|| reason.clone());
                    if self.welcomed.borrow().is_some() {
                        self.send(Up::Cancel(id, reason));
                    }
                }
            }
            Command::Leave(grace) => self.leave(grace),
            Command::Stop(_) => {}
        }
    }

    /// A pipeline that no message could carry is refused where it was made.
    fn too_large(&self, submit: &Submit) -> Option<JobStatus> {
        let size = stageline_proto::encoded_size(&submit.pipeline);
        if size <= MAX_PIPELINE {
            return None;
        }
        let message = format!(
            "the pipeline takes {size} bytes, parameters included; the largest is {MAX_PIPELINE}: \
             let large settings come as items, or from a file that the workers can read"
        );
        Some(self.refused(submit, message))
    }

    /// Two jobs under one id would be one to everybody.
    fn in_use(&self, submit: &Submit) -> Option<JobStatus> {
        let id = submit.job;
        let message =
            || format!("this process has a job {id} already: submit each under an id of its own");
        self.jobs.contains_key(&id).then(|| self.refused(submit, message()))
    }

    fn refused(&self, submit: &Submit, message: String) -> JobStatus {
        let failure = Failure { kind: FailureKind::Invalid, message };
        JobStatus {
            job: submit.job,
            name: shortened(submit.pipeline.name.clone()),
            phase: JobPhase::Ended(Outcome::Failed(failure)),
            client: self.config.name.clone(),
            age: Duration::ZERO,
            stages: Vec::new(),
            held_up_by: Vec::new(),
        }
    }

    /// Makes what runs here what the view says.
    fn apply(&mut self, view: JobView) {
        let id = view.job;
        let job = self.jobs.entry(id).or_insert_with(|| Job::new(LocalJob::default()));
        if let Some(old) = &job.view
            && (view.term, view.revision) <= (old.term, old.revision)
        {
            return;
        }
        job.submit = None;
        let wanted: BTreeMap<TaskId, u32> = view.tasks.iter().map(|t| (t.id, t.slots)).collect();
        for (task, sender) in job.running() {
            if !wanted.contains_key(&task) {
                let _ended_already = sender.send(Event::Stop);
            }
        }
        let missing: Vec<TaskId> =
            wanted.keys().filter(|task| !job.tasks.contains_key(task)).copied().collect();
        for task in missing {
            self.start(&view, task);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let peers = Arc::new(job::peers(&view, &self.handle.routes));
        let only_dials = self.config.kind == ProcessKind::Client && self.config.address.is_none();
        for (task, sender) in job.running() {
            if let Some(slots) = wanted.get(&task) {
                let plan = job::plan(&view, task, *slots, &self.handle.routes, only_dials);
                let event = Event::Plan(Box::new(plan), peers.clone(), (view.term, view.revision));
                let _ended_already = sender.send(event);
            }
        }
        let ending = matches!(view.phase, JobPhase::Ending(_) | JobPhase::Ended(_));
        tracing::debug!(job = %id, revision = view.revision, phase = view.phase.name(), tasks = wanted.len(), "view");
        job.view = Some(view);
        job.news = true;
        if ending {
            discard(std::mem::take(&mut job.local));
        }
        self.drain(id);
        self.report(id);
    }

    fn start(&mut self, view: &JobView, id: TaskId) {
        let Some(job) = self.jobs.get_mut(&view.job) else { return };
        let position = view.positions.get(&id.stage).copied().unwrap_or_default();
        let task = Task::new(view.job, id, &view.pipeline, position, self.config.limits);
        let stage = view.pipeline.stage(id.stage);
        let (Some(task), Some(stage)) = (task, stage) else {
            return job.failed_to_start(id, format!("the pipeline has no {}", id.stage));
        };
        let place = Place { stage: stage.name.clone(), worker: self.config.name.clone() };
        let registry = match stage.site {
            Site::Client => &job.local.functions,
            Site::Fleet => &*self.config.registry,
        };
        let cancelled = CancellationToken::new();
        let work = match (stage.site, stage.op) {
            (Site::Client, Op::Source | Op::Terminal) => match job.local.stages.remove(&id.stage) {
                Some(LocalStage::Source(roots)) => Ok(Work::Source(roots)),
                Some(LocalStage::Terminal(consumer)) => Ok(Work::Terminal(consumer)),
                None => Err(format!("stage {:?} has run in this client before", stage.name)),
            },
            (_, Op::Source) => {
                let token = cancelled.clone();
                let cx = TaskContext::new(view.job, &stage.name, &self.config.name, token);
                let lineage = stageline_protocol::Lineage::root(id.stage, position);
                made(|| registry.open_source(stage, position, cx.item(lineage))).map(Work::Source)
            }
            _ => made(|| registry.invoker(stage)).map(Work::Function),
        };
        let work = match work {
            Ok(work) => work,
            Err(reason) => return job.failed_to_start(id, reason),
        };
        let (own, events) = mpsc::unbounded_channel();
        let task = TaskLoop {
            task,
            job: view.job,
            work,
            place: Arc::new(place),
            events,
            own: own.clone(),
            node: self.handle.events.clone(),
            routes: self.handle.routes.clone(),
            transports: self.transports.clone(),
            counters: self.handle.counters.clone(),
            // A client's death ends its jobs: there is nobody to tell what it died of.
            gate: (self.config.kind == ProcessKind::Worker).then(|| self.gate.clone()),
            functions: self.config.threads.functions().clone(),
            started: self.started,
            cancelled,
        };
        let key = (view.job, id);
        let seat = self.config.threads.seat();
        let thread = seat.thread.clone();
        let running = async move {
            task.run().await;
            drop(seat);
            key
        };
        let abort = self.loops.spawn_on(running, &thread);
        self.handles.insert(key, abort);
        self.handle.routes.add(view.job, id, own.clone());
        let report = TaskReport { id, ..TaskReport::default() };
        job.tasks.insert(id, Entry { sender: Some(own), applied: Applied::default(), report });
    }

    fn loop_ended(&mut self, ended: Result<(JobId, TaskId), tokio::task::JoinError>) {
        match ended {
            Ok((job, task)) => {
                self.handles.remove(&(job, task));
                self.handle.routes.remove(job, task);
            }
            Err(error) => {
                // A loop that panicked has sent no last report: say so in its place.
                let key = self.handles.iter().find(|(_, h)| h.id() == error.id()).map(|(k, _)| *k);
                if let Some((job_id, task)) = key {
                    self.handles.remove(&(job_id, task));
                    self.handle.routes.remove(job_id, task);
                    tracing::error!(job = %job_id, %task, %error, "a task loop broke");
                    if let Some(job) = self.jobs.get_mut(&job_id) {
                        job.failed_to_start(task, format!("its loop broke: {error}"));
                    }
                    self.report(job_id);
                }
            }
        }
    }

    fn reported(&mut self, id: JobId, view: Applied, report: TaskReport) {
        if let Some(job) = self.jobs.get_mut(&id)
            && job.reported(view, report)
        {
            self.report(id);
        }
    }

    /// Reports a job as it is known here.
    fn report(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.news = false;
        let (term, revision) = job.applied();
        let report = Report {
            job: id,
            term,
            revision,
            tasks: job.tasks.values().map(|entry| entry.report.clone()).collect(),
        };
        if job.submit.is_none() && self.welcomed.borrow().is_some() {
            self.send(Up::Report(report));
        }
    }

    fn tick(&mut self) {
        let alone = self.session_lost.is_some_and(|since| since.elapsed() > self.lease);
        let mut news = Vec::new();
        for (id, job) in &self.jobs {
            for (_, sender) in job.running() {
                let _ended_already = sender.send(Event::Report);
            }
            if job.news {
                news.push(*id);
            }
            // A client's own job lives as long as the client: only the coordinator can know better.
            if alone && job.updates.is_none() && job.links() == 0 {
                job.stop_all();
            }
        }
        for id in news {
            self.report(id);
        }
        self.say_what_is_left();
    }
}

/// What a user's code makes for a stage; a panic in it is a reason why there is none.
fn made<T>(make: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let panicked = |said| Err(format!("its function could not be made, that panicked: {said}"));
    caught(make).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests;
