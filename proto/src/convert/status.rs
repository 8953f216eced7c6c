//! Jobs and processes as the coordinator sees them, for people.

use std::time::Duration;

use stageline_protocol::control::{HeldUp, JobStatus, ProcessStatus, StageStatus};
use stageline_protocol::{Incarnation, JobId};

use super::{DecodeError, Wire, WireEnum, encode_list, enumerated, list, micros, required};
use crate::v1;

impl Wire for JobStatus {
    type Proto = v1::JobStatus;

    fn encode(&self) -> v1::JobStatus {
        v1::JobStatus {
            job: self.job.0,
            name: self.name.clone(),
            phase: Some(self.phase.encode()),
            client: self.client.clone(),
            age_micros: micros(self.age),
            stages: encode_list(&self.stages),
            held_up_by: encode_list(&self.held_up_by),
        }
    }

    fn decode(p: v1::JobStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            name: p.name,
            phase: required(p.phase, "phase")?,
            client: p.client,
            age: Duration::from_micros(p.age_micros),
            stages: list(p.stages, "stages")?,
            held_up_by: list(p.held_up_by, "held_up_by")?,
        })
    }
}

impl Wire for StageStatus {
    type Proto = v1::StageStatus;

    fn encode(&self) -> v1::StageStatus {
        v1::StageStatus {
            name: self.name.clone(),
            op: self.op.number(),
            slots: self.slots,
            totals: Some(self.totals.encode()),
            by_worker: self.by_worker.clone(),
        }
    }

    fn decode(p: v1::StageStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            name: p.name,
            op: enumerated(p.op, "op")?,
            slots: p.slots,
            totals: required(p.totals, "totals")?,
            by_worker: p.by_worker,
        })
    }
}

impl Wire for HeldUp {
    type Proto = v1::HeldUp;

    fn encode(&self) -> v1::HeldUp {
        v1::HeldUp { source: self.source.clone(), root: self.root, stage: self.stage.clone() }
    }

    fn decode(p: v1::HeldUp) -> Result<Self, DecodeError> {
        Ok(Self { source: p.source, root: p.root, stage: p.stage })
    }
}

impl Wire for ProcessStatus {
    type Proto = v1::ProcessStatus;

    fn encode(&self) -> v1::ProcessStatus {
        v1::ProcessStatus {
            name: self.name.clone(),
            kind: self.kind.number(),
            incarnation: self.incarnation.0,
            address: self.address.clone(),
            functions: encode_list(&self.functions),
            census: Some(self.census.encode()),
            connected: self.connected,
            suspects: self.suspects,
            leaving: self.leaving,
            abandoned: encode_list(&self.abandoned),
        }
    }

    fn decode(p: v1::ProcessStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            name: p.name,
            kind: enumerated(p.kind, "kind")?,
            incarnation: Incarnation(p.incarnation),
            address: p.address,
            functions: list(p.functions, "functions")?,
            census: required(p.census, "census")?,
            connected: p.connected,
            suspects: p.suspects,
            leaving: p.leaving,
            abandoned: list(p.abandoned, "abandoned")?,
        })
    }
}
