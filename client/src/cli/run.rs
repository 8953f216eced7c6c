//! `stageline run`: a pipeline file, from its inputs to its sink.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use serde_json::Value;
use stageline_protocol::pipeline::Op;
use stageline_protocol::{Body, ErrorKind};
use stageline_worker::runtime::{Delivery, RootStream};
use stageline_worker::sdk::{Fault, Payload, json};

use super::args::Run;
use super::file::{PipelineFile, SinkSpec};
use super::progress::summary::{Exit, summary};
use super::progress::{Progress, Screen};
use super::sink::{ErrorLine, Sink, SinkError};
use super::source::Inputs;
use crate::results::{Job, Results};
use crate::{Client, JobError, Registry, Stream};

const SHOW_EVERY: Duration = Duration::from_millis(200);
/// After Ctrl-C, how long the job may take to end before the process goes all the same.
const END_GRACE: Duration = Duration::from_millis(1_500);
/// Without a file for them, so many error items are logged.
const LOGGED_ERRORS: u64 = 10;

pub(super) async fn run(args: Run, registry: Registry, screen: &Screen) -> anyhow::Result<Exit> {
    let mut file = {
        let path = args.file.clone();
        tokio::task::spawn_blocking(move || PipelineFile::load(&path)).await??
    };
    if let Some(output) = &args.output {
        file.sink = match output.as_os_str() == "-" {
            true => SinkSpec::Stdout,
            false => SinkSpec::File(output.clone()),
        };
    }
    file.errors = args.errors.clone().or(file.errors);
    file.fail_fast |= args.fail_fast;
    let source = file.source.clone();
    let inputs = tokio::task::spawn_blocking(move || Inputs::resolve(&source))
        .await?
        .with_context(|| args.file.display().to_string())?;

    let client = match &args.coordinator {
        None => Client::builder().name("stageline run").embedded(registry.clone()),
        Some(address) => {
            Client::builder()
                .connect_timeout(Some(args.connect_timeout))
                .wait_stages(args.wait_stages)
                .connect(address)
                .await?
        }
    };
    let outputs = Outputs::open(&file)?;
    let results = submit(&file, inputs, &registry, &client)?;
    let exit = follow(results, outputs, &file, screen).await;
    client.close().await;
    exit
}

fn submit(
    file: &PipelineFile,
    inputs: Inputs,
    registry: &Registry,
    client: &Client,
) -> anyhow::Result<Results<Value>> {
    let functions = registry.functions();
    let op_of = |name: &str| -> Option<Op> {
        functions.iter().find(|function| function.name == name).map(|function| function.op)
    };
    let mut pipeline = file.pipeline(&op_of);
    // The terminal is added when the results are asked for, under the sink's name.
    let sink = pipeline.stages.pop().map(|stage| stage.name);
    pipeline.channels.pop();
    let roots: RootStream = inputs.start()?.map(root).boxed();
    Ok(Stream::<Value>::declared(pipeline, roots)
        .results_as(sink.as_deref().unwrap_or("sink"), client))
}

fn root(root: Result<String, String>) -> Result<Payload, Fault> {
    let fault = |message| Fault { kind: ErrorKind::Failed, message, attempts: 1 };
    json::to_payload(&Value::String(root.map_err(fault)?)).map_err(|e| fault(e.to_string()))
}

