//! A world of played processes around an engine.
//!
//! A process does nothing by itself: a test lets it [`World::obey`] its views, breaks its session,
//! or lets time pass while only some give signs of life. After every event the world carries out the
//! engine's commands and checks that nothing was announced that was not stored, that epochs only
//! rise, that single stages are single, that caps hold, and that a job that is over runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stageline_protocol::control::{
    Census, Down, Function, Hello, JobPhase, JobStatus, JobView, Outcome, ProcessKind, Report,
    SourceReport, Submit, TaskEnd, TaskReport, Up, Welcome,
};
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage, TypeTag};
use stageline_protocol::suspect::Verdict;
use stageline_protocol::{
    Epoch, Incarnation, JobId, Lineage, StageId, TaskId, Term, Time, VERSIONS,
};

use crate::engine::{Command, Config, Engine, Event, SessionId};
use crate::store::{Record, Stored};

pub(super) const JOB: JobId = JobId(0xa);

/// A played process, by its place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who(pub(super) usize);

pub(super) struct Process {
    pub(super) hello: Hello,
    pub(super) session: Option<SessionId>,
    pub(super) welcome: Option<Welcome>,
    pub(super) refused: Option<String>,
    pub(super) views: BTreeMap<JobId, JobView>,
    pub(super) statuses: Vec<JobStatus>,
    pub(super) verdicts: Vec<(Lineage, Verdict)>,
    pub(super) forgotten: Vec<JobId>,
    /// What it runs or has ended, by job: what its next report says.
    pub(super) tasks: BTreeMap<JobId, BTreeMap<Epoch, TaskReport>>,
    /// The view that it has applied, by term and revision.
    pub(super) applied: BTreeMap<JobId, (Term, u64)>,
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Time,
    pub(super) stored: Stored,
    config: Config,
    term: Term,
    pub(super) processes: Vec<Process>,
    /// Every command in words: two runs of the same story must give the same.
    pub(super) log: Vec<String>,
    sessions: u64,
    announced: BTreeMap<JobId, (Term, u64, Epoch)>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self {
            engine: Engine::new(Term(1), config.clone()),
            now: Time::from_micros(1_000_000),
            stored: Stored::default(),
            config,
            term: Term(1),
            processes: Vec::new(),
            log: Vec::new(),
            sessions: 0,
            announced: BTreeMap::new(),
        }
    }

    /// A worker registers. Functions are written `name:op:slots`; op and slots may be left out.
    pub(super) fn worker(&mut self, name: &str, functions: &[&str]) -> Who {
        let functions = functions.iter().map(|text| function(text)).collect();
        self.join(hello(ProcessKind::Worker, name, functions))
    }

    pub(super) fn client(&mut self, name: &str) -> Who {
        self.join(hello(ProcessKind::Client, name, Vec::new()))
    }

    /// A process says hello for the first time; an incarnation of 0 is replaced by one of its own.
    pub(super) fn join(&mut self, mut hello: Hello) -> Who {
        let who = Who(self.processes.len());
        if hello.incarnation.0 == 0 {
            hello.incarnation = Incarnation(100 + who.0 as u64);
        }
        self.processes.push(Process {
            hello,
            session: None,
            welcome: None,
            refused: None,
            views: BTreeMap::new(),
            statuses: Vec::new(),
            verdicts: Vec::new(),
            forgotten: Vec::new(),
            tasks: BTreeMap::new(),
            applied: BTreeMap::new(),
        });
        self.connect(who);
        who
    }

    /// A process opens a session; an older one is not closed first.
    pub(super) fn connect(&mut self, who: Who) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let process = &mut self.processes[who.0];
        process.session = Some(session);
        process.welcome = None;
        process.refused = None;
        let hello = process.hello.clone();
        self.event(Event::SessionOpened { session, hello });
    }

    pub(super) fn disconnect(&mut self, who: Who) {
        if let Some(session) = self.processes[who.0].session.take() {
            self.event(Event::SessionClosed { session });
        }
    }

    /// The coordinator dies, and is started again with its store: every session has broken.
    pub(super) fn restart(&mut self) {
        self.term = Term(self.term.0 + 1);
        self.stored.apply(Record::Term(self.term));
        let (config, stored) = (self.config.clone(), self.stored.clone());
        self.engine = Engine::restore(self.term, config, self.now, stored).unwrap();
        self.log.push(format!("{:?} restarted", self.now));
        for process in &mut self.processes {
            process.session = None;
        }
        self.carry_out();
    }

    pub(super) fn say(&mut self, who: Who, message: Up) {
        self.processes[who.0].hello.leaving |= message == Up::Leaving;
        if let Some(session) = self.processes[who.0].session {
            self.event(Event::Message { session, message });
        }
    }

    pub(super) fn submit(&mut self, who: Who, pipeline: Pipeline) {
        self.submit_waiting(who, JOB, pipeline, Duration::from_secs(60));
    }

    pub(super) fn submit_waiting(&mut self, who: Who, job: JobId, p: Pipeline, wait: Duration) {
        self.say(who, Up::Submit(Submit { job, pipeline: p, wait_stages: wait }));
    }

    /// The process does what its latest views say, and reports.
    pub(super) fn obey(&mut self, who: Who) {
        let jobs: Vec<JobId> = self.processes[who.0].views.keys().copied().collect();
        for job in jobs {
            self.apply(who, job);
            self.report(who, job);
        }
    }

    /// The process does what its latest view of a job says.
    pub(super) fn apply(&mut self, who: Who, job: JobId) {
        let process = &mut self.processes[who.0];
        let Some(view) = process.views.get(&job) else { return };
        let tasks = process.tasks.entry(job).or_default();
        for plan in &view.tasks {
            let fresh = || TaskReport { id: plan.id, ..TaskReport::default() };
            tasks.entry(plan.id.epoch).or_insert_with(fresh);
        }
        let wanted: BTreeSet<Epoch> = view.tasks.iter().map(|plan| plan.id.epoch).collect();
        for (epoch, task) in tasks.iter_mut() {
            if !wanted.contains(epoch) && task.ended.is_none() {
                task.ended = Some(TaskEnd::Stopped);
                task.stats.busy = 0;
            }
        }
        process.applied.insert(job, (view.term, view.revision));
    }

    pub(super) fn report(&mut self, who: Who, job: JobId) {
        let process = &self.processes[who.0];
        let tasks = process.tasks.get(&job).map(|tasks| tasks.values().cloned().collect());
        let (term, revision) = process.applied.get(&job).copied().unwrap_or_default();
        let tasks = tasks.unwrap_or_default();
        self.say(who, Up::Report(Report { job, term, revision, tasks }));
    }

    /// All obey until nobody has anything to do.
    pub(super) fn all_obey(&mut self) {
        for _ in 0..3 {
            for who in (0..self.processes.len()).map(Who) {
                self.obey(who);
            }
        }
    }

    /// Changes what a process says of its current task of a stage, and reports it.
    pub(super) fn tell(&mut self, who: Who, stage: u32, change: impl FnOnce(&mut TaskReport)) {
        self.apply(who, JOB);
        let task = self.task(who, stage).expect("the process runs the stage");
        let tasks = self.processes[who.0].tasks.get_mut(&JOB).unwrap();
        change(tasks.get_mut(&task.epoch).unwrap());
        self.report(who, JOB);
    }

    pub(super) fn source_at(&mut self, who: Who, stage: u32, watermark: u64, end: Option<u64>) {
        self.tell(who, stage, |task| {
            task.source =
                Some(SourceReport { watermark, exhausted: end, ..SourceReport::default() });
        });
    }

    /// Time passes; those that are named give signs of life.
    pub(super) fn pass(&mut self, time: Duration, alive: &[Who]) {
        let end = self.now + time;
        while self.now < end {
            let second = self.now + Duration::from_secs(1);
            let next = [Some(end), Some(second), self.engine.poll_timeout()];
            self.now = next.into_iter().flatten().min().unwrap().max(self.now);
            self.engine.handle_timeout(self.now);
            self.carry_out();
            assert!(
                self.engine.poll_timeout() > Some(self.now) || self.engine.poll_timeout().is_none()
            );
            if self.now >= second.min(end) {
                for who in alive {
                    self.say(*who, Up::Heartbeat(Census::default()));
                }
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let mut told: BTreeSet<(SessionId, JobId)> = BTreeSet::new();
        while let Some(command) = self.engine.poll_command() {
            self.log.push(format!("{:?} {command:?}", self.now));
            match command {
                Command::Persist(record) => self.stored.apply(record),
                Command::Warn(_) => {}
                Command::CloseSession { session } => {
                    for process in self.processes.iter_mut().filter(|p| p.session == Some(session))
                    {
                        process.session = None;
                    }
                }
                Command::Send { session, message } => {
                    if let Down::View(view) = &message {
                        assert!(told.insert((session, view.job)), "two views for one event");
                        self.check_view(view);
                    }
                    if let Down::Status(status) = &message {
                        self.check_status(status);
                    }
                    let Some(process) =
                        self.processes.iter_mut().find(|p| p.session == Some(session))
                    else {
                        continue;
                    };
                    match message {
                        Down::Welcome(welcome) => process.welcome = Some(welcome),
                        Down::Refused(why) => process.refused = Some(why),
                        Down::Alive => {}
                        Down::View(view) => {
                            process.views.insert(view.job, *view);
                        }
                        Down::Status(status) => process.statuses.push(*status),
                        Down::Verdicts(said) => process.verdicts.extend(said.verdicts),
                        Down::Forget(job) => {
                            process.views.remove(&job);
                            process.tasks.remove(&job);
                            process.applied.remove(&job);
                            process.forgotten.push(job);
                        }
                    }
                }
            }
        }
    }

    fn check_view(&mut self, view: &JobView) {
        let last = self.announced.entry(view.job).or_default();
        let this = (view.term, view.revision, view.highest_epoch);
        assert!(this >= *last && this.2 >= last.2, "views went back");
        *last = this;
        if let JobPhase::Ending(outcome) | JobPhase::Ended(outcome) = &view.phase {
            let stored = self.stored.outcome(view.job);
            assert_eq!(stored, Some(outcome), "an outcome was announced unstored");
            assert!(
                view.tasks.is_empty() && view.peers.is_empty(),
                "a job that is over runs tasks"
            );
            return;
        }
        let stored = self.stored.jobs.get(&view.job).expect("announced before it was stored");
        assert!(
            view.highest_epoch <= stored.highest,
            "an epoch was announced before it was stored"
        );
        for peer in &view.peers {
            assert!(peer.id.epoch <= view.highest_epoch);
            let stored = stored.tasks.get(&peer.id.epoch).expect("a task was announced unstored");
            assert!((stored.id, stored.process) == (peer.id, peer.process) && !stored.retiring);
        }
        for plan in &view.tasks {
            assert_eq!(stored.tasks[&plan.id.epoch].slots, plan.slots);
        }
        for (stage, position) in &view.positions {
            assert!(*position <= stored.positions[stage], "a position was announced unstored");
        }
        let mut tasks: BTreeMap<StageId, u32> = BTreeMap::new();
        for peer in &view.peers {
            *tasks.entry(peer.id.stage).or_default() += 1;
        }
        for (id, stage) in view.pipeline.stages() {
            let count = tasks.get(&id).copied().unwrap_or(0);
            assert!(count <= 1 || !stage.op.is_single() && stage.site == Site::Fleet);
        }
    }

    fn check_status(&self, status: &JobStatus) {
        let stored = self.stored.outcome(status.job);
        if let (Some(stored), JobPhase::Ending(outcome) | JobPhase::Ended(outcome)) =
            (stored, &status.phase)
        {
            assert_eq!(stored, outcome, "an outcome was announced unstored");
        }
    }

    // What processes have been told.

    pub(super) fn view(&self, who: Who) -> &JobView {
        self.processes[who.0].views.get(&JOB).expect("the process has a view of the job")
    }

    /// Its slots for a stage, in its latest view.
    pub(super) fn slots(&self, who: Who, stage: u32) -> u32 {
        let Some(view) = self.processes[who.0].views.get(&JOB) else { return 0 };
        view.tasks.iter().filter(|t| t.id.stage == StageId(stage)).map(|t| t.slots).sum()
    }

    pub(super) fn task(&self, who: Who, stage: u32) -> Option<TaskId> {
        let view = self.processes[who.0].views.get(&JOB)?;
        view.tasks.iter().map(|plan| plan.id).find(|id| id.stage == StageId(stage))
    }

    pub(super) fn phase(&self) -> JobPhase {
        self.engine.job(JOB, self.now).expect("the job is listed").phase
    }

    pub(super) fn failure(&self) -> stageline_protocol::control::Failure {
        match self.phase() {
            JobPhase::Ending(Outcome::Failed(failure))
            | JobPhase::Ended(Outcome::Failed(failure)) => failure,
            other => panic!("the job has not failed: {other:?}"),
        }
    }

    pub(super) fn last_status(&self, who: Who) -> &JobStatus {
        self.processes[who.0].statuses.last().expect("the client was told")
    }
}

pub(super) fn hello(kind: ProcessKind, name: &str, functions: Vec<Function>) -> Hello {
    Hello {
        versions: VERSIONS,
        kind,
        name: name.into(),
        incarnation: Incarnation(0),
        address: (kind == ProcessKind::Worker).then(|| format!("{name}:1")),
        functions,
        leaving: false,
    }
}

pub(super) fn function(text: &str) -> Function {
    let mut parts = text.split(':');
    let name = parts.next().unwrap().to_owned();
    let op = match parts.next() {
        None | Some("map") => Op::Map,
        Some("source" | "once") => Op::Source,
        Some("flat_map") => Op::FlatMap,
        Some("sink") => Op::Sink,
        Some(other) => panic!("{other}"),
    };
    let slots = parts.next().map_or(8, |slots| slots.parse().unwrap());
    let replayable = !text.contains(":once");
    Function { name, op, slots, input: None, output: None, replayable }
}

pub(super) fn tag(name: &str) -> TypeTag {
    TypeTag { name: name.into(), version: 1 }
}

/// in (client) → named stages (fleet) → out (client)
pub(super) fn line(stages: &[&str]) -> Pipeline {
    let mut all = vec![Stage::new("in", Op::Source, Site::Client)];
    all.extend(stages.iter().map(|name| Stage::new(*name, Op::Map, Site::Fleet)));
    all.push(Stage::new("out", Op::Terminal, Site::Client));
    chain(all)
}

/// ticks (fleet) → work (fleet) → out (client)
pub(super) fn from_named_source() -> Pipeline {
    chain(vec![
        Stage::new("ticks", Op::Source, Site::Fleet),
        Stage::new("work", Op::Map, Site::Fleet),
        Stage::new("out", Op::Terminal, Site::Client),
    ])
}

pub(super) fn chain(stages: Vec<Stage>) -> Pipeline {
    let channels = (1..stages.len() as u32)
        .map(|to| Channel {
            from: StageId(to - 1),
            to: StageId(to),
            carries: Carries::All,
            buffer: None,
        })
        .collect();

    Pipeline { name: "story".into(), stages, channels, max_in_flight: None }
}
