//! Sessions between the processes and the coordinator: delayed, kept in order, and broken now and
//! then; and the coordinator's own shell.

use stageline_coordinator::engine::{self, Command, Engine, SessionId};
use stageline_coordinator::store::Store;
use stageline_protocol::control::{
    Down, Function, JobPhase, JobView, ProcessKind, Submit, TaskEnd, Up,
};
use stageline_protocol::suspect::Verdict;
use stageline_protocol::{Incarnation, Term, Time};

use super::Shape;
use super::cluster::{Cluster, Event};
use super::network::Pid;
use super::node::Node;
use super::schedule::LEASE;

/// A session, seen from both ends.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) pid: Pid,
    /// When the last message that is under way arrives, either way.
    last_up: Time,
    last_down: Time,
    /// What would arrive later is lost, either way.
    lost_after: Option<Time>,
    open: bool,
    /// The life of the coordinator that it is with.
    term: Term,
}

impl Cluster {
    pub(super) fn start_worker(
        &mut self,
        name: String,
        functions: Vec<Function>,
    ) -> Result<(), String> {
        let incarnation = Incarnation(self.rng.u64(..));
        self.log.note(self.now, format_args!("start {name} as {incarnation}"));
        let pid = self.nodes.len();
        self.nodes.push(Node::new(name, incarnation, ProcessKind::Worker, functions));
        self.healed = self.healed.max(self.now);
        self.connect(pid)
    }

    pub(super) fn connect(&mut self, pid: Pid) -> Result<(), String> {
        let node = &self.nodes[pid];
        if !node.alive || node.session.is_some() {
            return Ok(());
        }
        if node.isolated_until > self.now {
            let until = node.isolated_until;
            self.at(until, Event::Connect(pid));
            return Ok(());
        }
        if self.engine_is_down {
            self.after(10_000, 500_000, Event::Connect(pid));
            return Ok(());
        }
        let id = SessionId(self.sessions.len() as u64 + 1);
        let hello = node.hello();
        let zero = Time::ZERO;
        let session = Session {
            pid,
            last_up: zero,
            last_down: zero,
            lost_after: None,
            open: true,
            term: self.term,
        };
        self.sessions.insert(id, session);
        self.nodes[pid].session = Some(id);
        self.log.note(self.now, format_args!("{} opens session {}", hello.name, id.0));
        self.up(id, engine::Event::SessionOpened { session: id, hello });
        if self.nodes[pid].kind == ProcessKind::Client {
            let pipeline = self.schedule.pipeline.clone();
            // Submitting again after a reconnection is harmless.
            let submit = Submit { job: self.job, pipeline, wait_stages: LEASE * 10 };
            self.say(pid, Up::Submit(submit));
        }
        self.report(pid);
        self.at(self.now + LEASE / 4, Event::Heartbeat(id));
        Ok(())
    }

