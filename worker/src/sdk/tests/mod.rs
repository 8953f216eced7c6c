//! Scenarios: what a runtime sees of the functions that a user registers.

mod bursts;
mod operators;
mod panics;
mod policies;
mod registry;
mod sources;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stageline_protocol::pipeline::{Op, Site, Stage};

use super::context::test_context;
use super::{Fault, Payload, Registry, Reply, Slot, codec};

/// A stage named "stage" that calls the function "f".
fn stage(op: Op) -> Stage {
    Stage { function: "f".to_owned(), ..Stage::new("stage", op, Site::Fleet) }
}

fn payload<T: Serialize + 'static>(value: T) -> Payload {
    let (encoding, bytes) = codec::encode(&value).unwrap();
    Payload { encoding, bytes }
}

fn value<T: DeserializeOwned + 'static>(payload: &Payload) -> T {
    codec::decode(payload.encoding, &payload.bytes).unwrap()
}

/// Invokes the function "f" once.
async fn invoke<T: Serialize + 'static>(
    registry: &Registry,
    stage: &Stage,
    input: T,
) -> Result<Reply, Fault> {
    let invoker = registry.invoker(stage).unwrap();
    invoker.invoke(test_context(), payload(input), Arc::new(Watched::default())).await
}

/// What a map made.
async fn map<T: Serialize + 'static, R: DeserializeOwned + 'static>(
    registry: &Registry,
    input: T,
) -> Result<R, Fault> {
    match invoke(registry, &stage(Op::Map), input).await? {
        Reply::One(payload) => Ok(value(&payload)),
        other => panic!("{other:?}"),
    }
}

/// What an expansion made.
async fn outputs<R: DeserializeOwned + 'static>(reply: Reply) -> Vec<Result<R, Fault>> {
    match reply {
        Reply::Many(outputs) => outputs.map(|output| output.map(|p| value(&p))).collect().await,
        other => panic!("{other:?}"),
    }
}

/// A slot that writes down what is done with it.
#[derive(Default)]
struct Watched {
    seen: Mutex<Vec<&'static str>>,
}

impl Watched {
    fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().clone()
    }
}

impl Slot for Watched {
    fn release(&self) {
        self.seen.lock().unwrap().push("release");
    }

    fn acquire(&self) -> BoxFuture<'static, ()> {
        self.seen.lock().unwrap().push("acquire");
        Box::pin(std::future::ready(()))
    }

    fn retrying(&self) {
        self.seen.lock().unwrap().push("retrying");
    }
}

/// A count that functions and tests share.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU32>);

impl Count {
    /// Counts one more, and gives the new count.
    fn up(&self) -> u32 {
        self.0.fetch_add(1, SeqCst) + 1
    }

    fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }
}
