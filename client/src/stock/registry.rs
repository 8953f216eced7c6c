//! The stock functions, registered.

use bytes::Bytes;
use serde_json::Value;
use stageline_protocol::pipeline::Op;
use stageline_worker::sdk::{BLOCKING_STACK, Emit, Registry, StageError, StageFunction};

use super::guard::{self, Watch};
use super::jq::{Input, Output};
use super::{DEFAULT_MAX_BYTES, Jq, read, stat};

/// What an evaluation may use of its thread's stack: some is left for what is native and recurses, as far
/// as values are deep.
const STACK: usize = BLOCKING_STACK / 2;

/// A registry of all stock functions.
#[must_use]
pub fn registry() -> Registry {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    Registry::new()
        .parameterised("jq", Op::FlatMap, |params| {
            let expression: String = decode(params, "a jq expression")?;
            let jq = Jq::compile(&expression).map_err(|error| error.to_string())?;
            Ok(StageFunction::try_blocking_emit(
                move |_, input: Input, mut emit: Emit<'_, Output>| {
                    let wanted = emit.wanted();
                    let watch =
                        Watch { stack: STACK, is_over: Box::new(move || !wanted.is_wanted()) };
                    guard::watched(watch, || {
                        for output in jq.run_value(input) {
                            if !emit.emit(output.map_err(StageError::msg)?)? {
                                break;
                            }
                        }
                        Ok(())
                    })
                },
            ))
        })
        .slots(cores)
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
        // Each of its calls holds a whole file, twice over while it is encoded.
        .slots(cores)
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
