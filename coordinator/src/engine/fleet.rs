//! The processes that count as alive: who they are, what they offer, and until when.

use std::collections::{BTreeMap, VecDeque};

use stageline_protocol::control::{
    AbandonedCalls, Census, Function, Hello, ProcessKind, ProcessStatus,
};
use stageline_protocol::graph::Graph;
use stageline_protocol::pipeline::Stage;
use stageline_protocol::{Incarnation, StageId, Time};

use super::{Config, SessionId};

/// So many lives that were superseded are remembered, so that two processes of one name do not
/// throw each other out for ever.
const SUPERSEDED: usize = 1000;

/// One living process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) hello: Hello,
    pub(super) session: Option<SessionId>,
    pub(super) census: Census,
    /// Calls there that never returned, by function.
    pub(super) abandoned: Vec<AbandonedCalls>,
    /// When its lease runs out.
    expires: Time,
    /// When it counts as dead because its session broke.
    grace: Option<Time>,
    /// Its session was ended here: its end is no death of its own.
    refused: bool,
}

impl Process {
    pub(super) fn function(&self, name: &str) -> Option<&Function> {
        self.hello.functions.iter().find(|function| function.name == name)
    }

    /// What it would run a stage with: the stage's function, if the two fit.
    pub(super) fn fitting(&self, graph: &Graph, id: StageId, stage: &Stage) -> Option<&Function> {
        let stuck = |calls: &AbandonedCalls| calls.function == stage.function && calls.all_slots();
        self.function(&stage.function)
            .filter(|function| graph.check_function(id, function).is_ok())
            .filter(|_| !self.abandoned.iter().any(stuck))
    }

    /// Whether it takes new tasks. One without a session keeps what it has, and may be gone.
    pub(super) const fn takes_more(&self) -> bool {
        self.session.is_some() && !self.hello.leaving
    }

    /// The name, quoted, with the kind in front.
    pub(super) fn title(&self) -> String {
        match self.hello.kind {
            ProcessKind::Worker => format!("worker {:?}", self.hello.name),
            ProcessKind::Client => format!("client {:?}", self.hello.name),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    processes: BTreeMap<Incarnation, Process>,
    sessions: BTreeMap<SessionId, Incarnation>,
    superseded: VecDeque<Incarnation>,
}

impl Fleet {
    pub(super) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    pub(super) fn get(&self, id: Incarnation) -> Option<&Process> {
        self.processes.get(&id)
    }

    pub(super) fn of_session(&self, session: SessionId) -> Option<Incarnation> {
        self.sessions.get(&session).copied()
    }

    pub(super) fn session_of(&self, id: Incarnation) -> Option<SessionId> {
        self.get(id)?.session
    }

    /// The life that goes by this name now.
    pub(super) fn worker_named(&self, name: &str) -> Option<Incarnation> {
        let mut found = self.processes.iter().filter(|(_, p)| p.hello.kind == ProcessKind::Worker);
        found.find(|(_, p)| p.hello.name == name).map(|(id, _)| *id)
    }

    /// The workers, by name: an order that survives restarts of theirs and of ours.
    pub(super) fn workers(&self) -> Vec<(Incarnation, &Process)> {
        let workers = self.processes.iter().filter(|(_, p)| p.hello.kind == ProcessKind::Worker);
        let mut workers: Vec<_> = workers.map(|(id, p)| (*id, p)).collect();
        workers.sort_by(|(a, p), (b, q)| (&p.hello.name, a).cmp(&(&q.hello.name, b)));
        workers
    }

    /// Those of them that take new tasks.
    pub(super) fn offering(&self) -> Vec<(Incarnation, &Process)> {
        let mut workers = self.workers();
        workers.retain(|(_, process)| process.takes_more());
        workers
    }

    /// A process is there, or there again. Answers the session that this one replaces.
    pub(super) fn join(
        &mut self,
        now: Time,
        session: SessionId,
        hello: Hello,
        config: &Config,
    ) -> Option<SessionId> {
        let id = hello.incarnation;
        let older = self.processes.remove(&id);
        let (older_session, census, abandoned) =
            older.map(|older| (older.session, older.census, older.abandoned)).unwrap_or_default();
        if let Some(older) = older_session {
            self.sessions.remove(&older);
        }
        self.sessions.insert(session, id);
        let expires = now + config.lease;
        let (session, grace, refused) = (Some(session), None, false);
        let process = Process { hello, session, census, abandoned, expires, grace, refused };
        self.processes.insert(id, process);
        older_session
    }

    /// A process that an earlier life of ours knew: it has a full lease to come back.
    pub(super) fn restore(&mut self, now: Time, hello: Hello, config: &Config) {
        let (census, expires) = (Census::default(), now + config.lease);
        let id = hello.incarnation;
        let (session, grace, refused) = (None, None, false);
        let abandoned = Vec::new();
        let process = Process { hello, session, census, abandoned, expires, grace, refused };
        self.processes.insert(id, process);
    }

    /// A process gave a sign of life.
    pub(super) fn renew(&mut self, now: Time, id: Incarnation, config: &Config) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.expires = now + config.lease;
        }
    }

