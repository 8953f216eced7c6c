//! How a job ends: completed, cancelled or failed; its tasks are ended, then it is history.

use stageline_protocol::control::{Down, JobPhase, Outcome};
use stageline_protocol::{Incarnation, JobId, Time};

use super::{Ended, Engine};
use crate::store::Record;

impl Engine {
    /// Ends a job on request. One that is over stays as it is.
    pub(super) fn cancel(&mut self, now: Time, job: JobId, reason: String) {
        self.end_job(now, job, Outcome::Cancelled(reason));
    }

    /// Ends a job, unless it is over already. The outcome is stored before anybody hears of it.
    pub(super) fn end_job(&mut self, now: Time, id: JobId, outcome: Outcome) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.is_over()) else { return };
        job.end(now, outcome);
        let (client, status) = (job.client, Box::new(job.status(now)));
        self.persist(Record::Ended { job: id, client, at: now, status });
    }

    /// Ends the jobs whose sections are all finished, and puts those whose tasks have all ended into
    /// the history. A process that does not say so is waited for no longer than one lease.
    pub(super) fn conclude(&mut self, now: Time) {
        let finished = |job: &&super::job::Job| {
            job.phase == JobPhase::Running
                && job.graph.sources().all(|source| job.finished.contains(&source))
        };
        let completed: Vec<JobId> = self.jobs.values().filter(finished).map(|j| j.id).collect();
        for id in completed {
            self.end_job(now, id, Outcome::Completed);
        }
        let lease = self.config.lease;
        let quiet = |job: &&super::job::Job| {
            job.ending.is_some_and(|since| !job.has_running_tasks() || now >= since + lease)
        };
        let quiet: Vec<JobId> = self.jobs.values().filter(quiet).map(|job| job.id).collect();
        for id in quiet {
            self.finish(now, id);
        }
    }

    fn finish(&mut self, now: Time, id: JobId) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        if let JobPhase::Ending(outcome) = &job.phase {
            job.turn(now, JobPhase::Ended(outcome.clone()));
        }
        // The slots that it used are the others' now.
        self.replan |= job.highest.0 > 0;
        let status = job.status(now);
        let kept = Box::new(status.clone());
        self.persist(Record::Ended { job: id, client: job.client, at: now, status: kept });
        self.send(job.client, Down::Status(Box::new(status.clone())));
        for process in job.involved {
            self.send(process, Down::Forget(id));
        }
        self.remember(now, Ended { status, client: job.client, at: now });
    }

    pub(super) fn remember(&mut self, now: Time, ended: Ended) {
        self.history.push_back(ended);
        self.trim(now);
    }

    /// Forgets the oldest of too many jobs that have ended; but none whose client may still have to
    /// be told how it came out: it is back within a lease, or dead.
    pub(super) fn trim(&mut self, now: Time) {
        let lease = self.config.lease;
        while self.history.len() > self.config.history {
            let may_go =
                |ended: &Ended| now >= ended.at + lease || self.fleet.get(ended.client).is_none();
            let Some(oldest) = self.history.iter().position(may_go) else { break };
            if let Some(oldest) = self.history.remove(oldest) {
                self.persist(Record::Forgotten { job: oldest.status.job });
            }
        }
    }

    /// Somebody speaks of a job that is not running: its client is told how it came out, and
    /// everybody to forget it.
    pub(super) fn say_final(&mut self, to: Incarnation, id: JobId) {
        let ended = self.ended(id).filter(|ended| ended.client == to);
        if let Some(status) = ended.map(|ended| Box::new(ended.status.clone())) {
            self.send(to, Down::Status(status));
        }
        self.send(to, Down::Forget(id));
    }
}
