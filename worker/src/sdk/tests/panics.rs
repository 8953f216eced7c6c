//! Panics of the worst kind: what was thrown panics when it is dropped, or what a function made does.

use std::panic::panic_any;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serializer;
use stageline_protocol::JobId;
use stageline_protocol::run::{Content, Packed, Run};
use stageline_protocol::{Encoding, ErrorKind, Lineage, StageId};
use tokio_util::sync::CancellationToken;

use super::super::{Outcome, Outcomes, StageFunction, TaskContext};
use super::*;

/// Panics when it is dropped; what it throws then does so, too, if it is nested.
struct Bomb {
    nested: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.nested {
            panic_any(Bomb { nested: false });
        }
        panic!("dropped");
    }
}

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(7)
    }
}

const BOMB: Bomb = Bomb { nested: false };
const NESTED: Bomb = Bomb { nested: true };

fn boom<T>() -> T {
    panic_any(NESTED)
}

/// Maps that panic, or whose outputs or futures do when they are dropped.
fn maps() -> Vec<StageFunction> {
    let later = tokio::task::yield_now;
    vec![
        StageFunction::map(|_: Bytes| boom::<std::future::Ready<u64>>()),
        StageFunction::map(|_: Bytes| async { boom::<u64>() }),
        StageFunction::map(move |_: Bytes| async move {
            later().await;
            boom::<u64>()
        }),
        StageFunction::map(|_: Bytes| async { NESTED }),
        StageFunction::map(move |_: Bytes| async move {
            later().await;
            NESTED
        }),
        StageFunction::map(|_: Bytes| {
            let bomb = NESTED;
            async move {
                let _dropped_at_the_end = bomb;
                7
            }
        }),
        StageFunction::map(move |_: Bytes| {
            let bomb = NESTED;
            async move {
                later().await;
                let _dropped_at_the_end = bomb;
                7
            }
        }),
    ]
}

fn registry(function: StageFunction) -> Registry {
    Registry::new().function("f", function)
}

#[tokio::test]
async fn a_map_fails_its_item_and_no_other() {
    let blocking = [
        StageFunction::blocking_map(|_: Bytes| boom::<u64>()),
        StageFunction::blocking_map(|_: Bytes| NESTED),
    ];
    for (number, function) in maps().into_iter().chain(blocking).enumerate() {
        let fault = invoke(&registry(function), &stage(Op::Map), Bytes::new()).await.unwrap_err();
        assert_eq!((fault.kind, fault.attempts), (ErrorKind::Panicked, 1), "{number}: {fault}");
    }
}

#[tokio::test]
async fn a_map_called_by_the_run_fails_its_items_each_once() {
    for (number, function) in maps().into_iter().enumerate() {
        let (burst, most) = registry(function).invoker(&stage(Op::Map)).unwrap().burst().unwrap();
        let values = Packed::alike(Bytes::from_static(b"abc"), 1, 3).unwrap();
        let run = Run::new(Lineage::root(StageId(0), 0), Content::Values(Encoding::Raw, values));
        let cx = TaskContext::new(JobId(1), "stage", "worker", CancellationToken::new());
        let mut outcomes = Outcomes::new(most);
        burst(&cx, &run, &mut outcomes);
        let mut kinds = Vec::new();
        for outcome in outcomes.drain() {
            kinds.push(match outcome {
                Outcome::Failed(fault) => fault.kind,
                Outcome::Pending(rest) => rest.await.unwrap_err().kind,
                other => panic!("{number}: {} calls are done", other.calls()),
            });
        }
        assert_eq!(kinds, [ErrorKind::Panicked; 3], "{number}");
    }
}

#[tokio::test]
async fn an_expansion_ends_with_a_failure() {
    fn once(n: u64) -> u64 {
        if n == 0 { 0 } else { boom() }
    }
    let functions = [
        StageFunction::flat_map(|_: Bytes| stream::iter(0..3).map(once)),
        StageFunction::blocking_flat_map(|_: Bytes| (0..3).map(once)),
        // The stream is dropped when it has ended.
        StageFunction::flat_map(|_: Bytes| {
            let bomb = BOMB;
            stream::iter(0..1_u64).map(move |n| {
                let _held = &bomb;
                n
            })
        }),
    ];
    for function in functions {
        let reply = invoke(&registry(function), &stage(Op::FlatMap), Bytes::new()).await.unwrap();
        let made: Vec<Result<u64, Fault>> = outputs(reply).await;
        assert_eq!((made.len(), &made[0]), (2, &Ok(0)));
        assert_eq!(made[1].as_ref().unwrap_err().kind, ErrorKind::Panicked);
    }
}
