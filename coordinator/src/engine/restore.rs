//! How an engine goes on where an earlier life of it stopped.
//!
//! A restored engine is the engine as it was, all of whose sessions have just broken. Processes have
//! a full lease to come back, and no shorter grace: it was us that went away. Tasks are where they
//! were, and hold whatever slots they may be using until their processes confirm a view of the new
//! term. What else there is to know (figures, cuts, who has ended) are levels, which the next reports
//! bring. So nothing is asked for, and there is no state of recovering that would have to end.

use std::collections::BTreeSet;

use stageline_protocol::control::{JobPhase, Outcome, TaskReport};
use stageline_protocol::graph::Graph;
use stageline_protocol::pipeline::Site;
use stageline_protocol::{Incarnation, JobId, Term, Time};

use super::job::{Job, Life, Task};
use super::{Config, Ended, Engine};
use crate::store::{Stored, StoredJob, StoredTask};

/// What was stored cannot be, so nothing can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored of job {job} cannot be: {reason}")]
pub struct RestoreError {
    /// The job that it is about.
    pub job: JobId,
    /// What is wrong.
    pub reason: String,
}

impl Engine {
    /// An engine that goes on from what is stored. `term` must be higher than the stored one, and
    /// itself stored already; `now` counts from the same origin as in the earlier life. Commands may
    /// follow at once, from [`Self::poll_command`].
    ///
    /// # Errors
    /// When what is stored contradicts itself.
    pub fn restore(
        term: Term,
        config: Config,
        now: Time,
        stored: Stored,
    ) -> Result<Self, RestoreError> {
        let mut engine = Self::new(term, config);
        engine.woken = now;
        for hello in stored.processes.into_values() {
            engine.fleet.restore(now, hello, &engine.config);
        }
        for life in stored.superseded {
            engine.fleet.supersede(life);
        }
        for (id, stored) in stored.jobs {
            let mut job = restore_job(id, stored, now, &engine.config)?;
            let leaving =
                |task: &Task| engine.fleet.get(task.process).is_some_and(|p| p.hello.leaving);
            for task in job.tasks.values_mut().filter(|task| leaving(task)) {
                task.restore_leaving();
            }
            engine.jobs.insert(id, job);
        }
        let mut ended: Vec<_> = stored.ended.into_values().collect();
        ended.sort_by_key(|end| (end.at, end.status.job));
        for mut end in ended {
            if let JobPhase::Ending(outcome) = end.status.phase {
                end.status.phase = JobPhase::Ended(outcome);
            }
            // Its client may not have heard of it, and has its lease to ask.
            engine.remember(now, Ended { status: end.status, client: end.client, at: now });
        }
        engine.drop_orphans(now);
        engine.replan = true;
        engine.settle(now);
        Ok(engine)
    }

    /// A process and what it ran are struck off in one step. Should only the first have been kept,
    /// this is the second.
    fn drop_orphans(&mut self, now: Time) {
        let mut clientless = Vec::new();
        for job in self.jobs.values_mut() {
            let unknown: BTreeSet<Incarnation> = job
                .involved
                .iter()
                .copied()
                .filter(|process| self.fleet.get(*process).is_none())
                .collect();
            for process in &unknown {
                job.strike(*process);
            }
            if unknown.contains(&job.client) {
                clientless.push((job.id, format!("its client {:?} went away", job.client_name)));
            }
        }
        for (job, reason) in clientless {
            self.end_job(now, job, Outcome::Cancelled(reason));
        }
    }
}

fn restore_job(
    id: JobId,
    stored: StoredJob,
    now: Time,
    config: &Config,
) -> Result<Job, RestoreError> {
    let wrong = |reason: String| RestoreError { job: id, reason };
    let graph = Graph::new(stored.pipeline).map_err(|error| wrong(error.to_string()))?;
    let mut job = Job::new(id, graph, (stored.client, &stored.client_name), stored.submitted);
    job.wait_stages = stored.wait_stages;
    // Those that it waits for must have had the time to come back.
    job.wait_until = now + stored.wait_stages.max(config.lease);
    job.highest = stored.highest;
    job.positions = stored.positions;
    job.finished = stored.finished;
    if job.highest.0 > 0 {
        job.begun = job.graph.pipeline().stages().map(|(id, _)| id).collect();
        // Which of them have had links, nobody stored; what has run is not failed for lost ones.
        job.reached = job.begun.clone();
        job.phase = JobPhase::Running;
        job.stale = true;
        job.replan = true;
    }
    let named = job.positions.keys().chain(&job.finished);
    if let Some(stage) = named.copied().find(|stage| job.stage(*stage).is_none()) {
        return Err(wrong(format!("its pipeline has no {stage}")));
    }
    for source in job.graph.sources() {
        let site = job.stage(source).map(|stage| stage.site);
        let position = job.positions.get(&source).copied().unwrap_or(0);
        match site {
            _ if job.finished.contains(&source) => job.suspects.below(now, source, u64::MAX),
            Some(Site::Client) => job.suspects.await_source(source),
            _ => job.suspects.below(now, source, position),
        }
    }
    for (item, deaths) in stored.suspects {
        job.suspects.restore(item, deaths, now + config.lease);
    }
    let revision = job.next_revision();
    for task in stored.tasks.into_values() {
        if task.id.epoch > job.highest || job.stage(task.id.stage).is_none() {
            return Err(wrong(format!("it has no task {}", task.id)));
        }
        job.involved.insert(task.process);
        job.tasks.insert(task.id.epoch, restore_task(task, revision));
    }
    Ok(job)
}

impl Task {
    /// Its process was leaving: the slots that its views announce are not those that it may fill.
    fn restore_leaving(&mut self) {
        if self.life == Life::Current {
            self.life = Life::Leaving { slots: self.slots };
            self.slots = 0;
        }
    }
}

fn restore_task(stored: StoredTask, revision: u64) -> Task {
    let mut task = Task {
        id: stored.id,
        process: stored.process,
        worker: stored.worker,
        life: if stored.retiring { Life::Retiring } else { Life::Current },
        slots: stored.slots,
        held: Some((revision, stored.held)),
        start: stored.start,
        again: stored.start > 0,
        report: TaskReport { id: stored.id, ..TaskReport::default() },
        recorded: None,
    };
    task.recorded = task.level();
    task
}
