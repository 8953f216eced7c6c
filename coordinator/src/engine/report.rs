//! What processes say of their tasks. Everything in a report is a level: hearing it again changes
//! nothing.

use stageline_protocol::control::{
    Failure, FailureKind, Outcome, Report, SourceReport, TaskEnd, TaskReport,
};
use stageline_protocol::pipeline::{Op, Site};
use stageline_protocol::{Epoch, Incarnation, StageId, Time};

use super::job::{Job, Life};
use super::{Command, Engine};
use crate::store::Record;

/// So many tasks of a stage that has never reached anybody, one after the other, are no passing trouble.
const UNREACHED: u32 = 3;

impl Engine {
    pub(super) fn reported(&mut self, now: Time, from: Incarnation, report: Report) {
        let id = report.job;
        let Some(job) = self.jobs.get_mut(&id) else { return self.say_final(from, id) };
        // Somebody counted as dead, and now back, is told what should be: nothing of what it had.
        job.stale |= job.involved.insert(from);
        let worker = self.fleet.get(from);
        let title = worker.map_or_else(String::new, |process| process.title());
        let mut ends: Option<Outcome> = None;
        let mut records: Vec<Record> = Vec::new();
        let mut asking: Vec<Epoch> = Vec::new();
        let mut warnings: Vec<String> = Vec::new();

        job.touched = true;
        if report.term == self.term {
            job.confirm(from, &report);
        }
        // Whoever reports on the newest view speaks of the neighbours that there are.
        let up_to_date = report.term == self.term && report.revision == job.revision && !job.stale;
        for said in report.tasks {
            let epoch = said.id.epoch;
            let Some(task) = job.tasks.get_mut(&epoch) else { continue };
            if task.id != said.id || task.process != from {
                continue;
            }
            let asks = !said.marked.is_empty() || !task.report.marked.is_empty();
            let changed = task.report != said;
            task.report = said.clone();
            let (life, stage) = (task.life, task.id.stage);
            if life == Life::Retiring && said.ended.is_some() {
                job.over(epoch);
            }
            if changed {
                job.changed(now, &self.config);
            }
            job.note_reached(&said);
            if !life.in_views() || job.is_over() {
                continue;
            }
            if asks && said.ended.is_none() {
                asking.push(epoch);
            }
            job.take_cuts(&said);
            if let Some(source) = said.source {
                records.extend(job.take_source(now, stage, source));
            }
            if said.ended.is_none() {
                let heard = job.take_unreached(now, &self.config, stage, &title, &said);
                warnings.extend(heard.warning);
                ends = ends.or(heard.outcome);
            }
            if !said.unreached.is_empty() && up_to_date {
                job.part(now, &self.config, &self.fleet, &said);
            }
            if let Some(end) = said.ended {
                let function = job.stage(stage).map(|stage| stage.function.clone());
                let function = function.and_then(|name| worker.and_then(|w| w.function(&name)));
                let replayable = function.is_none_or(|function| function.replayable);
                ends = ends.or(job.task_ended(epoch, end, &title, replayable));
            }
        }
        records.extend(job.suspects.records(id));
        job.weigh();
        job.replan |= job.unsettled;
        for record in records {
            self.persist(record);
        }
        self.out.extend(warnings.into_iter().map(Command::Warn));
        for epoch in asking {
            self.answer(now, id, epoch);
        }
        if let Some(outcome) = ends {
            self.end_job(now, id, outcome);
        }
    }
}

impl Job {
    /// The process has applied a view: what that took away and the report does not have is free.
    fn confirm(&mut self, from: Incarnation, report: &Report) {
        let mut over = Vec::new();
        for task in self.tasks.values_mut().filter(|task| task.process == from) {
            if task.held.is_some_and(|(revision, _)| report.revision < revision) {
                continue;
            }
            task.held = None;
            let listed = report.tasks.iter().any(|said| said.id == task.id);
            if task.life == Life::Retiring && !listed {
                task.life = Life::Over;
                over.push(task.id.epoch);
            }
        }
        over.into_iter().for_each(|epoch| self.suspects.task_over(epoch));
    }

    /// Notes the channels that a task says are cut, as far as they are its own.
    fn take_cuts(&mut self, said: &TaskReport) {
        for cut in &said.cut {
            let mut channels = self.graph.pipeline().channels();
            let own = channels.any(|(id, channel)| {
                id == *cut && (channel.from == said.id.stage || channel.to == said.id.stage)
            });
            if own && self.cut.insert(*cut) {
                self.stale = true;
            }
        }
    }

