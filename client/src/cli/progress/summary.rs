//! A job that is over, as text and as an exit code.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stageline_protocol::by_worker::fold;
use stageline_protocol::control::{JobPhase, JobStatus, Outcome, TaskStats};
use stageline_protocol::text::shown;

use super::render::{columns, count, errors};
use crate::cli::units::show_duration;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything went well.
    Fine = 0,
    /// The job completed, and some items failed.
    SomeFailed = 1,
    /// The job failed or was cancelled, or never started.
    JobFailed = 2,
}

impl Exit {
    /// The exit of a job. One that is not over counts as failed.
    #[must_use]
    pub fn of(status: &JobStatus) -> Self {
        match &status.phase {
            JobPhase::Ended(Outcome::Completed) | JobPhase::Ending(Outcome::Completed) => {
                let failed = status.stages.iter().any(|stage| errors(stage) > 0);
                if failed { Self::SomeFailed } else { Self::Fine }
            }
            _ => Self::JobFailed,
        }
    }

    /// The code that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Whether a summary says why a job did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It does.
    Shown,
    /// An error message says it already.
    ToldElsewhere,
}

/// The summary: outcome and time, counts for each stage, errors by kind, items for each worker,
/// and what was sent or arrived more than once. Several lines, without a newline at the end.
#[must_use]
pub fn summary(status: &JobStatus, reason: Reason) -> String {
    let outcome = match &status.phase {
        JobPhase::Ended(outcome) | JobPhase::Ending(outcome) => match outcome {
            Outcome::Completed => "completed in",
            Outcome::Cancelled(_) => "cancelled after",
            Outcome::Failed(_) => "failed after",
        },
        JobPhase::Waiting(_) => "left while it was waiting, after",
        JobPhase::Running => "left while it was running, after",
    };
    let mut text = format!("{}: {outcome} {}", shown(&status.name), show_duration(status.age));
    if let (Some(why), Reason::Shown) = (why(status), reason) {
        // Writing to a text cannot fail.
        let _ = write!(text, ": {}", shown(why));
    }

    let mut rows = vec![["stage", "in", "out", "filtered", "errors", "retries"].map(str::to_owned)];
    for stage in &status.stages {
        let stats = &stage.totals;
        let numbers = [stats.received, stats.sent, stats.filtered, errors(stage), stats.retries];
        let [received, sent, filtered, failed, retries] = numbers.map(count);
        rows.push([shown(&stage.name).into_owned(), received, sent, filtered, failed, retries]);
    }
    for line in columns(&rows) {
        push(&mut text, &line);
    }
    for line in totals(status) {
        push(&mut text, &line);
    }
    text
}
/// The figures of the job as a whole, one line for each kind that there is.
#[must_use]
pub fn totals(status: &JobStatus) -> Vec<String> {
    let mut total = TaskStats::default();
    let mut workers = BTreeMap::<String, u64>::new();
    for stage in &status.stages {
        total.add(&stage.totals);
        // Source and terminal run in the client, which is no worker.
        if !stage.op.is_single() {
            for (worker, items) in &stage.by_worker {
                let sum = workers.entry(worker.clone()).or_default();
                *sum = sum.saturating_add(*items);
            }
        }
    }
    let mut lines = Vec::new();
    if !total.errors.is_empty() {
        let kinds = total.errors.iter().map(|(kind, n)| format!("{kind} {}", count(*n)));
        lines.push(format!("errors by kind: {}", kinds.collect::<Vec<_>>().join(", ")));
    }
    fold(&mut workers);
    if !workers.is_empty() {
        let items = workers.iter().map(|(worker, n)| format!("{} {}", shown(worker), count(*n)));
        lines.push(format!("items by worker: {}", items.collect::<Vec<_>>().join(", ")));
    }
    lines.push(format!(
        "resends {}, duplicates dropped {}{}",
        count(total.resent),
        count(total.duplicates),
        match total.divergent {
            0 => String::new(),
            divergent => format!(
                ", divergent {} (a function gave other outputs when it ran again)",
                count(divergent)
            ),
        }
    ));
    if total.resent > 0 || total.duplicates > 0 {
        lines.push(
            "counts differ from the items where work ran again or its worker died; the results do \
             not"
            .to_owned(),
        );
    }
    lines
}

/// Why a job that is over did not complete.
#[must_use]
pub fn why(status: &JobStatus) -> Option<&str> {
    match &status.phase {
        JobPhase::Ended(outcome) | JobPhase::Ending(outcome) => match outcome {
            Outcome::Completed => None,
            Outcome::Cancelled(why) => Some(why),
            Outcome::Failed(failure) => Some(&failure.message),
        },
        JobPhase::Waiting(_) | JobPhase::Running => None,
    }
}

fn push(text: &mut String, line: &str) {
    // Writing to a text cannot fail.
    let _ = write!(text, "\n  {}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::fixture::status;
    use super::*;
    use stageline_protocol::control::{Failure, FailureKind};

    fn ended(outcome: Outcome) -> JobStatus {
        JobStatus { phase: JobPhase::Ended(outcome), ..status() }
    }

    #[test]
    fn a_completed_job_is_summed_up() {
        assert_eq!(
            summary(&ended(Outcome::Completed), Reason::Shown),
            "\
links: completed in 12.0 s
  stage       in     out  filtered  errors  retries
  files   12,345  12,345         0       0        0
  fetch    1,200   1,150         0       4        5
  keep     1,100      40     1,056       0        0
  stdout      40      40         0       0        0
  errors by kind: failed 3, timeout 1
  items by worker: w1 700, w2 1,600
  resends 12, duplicates dropped 2
  counts differ from the items where work ran again or its worker died; the results do not"
        );
    }

    #[test]
    fn a_job_that_ended_otherwise_says_why() {
        let failure = Failure {
            kind: FailureKind::MissingStage,
            message: "no worker registers fetch".to_owned(),
        };
        let failed = ended(Outcome::Failed(failure));
        let first = |status, reason| {
            summary(status, reason).lines().next().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(
            first(&failed, Reason::Shown),
            "links: failed after 12.0 s: no worker registers fetch"
        );
        assert_eq!(first(&failed, Reason::ToldElsewhere), "links: failed after 12.0 s");
        let cancelled = ended(Outcome::Cancelled("Ctrl-C".to_owned()));
        assert_eq!(first(&cancelled, Reason::Shown), "links: cancelled after 12.0 s: Ctrl-C");
        let left = "links: left while it was running, after 12.0 s";
        assert_eq!(first(&status(), Reason::Shown), left);
        let mut divergent = ended(Outcome::Completed);
        divergent.stages[1].totals.divergent = 3;
        assert!(summary(&divergent, Reason::Shown).contains("divergent 3"));
    }

    #[test]
    fn the_exit_code_says_whether_all_some_or_nothing_went_well() {
        let mut fine = ended(Outcome::Completed);
        assert_eq!(Exit::of(&fine), Exit::SomeFailed);
        fine.stages[1].totals.errors.clear();
        assert_eq!(Exit::of(&fine), Exit::Fine);
        fine.phase = JobPhase::Ended(Outcome::Cancelled(String::new()));
        assert_eq!(Exit::of(&fine), Exit::JobFailed);
        assert_eq!(Exit::of(&status()), Exit::JobFailed);
        assert_eq!([Exit::Fine, Exit::SomeFailed, Exit::JobFailed].map(Exit::code), [0, 1, 2]);
    }
}
