//! A record as bytes under a key: what a store on disk keeps.
//!
//! The key says which fact it is, so that a later record about the same replaces it; the value says
//! all of it, the key's parts included. Reading back trusts nothing: a value must decode as this
//! version would have written it, bit by bit, and belong to its key. What does not is refused, and
//! never guessed at.

use std::time::Duration;

use prost::Message as _;
use stageline_proto::{Wire, v1};
use stageline_protocol::control::{Hello, JobStatus};
use stageline_protocol::pipeline::Pipeline;
use stageline_protocol::suspect::Death;
use stageline_protocol::{Epoch, Incarnation, JobId, Lineage, StageId, TaskId, Term, Time};

use super::{Record, StoredTask};

/// What a record does to the facts that are kept.
pub(super) enum Change {
    /// This value under this key.
    Put(String, Vec<u8>),
    /// No value under this key.
    Remove(String),
    /// No value under a key that begins so; then this value under this key.
    Replace(String, String, Vec<u8>),
}

/// What a record does.
pub(super) fn change(record: &Record) -> Change {
    let put = |kind| Change::Put(key(record), Fact { kind: Some(kind) }.encode_to_vec());
    match record {
        Record::Term(term) => put(Kind::Term(term.0)),
        Record::Process(hello) => put(Kind::Process(hello.encode())),
        Record::Superseded(lives) => {
            put(Kind::Superseded(Lives { lives: lives.iter().map(|life| life.0).collect() }))
        }
        Record::Submitted { job, client, client_name, at, pipeline, wait_stages } => {
            put(Kind::Submitted(Submitted {
                job: job.0,
                client: client.0,
                client_name: client_name.clone(),
                at: at.as_micros(),
                pipeline: Some(pipeline.encode()),
                wait_stages: u64::try_from(wait_stages.as_micros()).unwrap_or(u64::MAX),
            }))
        }
        Record::Epochs { job, highest } => {
            put(Kind::Epochs(Number { job: job.0, of: 0, number: highest.0 }))
        }
        Record::Task { job, task } => put(Kind::Task(Task {
            job: job.0,
            stage: task.id.stage.0,
            epoch: task.id.epoch.0,
            process: task.process.0,
            worker: task.worker.clone(),
            slots: task.slots,
            held: task.held,
            start: task.start,
            retiring: task.retiring,
        })),
        Record::Position { job, stage, position } => {
            put(Kind::Position(Number { job: job.0, of: stage.0, number: *position }))
        }
        Record::Finished { job, stage } => {
            put(Kind::Finished(Number { job: job.0, of: stage.0, number: 0 }))
        }
        Record::Ended { job, client, at, status } => {
            let status = Some(status.encode());
            let ended = Ended { job: job.0, client: client.0, at: at.as_micros(), status };
            let fact = Fact { kind: Some(Kind::Ended(ended)) }.encode_to_vec();
            Change::Replace(of_job(*job), key(record), fact)
        }
        Record::Suspect { deaths, .. } if deaths.is_empty() => Change::Remove(key(record)),
        Record::Suspect { job, stage, lineage, deaths } => put(Kind::Suspect(Suspect {
            job: job.0,
            stage: stage.0,
            lineage: Some(lineage.encode()),
            deaths: deaths.iter().map(Wire::encode).collect(),
        })),
        Record::Gone(_) | Record::TaskOver { .. } | Record::Forgotten { .. } => {
            Change::Remove(key(record))
        }
    }
}

/// The record that was kept under a key, or what is wrong with it.
pub(super) fn read(under: &str, bytes: &[u8]) -> Result<Record, String> {
    let fact = Fact::decode(bytes).map_err(|error| error.to_string())?;
    if fact.encode_to_vec() != bytes {
        return Err("it has more in it than this version writes".to_owned());
    }
    let record = fact.kind.ok_or("it says nothing that this version knows")?.read()?;
    if key(&record) != under {
        return Err(format!("it belongs under {:?}", key(&record)));
    }
    Ok(record)
}

/// Which fact it is. In the order of keys, a job's submission comes before all else about it.
fn key(record: &Record) -> String {
    match record {
        Record::Term(_) => "term".to_owned(),
        Record::Process(hello) => format!("process/{}", hello.incarnation),
        Record::Gone(process) => format!("process/{process}"),
        Record::Superseded(_) => "superseded".to_owned(),
        Record::Submitted { job, .. } => of_job(*job),
        Record::Epochs { job, .. } => format!("{}epochs", of_job(*job)),
        Record::Task { job, task: StoredTask { id: TaskId { epoch, .. }, .. } }
        | Record::TaskOver { job, epoch } => format!("{}task/{:016x}", of_job(*job), epoch.0),
        Record::Position { job, stage, .. } => format!("{}position/{}", of_job(*job), stage.0),
        Record::Suspect { job, stage, lineage, .. } => {
            format!("{}suspect/{}/{lineage}", of_job(*job), stage.0)
        }
        Record::Finished { job, stage } => format!("{}finished/{}", of_job(*job), stage.0),
        Record::Ended { job, .. } | Record::Forgotten { job } => format!("ended/{job}"),
    }
}

