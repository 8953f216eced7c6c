//! `stageline jobs`: what a coordinator knows.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use stageline_proto::v1::jobs_client::JobsClient;
use stageline_proto::{MAX_CONTROL_MESSAGE, Wire, v1};
use stageline_protocol::JobId;
use stageline_protocol::control::{JobPhase, JobStatus};
use stageline_protocol::text::shown;
use stageline_worker::runtime::Dialler;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::args::{Jobs, JobsAction};
use super::progress::render::lines;
use super::progress::summary::{Exit, Reason, summary, totals, why};
use super::units::show_duration;

const RETRY_EVERY: Duration = Duration::from_millis(250);
/// How long whoever is there may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn jobs(args: Jobs) -> anyhow::Result<Exit> {
    let mut client = connect(&args.coordinator, args.connect_timeout).await?;
    let failed = |status| plain(status, &args.coordinator);
    match args.action.unwrap_or(JobsAction::List) {
        JobsAction::List => {
            let answer = client.list_jobs(v1::ListJobsRequest {}).await.map_err(failed)?;
            let (mut listed, mut jobs) = (answer.into_inner(), Vec::new());
            while let Some(next) = listed.message().await.map_err(failed)? {
                jobs.extend(next.job.map(JobStatus::decode).transpose()?);
            }
            super::print(&if args.json {
                Value::from_iter(jobs.iter().map(listed_as_json)).to_string()
            } else {
                table(&jobs)
            })?;
        }
        JobsAction::Show { id } => {
            let answer = client.get_job(v1::GetJobRequest { job: id.0 }).await.map_err(failed)?;
            let job = decode(answer.into_inner().job, id)?;
            super::print(&if args.json { as_json(&job).to_string() } else { show(&job) })?;
        }
        JobsAction::Cancel { id } => {
            let reason = "`stageline jobs cancel`".to_owned();
            let request = v1::CancelJobRequest { job: id.0, reason };
            let answer = client.cancel_job(request).await.map_err(failed)?;
            let job = decode(answer.into_inner().job, id)?;
            super::print(&if args.json {
                as_json(&job).to_string()
            } else {
                format!("{id} is {}", job.phase.name())
            })?;
        }
    }
    Ok(Exit::Fine)
}

async fn connect(address: &str, limit: Duration) -> anyhow::Result<JobsClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(limit)
        .timeout(ANSWER_TIMEOUT);
    let started = tokio::time::Instant::now();
    let mut attempts = 0_u32;
    loop {
        attempts += 1;
        match Dialler::default().connect(&endpoint).await {
            Ok(channel) => {
                return Ok(JobsClient::new(channel)
                    .max_decoding_message_size(MAX_CONTROL_MESSAGE)
                    .max_encoding_message_size(MAX_CONTROL_MESSAGE));
            }
            Err(error) if started.elapsed() + RETRY_EVERY > limit => {
                let cause = anyhow::Error::from(error).root_cause().to_string();
                anyhow::bail!(
                    "no coordinator at {address}: {cause}; tried {attempts} times in {}. Start one \
                     with `stageline coordinator`, or name another with --coordinator",
                    show_duration(started.elapsed())
                );
            }
            Err(_) => tokio::time::sleep(RETRY_EVERY).await,
        }
    }
}

/// What the coordinator answers, in plain words; or that something else is there.
fn plain(status: tonic::Status, address: &str) -> anyhow::Error {
    match status.code() {
        Code::NotFound | Code::InvalidArgument => anyhow::anyhow!("{}", status.message()),
        Code::DeadlineExceeded | Code::Cancelled => {
            anyhow::anyhow!("{address} does not answer; is that a coordinator, and is it well?")
        }
        _ => anyhow::anyhow!(
            "{address} answers, but not as a coordinator: {}. Name the coordinator's address with \
             --coordinator",
            status.message()
        ),
    }
}

fn decode(job: Option<v1::JobStatus>, id: JobId) -> anyhow::Result<JobStatus> {
    let job = job.ok_or_else(|| anyhow::anyhow!("the coordinator says nothing about {id}"))?;
    Ok(JobStatus::decode(job)?)
}

fn table(jobs: &[JobStatus]) -> String {
    if jobs.is_empty() {
        return "no jobs".to_owned();
    }
    let longest = jobs.iter().map(|job| shown(&job.name).chars().count()).max();
    let longest = longest.unwrap_or_default();
    let names = longest.max("PIPELINE".len());
    let mut text =
        format!("{:16}  {:9}  {:>10}  {:names$}  CLIENT", "JOB", "STATE", "TIME", "PIPELINE");
    for job in jobs {
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "\n{}  {:9}  {:>10}  {:names$}  {}",
            job.job,
            job.phase.name(),
            show_duration(job.age),
            shown(&job.name),
            shown(&job.client)
        );
    }
    text
}

fn show(job: &JobStatus) -> String {
    let mut text = format!("job {} of client {}\n", job.job, shown(&job.client));
    if matches!(job.phase, JobPhase::Ended(_)) {
        text.push_str(&summary(job, Reason::Shown));
        return text;
    }
    // Writing to a text cannot fail.
    let _ =
        write!(text, "{}: {} for {}", shown(&job.name), job.phase.name(), show_duration(job.age));
    if let Some(why) = why(job) {
        let _ = write!(text, ": {}", shown(why));
    }
    for line in lines(job, None).into_iter().chain(totals(job)) {
        let _ = write!(text, "\n  {line}");
    }
    text
}

/// As [`as_json`]; figures by worker are not in the list.
fn listed_as_json(job: &JobStatus) -> Value {
    let mut value = as_json(job);
    for stage in value["stages"].as_array_mut().into_iter().flatten() {
        stage.as_object_mut().map(|stage| stage.remove("by_worker"));
    }
    value
}

fn as_json(job: &JobStatus) -> Value {
    let reason = match &job.phase {
        JobPhase::Waiting(functions) => Some(format!("waits for {}", functions.join(", "))),
        _ => why(job).map(str::to_owned),
    };
    let held_up = job
        .held_up_by
        .iter()
        .map(|held| json!({"source": held.source, "root": held.root, "stage": held.stage}));
    let stages = job.stages.iter().map(|stage| {
        let totals = &stage.totals;
        let errors: serde_json::Map<String, Value> =
            totals.errors.iter().map(|(kind, n)| (kind.name().to_owned(), (*n).into())).collect();
        json!({
            "name": stage.name, "op": stage.op.name(), "slots": stage.slots,
            "received": totals.received, "started": totals.started, "sent": totals.sent,
            "frames": totals.frames, "filtered": totals.filtered, "errors": errors,
            "retries": totals.retries, "resent": totals.resent, "duplicates": totals.duplicates,
            "divergent": totals.divergent, "stale": totals.stale, "cut": totals.cut,
            "busy": totals.busy, "queued": totals.queued,
            "waiting_for_credit": totals.waiting_for_credit, "unacked": totals.unacked,
            "retained_bytes": totals.retained_bytes, "links": totals.links,
            "by_worker": stage.by_worker,
        })
    });
    json!({
        "job": job.job.to_string(), "name": job.name, "state": job.phase.name(),
        "reason": reason, "client": job.client, "age_seconds": job.age.as_secs_f64(),
        "stages": Value::from_iter(stages), "held_up_by": Value::from_iter(held_up),
    })
}
