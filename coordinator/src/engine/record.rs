//! What is kept of tasks. Level-triggered as all else: what is to be known of each is compared with
//! what was last put, and the difference is put before it is announced.

use stageline_protocol::JobId;

use super::job::{Job, Life, Task};
use super::{Command, Engine};
use crate::store::{Record, StoredTask};

/// What changes of a task that runs or may run: its slots, those that may be in use, and whether it
/// should end.
pub(super) type Level = (u32, u32, bool);

impl Engine {
    /// Puts what has changed of the tasks of the jobs that were touched.
    pub(super) fn record(&mut self) {
        for job in self.jobs.values_mut() {
            // What is kept of a job that is over is only how it came out.
            if std::mem::take(&mut job.touched) && !job.is_over() {
                let records = job.changes();
                self.out.extend(records.into_iter().map(Command::Persist));
            } else {
                debug_assert!(job.is_over() || job.changes().is_empty(), "{} was touched", job.id);
            }
        }
    }
}

impl Job {
    fn changes(&mut self) -> Vec<Record> {
        let job = self.id;
        let over = std::mem::take(&mut self.struck).into_iter();
        let mut records: Vec<Record> = over.map(|epoch| Record::TaskOver { job, epoch }).collect();
        records.extend(self.tasks.values_mut().filter_map(|task| task.change(job)));
        records
    }
}

impl Task {
    /// None once it runs no more.
    pub(super) fn level(&self) -> Option<Level> {
        let in_use = self.in_use();
        match self.life {
            Life::Current => Some((self.slots, self.slots.max(in_use), false)),
            // That it leaves is kept with its process.
            Life::Leaving { slots } => Some((slots, in_use, false)),
            Life::Retiring => Some((self.slots, self.slots.max(in_use), true)),
            Life::Over => None,
        }
    }

    fn change(&mut self, job: JobId) -> Option<Record> {
        let level = self.level();
        if level == self.recorded {
            return None;
        }
        self.recorded = level;
        Some(match level {
            None => Record::TaskOver { job, epoch: self.id.epoch },
            Some((slots, held, retiring)) => Record::Task {
                job,
                task: StoredTask {
                    id: self.id,
                    process: self.process,
                    worker: self.worker.clone(),
                    slots,
                    held,
                    start: self.start,
                    retiring,
                },
            },
        })
    }
}
