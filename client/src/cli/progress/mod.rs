//! How a job goes, and how it went, as people see it.
//!
//! [`render`] and [`summary`] are pure: a [`JobStatus`] in, text out. [`Progress`] shows it while
//! the job runs: on a terminal one line for each stage, rewritten in place; elsewhere one line in
//! the log every 10 s.

pub mod render;
pub mod summary;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use stageline_protocol::control::{JobPhase, JobStatus};
use tracing_subscriber::fmt::MakeWriter;

use super::file::SinkSpec;
use render::Rates;

/// Where no terminal is, how often a line is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Standard error, shared by progress lines and log lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: MultiProgress,
}

impl Default for Screen {
    fn default() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }
}

/// A log line, which is written whole, above the progress lines.
#[derive(Debug)]
pub struct LogLine {
    bars: MultiProgress,
    line: Vec<u8>,
}

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.bars.suspend(|| io::stderr().write_all(&line))
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // A log that cannot be written has nobody to tell.
            let _ = self.flush();
        }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { bars: self.bars.clone(), line: Vec::new() }
    }
}

/// The progress of one job.
#[derive(Debug)]
pub struct Progress {
    screen: Screen,
    /// Lines on a terminal, if there is one to have them.
    lines: Option<Vec<ProgressBar>>,
    rates: Rates,
    logged: Duration,
    /// Whether it was waiting for workers when it was shown last.
    waited: bool,
}

impl Progress {
    /// Starts to show a job whose results go to `sink`. Lines are drawn only where nothing else
    /// writes: standard error is a terminal, and results do not go to that same terminal.
    #[must_use]
    pub fn new(screen: &Screen, sink: &SinkSpec) -> Self {
        let mixed = *sink == SinkSpec::Stdout && io::stdout().is_terminal();
        let draws = io::stderr().is_terminal() && !mixed;
        Self {
            screen: screen.clone(),
            lines: draws.then(Vec::new),
            rates: Rates::default(),
            logged: Duration::ZERO,
            waited: false,
        }
    }

    /// Shows the job as it is now.
    pub fn show(&mut self, status: &JobStatus) {
        self.rates.update(status);
        let Some(lines) = &mut self.lines else {
            // Nothing seems to happen while it waits: so that is said at once.
            let waits = matches!(status.phase, JobPhase::Waiting(_));
            let news = waits && !std::mem::replace(&mut self.waited, waits);
            if news || status.age >= self.logged + LOG_EVERY {
                self.logged = status.age;
                tracing::info!(job = %status.job, "{}", render::log_line(status, &self.rates));
            }
            return;
        };
        let texts = render::lines(status, Some(&self.rates));
        while lines.len() < texts.len() {
            let bar = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            lines.push(self.screen.bars.add(bar));
        }
        // A line that is needed no more stays as an empty one: lines do not jump.
        let texts = texts.into_iter().chain(std::iter::repeat(String::new()));
        for (line, text) in lines.iter().zip(texts) {
            line.set_message(text);
        }
    }

    /// Takes the lines off the terminal. Dropping does the same.
    pub fn clear(&mut self) {
        for line in self.lines.iter_mut().flat_map(|lines| lines.drain(..)) {
            line.finish_and_clear();
            self.screen.bars.remove(&line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A job to be shown.

    use std::collections::BTreeMap;

    use stageline_protocol::control::{HeldUp, StageStatus, TaskStats};
    use stageline_protocol::ids::JobId;
    use stageline_protocol::item::ErrorKind;
    use stageline_protocol::pipeline::Op;

    use super::*;

    pub(crate) fn stage(name: &str, op: Op, received: u64, sent: u64) -> StageStatus {
        StageStatus {
            name: name.to_owned(),
            op,
            slots: 4,
            totals: TaskStats { received, started: received, sent, ..TaskStats::default() },
            by_worker: BTreeMap::new(),
        }
    }

    /// Twelve seconds into a job of four stages on two workers.
    pub(crate) fn status() -> JobStatus {
        let mut fetch = stage("fetch", Op::Map, 1200, 1150);
        fetch.totals.errors = BTreeMap::from([(ErrorKind::Failed, 3), (ErrorKind::Timeout, 1)]);
        fetch.totals.busy = 16;
        fetch.totals.waiting_for_credit = 7;
        fetch.totals.retries = 5;
        fetch.totals.resent = 12;
        fetch.by_worker = BTreeMap::from([("w1".to_owned(), 700), ("w2".to_owned(), 500)]);
        let mut keep = stage("keep", Op::Filter, 1100, 40);
        keep.totals.filtered = 1056;
        keep.by_worker = BTreeMap::from([("w2".to_owned(), 1100)]);
        let mut end = stage("stdout", Op::Terminal, 40, 40);
        end.totals.duplicates = 2;
        end.by_worker = BTreeMap::from([("client".to_owned(), 40)]);
        JobStatus {
            job: JobId(0xab),
            name: "links".to_owned(),
            phase: JobPhase::Running,
            client: "client".to_owned(),
            age: Duration::from_secs(12),
            stages: vec![stage("files", Op::Source, 12_345, 12_345), fetch, keep, end],
            held_up_by: vec![HeldUp {
                source: "files".to_owned(),
                root: 88,
                stage: "fetch".to_owned(),
            }],
        }
    }
}