/// Takes the results to where they go, until the job is over or somebody ends it.
async fn follow(
    mut results: Results<Value>,
    mut outputs: Outputs,
    file: &PipelineFile,
    screen: &Screen,
) -> anyhow::Result<Exit> {
    let job = results.job();
    let mut progress = Progress::new(screen, &file.sink);
    let mut ticks = tokio::time::interval(SHOW_EVERY);
    let told = super::told_to_end();
    tokio::pin!(told);
    let broken: Option<anyhow::Error> = loop {
        tokio::select! {
            next = results.next_delivery() => match next {
                None => break None,
                Some(Err(error)) => break Some(error.into()),
                Some(Ok(delivery)) => {
                    let taken = tokio::select! {
                        taken = outputs.take(delivery) => taken,
                        by = &mut told => { job.cancel(by); break Some(anyhow::anyhow!("ended by {by}")) }
                    };
                    match taken {
                        Ok(failed) if failed && file.fail_fast => {
                            job.cancel("an item failed, and --fail-fast is set");
                            break Some(anyhow::anyhow!(
                                "{}: an item failed, and --fail-fast is set",
                                outputs.last_error
                            ));
                        }
                        Ok(_) => {}
                        Err(error) => {
                            job.cancel(error.to_string());
                            break Some(error.into());
                        }
                    }
                }
            },
            by = &mut told => { job.cancel(by); break Some(anyhow::anyhow!("ended by {by}")) }
            _ = ticks.tick() => {
                if let Some(status) = job.status() {
                    progress.show(&status);
                }
            }
        }
    };
    let broken = end(&job, broken).await;
    progress.clear();
    let written = match broken {
        None => outputs.finish().await.map_err(Into::into),
        Some(error) => {
            outputs.abort().await;
            Err(error)
        }
    };
    let exit = match job.status() {
        Some(status) => {
            // Standard error that cannot be written to leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "{}", summary(&status));
            Exit::of(&status)
        }
        None => Exit::JobFailed,
    };
    written.map(|()| exit)
}

/// Waits for the end of the job on all processes: not for long, if it was broken off here.
async fn end(job: &Job, broken: Option<anyhow::Error>) -> Option<anyhow::Error> {
    match broken {
        None => job.ended().await.err().map(Into::into),
        Some(error) => {
            // That it was cancelled is known; what is not heard in time is not shown.
            let _ = tokio::time::timeout(END_GRACE, job.ended()).await;
            Some(error)
        }
    }
}

/// Where values and error items go.
struct Outputs {
    values: Sink,
    errors: Option<Sink>,
    error_file: Option<PathBuf>,
    failed: u64,
    last_error: String,
}

impl Outputs {
    fn open(file: &PipelineFile) -> Result<Self, SinkError> {
        Ok(Self {
            values: Sink::open(&file.sink)?,
            errors: file.errors.as_deref().map(Sink::file).transpose()?,
            error_file: file.errors.clone(),
            failed: 0,
            last_error: String::new(),
        })
    }

    /// Writes an item, and takes it. True if it is an error item. An item that was not written is not
    /// taken.
    async fn take(&mut self, delivery: Delivery) -> Result<bool, SinkError> {
        let item = delivery.item();
        let failed = match &item.body {
            Body::Value(encoding, bytes) => {
                let payload = Payload { encoding: *encoding, bytes: bytes.clone() };
                let value = json::from_payload(&payload)
                    .map_err(|error| SinkError::NotJson(error.to_string()))?;
                self.values.send(&value).await?;
                false
            }
            Body::Error(error) => {
                self.failed += 1;
                self.last_error = error.to_string();
                match &mut self.errors {
                    Some(errors) => errors.send(&ErrorLine::new(&item.lineage, error)).await?,
                    None if self.failed <= LOGGED_ERRORS => {
                        tracing::warn!(item = %item.lineage, "{error}");
                    }
                    None if self.failed == LOGGED_ERRORS + 1 => {
                        tracing::warn!("more items fail; --errors FILE keeps them all");
                    }
                    None => {}
                }
                true
            }
            Body::End => false,
        };
        delivery.take();
        Ok(failed)
    }

    async fn finish(self) -> Result<(), SinkError> {
        self.values.finish().await?;
        if let Some(errors) = self.errors {
            errors.finish().await?;
            if let (Some(path), true) = (&self.error_file, self.failed > 0) {
                tracing::warn!("{} items failed: see {}", self.failed, Path::display(path));
            }
        }
        Ok(())
    }

    async fn abort(self) {
        self.values.abort().await;
        if let Some(errors) = self.errors {
            errors.abort().await;
        }
    }
}

impl From<JobError> for Exit {
    fn from(_: JobError) -> Self {
        Self::JobFailed
    }
}