fn of_job(job: JobId) -> String {
    format!("job/{job}/")
}

#[derive(Clone, PartialEq, prost::Message)]
struct Fact {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(uint64, tag = "1")]
    Term(u64),
    #[prost(message, tag = "2")]
    Process(v1::Hello),
    #[prost(message, tag = "3")]
    Superseded(Lives),
    #[prost(message, tag = "4")]
    Submitted(Submitted),
    #[prost(message, tag = "5")]
    Epochs(Number),
    #[prost(message, tag = "6")]
    Task(Task),
    #[prost(message, tag = "7")]
    Position(Number),
    #[prost(message, tag = "8")]
    Finished(Number),
    #[prost(message, tag = "9")]
    Ended(Ended),
    #[prost(message, tag = "10")]
    Suspect(Suspect),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lives {
    #[prost(fixed64, repeated, tag = "1")]
    lives: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Submitted {
    #[prost(fixed64, tag = "1")]
    job: u64,
    #[prost(fixed64, tag = "2")]
    client: u64,
    #[prost(string, tag = "3")]
    client_name: String,
    #[prost(uint64, tag = "4")]
    at: u64,
    #[prost(message, optional, tag = "5")]
    pipeline: Option<v1::Pipeline>,
    #[prost(uint64, tag = "6")]
    wait_stages: u64,
}

/// A number of a job, or of a stage of one.
#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(fixed64, tag = "1")]
    job: u64,
    #[prost(uint32, tag = "2")]
    of: u32,
    #[prost(uint64, tag = "3")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Task {
    #[prost(fixed64, tag = "1")]
    job: u64,
    #[prost(uint32, tag = "2")]
    stage: u32,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(fixed64, tag = "4")]
    process: u64,
    #[prost(string, tag = "5")]
    worker: String,
    #[prost(uint32, tag = "6")]
    slots: u32,
    #[prost(uint32, tag = "7")]
    held: u32,
    #[prost(uint64, tag = "8")]
    start: u64,
    #[prost(bool, tag = "9")]
    retiring: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Suspect {
    #[prost(fixed64, tag = "1")]
    job: u64,
    #[prost(uint32, tag = "2")]
    stage: u32,
    #[prost(message, optional, tag = "3")]
    lineage: Option<v1::Lineage>,
    #[prost(message, repeated, tag = "4")]
    deaths: Vec<v1::Death>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ended {
    #[prost(fixed64, tag = "1")]
    job: u64,
    #[prost(fixed64, tag = "2")]
    client: u64,
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(message, optional, tag = "4")]
    status: Option<v1::JobStatus>,
}

impl Kind {
    fn read(self) -> Result<Record, String> {
        Ok(match self {
            Self::Term(term) => Record::Term(Term(term)),
            Self::Process(hello) => {
                let hello = Hello::decode(hello).map_err(|error| error.to_string())?;
                Record::Process(Box::new(hello))
            }
            Self::Superseded(Lives { lives }) => {
                Record::Superseded(lives.into_iter().map(Incarnation).collect())
            }
            Self::Submitted(it) => {
                let pipeline = it.pipeline.ok_or("it has no pipeline")?;
                Record::Submitted {
                    job: JobId(it.job),
                    client: Incarnation(it.client),
                    client_name: it.client_name,
                    at: Time::from_micros(it.at),
                    pipeline: Pipeline::decode(pipeline).map_err(|error| error.to_string())?,
                    wait_stages: Duration::from_micros(it.wait_stages),
                }
            }
            Self::Epochs(it) => Record::Epochs { job: JobId(it.job), highest: Epoch(it.number) },
            Self::Task(it) => Record::Task {
                job: JobId(it.job),
                task: StoredTask {
                    id: TaskId { stage: StageId(it.stage), epoch: Epoch(it.epoch) },
                    process: Incarnation(it.process),
                    worker: it.worker,
                    slots: it.slots,
                    held: it.held,
                    start: it.start,
                    retiring: it.retiring,
                },
            },
            Self::Position(it) => {
                Record::Position { job: JobId(it.job), stage: StageId(it.of), position: it.number }
            }
            Self::Finished(it) => Record::Finished { job: JobId(it.job), stage: StageId(it.of) },
            Self::Suspect(it) => {
                let lineage = it.lineage.ok_or("it has no lineage")?;
                let deaths: Result<Vec<Death>, _> =
                    it.deaths.into_iter().map(Death::decode).collect();
                Record::Suspect {
                    job: JobId(it.job),
                    stage: StageId(it.stage),
                    lineage: Lineage::decode(lineage).map_err(|error| error.to_string())?,
                    deaths: deaths.map_err(|error| error.to_string())?,
                }
            }
            Self::Ended(it) => {
                let status = it.status.ok_or("it has no status")?;
                let status = JobStatus::decode(status).map_err(|error| error.to_string())?;
                Record::Ended {
                    job: JobId(it.job),
                    client: Incarnation(it.client),
                    at: Time::from_micros(it.at),
                    status: Box::new(status),
                }
            }
        })
    }
}
