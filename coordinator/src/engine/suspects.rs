//! Marked items of a job: where they are in process, at which deaths they were, and what follows.
//! See [`stageline_protocol::suspect`] for how tasks ask and how they are answered.
//!
//! What is in process where is a level that reports bring, and is not kept. A death of a process is
//! noted, stored, for each marked item in process there: by the first an item becomes a suspect, which
//! is told to run alone; by one while it ran alone it is convicted. A death is the end of a process
//! whose session broke and that was not back in time, or whose name another life of it took; nobody
//! dies by leaving, by silence or by losing links. A process that counted as dead and comes back
//! takes its deaths back: so a conviction waits for as long as that is likely, one lease, or until
//! another life has the name. An item that is done is forgotten, and so is one below the watermark; who
//! asks for that one is told that it is finished, since copies of it may live on, and a killer would begin
//! anew. How far a source in a client is, nobody stores: after a restart, what came of it is not answered
//! before that is heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stageline_protocol::control::{Down, Hello, ProcessKind};
use stageline_protocol::suspect::{Death, MarkState, MarkedItem, Verdict, Verdicts};
use stageline_protocol::{Epoch, Incarnation, JobId, Lineage, StageId, TaskId, Time};

use super::Engine;
use super::job::{Job, Life};
use crate::store::Record;

/// So many deaths of an item are remembered.
const MOST_DEATHS: usize = 16;

/// The marked items of one job.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    items: BTreeMap<(StageId, Lineage), Known>,
    /// By source: all roots below this are finished.
    watermarks: BTreeMap<StageId, u64>,
    /// Sources of which it has yet to be heard how far they are.
    unheard: BTreeSet<StageId>,
    /// When those who ask are to be answered again: a conviction is certain by then, or taken back.
    due: Option<Time>,
    /// Items whose deaths are to be stored anew.
    touched: BTreeSet<(StageId, Lineage)>,
    #[cfg(any(test, feature = "planted-bugs"))]
    forgets_finished: bool,
}

/// What is known of one item.
#[derive(Debug, Default)]
struct Known {
    runs: BTreeMap<Epoch, Run>,
    deaths: Vec<Noted>,
}

/// An item in, or admitted to, a process.
#[derive(Clone, Copy, Debug)]
struct Run {
    process: Incarnation,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// Told to run alone, and not in process yet.
    Told,
    Beside,
    Alone,
}

#[derive(Debug)]
struct Noted {
    death: Death,
    /// From when on it is not taken back.
    certain: Time,
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.runs.is_empty() && self.deaths.is_empty()
    }

    /// What it is told when it wants to start; `fits` is that if it is no convict. None if it has to
    /// wait until its conviction is certain, or is taken back.
    fn rule(&self, now: Time, fits: Verdict) -> Result<Verdict, Option<Time>> {
        let alone = self.deaths.iter().filter(|noted| noted.death.alone);
        match alone.map(|noted| noted.certain).min() {
            None => Ok(fits),
            Some(certain) if certain > now => Err(Some(certain)),
            Some(_) => Ok(Verdict::Convicted(self.history())),
        }
    }

    fn history(&self) -> Vec<Death> {
        self.deaths.iter().map(|noted| noted.death.clone()).collect()
    }
}

impl Suspects {
    /// What is stored of an item.
    pub(super) fn restore(&mut self, item: (StageId, Lineage), deaths: Vec<Death>, certain: Time) {
        let noted = deaths.into_iter().map(|death| Noted { death, certain });
        self.items.entry(item).or_default().deaths.extend(noted);
    }

    /// Nothing is known yet of how far this source is.
    pub(super) fn await_source(&mut self, source: StageId) {
        self.unheard.insert(source);
    }

    fn is_finished(&self, lineage: &Lineage) -> bool {
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.forgets_finished {
            return false;
        }
        self.watermarks.get(&lineage.source).is_some_and(|watermark| lineage.root < *watermark)
    }

