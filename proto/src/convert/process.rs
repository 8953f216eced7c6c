//! Processes: how they introduce themselves, and what they offer and run.

use std::time::Duration;

use stageline_protocol::control::{AbandonedCalls, Census, Function, Hello, ProcessKind, Welcome};
use stageline_protocol::{Incarnation, Term};

use super::{
    DecodeError, Wire, WireEnum, encode_list, enumerated, list, micros, optional, required,
    wire_enum,
};
use crate::v1;

wire_enum!(ProcessKind = ProcessKind { Worker = Worker, Client = Client });

impl Wire for Hello {
    type Proto = v1::Hello;

    fn encode(&self) -> v1::Hello {
        v1::Hello {
            versions: Some(self.versions.encode()),
            kind: self.kind.number(),
            name: self.name.clone(),
            incarnation: self.incarnation.0,
            address: self.address.clone(),
            functions: encode_list(&self.functions),
            leaving: self.leaving,
        }
    }

    fn decode(p: v1::Hello) -> Result<Self, DecodeError> {
        Ok(Self {
            versions: required(p.versions, "versions")?,
            kind: enumerated(p.kind, "kind")?,
            name: p.name,
            incarnation: Incarnation(p.incarnation),
            address: p.address,
            functions: list(p.functions, "functions")?,
            leaving: p.leaving,
        })
    }
}

impl Wire for Function {
    type Proto = v1::Function;

    fn encode(&self) -> v1::Function {
        v1::Function {
            name: self.name.clone(),
            op: self.op.number(),
            slots: self.slots,
            input: self.input.as_ref().map(Wire::encode),
            output: self.output.as_ref().map(Wire::encode),
            replayable: self.replayable,
        }
    }

    fn decode(p: v1::Function) -> Result<Self, DecodeError> {
        Ok(Self {
            name: p.name,
            op: enumerated(p.op, "op")?,
            slots: p.slots,
            input: optional(p.input, "input")?,
            output: optional(p.output, "output")?,
            replayable: p.replayable,
        })
    }
}

impl Wire for Welcome {
    type Proto = v1::Welcome;

    fn encode(&self) -> v1::Welcome {
        v1::Welcome { version: self.version, term: self.term.0, lease_micros: micros(self.lease) }
    }

    fn decode(p: v1::Welcome) -> Result<Self, DecodeError> {
        Ok(Self {
            version: p.version,
            term: Term(p.term),
            lease: Duration::from_micros(p.lease_micros),
        })
    }
}

impl Wire for Census {
    type Proto = v1::Census;

    fn encode(&self) -> v1::Census {
        v1::Census {
            runtime_tasks: self.runtime_tasks,
            tasks: self.tasks,
            links: self.links,
            children: self.children,
            timers: self.timers,
        }
    }

    fn decode(p: v1::Census) -> Result<Self, DecodeError> {
        Ok(Self {
            runtime_tasks: p.runtime_tasks,
            tasks: p.tasks,
            links: p.links,
            children: p.children,
            timers: p.timers,
        })
    }
}

impl Wire for AbandonedCalls {
    type Proto = v1::AbandonedCalls;

    fn encode(&self) -> v1::AbandonedCalls {
        v1::AbandonedCalls {
            function: self.function.clone(),
            calls: self.calls,
            slots: self.slots,
            oldest_micros: micros(self.oldest),
            example: self.example.clone(),
        }
    }

    fn decode(p: v1::AbandonedCalls) -> Result<Self, DecodeError> {
        Ok(Self {
            function: p.function,
            calls: p.calls,
            slots: p.slots,
            oldest: Duration::from_micros(p.oldest_micros),
            example: p.example,
        })
    }
}