    /// Notes which stages have had links downstream: a task knows of its own, and one that has received
    /// something, of those upstream, whose tasks may be gone.
    fn note_reached(&mut self, said: &TaskReport) {
        if said.reached {
            self.reached.insert(said.id.stage);
        }
        if said.stats.received > 0 {
            let inputs = self.graph.pipeline().inputs(said.id.stage);
            self.reached.extend(inputs.map(|(_, channel)| channel.from));
        }
    }

    /// Notes how far a source is. The watermark of one on the fleet counts once it is stored; one in
    /// the client lives and dies with the job, and keeps its own.
    fn take_source(&mut self, now: Time, id: StageId, source: SourceReport) -> Vec<Record> {
        let Some(stage) = self.stage(id).filter(|stage| stage.op == Op::Source) else {
            return Vec::new();
        };
        let mut records = Vec::new();
        let site = stage.site;
        self.suspects.below(now, id, source.watermark);
        if site == Site::Fleet {
            let (stored, position) = (self.positions.get(&id).copied(), source.watermark);
            if position > stored.unwrap_or(0) {
                self.positions.insert(id, position);
                self.stale = true;
                records.push(Record::Position { job: self.id, stage: id, position });
            }
        }
        if source.exhausted.is_some_and(|roots| source.watermark >= roots)
            && self.finished.insert(id)
        {
            records.push(Record::Finished { job: self.id, stage: id });
        }
        records
    }

    /// A task that should run has ended by itself. Answers the job's outcome, if it cannot go on.
    fn task_ended(
        &mut self,
        epoch: Epoch,
        end: TaskEnd,
        title: &str,
        replayable: bool,
    ) -> Option<Outcome> {
        let stage = self.tasks.get(&epoch)?.id.stage;
        let declared = self.stage(stage)?;
        let (site, op, name) = (declared.site, declared.op, declared.name.clone());
        self.over(epoch);
        match end {
            TaskEnd::Failed(message) => Some(failed(
                FailureKind::Internal,
                format!("stage {name:?} failed on {title}: {message}"),
            )),
            TaskEnd::LostLinks | TaskEnd::Stopped
                if self.is_lost_source(stage, site, replayable) =>
            {
                let why = "it could reach none of the tasks that it sends to";
                Some(self.source_lost(stage, title, why))
            }
            // What it had applied is gone with it, and would be applied again.
            TaskEnd::LostLinks | TaskEnd::Stopped if op == Op::Terminal => Some(failed(
                FailureKind::Internal,
                format!("terminal {name:?} ended by itself on {title}: run the job again"),
            )),
            TaskEnd::LostLinks if !self.reached.contains(&stage) => {
                let ends = self.unreached.entry(stage).or_default();
                *ends += 1;
                (*ends >= UNREACHED).then(|| {
                    failed(
                        FailureKind::Internal,
                        format!(
                            "stage {name:?} could reach none of the tasks next to it, {UNREACHED} \
                             times, the last time on {title}: check the addresses that workers \
                             advertise (--advertise), and what is between them"
                        ),
                    )
                })
            }
            TaskEnd::LostLinks | TaskEnd::Stopped => None,
        }
    }

    /// Whether the loss of a task means that roots are lost: a source's that cannot be replayed, and
    /// that was not finished. A source in the client never can.
    pub(super) fn is_lost_source(&self, stage: StageId, site: Site, replayable: bool) -> bool {
        let source = self.stage(stage).is_some_and(|stage| stage.op == Op::Source);
        source && !self.finished.contains(&stage) && (site == Site::Client || !replayable)
    }

    pub(super) fn source_lost(&self, stage: StageId, title: &str, why: &str) -> Outcome {
        let name = self.stage_name(stage);
        let remedy = match self.stage(stage).map(|stage| stage.site) {
            Some(Site::Client) => "check that the client reaches the workers' addresses",
            _ => {
                "run the job again; if the source gives the same items again from a position, \
                 register it as replayable"
            }
        };
        failed(
            FailureKind::SourceLost,
            format!(
                "source {name:?} was lost on {title} ({why}), and cannot be replayed: {remedy}"
            ),
        )
    }

    /// Whether sources are to pause, as some task retains more than its budget.
    pub(super) fn weigh(&mut self) {
        let paused = self.in_views().any(|task| task.report.over_budget);
        self.stale |= paused != self.paused;
        self.paused = paused;
    }
}

pub(super) fn failed(kind: FailureKind, message: String) -> Outcome {
    Outcome::Failed(Failure { kind, message })
}
