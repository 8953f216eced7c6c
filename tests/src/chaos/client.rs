//! The client process: runs one job, and writes down what comes out, as it comes.
//!
//! Beside the results it keeps a journal, which the driver reads when the process is over or dead:
//! one JSON object a line, of type [`Entry`].

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stageline::{Client, JobError, JobStatus, Results, Stream, TaskStats};

use super::work::{FLAKY, FLAKY_OUTPUTS, KEEP, ONE, PAIR, ROOTS, Shape, THREE, TWO};

/// Results that are written together, at the most.
const CHUNK: usize = 256;

/// What the client process is to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where the coordinator is.
    pub coordinator: String,
    /// The sort of job.
    pub shape: Shape,
    /// How many results are due.
    pub items: u64,
    /// The files to write: this, with `.results` and `.journal` added.
    pub to: PathBuf,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Items sent again so far, at this time (milliseconds since 1970).
    Resent(u64, u64),
    /// An item that failed: none does.
    Error(String),
    /// The job completed.
    Completed(Figures),
    /// The job did not.
    Failed(String),
}

/// The figures of a job at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The job's id.
    pub job: String,
    /// Items sent again.
    pub resent: u64,
    /// Copies that a boundary dropped.
    pub duplicates: u64,
    /// Items that disagreed with an earlier run.
    pub divergent: u64,
    /// Frames and connections refused because they were superseded.
    pub stale: u64,
    /// The longest time between two results, in milliseconds.
    pub pause: u64,
}

impl Figures {
    fn of(status: &JobStatus, pause: Duration) -> Self {
        let sum = |of: fn(&TaskStats) -> u64| status.stages.iter().map(|s| of(&s.totals)).sum();
        Self {
            job: status.job.to_string(),
            resent: sum(|stats| stats.resent),
            duplicates: sum(|stats| stats.duplicates),
            divergent: sum(|stats| stats.divergent),
            stale: sum(|stats| stats.stale),
            pause: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs the job to its end.
///
/// # Errors
/// When a file cannot be written. That the job fails is written down, and no error.
pub async fn run(order: Order) -> anyhow::Result<()> {
    let mut journal = Journal::create(&order.to)?;
    match job(&order, &mut journal).await? {
        Ok(figures) => journal.write(&Entry::Completed(figures)),
        Err(error) => journal.write(&Entry::Failed(error.to_string())),
    }
}

async fn job(order: &Order, journal: &mut Journal) -> anyhow::Result<Result<Figures, JobError>> {
    // The coordinator may be stopped, or dead, just now.
    let client = Client::builder().connect_timeout(None);
    let client = match client.connect(&order.coordinator).await {
        Ok(client) => client,
        Err(error) => return Ok(Err(error)),
    };
    let numbers = Stream::from_iter(0..order.items);
    let results = match order.shape {
        Shape::Plain => numbers.map(ONE).map(TWO).map(THREE).results(&client),
        Shape::Spread => Stream::source(ROOTS).map(ONE).flat_map(PAIR).map(THREE).results(&client),
        Shape::Flaky => Stream::from_iter(0..order.items / FLAKY_OUTPUTS)
            .map(ONE)
            .try_flat_map(FLAKY)
            .map(THREE)
            .results(&client),
        Shape::Sink => {
            let kept = numbers.map(ONE).map(TWO).for_each(KEEP, &client).await;
            client.close().await;
            return match kept {
                Ok((status, errors)) => {
                    for error in errors {
                        journal.write(&Entry::Error(error.to_string()))?;
                    }
                    Ok(Ok(Figures::of(&status, Duration::ZERO)))
                }
                Err(error) => Ok(Err(error)),
            };
        }
    };
    let ended = write_down(results, order, journal).await?;
    client.close().await;
    Ok(ended)
}

async fn write_down(
    results: Results<u64>,
    order: &Order,
    journal: &mut Journal,
) -> anyhow::Result<Result<Figures, JobError>> {
    let mut file = File::create(order.to.with_extension("results"))?;
    let job = results.job();
    let mut chunks = results.ready_chunks(CHUNK);
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let (mut last, mut pause, mut resent) = (None::<Instant>, Duration::ZERO, 0);
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            _ = looks.tick() => {
                let status = job.status();
                let sum = status.iter().flat_map(|s| &s.stages).map(|s| s.totals.resent).sum();
                if sum > resent {
                    resent = sum;
                    journal.write(&Entry::Resent(now(), resent))?;
                }
                continue;
            }
        };
        let Some(chunk) = chunk else { break };
        if let Some(last) = last.replace(Instant::now()) {
            pause = pause.max(last.elapsed());
        }
        let mut text = String::new();
        for result in chunk {
            match result {
                Ok(value) => text.push_str(&format!("{value}\n")),
                Err(stageline::Error::Job(error)) => return Ok(Err(error)),
                Err(error) => journal.write(&Entry::Error(error.to_string()))?,
            }
        }
        file.write_all(text.as_bytes())?;
    }
    Ok(job.ended().await.map(|status| Figures::of(&status, pause)))
}

struct Journal(File);

impl Journal {
    fn create(to: &Path) -> anyhow::Result<Self> {
        Ok(Self(File::create(to.with_extension("journal"))?))
    }

    fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(entry)?);
        Ok(self.0.write_all(line.as_bytes())?)
    }
}
