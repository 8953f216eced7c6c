//! What is announced: to each process, the whole of what should be, of each job that concerns it.

use std::collections::BTreeSet;

use stageline_protocol::control::{Down, JobPhase, JobView, Peer, TaskPlan};
use stageline_protocol::pipeline::Op;
use stageline_protocol::{Incarnation, JobId, Term, Time};

use super::Engine;
use super::fleet::Fleet;
use super::job::{Job, Life, Task};

impl Engine {
    /// Announces the jobs that have changed, each at most once for each event.
    pub(super) fn announce(&mut self) -> BTreeSet<JobId> {
        let mut views: Vec<(Incarnation, JobView)> = Vec::new();
        let mut announced = BTreeSet::new();
        for job in self.jobs.values_mut() {
            if !std::mem::take(&mut job.stale) || matches!(job.phase, JobPhase::Waiting(_)) {
                continue;
            }
            job.revision += 1;
            for process in &job.involved {
                views.push((*process, job.view(*process, self.term, &self.fleet)));
            }
            announced.insert(job.id);
        }
        for (process, view) in views {
            self.send(process, Down::View(Box::new(view)));
        }
        announced
    }

    /// Tells a process that is back what it may have missed.
    pub(super) fn catch_up(&mut self, now: Time, id: Incarnation, announced: &BTreeSet<JobId>) {
        let mut views = Vec::new();
        for job in self.jobs.values_mut() {
            if job.involved.contains(&id) && job.revision > 0 && !announced.contains(&job.id) {
                views.push(job.view(id, self.term, &self.fleet));
            }
            if job.client == id {
                job.status_due = Some(now);
            }
        }
        for view in views {
            self.send(id, Down::View(Box::new(view)));
        }
        let own = self.history.iter().filter(|ended| ended.client == id);
        let own: Vec<JobId> = own.map(|ended| ended.status.job).collect();
        for job in own {
            self.say_final(id, job);
        }
    }
}

impl Job {
    fn view(&self, process: Incarnation, term: Term, fleet: &Fleet) -> JobView {
        let plan = |task: &Task| {
            let (id, again) = (task.id, task.again);
            match task.life {
                Life::Leaving { slots } => {
                    TaskPlan { id, slots, again, drain: self.drains(task, fleet) }
                }
                _ => TaskPlan { id, slots: task.slots, again, drain: false },
            }
        };
        let address = |process| fleet.get(process).and_then(|p| p.hello.address.clone());
        let peer = |task: &Task| Peer {
            id: task.id,
            process: task.process,
            address: address(task.process),
        };
        JobView {
            job: self.id,
            term,
            revision: self.revision,
            pipeline: self.graph.pipeline().clone(),
            phase: self.phase.clone(),
            tasks: self.in_views().filter(|task| task.process == process).map(plan).collect(),
            peers: self.in_views().map(peer).collect(),
            highest_epoch: self.highest,
            window: self.window,
            pause_sources: self.paused,
            cut: self.cut.iter().copied().collect(),
            positions: self.positions.clone(),
        }
    }

    /// Whether a task of a leaving process stops at what it has. A source that nobody can replace
    /// goes on while it can: if it comes to its end before its process goes, the job is saved.
    fn drains(&self, task: &Task, fleet: &Fleet) -> bool {
        let declared = self.stage(task.id.stage).filter(|stage| stage.op == Op::Source);
        let process = fleet.get(task.process);
        let function = declared.and_then(|stage| process?.function(&stage.function));
        function.is_none_or(|function| function.replayable)
    }
}
