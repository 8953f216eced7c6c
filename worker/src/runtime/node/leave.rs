//! How a process goes: told to stop, at once; asked to leave, in good order. Then it says so, drains its
//! tasks, and goes when they have ended.
//!
//! Its tasks drain at once, whether the coordinator hears of it or not: they part with their neighbours
//! over their links. What the coordinator adds is somebody to take their place. A position that a named
//! source has reached is for it alone: so one that is away is waited for, if a source ran here.
//!
//! A source that cannot be replayed is not drained, since nobody can go on where it stops: it has the
//! time to come to its end. When the time is over, whatever is left is stopped.

use std::time::Duration;

use stageline_protocol::control::{ProcessKind, Up};
use stageline_protocol::pipeline::{Op, Site};
use stageline_protocol::{JobId, TaskId};
use tokio::time::Instant;

use super::super::handle::NodeEvent;
use super::super::job::Job;
use super::super::session::SessionEvent;
use super::super::task::Event;
use super::Node;

/// How long a process that is told to stop waits for its tasks.
const STOP_GRACE: Duration = Duration::from_millis(1_500);
/// How long it waits for the coordinator to hear its goodbye.
const GOODBYE_GRACE: Duration = Duration::from_millis(300);
/// What it still waits for is logged at most this often.
const SAY_EVERY: Duration = Duration::from_secs(3);

/// A process that is leaving.
pub(super) struct Leaving {
    /// When what is left is stopped.
    pub(super) until: Instant,
    /// When it last said what it waits for.
    said: Instant,
}

impl Node {
    pub(super) fn leave(&mut self, grace: Duration) {
        let now = Instant::now();
        // A client's tasks have no other place.
        let grace = if self.config.kind == ProcessKind::Client { Duration::ZERO } else { grace };
        // Longer than a clock can say is for ever: a year, to be seen as that.
        let until = now + grace.min(Duration::from_secs(365 * 24 * 3600));
        if let Some(leaving) = &mut self.leaving {
            leaving.until = leaving.until.min(until);
            return;
        }
        self.leaving = Some(Leaving { until, said: now });
        self.send(Up::Leaving);
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.drain(job);
        }
    }

    /// Drains the tasks of a job that should be: all, if the process is leaving.
    pub(super) fn drain(&self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(view) = &job.view else { return };
        for (task, sender) in job.running() {
            let told = view.tasks.iter().any(|plan| plan.id == task && plan.drain);
            if told || self.leaving.is_some() && !self.is_irreplaceable(job, task) {
                let _ended_already = sender.send(Event::Drain);
            }
        }
    }

    /// Whether nobody can go on where this task stops.
    fn is_irreplaceable(&self, job: &Job, task: TaskId) -> bool {
        let stage = job.view.as_ref().and_then(|view| view.pipeline.stage(task.stage));
        let source = stage.filter(|stage| stage.op == Op::Source && stage.site == Site::Fleet);
        let functions = || self.config.registry.functions();
        source.is_some_and(|source| {
            functions().iter().any(|f| f.name == source.function && !f.replayable)
        })
    }

    /// Whether it was leaving, and nothing keeps it any more.
    pub(super) fn has_left(&self) -> bool {
        let over = |job: &Job| job.running().next().is_none();
        self.leaving.is_some()
            && self.loops.is_empty()
            && self.jobs.values().all(over)
            && !self.has_untold_position()
    }

    /// Whether the coordinator is away, and does not know how far a source here has come.
    fn has_untold_position(&self) -> bool {
        let mut entries = self.jobs.values().flat_map(|job| job.tasks.values());
        self.session_lost.is_some() && entries.any(|entry| entry.report.source.is_some())
    }

    /// Logs now and then what keeps a process that is leaving.
    pub(super) fn say_what_is_left(&mut self) {
        let due = |leaving: &Leaving| leaving.said.elapsed() >= SAY_EVERY;
        if !self.leaving.as_ref().is_some_and(due) {
            return;
        }
        let (mut running, mut unacked, mut source) = (0, 0, None);
        for job in self.jobs.values() {
            for (task, _) in job.running() {
                let Some(stats) = job.tasks.get(&task).map(|entry| &entry.report.stats) else {
                    continue;
                };
                running += stats.busy;
                unacked += stats.unacked.saturating_add(stats.waiting_for_credit);
                if self.is_irreplaceable(job, task) {
                    let stage = job.view.as_ref().and_then(|view| view.pipeline.stage(task.stage));
                    source = stage.map(|stage| stage.name.clone());
                }
            }
        }
        let away = self.session_lost.is_some();
        tracing::info!("leaving: {}", what_is_left(running, unacked, source.as_deref(), away));
        if let Some(leaving) = &mut self.leaving {
            leaving.said = Instant::now();
        }
    }

    /// Ends all that runs here, and tells the coordinator.
    pub(super) async fn go(&mut self) {
        self.send(Up::Goodbye);
        self.stop_tasks().await;
        self.hang_up().await;
    }

    /// Ends the session, and waits until the coordinator has heard all that was said: the process may
    /// be gone the moment after.
    async fn hang_up(&mut self) {
        if self.session.take().is_none() {
            return;
        }
        let heard = async {
            loop {
                match self.events.recv().await {
                    None | Some(NodeEvent::Session(SessionEvent::Closed)) => return,
                    Some(_) => {}
                }
            }
        };
        let _or_it_misses_the_lease = tokio::time::timeout(GOODBYE_GRACE, heard).await;
    }

    pub(super) async fn stop_tasks(&mut self) {
        for job in self.jobs.values() {
            job.stop_all();
        }
        let ended = async { while self.loops.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
            self.loops.abort_all();
        }
    }
}

fn what_is_left(running: u64, unacked: u64, source: Option<&str>, away: bool) -> String {
    let mut parts = Vec::new();
    match running {
        0 => {}
        1 => parts.push("1 item still runs".to_owned()),
        _ => parts.push(format!("{running} items still run")),
    }
    match unacked {
        0 => {}
        1 => parts.push("1 result is not taken yet".to_owned()),
        _ => parts.push(format!("{unacked} results are not taken yet")),
    }
    if let Some(source) = source {
        parts.push(format!("source {source:?} cannot be replayed, and goes on"));
    }
    if away {
        parts.push("the coordinator is away".to_owned());
    }
    if parts.is_empty() {
        parts.push("neighbours are told".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_in_words() {
        assert_eq!(what_is_left(3, 1, None, false), "3 items still run, 1 result is not taken yet");
        assert_eq!(
            what_is_left(1, 0, Some("ticks"), true),
            "1 item still runs, source \"ticks\" cannot be replayed, and goes on, the coordinator is away"
        );
        assert_eq!(what_is_left(0, 0, None, false), "neighbours are told");
    }
}
