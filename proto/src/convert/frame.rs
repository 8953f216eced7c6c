//! The frames of a link. The batch, [`Items`](stageline_protocol::frame::Items), has a file of its
//! own.

use stageline_protocol::Frame;
use stageline_protocol::frame::{
    Accept, Ack, Close, CloseReason, Grant, Items, LinkPolicy, Open, Return, Role, Summary,
};

use super::ranges::{pairs, range_set};
use super::{
    DecodeError, Wire, WireEnum, encode_list, enumerated, list, optional, required, wire_enum,
};
use crate::v1;
use crate::v1::link_frame::Frame as Choice;

impl Wire for Frame {
    type Proto = v1::LinkFrame;

    fn encode(&self) -> v1::LinkFrame {
        let frame = match self {
            Self::Open(f) => Choice::Open(f.encode()),
            Self::Accept(f) => Choice::Accept(f.encode()),
            Self::Items(f) => Choice::Items(f.encode()),
            Self::Grant(f) => Choice::Grant(f.encode()),
            Self::Ack(f) => Choice::Ack(f.encode()),
            Self::Return(f) => Choice::Return(f.encode()),
            Self::Close(f) => Choice::Close(f.encode()),
        };
        v1::LinkFrame { frame: Some(frame) }
    }

    fn decode(p: v1::LinkFrame) -> Result<Self, DecodeError> {
        match p.frame.ok_or_else(|| DecodeError::missing("LinkFrame.frame"))? {
            Choice::Open(f) => Open::decode(f).map(Self::Open).map_err(|e| e.at("Open")),
            Choice::Accept(f) => Accept::decode(f).map(Self::Accept).map_err(|e| e.at("Accept")),
            Choice::Items(f) => Items::decode(f).map(Self::Items).map_err(|e| e.at("Items")),
            Choice::Grant(f) => Grant::decode(f).map(Self::Grant).map_err(|e| e.at("Grant")),
            Choice::Ack(f) => Ack::decode(f).map(Self::Ack).map_err(|e| e.at("Ack")),
            Choice::Return(f) => Return::decode(f).map(Self::Return).map_err(|e| e.at("Return")),
            Choice::Close(f) => Close::decode(f).map(Self::Close).map_err(|e| e.at("Close")),
        }
    }
}

wire_enum!(Role = Role { Sender = Sender, Receiver = Receiver });

wire_enum!(CloseReason = CloseReason {
    Cut = Cut,
    NoSuchTask = NoSuchTask,
    Stale = Stale,
    Violation = Violation,
    Version = Version,
    Done = Done,
});

impl Wire for Open {
    type Proto = v1::Open;

    fn encode(&self) -> v1::Open {
        v1::Open {
            versions: Some(self.versions.encode()),
            link: Some(self.link.encode()),
            role: self.role.number(),
            conn: Some(self.conn.encode()),
            resume: self.resume.as_ref().map(Wire::encode),
            summaries: encode_list(&self.summaries),
            policy: self.policy.as_ref().map(Wire::encode),
        }
    }

    fn decode(p: v1::Open) -> Result<Self, DecodeError> {
        Ok(Self {
            versions: required(p.versions, "versions")?,
            link: required(p.link, "link")?,
            role: enumerated(p.role, "role")?,
            conn: required(p.conn, "conn")?,
            resume: optional(p.resume, "resume")?,
            summaries: list(p.summaries, "summaries")?,
            policy: optional(p.policy, "policy")?,
        })
    }
}

impl Wire for Accept {
    type Proto = v1::Accept;

    fn encode(&self) -> v1::Accept {
        v1::Accept {
            version: self.version,
            resume: self.resume.as_ref().map(Wire::encode),
            summary: self.summary.as_ref().map(Wire::encode),
            policy: self.policy.as_ref().map(Wire::encode),
        }
    }

    fn decode(p: v1::Accept) -> Result<Self, DecodeError> {
        Ok(Self {
            version: p.version,
            resume: optional(p.resume, "resume")?,
            summary: optional(p.summary, "summary")?,
            policy: optional(p.policy, "policy")?,
        })
    }
}

impl Wire for LinkPolicy {
    type Proto = v1::LinkPolicy;

    fn encode(&self) -> v1::LinkPolicy {
        v1::LinkPolicy { window_bytes: self.window_bytes, max_payload: self.max_payload }
    }

    fn decode(p: v1::LinkPolicy) -> Result<Self, DecodeError> {
        Ok(Self { window_bytes: p.window_bytes, max_payload: p.max_payload })
    }
}

impl Wire for Summary {
    type Proto = v1::Summary;

    fn encode(&self) -> v1::Summary {
        v1::Summary {
            conn: Some(self.conn.encode()),
            acked: Some(self.acked.encode()),
            held: pairs(&self.held, 0),
        }
    }

    fn decode(p: v1::Summary) -> Result<Self, DecodeError> {
        Ok(Self {
            conn: required(p.conn, "conn")?,
            acked: required(p.acked, "acked")?,
            held: range_set(&p.held, 0, "held")?,
        })
    }
}

impl Wire for Grant {
    type Proto = v1::Grant;

    fn encode(&self) -> v1::Grant {
        v1::Grant { items: self.items, bytes: self.bytes }
    }

    fn decode(p: v1::Grant) -> Result<Self, DecodeError> {
        Ok(Self { items: p.items, bytes: p.bytes })
    }
}

impl Wire for Ack {
    type Proto = v1::Ack;

    fn encode(&self) -> v1::Ack {
        v1::Ack { settled: Some(self.settled.encode()) }
    }

    fn decode(p: v1::Ack) -> Result<Self, DecodeError> {
        Ok(Self { settled: required(p.settled, "settled")? })
    }
}

impl Wire for Return {
    type Proto = v1::Return;

    fn encode(&self) -> v1::Return {
        v1::Return { numbers: pairs(&self.numbers, 0) }
    }

    fn decode(p: v1::Return) -> Result<Self, DecodeError> {
        Ok(Self { numbers: range_set(&p.numbers, 0, "numbers")? })
    }
}

impl Wire for Close {
    type Proto = v1::Close;

    fn encode(&self) -> v1::Close {
        v1::Close { reason: self.reason.number(), message: self.message.clone() }
    }

    fn decode(p: v1::Close) -> Result<Self, DecodeError> {
        Ok(Self { reason: enumerated(p.reason, "reason")?, message: p.message })
    }
}
