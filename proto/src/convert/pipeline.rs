//! Pipelines, as declared.

use std::time::Duration;

use stageline_protocol::StageId;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};

use super::{
    DecodeError, Wire, WireEnum, encode_list, enumerated, list, micros, optional, wire_enum,
};
use crate::v1;

wire_enum!(Op = Op {
    Source = Source,
    Map = Map,
    Filter = Filter,
    FlatMap = FlatMap,
    Sink = Sink,
    Terminal = Terminal,
});

wire_enum!(Site = Site { Client = Client, Fleet = Fleet });

wire_enum!(Carries = Carries { All = All, Errors = Errors });

impl Wire for Pipeline {
    type Proto = v1::Pipeline;

    fn encode(&self) -> v1::Pipeline {
        v1::Pipeline {
            name: self.name.clone(),
            stages: encode_list(&self.stages),
            channels: encode_list(&self.channels),
            max_in_flight: self.max_in_flight,
        }
    }

    fn decode(p: v1::Pipeline) -> Result<Self, DecodeError> {
        Ok(Self {
            name: p.name,
            stages: list(p.stages, "stages")?,
            channels: list(p.channels, "channels")?,
            max_in_flight: p.max_in_flight,
        })
    }
}

impl Wire for Stage {
    type Proto = v1::Stage;

    fn encode(&self) -> v1::Stage {
        v1::Stage {
            name: self.name.clone(),
            op: self.op.number(),
            site: self.site.number(),
            function: self.function.clone(),
            params: self.params.clone(),
            input: self.input.as_ref().map(Wire::encode),
            output: self.output.as_ref().map(Wire::encode),
            workers: self.workers,
            workers_per: self.workers_per,
            timeout_micros: self.timeout.map(micros),
            retries: self.retries,
        }
    }

    fn decode(p: v1::Stage) -> Result<Self, DecodeError> {
        Ok(Self {
            name: p.name,
            op: enumerated(p.op, "op")?,
            site: enumerated(p.site, "site")?,
            function: p.function,
            params: p.params,
            input: optional(p.input, "input")?,
            output: optional(p.output, "output")?,
            workers: p.workers,
            workers_per: p.workers_per,
            timeout: p.timeout_micros.map(Duration::from_micros),
            retries: p.retries,
        })
    }
}

impl Wire for Channel {
    type Proto = v1::Channel;

    fn encode(&self) -> v1::Channel {
        v1::Channel {
            from: self.from.0,
            to: self.to.0,
            carries: self.carries.number(),
            buffer: self.buffer,
        }
    }

    fn decode(p: v1::Channel) -> Result<Self, DecodeError> {
        Ok(Self {
            from: StageId(p.from),
            to: StageId(p.to),
            carries: enumerated(p.carries, "carries")?,
            buffer: p.buffer,
        })
    }
}
