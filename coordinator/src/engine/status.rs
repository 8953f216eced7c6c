//! How a job goes, for people and for the client that owns it.

use std::collections::BTreeMap;

use stageline_protocol::by_worker::fold;
use stageline_protocol::control::{Down, HeldUp, JobStatus, StageStatus};
use stageline_protocol::pipeline::Stage;
use stageline_protocol::{Incarnation, StageId, Time};

use super::Engine;
use super::job::{Job, Life, without_gauges};

impl Engine {
    /// Tells the clients whose status is due.
    pub(super) fn push_statuses(&mut self, now: Time) {
        let mut due: Vec<(Incarnation, JobStatus)> = Vec::new();
        for job in self.jobs.values_mut() {
            if job.status_due.is_some_and(|due| due <= now) {
                job.status_due = None;
                job.status_sent = Some(now);
                due.push((job.client, job.status(now)));
            }
        }
        for (client, status) in due {
            self.send(client, Down::Status(Box::new(status)));
        }
    }
}

impl Job {
    pub(super) fn status(&self, now: Time) -> JobStatus {
        let pipeline = self.graph.pipeline();
        JobStatus {
            job: self.id,
            name: pipeline.name.clone(),
            phase: self.phase.clone(),
            client: self.client_name.clone(),
            age: now.since(self.submitted),
            stages: pipeline.stages().map(|(id, stage)| self.stage_status(id, stage)).collect(),
            held_up_by: self.graph.sources().filter_map(|source| self.held_up(source)).collect(),
        }
    }

    fn stage_status(&self, id: StageId, stage: &Stage) -> StageStatus {
        let mut status = StageStatus {
            name: stage.name.clone(),
            op: stage.op,
            slots: 0,
            totals: Default::default(),
            by_worker: BTreeMap::new(),
        };
        if let Some(past) = self.past.get(&id) {
            status.totals = past.totals.clone();
            status.by_worker = past.by_worker.clone();
        }
        for task in self.tasks.values().filter(|task| task.id.stage == id) {
            let stats = &task.report.stats;
            if task.life == Life::Over {
                status.totals.add(&without_gauges(stats.clone()));
            } else {
                status.totals.add(stats);
            }
            status.slots = status.slots.saturating_add(task.slots);
            let started = status.by_worker.entry(task.worker.clone()).or_default();
            *started = started.saturating_add(stats.started);
        }
        fold(&mut status.by_worker);
        status
    }

    /// The root that keeps a source from admitting more, and the last stage that has it: everything
    /// before has passed it on.
    fn held_up(&self, source: StageId) -> Option<HeldUp> {
        let task = self.in_views().find(|task| task.id.stage == source)?;
        let said = task.report.source.filter(|said| said.exhausted.is_none())?;
        let root = said.watermark;
        if !said.full {
            return None;
        }
        let holds = |id: &&StageId| {
            let mut tasks = self.in_views().filter(|task| task.id.stage == **id);
            tasks.any(|task| task.report.oldest.contains(&(source, root)))
        };
        let stage = self.graph.order().iter().rev().find(holds).copied().unwrap_or(source);
        Some(HeldUp {
            source: self.stage_name(source).to_owned(),
            root,
            stage: self.stage_name(stage).to_owned(),
        })
    }
}