    fn up(&mut self, id: SessionId, event: engine::Event) {
        let at = self.later(self.schedule.pace.message / 10, self.schedule.pace.message);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last_up = session.last_up.max(at);
            let at = session.last_up;
            if session.lost_after.is_none_or(|lost| at <= lost) {
                self.at(at, Event::ToEngine(event));
            }
        }
    }

    /// A process says something, if it has a session.
    pub(super) fn say(&mut self, pid: Pid, message: Up) {
        if let Some(session) = self.nodes[pid].session {
            self.up(session, engine::Event::Message { session, message });
        }
    }

    /// A process says what it runs.
    pub(super) fn report(&mut self, pid: Pid) {
        if self.nodes[pid].view.is_some() {
            let report = self.nodes[pid].report(self.job);
            self.say(pid, Up::Report(report));
        }
    }

    pub(super) fn heartbeat(&mut self, id: SessionId) -> Result<(), String> {
        let Some(pid) = self.sessions.get(&id).map(|session| session.pid) else { return Ok(()) };
        if self.nodes[pid].alive && self.nodes[pid].session == Some(id) {
            let census = self.nodes[pid].census();
            self.say(pid, Up::Heartbeat(census));
            self.report(pid);
            self.at(self.now + LEASE / 4, Event::Heartbeat(id));
        }
        Ok(())
    }

    /// Breaks a session: what is under way may be lost, and the ends learn of it in their own time.
    pub(super) fn break_session(&mut self, pid: Pid) {
        let Some(id) = self.nodes[pid].session else { return };
        let lost = self.later(0, 10_000);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.lost_after = Some(lost);
        }
        self.after(10_000, 100_000, Event::SessionDown(id));
        let closed = engine::Event::SessionClosed { session: id };
        self.after(10_000, 100_000, Event::ToEngine(closed));
    }

    /// A process ends its session in good order: what it said before arrives.
    pub(super) fn close_session(&mut self, pid: Pid) {
        if let Some(id) = self.nodes[pid].session.take() {
            self.up(id, engine::Event::SessionClosed { session: id });
        }
    }

    pub(super) fn session_down(&mut self, id: SessionId) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.open = false;
        let pid = session.pid;
        let node = &mut self.nodes[pid];
        if node.alive && node.session == Some(id) {
            node.session = None;
            self.log.note(self.now, format_args!("{} lost its session", self.nodes[pid].name));
            self.after(1_000, 500_000, Event::Connect(pid));
        }
        Ok(())
    }

    pub(super) fn engine_event(&mut self, event: engine::Event) -> Result<(), String> {
        let session = match &event {
            engine::Event::SessionOpened { session, .. }
            | engine::Event::Message { session, .. }
            | engine::Event::SessionClosed { session } => Some(session),
            engine::Event::CancelJob { .. } => None,
        };
        let session = session.and_then(|id| self.sessions.get(id));
        if self.engine_is_down || session.is_some_and(|session| session.term != self.term) {
            return Ok(());
        }
        match &event {
            engine::Event::SessionOpened { session, hello } => {
                self.log.note(self.now, format_args!("session {} of {}", session.0, hello.name));
            }
            engine::Event::SessionClosed { session } => {
                self.log.note(self.now, format_args!("session {} is gone", session.0));
            }
            engine::Event::Message { .. } | engine::Event::CancelJob { .. } => {}
        }
        if let engine::Event::Message { message, .. } = &event
            && self.shape != Shape::NamedSource
        {
            self.finished.heard(message);
        }
        self.engine.handle(self.now, event);
        self.drive_engine()
    }

    pub(super) fn engine_timer(&mut self, at: Time) -> Result<(), String> {
        if self.engine_timer == Some(at) {
            self.engine_timer = None;
            self.engine.handle_timeout(self.now);
            return self.drive_engine();
        }
        Ok(())
    }

    fn drive_engine(&mut self) -> Result<(), String> {
        while let Some(command) = self.engine.poll_command() {
            if self.dies_after == Some(0) {
                self.kill_engine();
                return Ok(());
            }
            self.dies_after = self.dies_after.map(|left| left - 1);
            match command {
                Command::Send { session, message } => {
                    self.stored.announced(&message)?;
                    self.finished.said(&message)?;
                    self.down(session, Event::ToProcess(session, Box::new(message)));
                }
                Command::Warn(what) => self.log.note(self.now, format_args!("warning: {what}")),
                Command::CloseSession { session } => {
                    self.down(session, Event::SessionDown(session));
                }
                Command::Persist(record) => {
                    self.stored.put(&record);
                    self.finished.put(&record);
                    self.store.put(&[record]).map_err(|error| error.to_string())?;
                }
            }
        }
        if let Some(at) = self.engine.poll_timeout() {
            let at = at.max(self.now);
            if self.engine_timer.is_none_or(|set| at < set) {
                self.engine_timer = Some(at);
                self.at(at, Event::EngineTimer(at));
            }
        }
        Ok(())
    }

    /// The coordinator is gone, and what it had stored is all that is left of it.
    fn kill_engine(&mut self) {
        self.log.note(self.now, format_args!("the coordinator dies"));
        (self.dies_after, self.engine_timer, self.engine_is_down) = (None, None, true);
        let open: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.open).map(|(id, _)| *id).collect();
        for id in open {
            let lost = self.later(0, 10_000);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.lost_after = Some(lost);
            }
            self.after(10_000, 100_000, Event::SessionDown(id));
        }
        let back = self.later(10_000, 6_000_000);
        self.healed = self.healed.max(back);
        self.at(back, Event::EngineStart);
    }

    /// It is started again, with its store.
    pub(super) fn start_engine(&mut self) -> Result<(), String> {
        self.term = Term(self.term.0 + 1);
        self.log.note(self.now, format_args!("the coordinator is back, in term {}", self.term));
        let stored = self.store.stored();
        self.engine = Engine::restore(self.term, self.config.clone(), self.now, stored)
            .map_err(|error| error.to_string())?;
        self.engine_is_down = false;
        self.drive_engine()
    }

    fn down(&mut self, id: SessionId, event: Event) {
        let at = self.later(self.schedule.pace.message / 10, self.schedule.pace.message);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last_down = session.last_down.max(at);
            let at = session.last_down;
            if session.lost_after.is_none_or(|lost| at <= lost) {
                self.at(at, event);
            }
        }
    }

    pub(super) fn message_arrived(&mut self, id: SessionId, message: Down) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let pid = session.pid;
        if !session.open || !self.nodes[pid].alive || self.nodes[pid].session != Some(id) {
            return Ok(());
        }
        match message {
            Down::Welcome(_) => Ok(()),
            Down::Alive => self.coordinator_heard(pid),
            Down::View(view) => self.view_arrived(pid, *view),
            Down::Verdicts(said) => {
                let now = self.now;
                let Some(running) = self.nodes[pid].tasks.get_mut(&said.task) else {
                    return Ok(());
                };
                for (lineage, verdict) in &said.verdicts {
                    self.log.note(now, format_args!("{}: {lineage} {verdict:?}", said.task));
                    self.figures.asked += 1;
                    self.figures.alone += u64::from(*verdict == Verdict::Start);
                    running.task.verdict(now, lineage, verdict);
                }
                self.drive(pid, said.task)
            }
            Down::Status(status) => {
                if let JobPhase::Ended(outcome) = status.phase {
                    self.log.note(self.now, format_args!("the job ended: {outcome:?}"));
                    self.outcome = Some(outcome);
                }
                Ok(())
            }
            Down::Forget(_) => {
                let tasks: Vec<_> = self.nodes[pid].tasks.keys().copied().collect();
                for task in tasks {
                    self.end_task(pid, task, TaskEnd::Stopped);
                }
                self.nodes[pid].ended.clear();
                self.nodes[pid].view = None;
                Ok(())
            }
            Down::Refused(why) if self.nodes[pid].kind == ProcessKind::Worker => {
                // Somebody else goes by its name: it gives up, and what replaces it has another.
                self.log.note(self.now, format_args!("{} gives up: {why}", self.nodes[pid].name));
                let functions = self.nodes[pid].functions.clone();
                self.kill(pid, false);
                let name = self.new_name();
                self.after(10_000, 500_000, Event::Start(name, functions));
                Ok(())
            }
            Down::Refused(why) => Err(format!("the client was refused: {why}")),
        }
    }

    fn coordinator_heard(&mut self, pid: Pid) -> Result<(), String> {
        let tasks: Vec<_> = self.nodes[pid].tasks.keys().copied().collect();
        for id in tasks {
            if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
                running.task.heard(self.now);
                self.drive(pid, id)?;
            }
        }
        Ok(())
    }

    fn view_arrived(&mut self, pid: Pid, view: JobView) -> Result<(), String> {
        let node = &mut self.nodes[pid];
        let revision = view.revision;
        let Some(difference) = node.take_view(view) else { return Ok(()) };
        let name = self.nodes[pid].name.clone();
        self.log.note(self.now, format_args!("{name} has view {revision}: {difference:?}"));
        for task in difference.end {
            self.end_task(pid, task, TaskEnd::Stopped);
        }
        for task in difference.begin {
            self.begin_task(pid, task)?;
        }
        let leaving = self.nodes[pid].leaving;
        let tasks: Vec<_> = self.nodes[pid].tasks.keys().copied().collect();
        for id in tasks {
            let Some(plan) = self.nodes[pid].plan(id) else { continue };
            if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
                running.task.set_plan(self.now, &plan);
                if leaving {
                    running.task.drain(self.now);
                }
            }
            self.drive(pid, id)?;
        }
        self.report(pid);
        Ok(())
    }
}
