//! Named sources: functions of a position.

use std::future::poll_fn;

use futures_util::{StreamExt, stream};
use stageline_protocol::ErrorKind;
use stageline_protocol::pipeline::Op;

use super::super::{Context, Registry, Source, StageError};
use super::*;

async fn roots(registry: &Registry, position: u64) -> Vec<Result<u64, Fault>> {
    let mut roots = registry.open_source(&stage(Op::Source), position, test_context()).unwrap();
    let mut all = Vec::new();
    let mut ended = false;
    while !ended {
        ended = poll_fn(|waker| roots.poll_make(waker, 2, 1 << 20)).await;
        for made in roots.take() {
            let (encoding, values) = match made {
                Ok(values) => values,
                Err(fault) => {
                    all.push(Err(fault));
                    continue;
                }
            };
            let payloads = (0..values.len()).map(|n| Payload { encoding, bytes: values.get(n) });
            all.extend(payloads.map(|payload| Ok(value(&payload))));
        }
    }
    all
}

#[tokio::test]
async fn a_source_starts_where_it_is_told_to() {
    const COUNT: Source<u64> = Source::named("f");
    for registry in [
        Registry::new().source(COUNT, |from: u64| stream::iter(from..5)),
        Registry::new().source("f", |_: Context, from: u64| stream::iter(from..5)),
        Registry::new().try_source(COUNT, |from: u64| stream::iter(from..5).map(Ok)),
    ] {
        assert_eq!(roots(&registry, 0).await.len(), 5);
        assert_eq!(roots(&registry, 3).await, [Ok(3), Ok(4)]);
    }
}

#[tokio::test]
async fn a_failure_stands_for_one_root_and_the_source_goes_on() {
    let registry = Registry::new().max_payload(4).try_source("f", |from: u64| {
        stream::iter(from..3).map(|n| match n {
            0 => Ok(u64::MAX), // 9 bytes
            1 => Err(StageError::msg("unreadable")),
            n => Ok(n),
        })
    });
    let roots = roots(&registry, 0).await;
    assert_eq!(roots[0].as_ref().unwrap_err().kind, ErrorKind::TooLarge);
    assert_eq!(roots[1].as_ref().unwrap_err().message, "unreadable");
    assert_eq!(roots[2..], [Ok(2)]);
}

#[tokio::test]
async fn a_panic_is_not_hidden_as_the_end() {
    let in_the_stream = Registry::new().source("f", |from: u64| {
        stream::iter(from..3).map(|n| if n == 1 { panic!("boom") } else { n })
    });
    let at_once = Registry::new().source("f", |_: u64| -> stream::Empty<u64> { panic!("boom") });
    for registry in [in_the_stream, at_once] {
        let panic = tokio::spawn(async move { roots(&registry, 0).await }).await;
        assert!(panic.is_err_and(|error| error.is_panic()));
    }
}
