//! One job after the other, for as long as the faults last.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, Running};
use super::oracle::Verdict;
use super::work::Shape;
use crate::cluster::GUARD;

/// A job that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often to look whether a job has ended.
pub const LOOK: Duration = Duration::from_millis(20);

/// Jobs of several shapes in turn, each begun when the one before it has ended.
#[derive(Debug)]
pub struct Series {
    shapes: &'static [Shape],
    items: u64,
    begun: usize,
    current: Running,
    /// Of all jobs that have ended.
    pub verdict: Verdict,
}

impl Series {
    /// Begins the first job.
    #[must_use]
    pub fn begin(fleet: &mut Fleet, shapes: &'static [Shape], items: u64) -> Self {
        let current = fleet.submit(shapes[0], items);
        Self { shapes, items, begun: 1, current, verdict: Verdict::default() }
    }

    /// How long the current job has run.
    #[must_use]
    pub fn running_for(&self) -> Duration {
        self.current.since.elapsed()
    }

    /// The sort of the current job.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.current.shape
    }

    /// Whether it makes no sense to go on: something is wrong.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.verdict.is_clean()
    }

    /// Begins the next job if the current one has ended and `more` are wanted. False when it has and
    /// none is.
    pub fn look(&mut self, fleet: &mut Fleet, more: bool) -> bool {
        if let Some(verdict) = fleet.verdict(&self.current) {
            self.verdict.add(verdict);
            if !more || self.is_broken() {
                return false;
            }
            self.current = fleet.submit(self.shapes[self.begun % self.shapes.len()], self.items);
            self.begun += 1;
        }
        if self.running_for() > PATIENCE {
            self.verdict.faults.push(format!("a job hangs: {:?}", self.current));
            return false;
        }
        true
    }

    /// Keeps jobs running for that long. False when something broke.
    pub async fn run_for(&mut self, fleet: &mut Fleet, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if !self.look(fleet, true) {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Waits for the end of the current job, and begins the next. False when something broke.
    pub async fn fresh(&mut self, fleet: &mut Fleet) -> bool {
        let current = self.begun;
        while self.begun == current {
            if !self.look(fleet, true) {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Waits for the end of the current job. Then every process must be idle, if the coordinator can
    /// be asked.
    ///
    /// # Panics
    /// When the coordinator does not answer.
    pub async fn finish(mut self, fleet: &mut Fleet) -> Verdict {
        while !self.is_broken() && self.look(fleet, false) {
            tokio::time::sleep(LOOK).await;
        }
        let since = Instant::now();
        while !self.is_broken() && fleet.net.is_none() {
            let busy = fleet.busy().await;
            if busy.is_empty() {
                break;
            }
            if since.elapsed() > GUARD {
                self.verdict.faults.extend(busy);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.verdict
    }
}
