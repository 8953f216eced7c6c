//! What processes say: hello, signs of life, goodbye; and what happens when they say nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use stageline_protocol::control::{AbandonedCalls, Down, Hello, Outcome, ProcessKind, Up, Welcome};
use stageline_protocol::pipeline::Site;
use stageline_protocol::text::{NOT_PLAIN, is_plain};
use stageline_protocol::{Incarnation, JobId, Time, VERSIONS};

use super::{Command, Engine, SessionId};
use crate::store::Record;

/// Why a process that said goodbye is gone.
const LEFT: &str = "it left";

impl Engine {
    pub(super) fn session_opened(&mut self, now: Time, session: SessionId, mut hello: Hello) {
        let version = match self.check_hello(&hello) {
            Ok(version) => version,
            Err(why) => return self.refuse(now, session, why),
        };
        let id = hello.incarnation;
        // A worker that is started again keeps its name. A client's is for people: it is known by its
        // incarnation, and several may be called the same.
        if hello.kind == ProcessKind::Worker
            && let Some(older) = self.fleet.worker_named(&hello.name)
            && older != id
        {
            self.fleet.supersede(older);
            self.persist(Record::Superseded(self.fleet.superseded()));
            let why = format!("a new process registered as {:?}", hello.name);
            self.send(older, Down::Refused(format!("{why}: this one counts as dead")));
            // With a session it lives: that another took its name is no death of it.
            let lives = self.fleet.session_of(older).is_some();
            self.lose(now, older, &why, (!lives).then_some(Duration::ZERO));
        }
        let known = self.fleet.get(id).map(|process| &process.hello);
        // What was said once holds; and a client's tasks have no other place.
        hello.leaving |= known.is_some_and(|known| known.leaving);
        hello.leaving &= hello.kind == ProcessKind::Worker;
        let leaving = hello.leaving;
        // A process that is back as it was changes nothing for anybody else.
        let same = known.is_some_and(|known| *known == hello);
        // But it is offered new tasks again.
        self.replan |= self.fleet.session_of(id).is_none();
        self.reconsider(now, &hello);
        if !same {
            self.persist(Record::Process(Box::new(hello.clone())));
        }
        if let Some(older) = self.fleet.join(now, session, hello, &self.config) {
            self.out.push_back(Command::CloseSession { session: older });
        }
        let (term, lease) = (self.term, self.config.lease);
        self.send(id, Down::Welcome(Welcome { version, term, lease }));
        if !same {
            self.replan = true;
            for job in self.jobs.values_mut().filter(|job| job.involved.contains(&id)) {
                job.stale = true;
                if leaving {
                    job.leave(id);
                }
            }
        }
        self.back.push(id);
    }

    /// The version to speak, or why the process cannot be taken.
    fn check_hello(&self, hello: &Hello) -> Result<u32, String> {
        let name = &hello.name;
        let Some(version) = VERSIONS.agree(hello.versions) else {
            return Err(format!(
                "{name:?} speaks the protocol versions {}, and this coordinator {VERSIONS}: \
                 upgrade the older of the two",
                hello.versions
            ));
        };
        if name.trim().is_empty() {
            return Err("a process must have a name: give it one".to_owned());
        }
        let functions = hello.functions.iter().map(|function| &function.name);
        if let Some(name) = [name].into_iter().chain(functions).find(|name| !is_plain(name)) {
            return Err(format!("the name {name:?} {NOT_PLAIN}"));
        }
        if self.fleet.is_superseded(hello.incarnation) {
            return Err(format!(
                "another process has registered as {name:?} since: give each process a name of \
                 its own"
            ));
        }
        let known = self.fleet.get(hello.incarnation);
        if known.is_some_and(|known| known.hello.kind != hello.kind || known.hello.name != *name) {
            return Err(format!("{name:?} uses the incarnation of another living process"));
        }
        for (place, function) in hello.functions.iter().enumerate() {
            let function = (&function.name, function.slots);
            if function.0.trim().is_empty() {
                return Err(format!("{name:?} registers a function without a name: name it"));
            }
            if function.1 == 0 {
                return Err(format!("{name:?} registers {:?} with 0 slots: offer 1", function.0));
            }
            if hello.functions[..place].iter().any(|earlier| earlier.name == *function.0) {
                return Err(format!(
                    "{name:?} registers {:?} twice: give one of the two another name",
                    function.0
                ));
            }
        }
        Ok(version)
    }

    pub(super) fn message(&mut self, now: Time, session: SessionId, message: Up) {
        let Some(from) = self.fleet.of_session(session) else { return };
        self.fleet.renew(now, from, &self.config);
        match message {
            Up::Hello(_) => {
                self.refuse(now, session, "a session begins with its only hello".to_owned())
            }
            Up::Heartbeat(census) => {
                self.fleet.count(from, census);
                self.send(from, Down::Alive);
            }
            Up::Abandoned(calls) => self.abandons(from, calls),
            Up::Report(report) => self.reported(now, from, report),
            Up::Submit(submit) => self.submitted(now, from, submit),
            Up::Cancel(job, reason) => self.client_cancels(now, from, job, reason),
            Up::Leaving => self.leaves(from),
            Up::Goodbye => self.lose(now, from, LEFT, None),
        }
    }

