//! Two processes that both live, and cannot reach each other.
//!
//! A task that reaches none of the next stage's tasks for two leases says so: a source in its report,
//! any other by its end. The tasks that are not reached are moved, if other workers can run them; if
//! not, the one that reaches nobody is, if it can be. Where neither can, it goes on dialling: such a job
//! waits for the network, and does not fail. Where tasks have been moved from, they are not put again
//! for a while, unless there is no other place.

use std::time::Duration;

use stageline_protocol::pipeline::Site;
use stageline_protocol::{Epoch, Incarnation, StageId, Time};

use super::fleet::{Fleet, Process};
use super::job::Job;
use super::{Config, Engine};

impl Engine {
    /// Workers that were avoided for long are as good as others again.
    pub(super) fn reunite(&mut self, now: Time) {
        for job in self.jobs.values_mut() {
            let before = job.parted.len();
            job.parted.retain(|_, until| *until > now);
            job.replan |= job.parted.len() < before;
        }
    }
}

impl Job {
    /// A source reaches nobody, or somebody again. Answers what is to be said of it.
    pub(super) fn take_cut_off(&mut self, id: StageId, title: &str, is: bool) -> Option<String> {
        let news = if is { self.cut_off.insert(id) } else { self.cut_off.remove(&id) };
        let next = self.graph.pipeline().outputs(id).map(|(_, channel)| channel.to);
        let tasks = next.flat_map(|stage| self.current_of(stage));
        let workers: Vec<String> = tasks.map(|task| format!("{:?}", task.worker)).collect();
        let (job, name) = (self.id, self.stage_name(id));
        news.then(|| {
            if is {
                format!(
                    "job {job}: source {name:?} on {title} reaches none of the workers that it sends \
                     to ({}), which are alive: it goes on dialling; check the network between them",
                    workers.join(", ")
                )
            } else {
                format!("job {job}: source {name:?} on {title} reaches a worker again")
            }
        })
    }

    /// This task reaches none of those that it sends to.
    pub(super) fn part(&mut self, now: Time, config: &Config, fleet: &Fleet, epoch: Epoch) {
        let Some(task) = self.tasks.get(&epoch) else { return };
        let (own, process) = (task.id.stage, task.process);
        let downstream = self.graph.pipeline().outputs(own).map(|(_, channel)| channel.to);
        let movable: Vec<StageId> = downstream.filter(|id| self.can_move(fleet, *id)).collect();
        let unreached =
            |id: &StageId| self.current_of(*id).map(|task| (task.id.stage, task.process));
        let mut moved: Vec<(StageId, Incarnation)> = movable.iter().flat_map(unreached).collect();
        if moved.is_empty() && self.can_move(fleet, own) {
            moved.push((own, process));
        }
        let until = now + avoided_for(config);
        self.replan |= !moved.is_empty();
        self.parted.extend(moved.into_iter().map(|place| (place, until)));
    }

    /// Whether a stage's tasks could run on a worker that has none of them.
    fn can_move(&self, fleet: &Fleet, id: StageId) -> bool {
        let Some(stage) = self.stage(id).filter(|stage| stage.site == Site::Fleet) else {
            return false;
        };
        let replayable = self.current_of(id).all(|task| {
            let function = fleet.get(task.process).and_then(|p| p.function(&stage.function));
            function.is_none_or(|function| function.replayable)
        });
        let has_one = |worker| self.current_of(id).any(|task| task.process == worker);
        let free = |worker| !has_one(worker) && !self.parted.contains_key(&(id, worker));
        let mut offering = fleet.offering().into_iter();
        replayable && offering.any(|(w, p)| free(w) && p.fitting(&self.graph, id, stage).is_some())
    }

    /// Whether a worker is to be passed over for a stage: it was parted from others there, and there is
    /// another.
    pub(super) fn avoids(&self, fleet: &Fleet, id: StageId, worker: Incarnation) -> bool {
        let Some(stage) = self.stage(id) else { return false };
        let parted = |worker| self.parted.contains_key(&(id, worker));
        let fits = |process: &Process| process.fitting(&self.graph, id, stage).is_some();
        parted(worker) && fleet.offering().into_iter().any(|(w, p)| !parted(w) && fits(p))
    }
}

/// For how long a worker is avoided: long enough that a network that stays apart costs little, and short
/// enough that one that is whole again is used soon.
fn avoided_for(config: &Config) -> Duration {
    config.lease * 6
}
