//! A running job as text.

use std::collections::VecDeque;
use std::time::Duration;

use stageline_protocol::control::{JobPhase, JobStatus, StageStatus};
use stageline_protocol::text::shown;

/// A rate is the mean over at least this long.
const WINDOW: Duration = Duration::from_secs(5);

/// How many items each stage takes in a second, of late.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// The job's age, and what each stage had received then; oldest first.
    seen: VecDeque<(Duration, Vec<u64>)>,
}

impl Rates {
    /// Takes the job's figures as of now.
    pub fn update(&mut self, status: &JobStatus) {
        // A restarted coordinator may count from the beginning: what was before means nothing then.
        if self.seen.back().is_some_and(|(age, _)| *age > status.age) {
            self.seen.clear();
        }
        let received = status.stages.iter().map(|stage| stage.totals.received).collect();
        self.seen.push_back((status.age, received));
        // Of those older than the window, the youngest stays: the window is never shorter.
        while self.seen.get(1).is_some_and(|(age, _)| *age + WINDOW <= status.age) {
            self.seen.pop_front();
        }
    }

    /// The rate of a stage, by its place; 0 before there are two figures.
    #[must_use]
    pub fn of(&self, stage: usize) -> f64 {
        let (Some((from, before)), Some((to, now))) = (self.seen.front(), self.seen.back()) else {
            return 0.0;
        };
        let (Some(before), Some(now)) = (before.get(stage), now.get(stage)) else { return 0.0 };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds > 0.0 { now.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

/// A heading and one line for each stage, in columns; below them, what the job waits for, if it does.
/// Without rates there is no column for them.
#[must_use]
pub fn lines(status: &JobStatus, rates: Option<&Rates>) -> Vec<String> {
    let mut heading = vec!["stage", "in", "out", "errors"];
    heading.extend(rates.map(|_| "rate"));
    heading.extend(["in process", "awaiting credit"]);
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for (place, stage) in status.stages.iter().enumerate() {
        let totals = &stage.totals;
        let mut row = vec![shown(&stage.name).into_owned()];
        row.extend([totals.received, totals.sent, errors(stage)].map(count));
        row.extend(rates.map(|rates| rate(rates.of(place))));
        row.extend([totals.busy, totals.waiting_for_credit].map(count));
        rows.push(row);
    }
    let mut lines = if status.stages.is_empty() { Vec::new() } else { columns(&rows) };
    lines.extend(waits(status));
    lines
}

/// The job in one line.
#[must_use]
pub fn log_line(status: &JobStatus, rates: &Rates) -> String {
    if let JobPhase::Waiting(_) = status.phase {
        return format!("{}: {}", shown(&status.name), waits(status).join("; "));
    }
    let stages: Vec<String> = status
        .stages
        .iter()
        .enumerate()
        .map(|(place, stage)| {
            let failed = match errors(stage) {
                0 => String::new(),
                failed => format!(", errors {}", count(failed)),
            };
            let done = count(stage.totals.received);
            format!("{} {done} ({}{failed})", shown(&stage.name), rate(rates.of(place)))
        })
        .collect();
    let mut line =
        format!("{} {}: {}", shown(&status.name), status.phase.name(), stages.join(" → "));
    for wait in waits(status) {
        line.push_str("; ");
        line.push_str(&wait);
    }
    line
}

/// The stages of a running job that nobody runs: their workers have gone.
pub fn without_worker(status: &JobStatus) -> impl Iterator<Item = &str> {
    let running = status.phase == JobPhase::Running;
    let stages = status.stages.iter().filter(move |stage| running && stage.slots == 0);
    stages.map(|stage| stage.name.as_str())
}

fn waits(status: &JobStatus) -> Vec<String> {
    let mut waits = Vec::new();
    if let JobPhase::Waiting(functions) = &status.phase {
        waits.push(format!("waiting for a worker that registers {}", shown(&functions.join(", "))));
    }
    waits.extend(without_worker(status).map(|stage| {
        format!(
            "stage {} has no worker: it waits for one that registers its function",
            shown(stage)
        )
    }));
    waits.extend(status.held_up_by.iter().map(|held| {
        let (source, stage) = (shown(&held.source), shown(&held.stage));
        format!("{source} waits for its root {}, which is at {stage}", held.root)
    }));
    waits
}

/// The error items that a stage has made.
pub(super) fn errors(stage: &StageStatus) -> u64 {
    stage.totals.errors.values().sum()
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 {
        format!("{}/s", count(rate.round() as u64))
    } else {
        format!("{rate:.1}/s")
    }
}

/// Rows as lines: each column as wide as its widest cell, the first flush left.
pub(super) fn columns<R: AsRef<[String]>>(rows: &[R]) -> Vec<String> {
    let mut widths = Vec::new();
    for row in rows {
        let cells = row.as_ref();
        widths.resize(cells.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &R| {
        let cells = row.as_ref().iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{stage, status};
    use super::*;
    use stageline_protocol::pipeline::Op;

    #[test]
    fn a_running_job_is_a_table_with_a_line_for_each_stage() {
        let mut rates = Rates::default();
        rates.update(&JobStatus {
            age: Duration::from_secs(10),
            stages: vec![stage("files", Op::Source, 10_000, 10_000)],
            ..status()
        });
        rates.update(&status());
        assert_eq!(
            lines(&status(), Some(&rates)).join("\n"),
            "\
stage       in     out  errors     rate  in process  awaiting credit
files   12,345  12,345       0  1,173/s           0                0
fetch    1,200   1,150       4      0/s          16                7
keep     1,100      40       0      0/s           0                0
stdout      40      40       0      0/s           0                0
files waits for its root 88, which is at fetch"
        );
        assert_eq!(
            lines(&status(), None)[..2],
            [
                "stage       in     out  errors  in process  awaiting credit",
                "files   12,345  12,345       0           0                0",
            ]
        );
        assert_eq!(
            log_line(&status(), &rates),
            "links running: files 12,345 (1,173/s) → fetch 1,200 (0/s, errors 4) → keep 1,100 \
             (0/s) → stdout 40 (0/s); files waits for its root 88, which is at fetch"
        );
    }

    #[test]
    fn a_job_without_workers_says_what_it_waits_for() {
        let mut waiting = status();
        waiting.phase = JobPhase::Waiting(vec!["fetch".to_owned(), "keep".to_owned()]);
        waiting.stages.clear();
        waiting.held_up_by.clear();
        let rates = Rates::default();
        let waits = "waiting for a worker that registers fetch, keep";
        assert_eq!(lines(&waiting, Some(&rates)), [waits]);
        assert_eq!(log_line(&waiting, &rates), format!("links: {waits}"));
    }

    #[test]
    fn a_rate_is_the_mean_of_the_last_seconds() {
        let mut rates = Rates::default();
        let mut at = |seconds: u64, received: u64| {
            rates.update(&JobStatus {
                age: Duration::from_secs(seconds),
                stages: vec![stage("s", Op::Map, received, 0)],
                ..status()
            });
            rates.of(0)
        };
        assert_eq!(at(0, 0), 0.0);
        assert_eq!(at(1, 100), 100.0);
        assert_eq!(at(2, 200), 100.0);
        assert_eq!(at(7, 200), 0.0, "what was before the window is forgotten");
        assert_eq!(at(8, 206), 1.0);
        assert_eq!(at(1, 1000), 0.0, "a clock that went back starts anew");
        assert!(rates.of(9) == 0.0);
    }

    #[test]
    fn numbers_are_grouped() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!([0.0, 0.25, 9.96, 1234.4].map(rate), ["0/s", "0.2/s", "10.0/s", "1,234/s"]);
    }
}