    /// A worker is about to leave. Answers what it says of itself now, if that is news.
    pub(super) fn leave(&mut self, id: Incarnation) -> Option<&Hello> {
        let hello = &mut self.processes.get_mut(&id)?.hello;
        let news = hello.kind == ProcessKind::Worker && !hello.leaving;
        hello.leaving |= news;
        news.then_some(hello)
    }

    pub(super) fn count(&mut self, id: Incarnation, census: Census) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.census = census;
        }
    }

    /// Answers what was known of its calls that never returned, and what it is called.
    pub(super) fn abandon(
        &mut self,
        id: Incarnation,
        calls: Vec<AbandonedCalls>,
    ) -> Option<(Vec<AbandonedCalls>, String)> {
        let process = self.processes.get_mut(&id)?;
        let before = std::mem::replace(&mut process.abandoned, calls);
        Some((before, process.title()))
    }

    pub(super) fn renew_all(&mut self, now: Time, config: &Config) {
        for process in self.processes.values_mut() {
            process.expires = now + config.lease;
            process.grace = process.grace.map(|_| now + config.reset_grace);
        }
    }

    /// A session broke. A worker must be back soon; a client has as long as its lease lasts, because
    /// its whole job ends with it.
    pub(super) fn disconnect(&mut self, now: Time, session: SessionId, config: &Config) {
        let Some(id) = self.sessions.remove(&session) else { return };
        if let Some(process) = self.processes.get_mut(&id) {
            process.session = None;
            process.grace = match process.hello.kind {
                ProcessKind::Worker => Some(now + config.reset_grace),
                ProcessKind::Client => None,
            };
        }
    }

    /// Its session is ended from here.
    pub(super) fn refuse(&mut self, session: SessionId) {
        if let Some(id) = self.sessions.get(&session)
            && let Some(process) = self.processes.get_mut(id)
        {
            process.refused = true;
        }
    }

    /// Strikes a process off.
    pub(super) fn remove(&mut self, id: Incarnation) -> Option<Process> {
        let process = self.processes.remove(&id)?;
        if let Some(session) = process.session {
            self.sessions.remove(&session);
        }
        Some(process)
    }

    pub(super) fn supersede(&mut self, id: Incarnation) {
        if self.superseded.len() == SUPERSEDED {
            self.superseded.pop_front();
        }
        self.superseded.push_back(id);
    }

    pub(super) fn superseded(&self) -> Vec<Incarnation> {
        self.superseded.iter().copied().collect()
    }

    pub(super) fn is_superseded(&self, id: Incarnation) -> bool {
        self.superseded.contains(&id)
    }

    /// Those whose time has run out, and why.
    /// Whether it died, as far as can be told: of one that is silent, it cannot.
    pub(super) fn expired(&self, now: Time, config: &Config) -> Vec<(Incarnation, String, bool)> {
        let why = |process: &Process| {
            if process.expires <= now {
                Some((format!("nothing was heard of it for {:?}", config.lease), false))
            } else if process.grace.is_some_and(|grace| grace <= now) {
                let grace = config.reset_grace;
                let why = format!("its session broke, and it was not back within {grace:?}");
                Some((why, !process.refused))
            } else {
                None
            }
        };
        let all = self.processes.iter();
        all.filter_map(|(id, p)| why(p).map(|(why, died)| (*id, why, died))).collect()
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        self.processes.values().flat_map(|p| [Some(p.expires), p.grace]).flatten().min()
    }

    pub(super) fn statuses(&self) -> Vec<ProcessStatus> {
        let status = |(id, process): (&Incarnation, &Process)| ProcessStatus {
            name: process.hello.name.clone(),
            kind: process.hello.kind,
            incarnation: *id,
            address: process.hello.address.clone(),
            functions: process.hello.functions.clone(),
            census: process.census,
            connected: process.session.is_some(),
            suspects: 0,
            leaving: process.hello.leaving,
            abandoned: process.abandoned.clone(),
        };
        let mut all: Vec<_> = self.processes.iter().map(status).collect();
        all.sort_by(|a, b| (a.kind, &a.name, a.incarnation).cmp(&(b.kind, &b.name, b.incarnation)));
        all
    }
}
