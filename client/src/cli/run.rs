//! `stageline run`: a pipeline file, from its inputs to its sink.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use serde_json::Value;
use stageline_protocol::pipeline::Op;
use stageline_protocol::{Body, Item};
use stageline_worker::sdk::{DEFAULT_MAX_PAYLOAD, Payload, Roots, StageError, json};

use super::Told;
use super::args::Run;
use super::file::{PipelineFile, SinkSpec};
use super::progress::render::without_worker;
use super::progress::summary::{Exit, Reason, summary};
use super::progress::{Progress, Screen};
use super::sink::{ErrorLine, Sink, SinkError, place};
use super::source::Inputs;
use crate::results::{Job, Results};
use crate::{Client, JobError, Registry, Stream};

const SHOW_EVERY: Duration = Duration::from_millis(200);
/// After Ctrl-C, how long the job may take to end before the process goes all the same, and how long
/// its goodbye: within 2 s in all.
const END_GRACE: Duration = Duration::from_millis(1_000);
const CLOSE_GRACE: Duration = Duration::from_millis(700);
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
    if args.errors.as_deref().is_some_and(|path| path.as_os_str() == "-") {
        anyhow::bail!(
            "--errors -: error items go to a file, so name one; without it, the first ones are logged"
        );
    }
    file.errors = args.errors.clone().or(file.errors);
    file.fail_fast |= args.fail_fast;
    if args.coordinator.is_none() {
        let functions = registry.functions();
        let known: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
        if let Some(unknown) = file.unknown_function(&known) {
            return Err(unknown.into());
        }
    }
    let (file, inputs) = tokio::task::spawn_blocking(move || look_around(file)).await??;

    let mut told = Told::listen()?;
    let client = tokio::select! {
        client = connect(&args, &registry) => client?,
        by = told.ended_by() => anyhow::bail!("ended by {by}, before the job was submitted"),
    };
    let outputs = Outputs::open(&file)?;
    let results = submit(&file, inputs, &registry, &client)?;
    let exit = follow(results, outputs, &file, screen, told).await;
    // A coordinator that does not hear the goodbye misses the lease instead.
    let _ = tokio::time::timeout(CLOSE_GRACE, client.close()).await;
    exit
}

/// Finds the inputs, and sees to it that nothing that is written destroys anything else.
fn look_around(file: PipelineFile) -> anyhow::Result<(PipelineFile, Inputs)> {
    let inputs = Inputs::resolve(&file.source).with_context(|| file.path.display().to_string())?;
    place::check(&file, &inputs)?;
    if let (SinkSpec::Stdout, Some(errors)) = (&file.sink, &file.errors) {
        place::check_beside_stdout(errors)?;
    }
    Ok((file, inputs))
}

async fn connect(args: &Run, registry: &Registry) -> Result<Client, JobError> {
    match &args.coordinator {
        None => Ok(Client::builder().name("stageline run").embedded(registry.clone())),
        Some(address) => {
            Client::builder()
                .connect_timeout(Some(args.connect_timeout))
                .wait_stages(args.wait_stages)
                .connect(address)
                .await
        }
    }
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
    let roots = inputs.start()?.map(|input| input.map(Value::String).map_err(StageError::msg));
    let roots = Roots::new(roots, DEFAULT_MAX_PAYLOAD);
    Ok(Stream::<Value>::declared(pipeline, roots)
        .results_as(sink.as_deref().unwrap_or("sink"), client))
}

/// Takes the results to where they go, until the job is over or somebody ends it; then says how it
/// went.
async fn follow(
    mut results: Results<Value>,
    mut outputs: Outputs,
    file: &PipelineFile,
    screen: &Screen,
    mut told: Told,
) -> anyhow::Result<Exit> {
    let job = results.job();
    let mut progress = Progress::new(screen, &file.sink);
    let end = tokio::select! {
        end = take_all(&mut results, &mut outputs, file.fail_fast, &job) => end,
        never = keep_showing(&mut progress, &job) => match never {},
        by = told.ended_by() => Err(Ended::Broken(by.to_string(), anyhow::anyhow!("ended by {by}"))),
    };
    let failed = outputs.failed > 0;
    let written = match end {
        Ok(()) => tokio::select! {
            written = outputs.finish() => written.map_err(Into::into),
            by = told.ended_by() => Err(anyhow::anyhow!("ended by {by}, before all was written")),
        },
        Err(ended) => {
            let error = match ended {
                Ended::Over(error) => error.into(),
                Ended::Broken(reason, error) => {
                    job.cancel(reason);
                    // That it was cancelled is known; what is not heard in time is not shown.
                    let _ = tokio::time::timeout(END_GRACE, job.ended()).await;
                    error
                }
            };
            outputs.abort().await;
            Err(error)
        }
    };
    progress.clear();
    let reason = if written.is_ok() { Reason::Shown } else { Reason::ToldElsewhere };
    let mut exit = Exit::JobFailed;
    if let Some(status) = job.status() {
        // Standard error that cannot be written to leaves nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}", summary(&status, reason));
        exit = Exit::of(&status);
    }
    // What was seen counts, too: a worker that dies takes its figures with it.
    written.map(|()| if failed { exit.max(Exit::SomeFailed) } else { exit })
}

/// Why a job did not go to its end.
enum Ended {
    /// It is over.
    Over(JobError),
    /// It is to be cancelled: the reason that everybody sees, and our own error.
    Broken(String, anyhow::Error),
}

/// Takes the results to where they go. Cancel safe.
async fn take_all(
    results: &mut Results<Value>,
    outputs: &mut Outputs,
    fail_fast: bool,
    job: &Job,
) -> Result<(), Ended> {
    while let Some(next) = results.next_delivery().await {
        let delivery = next.map_err(Ended::Over)?;
        let failed = outputs.write(&delivery.item()).await;
        let failed = failed.map_err(|error| Ended::Broken(error.to_string(), error.into()))?;
        delivery.take();
        if failed && fail_fast {
            let error = anyhow::anyhow!(
                "{}. This job ends with the first item that fails (fail_fast)",
                outputs.last_error
            );
            return Err(Ended::Broken("an item failed (fail_fast)".to_owned(), error));
        }
    }
    job.ended().await.map(drop).map_err(Ended::Over)
}

async fn keep_showing(progress: &mut Progress, job: &Job) -> Infallible {
    let mut ticks = tokio::time::interval(SHOW_EVERY);
    let mut alone = Vec::new();
    loop {
        ticks.tick().await;
        if let Some(status) = job.status() {
            progress.show(&status);
            let now_alone: Vec<String> = without_worker(&status).map(str::to_owned).collect();
            for stage in now_alone.iter().filter(|stage| !alone.contains(*stage)) {
                tracing::warn!(
                    "stage {stage} has no worker any more: start one that registers its function, \
                     and the job goes on"
                );
            }
            alone = now_alone;
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
            errors: file.errors.as_deref().map(Sink::errors).transpose()?,
            error_file: file.errors.clone(),
            failed: 0,
            last_error: String::new(),
        })
    }

    /// Writes an item. True if it is an error item.
    async fn write(&mut self, item: &Item) -> Result<bool, SinkError> {
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
