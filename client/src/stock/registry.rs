//! The stock functions, registered.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::Value;
use stageline_protocol::pipeline::Op;
use stageline_worker::sdk::{Registry, StageError, StageFunction};

use super::ahead::ahead;
use super::{DEFAULT_MAX_BYTES, Jq, read, stat};

/// A registry of all stock functions.
#[must_use]
pub fn registry() -> Registry {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Registry::new()
        .parameterised("jq", Op::FlatMap, |params| {
            let expression: String = decode(params, "a jq expression")?;
            let jq = Jq::compile(&expression).map_err(|error| error.to_string())?;
            let jq = Arc::new(jq);
            Ok(StageFunction::try_flat_map(move |input: Value| outputs(jq.clone(), input)))
        })
        .slots(u32::try_from(cores).unwrap_or(u32::MAX))
        .parameterised("read", Op::Map, |params| {
            let max_bytes = if params.is_empty() {
                DEFAULT_MAX_BYTES
            } else {
                decode(params, "the most bytes of a file")?
            };
            Ok(StageFunction::try_blocking_map(move |input: Value| {
                read(input, max_bytes).map_err(StageError::msg)
            }))
        })
        .function(
            "stat",
            StageFunction::try_blocking_map(|input: Value| stat(input).map_err(StageError::msg)),
        )
}

fn decode<T: serde::de::DeserializeOwned + 'static>(
    params: &Bytes,
    what: &str,
) -> Result<T, String> {
    stageline_worker::sdk::codec::decode(stageline_protocol::Encoding::MessagePack, params)
        .map_err(|error| format!("its parameter should be {what}: {error}"))
}

/// Runs the expression on a thread of its own, as far ahead as its outputs are taken: an expression
/// may compute for long, and may have outputs without end.
fn outputs(
    jq: Arc<Jq>,
    input: Value,
) -> impl Stream<Item = Result<Value, StageError>> + Send + 'static {
    ahead(move |give| {
        for output in jq.run(input) {
            if !give(output.and_then(|output| output.to_json()).map_err(StageError::msg)) {
                return;
            }
        }
    })
}
