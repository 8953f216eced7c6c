//! Names of tasks, links and connections; versions; roots; types.

use stageline_protocol::pipeline::TypeTag;
use stageline_protocol::{ChannelId, ConnId, Epoch, JobId, LinkId, StageId, TaskId, VersionRange};

use super::{DecodeError, Wire, required};
use crate::v1;

impl Wire for VersionRange {
    type Proto = v1::VersionRange;

    fn encode(&self) -> v1::VersionRange {
        v1::VersionRange { oldest: self.oldest, newest: self.newest }
    }

    fn decode(p: v1::VersionRange) -> Result<Self, DecodeError> {
        if p.oldest > p.newest {
            return Err(DecodeError::invalid("oldest", "is above `newest`"));
        }
        Ok(Self { oldest: p.oldest, newest: p.newest })
    }
}

impl Wire for TaskId {
    type Proto = v1::TaskId;

    fn encode(&self) -> v1::TaskId {
        v1::TaskId { stage: self.stage.0, epoch: self.epoch.0 }
    }

    fn decode(p: v1::TaskId) -> Result<Self, DecodeError> {
        Ok(Self { stage: StageId(p.stage), epoch: Epoch(p.epoch) })
    }
}

impl Wire for LinkId {
    type Proto = v1::LinkId;

    fn encode(&self) -> v1::LinkId {
        v1::LinkId {
            job: self.job.0,
            channel: self.channel.0,
            from: Some(self.from.encode()),
            to: Some(self.to.encode()),
        }
    }

    fn decode(p: v1::LinkId) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            channel: ChannelId(p.channel),
            from: required(p.from, "from")?,
            to: required(p.to, "to")?,
        })
    }
}

impl Wire for ConnId {
    type Proto = v1::ConnId;

    fn encode(&self) -> v1::ConnId {
        v1::ConnId { dialler: self.dialler.0, number: self.number }
    }

    fn decode(p: v1::ConnId) -> Result<Self, DecodeError> {
        Ok(Self { dialler: Epoch(p.dialler), number: p.number })
    }
}

impl Wire for TypeTag {
    type Proto = v1::TypeTag;

    fn encode(&self) -> v1::TypeTag {
        v1::TypeTag { name: self.name.clone(), version: self.version }
    }

    fn decode(p: v1::TypeTag) -> Result<Self, DecodeError> {
        Ok(Self { name: p.name, version: p.version })
    }
}

pub(super) fn encode_roots(roots: &[(StageId, u64)]) -> Vec<v1::SourceRoot> {
    roots.iter().map(|&(source, root)| v1::SourceRoot { source: source.0, root }).collect()
}

pub(super) fn decode_roots(roots: Vec<v1::SourceRoot>) -> Vec<(StageId, u64)> {
    roots.into_iter().map(|r| (StageId(r.source), r.root)).collect()
}

pub(super) fn encode_channels(channels: &[ChannelId]) -> Vec<u32> {
    channels.iter().map(|c| c.0).collect()
}

pub(super) fn decode_channels(channels: Vec<u32>) -> Vec<ChannelId> {
    channels.into_iter().map(ChannelId).collect()
}
