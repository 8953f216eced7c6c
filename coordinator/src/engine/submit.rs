//! How a job starts: submitted, checked, waiting for functions, running.

use std::collections::BTreeMap;
use std::time::Duration;

use stageline_protocol::control::{
    Down, Failure, FailureKind, Function, JobPhase, JobStatus, Outcome, ProcessKind, StageStatus,
    Submit, TaskStats,
};
use stageline_protocol::graph::{Graph, GraphError, nearest};
use stageline_protocol::item::shortened;
use stageline_protocol::pipeline::{Pipeline, Site, Stage};
use stageline_protocol::{Incarnation, JobId, StageId, Time};

use super::fleet::Fleet;
use super::job::Job;
use super::{Ended, Engine};
use crate::store::Record;

/// Whether a job can start.
enum Readiness {
    Ready,
    /// No worker registers the functions of these stages.
    Missing(Vec<StageId>),
    /// Functions are registered, and do not fit.
    Wrong(GraphError),
}

impl Engine {
    /// A client submits a job. Doing so again is harmless: it is told how the job goes. An id stands for
    /// one pipeline of one client; whoever submits another under it would take its results for its own.
    pub(super) fn submitted(&mut self, now: Time, from: Incarnation, submit: Submit) {
        let Some(process) = self.fleet.get(from) else { return };
        if process.hello.kind != ProcessKind::Client {
            let why = "only a client submits jobs: register as one".to_owned();
            return self.refuse_process(now, from, why);
        }
        let name = process.hello.name.clone();
        let Submit { job: id, pipeline, wait_stages } = submit;
        if let Some(job) = self.jobs.get_mut(&id) {
            let same = *job.graph.pipeline() == pipeline;
            match clash(id, job.client == from, same) {
                None => job.status_due = Some(now),
                Some(why) => self.refuse_process(now, from, why),
            }
            return;
        }
        if let Some(ended) = self.ended(id) {
            let same = is_status_of(&ended.status, &pipeline);
            return match clash(id, ended.client == from, same) {
                None => self.say_final(from, id),
                Some(why) => self.refuse_process(now, from, why),
            };
        }
        match Graph::new(pipeline.clone()) {
            Ok(graph) => {
                self.persist(Record::Submitted {
                    job: id,
                    client: from,
                    client_name: name.clone(),
                    at: now,
                    pipeline,
                    wait_stages,
                });
                let mut job = Job::new(id, graph, (from, &name), now);
                job.wait_stages = wait_stages;
                job.wait_until = now + wait_stages;
                self.jobs.insert(id, job);
            }
            // Nothing will ever depend on it, so nothing is stored.
            Err(error) => {
                let failure = Failure { kind: error.kind(), message: error.to_string() };
                let status = rejected(id, &pipeline, name, failure);
                self.send(from, Down::Status(Box::new(status.clone())));
                self.send(from, Down::Forget(id));
                self.remember(now, Ended { status, client: from, at: now });
            }
        }
    }

    /// Starts the jobs that can start, and fails those that have waited long enough.
    pub(super) fn start_waiting(&mut self, now: Time) {
        let mut failures: Vec<(JobId, Failure)> = Vec::new();
        for job in self.jobs.values_mut() {
            if !matches!(job.phase, JobPhase::Waiting(_)) {
                continue;
            }
            match readiness(&job.graph, &self.fleet) {
                Readiness::Ready => {
                    job.turn(now, JobPhase::Running);
                    job.replan = true;
                    self.replan = true;
                }
                Readiness::Wrong(error) => {
                    let failure = Failure { kind: error.kind(), message: error.to_string() };
                    failures.push((job.id, failure));
                }
                Readiness::Missing(stages) if now >= job.wait_until => {
                    let message = explain_missing(job, &stages, &self.fleet);
                    failures.push((job.id, Failure { kind: FailureKind::MissingStage, message }));
                }
                Readiness::Missing(stages) => {
                    let waiting = JobPhase::Waiting(functions(job, &stages));
                    if job.phase != waiting {
                        job.turn(now, waiting);
                    }
                }
            }
        }
        for (job, failure) in failures {
            self.end_job(now, job, Outcome::Failed(failure));
        }
    }
}

