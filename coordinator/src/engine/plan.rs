//! Who runs what: from the fleet and the jobs to slots, tasks and windows.

use std::collections::BTreeMap;

use stageline_protocol::control::JobPhase;
use stageline_protocol::pipeline::{Site, Stage};
use stageline_protocol::placement::{Demand, Offer, client_slots, divide, place};
use stageline_protocol::{Epoch, Incarnation, JobId, StageId, Time};

use super::fleet::Fleet;
use super::job::{Job, Life};
use super::{Command, Config, Engine};
use crate::store::Record;

/// How the slots of each function on each worker are divided among the stages that use it.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<(Incarnation, JobId, StageId), u32>);

/// One function on one worker, and the stages that use it.
#[derive(Default)]
struct Shared {
    slots: u32,
    users: Vec<(JobId, StageId)>,
    limits: Vec<u32>,
}

impl Shares {
    fn new(fleet: &Fleet, jobs: &BTreeMap<JobId, Job>) -> Self {
        let mut functions: BTreeMap<(Incarnation, &str), Shared> = BTreeMap::new();
        let workers = fleet.workers();
        // A job that is ending uses its slots until its tasks have ended.
        let using = |job: &&Job| job.phase == JobPhase::Running || job.has_running_tasks();
        for job in jobs.values().filter(using) {
            for (id, stage) in on_fleet(job) {
                for (worker, process) in &workers {
                    if let Some(function) = process.fitting(&job.graph, id, stage) {
                        let shared = functions.entry((*worker, &function.name)).or_default();
                        shared.slots = function.slots;
                        shared.users.push((job.id, id));
                        shared.limits.push(Demand::of(id, stage).limit());
                    }
                }
            }
        }
        let mut shares = BTreeMap::new();
        for ((worker, _), shared) in functions {
            let parts = divide(shared.slots, &shared.limits);
            for ((job, stage), share) in shared.users.into_iter().zip(parts) {
                shares.insert((worker, job, stage), share);
            }
        }
        Self(shares)
    }

    fn of(&self, worker: Incarnation, job: JobId, stage: StageId) -> u32 {
        self.0.get(&(worker, job, stage)).copied().unwrap_or(0)
    }
}

impl Engine {
    /// Plans the jobs whose plan is out of date.
    pub(super) fn place(&mut self, now: Time) {
        if std::mem::take(&mut self.replan) {
            self.shares = Shares::new(&self.fleet, &self.jobs);
            for job in self.jobs.values_mut() {
                job.replan = true;
            }
        }
        for job in self.jobs.values_mut() {
            if !std::mem::take(&mut job.replan) || job.phase != JobPhase::Running {
                continue;
            }
            let before = job.highest;
            plan(job, &self.fleet, &self.shares);
            job.touched = true;
            if job.highest > before {
                let record = Record::Epochs { job: job.id, highest: job.highest };
                self.out.push_back(Command::Persist(record));
            }
            let window = window(job, &self.config);
            job.stale |= window != job.window;
            job.window = window;
            job.weigh();
            if job.stale {
                job.changed(now, &self.config);
            }
        }
    }
}

fn on_fleet(job: &Job) -> impl Iterator<Item = (StageId, &Stage)> {
    job.graph.pipeline().stages().filter(|(_, stage)| stage.site == Site::Fleet)
}

fn plan(job: &mut Job, fleet: &Fleet, shares: &Shares) {
    let stages: Vec<(StageId, Stage)> =
        job.graph.pipeline().stages().map(|(id, stage)| (id, stage.clone())).collect();
    job.unsettled = false;
    for (id, stage) in stages {
        // A source whose section is finished has nothing left to do anywhere.
        if job.finished.contains(&id) {
            continue;
        }
        match stage.site {
            Site::Client => {
                if job.current_of(id).next().is_none() {
                    let name = job.client_name.clone();
                    job.begin(id, job.client, &name, client_slots(&stage));
                }
            }
            Site::Fleet => plan_on_fleet(job, id, &stage, fleet, shares),
        }
    }
}

fn plan_on_fleet(job: &mut Job, id: StageId, stage: &Stage, fleet: &Fleet, shares: &Shares) {
    struct Place<'a> {
        worker: Incarnation,
        name: &'a str,
        epoch: Option<Epoch>,
        offer: Offer,
    }
    let demand = Demand::of(id, stage);
    // The one task of a stage begins again only where the last one has ended.
    let leaving =
        |task: &super::job::Task| task.id.stage == id && matches!(task.life, Life::Leaving { .. });
    if demand.single && job.tasks.values().any(leaving) {
        return;
    }
    let mut places = Vec::new();
    for (worker, process) in fleet.workers() {
        let tasks = || {
            let mine = job.tasks.values().filter(|t| t.id.stage == id && t.process == worker);
            mine.filter(|t| t.life != Life::Over)
        };
        let current = tasks().find(|t| t.life == Life::Current);
        let takes = process.takes_more() || (current.is_some() && !process.hello.leaving);
        let fits = takes
            && process.fitting(&job.graph, id, stage).is_some()
            && !job.avoids(fleet, id, worker);
        let capacity = if fits { shares.of(worker, job.id, id) } else { 0 };
        if capacity == 0 && tasks().next().is_none() {
            continue;
        }
        let offer = Offer {
            capacity,
            current: current.map_or(0, |task| task.slots),
            busy: tasks().fold(0, |sum: u32, task| sum.saturating_add(task.in_use())),
        };
        let epoch = current.map(|task| task.id.epoch);
        places.push(Place { worker, name: &process.hello.name, epoch, offer });
    }
    let offers: Vec<Offer> = places.iter().map(|place| place.offer).collect();
    let plan = place(&demand, &offers);
    job.unsettled |= !plan.settled;
    let revision = job.next_revision();
    for (place, slots) in places.into_iter().zip(plan.slots) {
        match place.epoch {
            None if slots == 0 => {}
            None => job.begin(id, place.worker, place.name, slots),
            Some(epoch) if slots == 0 => job.retire(epoch),
            Some(_) if slots == place.offer.current => {}
            Some(epoch) => {
                if let Some(task) = job.tasks.get_mut(&epoch) {
                    task.set_slots(slots, revision);
                    job.stale = true;
                }
            }
        }
    }
}

/// How many roots may be under way: as declared, or enough to fill all slots and buffers of the
/// largest section twice.
fn window(job: &Job, config: &Config) -> u64 {
    let pipeline = job.graph.pipeline();
    if let Some(declared) = pipeline.max_in_flight {
        return declared;
    }
    let fills = |id: StageId| {
        let slots: u64 = job.current_of(id).map(|task| u64::from(task.slots)).sum();
        let tasks = job.current_of(id).count() as u64;
        let buffers = pipeline.inputs(id).map(|(_, channel)| match channel.buffer {
            Some(items) => u64::from(items) * tasks,
            None => slots,
        });
        slots + buffers.sum::<u64>()
    };
    let sections = job.graph.sections().iter();
    let largest = sections.map(|s| s.stages.iter().map(|id| fills(*id)).sum::<u64>()).max();
    largest.unwrap_or(0).saturating_mul(2).max(config.least_window)
}
