//! Two processes that both live, and cannot reach each other.
//!
//! A task that reaches none of the next stage's tasks for two leases says so: a source while it goes on, any
//! other by its end. Where no other task of its stage reaches them either, they are moved, if other workers
//! can run them; if not, the one that reaches nobody is, if it can be. Where neither can, it goes on
//! dialling: such a job waits for the network, and does not fail. Where tasks have been moved from, they
//! are not put again for a while, unless there is no other place.

use std::time::Duration;

use stageline_protocol::control::{FailureKind, Outcome, TaskReport};
use stageline_protocol::pipeline::Site;
use stageline_protocol::{ChannelId, Incarnation, StageId, Time};

use super::fleet::{Fleet, Process};
use super::job::{Job, Task};
use super::report::failed;
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

/// What follows from what a source says of its reach.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) warning: Option<String>,
    /// The job cannot go on.
    pub(super) outcome: Option<Outcome>,
}

impl Job {
    /// Hears whether a source reaches somebody. One that never has, and cannot be helped, fails its job.
    pub(super) fn take_unreached(
        &mut self,
        now: Time,
        config: &Config,
        id: StageId,
        title: &str,
        said: &TaskReport,
    ) -> Heard {
        let (job, name) = (self.id, self.stage_name(id).to_owned());
        if said.unreached.is_empty() {
            let warning = self
                .cut_off
                .remove(&id)
                .map(|_| format!("job {job}: source {name:?} on {title} reaches a worker again"));
            return Heard { warning, outcome: None };
        }
        let first = !self.cut_off.contains_key(&id);
        let since = *self.cut_off.entry(id).or_insert(now);
        let pipeline = self.graph.pipeline().channels();
        let next = pipeline.filter(|(channel, _)| said.unreached.contains(channel));
        let tasks = next.flat_map(|(_, channel)| self.current_of(channel.to));
        let workers: Vec<String> = tasks.map(|task| format!("{:?}", task.worker)).collect();
        let workers = workers.join(", ");
        if !self.reached.contains(&id) && now.since(since) >= given_up_after(config) {
            let message = format!(
                "source {name:?} on {title} has never reached any of the workers that it sends to \
                 ({workers}): check the addresses that workers advertise (--advertise), and what is \
                 between them"
            );
            return Heard {
                warning: None,
                outcome: Some(failed(FailureKind::SourceLost, message)),
            };
        }
        let warning = first.then(|| {
            format!(
                "job {job}: source {name:?} on {title} reaches none of the workers that it sends to \
                 ({workers}), which are alive: it goes on dialling; check the network between them"
            )
        });
        Heard { warning, outcome: None }
    }

    /// This task reaches nobody on some of its channels. Where others of its stage do, the fault is at its
    /// end; where none does, it is more likely at the other.
    pub(super) fn part(&mut self, now: Time, config: &Config, fleet: &Fleet, said: &TaskReport) {
        let Some(task) = self.tasks.get(&said.id.epoch) else { return };
        let (own, process) = (task.id.stage, task.process);
        let reaches = |task: &&Task, channel: &ChannelId| {
            task.id != said.id && task.report.reached && !task.report.unreached.contains(channel)
        };
        let pipeline = self.graph.pipeline();
        let at_their_end =
            |channel: &&ChannelId| !self.current_of(own).any(|task| reaches(&task, channel));
        let channels = said.unreached.iter().filter(at_their_end);
        let next = channels.filter_map(|id| pipeline.channels().find(|(known, _)| known == id));
        let next =
            next.map(|(_, channel)| channel.to).filter(|id| self.has_free_worker(fleet, *id));
        let unreached = |id: StageId| self.current_of(id).map(|task| (task.id.stage, task.process));
        let mut moved: Vec<(StageId, Incarnation)> = next.flat_map(unreached).collect();
        if moved.is_empty() && self.has_other_worker(fleet, own, process) {
            moved.push((own, process));
        }
        let until = now + avoided_for(config);
        self.replan |= !moved.is_empty();
        self.parted.extend(moved.into_iter().map(|place| (place, until)));
    }

    /// Whether a stage's tasks could run on a worker that has none of them.
    fn has_free_worker(&self, fleet: &Fleet, id: StageId) -> bool {
        let has_one = |worker| self.current_of(id).any(|task| task.process == worker);
        self.has_worker(fleet, id, |worker| !has_one(worker))
    }

    /// Whether a stage's task on a worker could be done without.
    fn has_other_worker(&self, fleet: &Fleet, id: StageId, than: Incarnation) -> bool {
        self.has_worker(fleet, id, |worker| worker != than)
    }

    fn has_worker(&self, fleet: &Fleet, id: StageId, fits: impl Fn(Incarnation) -> bool) -> bool {
        let Some(stage) = self.stage(id).filter(|stage| stage.site == Site::Fleet) else {
            return false;
        };
        let replayable = self.current_of(id).all(|task| {
            let function = fleet.get(task.process).and_then(|p| p.function(&stage.function));
            function.is_none_or(|function| function.replayable)
        });
        let may = |worker| fits(worker) && !self.parted.contains_key(&(id, worker));
        let mut offering = fleet.offering().into_iter();
        replayable && offering.any(|(w, p)| may(w) && p.fitting(&self.graph, id, stage).is_some())
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

/// A source that has never reached anybody is no matter of patience: its job fails after this.
fn given_up_after(config: &Config) -> Duration {
    config.lease * 4
}
