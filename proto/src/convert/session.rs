//! The two directions of a session.

use std::time::Duration;

use stageline_protocol::JobId;
use stageline_protocol::control::{
    Census, Down, Hello, JobStatus, JobView, Report, Submit, Up, Welcome,
};
use stageline_protocol::suspect::Verdicts;

use super::{DecodeError, Wire, encode_list, list, micros, required};
use crate::v1;
use crate::v1::session_down::Message as DownMessage;
use crate::v1::session_up::Message as UpMessage;

impl Wire for Up {
    type Proto = v1::SessionUp;

    fn encode(&self) -> v1::SessionUp {
        let message = match self {
            Self::Hello(m) => UpMessage::Hello(m.encode()),
            Self::Heartbeat(m) => UpMessage::Heartbeat(m.encode()),
            Self::Abandoned(calls) => {
                UpMessage::Abandoned(v1::Abandoned { functions: encode_list(calls) })
            }
            Self::Report(m) => UpMessage::Report(m.encode()),
            Self::Submit(m) => UpMessage::Submit(m.encode()),
            Self::Cancel(job, reason) => {
                UpMessage::Cancel(v1::Cancel { job: job.0, reason: reason.clone() })
            }
            Self::Leaving => UpMessage::Leaving(v1::Empty {}),
            Self::Goodbye => UpMessage::Goodbye(v1::Empty {}),
        };
        v1::SessionUp { message: Some(message) }
    }

    fn decode(p: v1::SessionUp) -> Result<Self, DecodeError> {
        match p.message.ok_or_else(|| DecodeError::missing("SessionUp.message"))? {
            UpMessage::Hello(m) => Hello::decode(m).map(Self::Hello).map_err(|e| e.at("Hello")),
            UpMessage::Heartbeat(m) => {
                Census::decode(m).map(Self::Heartbeat).map_err(|e| e.at("Census"))
            }
            UpMessage::Abandoned(m) => list(m.functions, "functions").map(Self::Abandoned),
            UpMessage::Report(m) => Report::decode(m).map(Self::Report).map_err(|e| e.at("Report")),
            UpMessage::Submit(m) => Submit::decode(m).map(Self::Submit).map_err(|e| e.at("Submit")),
            UpMessage::Cancel(m) => Ok(Self::Cancel(JobId(m.job), m.reason)),
            UpMessage::Leaving(_) => Ok(Self::Leaving),
            UpMessage::Goodbye(_) => Ok(Self::Goodbye),
        }
    }
}

impl Wire for Submit {
    type Proto = v1::Submit;

    fn encode(&self) -> v1::Submit {
        v1::Submit {
            job: self.job.0,
            pipeline: Some(self.pipeline.encode()),
            wait_stages_micros: micros(self.wait_stages),
        }
    }

    fn decode(p: v1::Submit) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            pipeline: required(p.pipeline, "pipeline")?,
            wait_stages: Duration::from_micros(p.wait_stages_micros),
        })
    }
}

impl Wire for Down {
    type Proto = v1::SessionDown;

    fn encode(&self) -> v1::SessionDown {
        let message = match self {
            Self::Welcome(m) => DownMessage::Welcome(m.encode()),
            Self::Refused(reason) => DownMessage::Refused(v1::Refused { reason: reason.clone() }),
            Self::Alive => DownMessage::Alive(v1::Empty {}),
            Self::View(m) => DownMessage::View(m.encode()),
            Self::Status(m) => DownMessage::Status(m.encode()),
            Self::Verdicts(m) => DownMessage::Verdicts(m.encode()),
            Self::Forget(job) => DownMessage::Forget(v1::Forget { job: job.0 }),
        };
        v1::SessionDown { message: Some(message) }
    }

    fn decode(p: v1::SessionDown) -> Result<Self, DecodeError> {
        match p.message.ok_or_else(|| DecodeError::missing("SessionDown.message"))? {
            DownMessage::Welcome(m) => {
                Welcome::decode(m).map(Self::Welcome).map_err(|e| e.at("Welcome"))
            }
            DownMessage::Refused(m) => Ok(Self::Refused(m.reason)),
            DownMessage::Alive(_) => Ok(Self::Alive),
            DownMessage::View(m) => {
                JobView::decode(m).map(|v| Self::View(Box::new(v))).map_err(|e| e.at("JobView"))
            }
            DownMessage::Status(m) => JobStatus::decode(m)
                .map(|s| Self::Status(Box::new(s)))
                .map_err(|e| e.at("JobStatus")),
            DownMessage::Verdicts(m) => {
                Verdicts::decode(m).map(Self::Verdicts).map_err(|e| e.at("Verdicts"))
            }
            DownMessage::Forget(m) => Ok(Self::Forget(JobId(m.job))),
        }
    }
}
