//! Failures of items.

use stageline_protocol::{ErrorKind, ItemError};

use super::{DecodeError, Wire, WireEnum, enumerated, wire_enum};
use crate::v1;

wire_enum!(ErrorKind = ErrorKind {
    Failed = Failed,
    Timeout = Timeout,
    Panicked = Panicked,
    Decode = Decode,
    Encode = Encode,
    TooLarge = TooLarge,
    Crashed = Crashed,
    Divergent = Divergent,
});

impl Wire for ItemError {
    type Proto = v1::ItemError;

    fn encode(&self) -> v1::ItemError {
        v1::ItemError {
            stage: self.stage.clone(),
            kind: self.kind.number(),
            message: self.message.clone(),
            attempts: self.attempts,
            worker: self.worker.clone(),
        }
    }

    fn decode(p: v1::ItemError) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: enumerated(p.kind, "kind")?,
            stage: p.stage,
            message: p.message,
            attempts: p.attempts,
            worker: p.worker,
        })
    }
}