    /// A task says which of its marked items are, or want to be, in process. Answers the verdicts.
    fn hear(
        &mut self,
        now: Time,
        task: TaskId,
        process: Incarnation,
        said: &[MarkedItem],
    ) -> Vec<(Lineage, Verdict)> {
        let epoch = task.epoch;
        let mut before: BTreeMap<Lineage, Run> = BTreeMap::new();
        if !self.items.is_empty() {
            let ours = self.items.iter_mut().filter(|((stage, _), _)| *stage == task.stage);
            before = ours
                .filter_map(|((_, lineage), known)| {
                    Some((lineage.clone(), known.runs.remove(&epoch)?))
                })
                .collect();
        }
        let mut verdicts = Vec::new();
        let mut done: BTreeSet<Lineage> = BTreeSet::new();
        for MarkedItem { lineage, state } in said {
            let wants =
                matches!(state, MarkState::Asking | MarkState::Holding | MarkState::Crowded);
            if wants && self.is_finished(lineage) {
                verdicts.push((lineage.clone(), Verdict::Finished));
                continue;
            }
            let unheard = wants && self.unheard.contains(&lineage.source);
            let known = self.items.entry((task.stage, lineage.clone())).or_default();
            let was = before.get(lineage).map(|run| run.how);
            let ruling = match state {
                _ if unheard => Err(None),
                MarkState::Asking if known.deaths.is_empty() => Ok(Verdict::Run),
                MarkState::Asking => known.rule(now, Verdict::Alone),
                MarkState::Holding | MarkState::Crowded => known.rule(now, Verdict::Start),
                MarkState::Away | MarkState::Done => Ok(Verdict::Left),
                MarkState::Running | MarkState::Alone => Ok(Verdict::Run),
            };
            let how = match (state, &ruling) {
                (MarkState::Running, _) => Some(How::Beside),
                (MarkState::Alone, _) => Some(How::Alone),
                (MarkState::Asking, Ok(Verdict::Run)) => Some(How::Beside),
                // An answer may be under way that lets it start.
                (MarkState::Asking, _) if was == Some(How::Beside) => was,
                (MarkState::Asking, Ok(Verdict::Alone)) => Some(How::Told),
                (MarkState::Holding, Ok(Verdict::Start)) => Some(How::Alone),
                (MarkState::Crowded, Ok(Verdict::Start)) => Some(How::Beside),
                _ => None,
            };
            if let Some(how) = how {
                let run = known.runs.entry(epoch).or_insert(Run { process, how });
                run.how = run.how.max(how);
            }
            if *state == MarkState::Done {
                done.insert(lineage.clone());
            }
            match ruling {
                Ok(_) if matches!(state, MarkState::Running | MarkState::Alone) => {}
                Ok(verdict) => verdicts.push((lineage.clone(), verdict)),
                Err(certain) => self.due = self.due.into_iter().chain(certain).min(),
            }
        }
        // What is not spoken of any more is not in process; whether it is done or was given back, it
        // does not say, so its deaths stand until its root is finished.
        for lineage in done {
            self.settle((task.stage, lineage));
        }
        let unknown = before.into_keys().chain(said.iter().map(|item| item.lineage.clone()));
        for lineage in unknown {
            self.tidy((task.stage, lineage));
        }
        verdicts
    }

    /// The item has been finished once: what it was suspected of is forgotten, unless another run of
    /// it goes on.
    fn settle(&mut self, item: (StageId, Lineage)) {
        if let Some(known) = self.items.get_mut(&item)
            && known.runs.is_empty()
        {
            if !known.deaths.is_empty() {
                self.touched.insert(item.clone());
            }
            self.items.remove(&item);
        }
    }

    fn tidy(&mut self, item: (StageId, Lineage)) {
        if self.items.get(&item).is_some_and(Known::is_nothing) {
            self.items.remove(&item);
        }
    }

    /// A task is over, in whatever way but by the death of its process.
    pub(super) fn task_over(&mut self, epoch: Epoch) {
        self.items.values_mut().for_each(|known| {
            known.runs.remove(&epoch);
        });
        self.items.retain(|_, known| !known.is_nothing());
    }

    /// A process is gone. Its death counts, if it was one, for what was in process in these tasks;
    /// it may be taken back until then.
    fn process_gone(&mut self, process: Incarnation, worker: &str, tasks: &[Epoch], certain: Time) {
        for (item, known) in &mut self.items {
            let runs = known.runs.iter().filter(|(_, run)| run.process == process);
            let counts = runs.filter(|(epoch, run)| tasks.contains(epoch) && run.how > How::Told);
            let worst = counts.map(|(_, run)| run.how).max();
            known.runs.retain(|_, run| run.process != process);
            if let Some(how) = worst {
                let alone = how == How::Alone;
                let death = Death { worker: worker.to_owned(), process, alone };
                if known.deaths.len() >= MOST_DEATHS {
                    known.deaths.remove(0);
                }
                known.deaths.push(Noted { death, certain });
                self.touched.insert(item.clone());
            }
        }
        self.items.retain(|_, known| !known.is_nothing());
    }

    /// A process that counted as dead is not.
    fn process_back(&mut self, now: Time, process: Incarnation) {
        for (item, known) in &mut self.items {
            let before = known.deaths.len();
            known.deaths.retain(|noted| noted.death.process != process);
            if known.deaths.len() < before {
                self.touched.insert(item.clone());
                self.due = Some(now);
            }
        }
        self.items.retain(|_, known| !known.is_nothing());
    }