/// Why a known id is not that of the job which is submitted, if so.
fn clash(id: JobId, same_client: bool, same_pipeline: bool) -> Option<String> {
    let whose = match (same_client, same_pipeline) {
        (true, true) => return None,
        (true, false) => "stands for another pipeline",
        (false, _) => "belongs to another client",
    };
    Some(format!("job {id} {whose}: submit each job under an id of its own"))
}

/// Whether a job that has ended may have been of that pipeline, by what is still known of it.
fn is_status_of(status: &JobStatus, pipeline: &Pipeline) -> bool {
    let known = status.stages.iter().map(|stage| (&stage.name, stage.op));
    let wanted = pipeline.stages.iter().map(|stage| (&stage.name, stage.op));
    status.name == pipeline.name && known.eq(wanted)
}

/// The status of a job that never was one.
fn rejected(job: JobId, pipeline: &Pipeline, client: String, failure: Failure) -> JobStatus {
    let stage = |stage: &Stage| StageStatus {
        name: stage.name.clone(),
        op: stage.op,
        slots: 0,
        totals: TaskStats::default(),
        by_worker: BTreeMap::new(),
    };
    JobStatus {
        job,
        name: pipeline.name.clone(),
        phase: JobPhase::Ended(Outcome::Failed(failure)),
        client,
        age: Duration::ZERO,
        stages: pipeline.stages.iter().map(stage).collect(),
        held_up_by: Vec::new(),
    }
}

/// A function that does not fit is as good as none while another worker's does: two builds of a
/// program may be there side by side.
fn readiness(graph: &Graph, fleet: &Fleet) -> Readiness {
    let workers = fleet.offering();
    let mut chosen: BTreeMap<StageId, &Function> = BTreeMap::new();
    let mut missing = Vec::new();
    for (id, stage) in graph.pipeline().stages().filter(|(_, stage)| stage.site == Site::Fleet) {
        let mut misfit = None;
        for function in workers.iter().filter_map(|(_, p)| p.function(&stage.function)) {
            match graph.check_function(id, function) {
                Ok(()) => {
                    chosen.insert(id, function);
                    break;
                }
                Err(error) => misfit = misfit.or(Some(error)),
            }
        }
        match misfit {
            _ if chosen.contains_key(&id) => {}
            Some(error) => return Readiness::Wrong(error),
            None => missing.push(id),
        }
    }
    if let Err(error) = graph.check_functions(&chosen) {
        return Readiness::Wrong(error);
    }
    if missing.is_empty() { Readiness::Ready } else { Readiness::Missing(missing) }
}

/// The functions of some stages, each once.
fn functions(job: &Job, stages: &[StageId]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in stages.iter().filter_map(|id| job.stage(*id)) {
        if !names.contains(&stage.function) {
            names.push(stage.function.clone());
        }
    }
    names
}

/// Once a message is so long, in bytes, it names no more workers.
const ENOUGH: usize = 8 << 10;

/// What is missing, what comes near, what there is, and what to do.
fn explain_missing(job: &Job, stages: &[StageId], fleet: &Fleet) -> String {
    let workers = fleet.offering();
    let known: Vec<&str> = workers
        .iter()
        .flat_map(|(_, worker)| worker.hello.functions.iter().map(|f| f.name.as_str()))
        .collect();
    let mut text = String::new();
    for stage in stages.iter().filter_map(|id| job.stage(*id)) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&format!("no worker registers {:?}", stage.function));
        if stage.name != stage.function {
            text.push_str(&format!(" for stage {:?}", stage.name));
        }
        let near = nearest(&stage.function, known.iter().copied());
        if let Some(near) = near.first() {
            text.push_str(&format!(" (did you mean {near:?}?)"));
        }
    }
    if !job.wait_stages.is_zero() {
        text.push_str(&format!(", waited {:?}", job.wait_stages));
    }
    if workers.is_empty() {
        text.push_str(". No worker is connected: start one that registers it");
        return text;
    }
    text.push_str(". Registered:");
    for (place, (_, worker)) in workers.iter().enumerate() {
        if text.len() > ENOUGH {
            text.push_str(&format!("; and what {} more offer", workers.len() - place));
            break;
        }
        let mut names: Vec<&str> =
            worker.hello.functions.iter().map(|function| function.name.as_str()).collect();
        names.sort_unstable();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let names = shortened(names);
        let separator = if place == 0 { "" } else { ";" };
        text.push_str(&format!("{separator} {}: {names}", worker.title()));
    }
    text.push_str(". Correct the name, or start a worker that registers it");
    text
}