    /// Calls on a worker never returned. A function all of whose slots they have is not to be used there
    /// until they do.
    fn abandons(&mut self, from: Incarnation, calls: Vec<AbandonedCalls>) {
        let Some((before, title)) = self.fleet.abandon(from, calls) else { return };
        let Some(now) = self.fleet.get(from).map(|process| &process.abandoned) else { return };
        let stuck = |calls: &[AbandonedCalls]| -> BTreeSet<String> {
            let stuck = calls.iter().filter(|calls| calls.all_slots());
            stuck.map(|calls| calls.function.clone()).collect()
        };
        let (was, is) = (stuck(&before), stuck(now));
        self.replan |= was != is;
        for calls in now.iter().filter(|calls| is.contains(&calls.function)) {
            if !was.contains(&calls.function) {
                self.out.push_back(Command::Warn(format!(
                    "{title} runs {:?} no longer: {} calls of it, as many as it has slots, never returned \
                     (the oldest was given up {:.0?} ago: {}). Mend the function or its input, and restart \
                     that worker",
                    calls.function, calls.calls, calls.oldest, calls.example
                )));
            }
        }
        for function in was.difference(&is) {
            self.out.push_back(Command::Warn(format!(
                "{title} runs {function:?} again: calls of it that were given up have returned"
            )));
        }
    }

    /// A worker takes nothing more. Others take its place at once, as far as its slots fall idle.
    fn leaves(&mut self, from: Incarnation) {
        if let Some(hello) = self.fleet.leave(from) {
            let record = Record::Process(Box::new(hello.clone()));
            self.persist(record);
            self.replan = true;
            self.jobs.values_mut().for_each(|job| job.leave(from));
        }
    }

    fn client_cancels(&mut self, now: Time, from: Incarnation, job: JobId, reason: String) {
        match self.jobs.get(&job) {
            Some(known) if known.client == from => self.cancel(now, job, reason),
            Some(_) => {
                self.refuse_process(now, from, format!("job {job} belongs to another client"))
            }
            // It has ended, or was never known here: the final word, in case it was lost.
            None => self.say_final(from, job),
        }
    }

    pub(super) fn session_closed(&mut self, now: Time, session: SessionId) {
        self.fleet.disconnect(now, session, &self.config);
    }

    /// Ends what has run out of time.
    pub(super) fn expire(&mut self, now: Time) {
        for (id, why, died) in self.fleet.expired(now, &self.config) {
            self.lose(now, id, &why, died.then_some(self.config.lease));
        }
    }

    /// A process is dead, or as good as: it is struck off, with all that it ran. If it `died`, that
    /// counts for the marked items that it ran, and is certain after this time.
    pub(super) fn lose(&mut self, now: Time, id: Incarnation, why: &str, died: Option<Duration>) {
        let Some(process) = self.fleet.remove(id) else { return };
        self.persist(Record::Gone(id));
        if let Some(session) = process.session {
            self.out.push_back(Command::CloseSession { session });
        }
        self.replan |= process.hello.kind == ProcessKind::Worker;
        if why != LEFT {
            self.out.push_back(Command::Warn(format!("{} counts as dead: {why}", process.title())));
        }
        let mut ends: Vec<(JobId, Outcome)> = Vec::new();
        for job in self.jobs.values_mut() {
            let records = job.bury(now, id, &process.hello.name, died);
            self.out.extend(records.into_iter().map(Command::Persist));
            let lost = job.strike(id);
            if job.client == id {
                let reason = format!("its {} went away: {why}", process.title());
                ends.push((job.id, Outcome::Cancelled(reason)));
                continue;
            }
            for stage in lost {
                let Some(declared) = job.stage(stage) else { continue };
                let function = process.function(&declared.function);
                let replayable = function.is_none_or(|function| function.replayable);
                if job.is_lost_source(stage, Site::Fleet, replayable) {
                    ends.push((job.id, job.source_lost(stage, &process.title(), why)));
                }
            }
        }
        for (job, outcome) in ends {
            self.end_job(now, job, outcome);
        }
    }

    /// Ends a session because of what its process says. The process is as one whose session broke.
    pub(super) fn refuse(&mut self, now: Time, session: SessionId, why: String) {
        self.fleet.refuse(session);
        self.fleet.disconnect(now, session, &self.config);
        self.out.push_back(Command::Send { session, message: Down::Refused(why) });
        self.out.push_back(Command::CloseSession { session });
    }

    pub(super) fn refuse_process(&mut self, now: Time, id: Incarnation, why: String) {
        if let Some(session) = self.fleet.session_of(id) {
            self.refuse(now, session, why);
        }
    }
}