    /// Another process goes by the name of one that died: that will not come back.
    fn name_taken(&mut self, now: Time, worker: &str) {
        let noted = self.items.values_mut().flat_map(|known| &mut known.deaths);
        for noted in noted.filter(|noted| noted.death.worker == worker && noted.certain > now) {
            noted.certain = now;
            self.due = Some(now);
        }
    }

    /// All roots of a source below this are finished.
    pub(super) fn below(&mut self, now: Time, source: StageId, watermark: u64) {
        if self.unheard.remove(&source) {
            self.due = Some(now);
        }
        let known = self.watermarks.entry(source).or_default();
        if watermark <= *known {
            return;
        }
        *known = watermark;
        let finished = |lineage: &Lineage| lineage.source == source && lineage.root < watermark;
        let touched = &mut self.touched;
        self.items.retain(|item, known| {
            let keep = !finished(&item.1);
            if !keep && !known.deaths.is_empty() {
                touched.insert(item.clone());
            }
            keep
        });
    }

    /// How many items were told to run alone in a process, and have not left it.
    pub(super) fn told(&self, process: Incarnation) -> u64 {
        let runs = self.items.values().flat_map(|known| known.runs.values());
        runs.filter(|run| run.process == process && run.how != How::Beside).count() as u64
    }

    /// When those who ask are to be answered again.
    pub(super) const fn timeout(&self) -> Option<Time> {
        self.due
    }

    /// What is to be stored.
    pub(super) fn records(&mut self, job: JobId) -> Vec<Record> {
        let touched = std::mem::take(&mut self.touched);
        let record = |(stage, lineage): (StageId, Lineage)| {
            let known = self.items.get(&(stage, lineage.clone()));
            let deaths = known.map(Known::history).unwrap_or_default();
            Record::Suspect { job, stage, lineage, deaths }
        };
        touched.into_iter().map(record).collect()
    }
}

impl Engine {
    /// Answers what a task asked in its last report, and stores what follows from it.
    pub(super) fn answer(&mut self, now: Time, id: JobId, epoch: Epoch) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(task) = job.tasks.get(&epoch) else { return };
        let (process, task_id) = (task.process, task.id);
        #[cfg(any(test, feature = "planted-bugs"))]
        {
            job.suspects.forgets_finished = self.config.forgets_finished;
        }
        let verdicts = job.suspects.hear(now, task_id, process, &task.report.marked);
        let records = job.suspects.records(id);
        self.out.extend(records.into_iter().map(super::Command::Persist));
        if !verdicts.is_empty() {
            let verdicts = Verdicts { job: id, term: self.term, task: task_id, verdicts };
            self.send(process, Down::Verdicts(verdicts));
        }
    }

    /// Answers those who ask anew, where the answer may be another now.
    pub(super) fn answer_due(&mut self, now: Time) {
        let mut asked = Vec::new();
        for job in self.jobs.values_mut() {
            if job.suspects.due.is_some_and(|due| due <= now) {
                job.suspects.due = None;
                let asking = job.in_views().filter(|task| !task.report.marked.is_empty());
                asked.extend(asking.map(|task| (job.id, task.id.epoch)));
            }
        }
        for (job, epoch) in asked {
            self.answer(now, job, epoch);
        }
    }

    /// A process registered: it may have counted as dead, and another of its name may have died.
    pub(super) fn reconsider(&mut self, now: Time, hello: &Hello) {
        for job in self.jobs.values_mut() {
            job.suspects.process_back(now, hello.incarnation);
            // A client's name is for people.
            if hello.kind == ProcessKind::Worker {
                job.suspects.name_taken(now, &hello.name);
            }
            let records = job.suspects.records(job.id);
            self.out.extend(records.into_iter().map(super::Command::Persist));
        }
    }
}

impl Job {
    /// A process is gone, and is about to be struck off. Its death is noted if it `died`: what was in
    /// process there, in tasks that were not told to end, may have killed it.
    pub(super) fn bury(
        &mut self,
        now: Time,
        process: Incarnation,
        worker: &str,
        died: Option<Duration>,
    ) -> Vec<Record> {
        let tasks = self.tasks.values().filter(|task| task.life == Life::Current);
        let tasks: Vec<Epoch> = match died {
            Some(_) => tasks.map(|task| task.id.epoch).collect(),
            None => Vec::new(),
        };
        let certain = now + died.unwrap_or_default();
        self.suspects.process_gone(process, worker, &tasks, certain);
        self.suspects.records(self.id)
    }
}
