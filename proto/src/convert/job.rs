//! What should be, of a job; and what became of it.

use stageline_protocol::control::{
    Failure, FailureKind, JobPhase, JobView, Outcome, Peer, TaskPlan,
};
use stageline_protocol::{Epoch, Incarnation, JobId, StageId, Term};

use super::ids::{decode_channels, encode_channels};
use super::{DecodeError, Wire, WireEnum, encode_list, enumerated, list, required, wire_enum};
use crate::v1;
use crate::v1::job_phase::Phase;
use crate::v1::outcome::Outcome as How;

impl Wire for JobView {
    type Proto = v1::JobView;

    fn encode(&self) -> v1::JobView {
        v1::JobView {
            job: self.job.0,
            term: self.term.0,
            revision: self.revision,
            pipeline: Some(self.pipeline.encode()),
            phase: Some(self.phase.encode()),
            tasks: encode_list(&self.tasks),
            peers: encode_list(&self.peers),
            highest_epoch: self.highest_epoch.0,
            window: self.window,
            pause_sources: self.pause_sources,
            cut: encode_channels(&self.cut),
            positions: self.positions.iter().map(|(source, &n)| (source.0, n)).collect(),
        }
    }

    fn decode(p: v1::JobView) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            term: Term(p.term),
            revision: p.revision,
            pipeline: required(p.pipeline, "pipeline")?,
            phase: required(p.phase, "phase")?,
            tasks: list(p.tasks, "tasks")?,
            peers: list(p.peers, "peers")?,
            highest_epoch: Epoch(p.highest_epoch),
            window: p.window,
            pause_sources: p.pause_sources,
            cut: decode_channels(p.cut),
            positions: p.positions.into_iter().map(|(source, n)| (StageId(source), n)).collect(),
        })
    }
}

impl Wire for TaskPlan {
    type Proto = v1::TaskPlan;

    fn encode(&self) -> v1::TaskPlan {
        let (id, slots) = (Some(self.id.encode()), self.slots);
        v1::TaskPlan { id, slots, drain: self.drain, again: self.again }
    }

    fn decode(p: v1::TaskPlan) -> Result<Self, DecodeError> {
        let id = required(p.id, "id")?;
        Ok(Self { id, slots: p.slots, drain: p.drain, again: p.again })
    }
}

impl Wire for Peer {
    type Proto = v1::Peer;

    fn encode(&self) -> v1::Peer {
        v1::Peer {
            id: Some(self.id.encode()),
            process: self.process.0,
            address: self.address.clone(),
        }
    }

    fn decode(p: v1::Peer) -> Result<Self, DecodeError> {
        Ok(Self { id: required(p.id, "id")?, process: Incarnation(p.process), address: p.address })
    }
}

impl Wire for JobPhase {
    type Proto = v1::JobPhase;

    fn encode(&self) -> v1::JobPhase {
        let phase = match self {
            Self::Waiting(functions) => {
                Phase::Waiting(v1::Waiting { functions: functions.clone() })
            }
            Self::Running => Phase::Running(v1::Empty {}),
            Self::Ending(outcome) => Phase::Ending(outcome.encode()),
            Self::Ended(outcome) => Phase::Ended(outcome.encode()),
        };
        v1::JobPhase { phase: Some(phase) }
    }

    fn decode(p: v1::JobPhase) -> Result<Self, DecodeError> {
        Ok(match p.phase.ok_or_else(|| DecodeError::missing("phase"))? {
            Phase::Waiting(waiting) => Self::Waiting(waiting.functions),
            Phase::Running(_) => Self::Running,
            Phase::Ending(o) => Self::Ending(Outcome::decode(o).map_err(|e| e.at("ending"))?),
            Phase::Ended(o) => Self::Ended(Outcome::decode(o).map_err(|e| e.at("ended"))?),
        })
    }
}

impl Wire for Outcome {
    type Proto = v1::Outcome;

    fn encode(&self) -> v1::Outcome {
        let outcome = match self {
            Self::Completed => How::Completed(v1::Empty {}),
            Self::Cancelled(why) => How::Cancelled(why.clone()),
            Self::Failed(failure) => How::Failed(failure.encode()),
        };
        v1::Outcome { outcome: Some(outcome) }
    }

    fn decode(p: v1::Outcome) -> Result<Self, DecodeError> {
        Ok(match p.outcome.ok_or_else(|| DecodeError::missing("outcome"))? {
            How::Completed(_) => Self::Completed,
            How::Cancelled(why) => Self::Cancelled(why),
            How::Failed(f) => Self::Failed(Failure::decode(f).map_err(|e| e.at("failed"))?),
        })
    }
}

wire_enum!(FailureKind = FailureKind {
    Invalid = Invalid,
    MissingStage = MissingStage,
    TypeMismatch = TypeMismatch,
    SourceLost = SourceLost,
    Internal = Internal,
});

impl Wire for Failure {
    type Proto = v1::Failure;

    fn encode(&self) -> v1::Failure {
        v1::Failure { kind: self.kind.number(), message: self.message.clone() }
    }

    fn decode(p: v1::Failure) -> Result<Self, DecodeError> {
        Ok(Self { kind: enumerated(p.kind, "kind")?, message: p.message })
    }
}
