//! Each operator, with each shape of function.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stageline_protocol::ErrorKind;
use stageline_protocol::pipeline::{self, Op};

use super::super::{Context, Registry, Reply, Sink, Stage, StageError};
use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Url(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    url: Url,
    size: usize,
}

const FETCH: Stage<Url, Page> = Stage::named("f");

async fn fetch(url: Url) -> Page {
    let size = url.0.len();
    Page { url, size }
}

async fn try_fetch(cx: Context, url: Url) -> Result<Page, StageError> {
    if url.0.is_empty() {
        return Err(StageError::msg(format_args!("{}: no url", cx.stage())));
    }
    Ok(fetch(url).await)
}

fn page() -> Page {
    Page { url: Url("here".into()), size: 4 }
}

#[tokio::test]
async fn a_map_takes_functions_and_closures_with_and_without_a_context() {
    for registry in [
        Registry::new().map(FETCH, fetch),
        Registry::new().map("f", fetch),
        Registry::new().map(FETCH, |url: Url| async move { fetch(url).await }),
        Registry::new().map(FETCH, |_: Context, url: Url| fetch(url)),
        Registry::new().try_map(FETCH, try_fetch),
        Registry::new().try_map("f", try_fetch),
        Registry::new().blocking_map(FETCH, |url: Url| Page { size: url.0.len(), url }),
        Registry::new()
            .try_blocking_map(FETCH, |_: Context, url: Url| Ok(Page { size: url.0.len(), url })),
    ] {
        assert_eq!(map(&registry, Url("here".into())).await, Ok(page()));
    }
}

#[tokio::test]
async fn the_question_mark_works_in_fallible_closures() {
    let registry = Registry::new().try_map("f", |text: String| async move {
        let number: u64 = text.parse()?;
        Ok(number)
    });
    assert_eq!(map(&registry, "7").await, Ok(7_u64));
    let fault = map::<_, u64>(&registry, "seven").await.unwrap_err();
    assert_eq!((fault.kind, fault.attempts), (ErrorKind::Failed, 1));
    assert_eq!(fault.message, "invalid digit found in string");

    let registry = Registry::new().try_blocking_map("f", |path: String| {
        let text = std::fs::read_to_string(path)?;
        Ok(text.len())
    });
    let fault = map::<_, usize>(&registry, "/there/is/no/such/file").await.unwrap_err();
    assert!(fault.message.contains("No such file"), "{fault}");
}

#[tokio::test]
async fn a_filter_says_keep_or_nothing() {
    const EVEN: Stage<u64, u64> = Stage::named("f");
    for registry in [
        Registry::new().filter(EVEN, |n: u64| async move { n.is_multiple_of(2) }),
        Registry::new().try_filter(EVEN, |n: u64| async move { Ok(n.is_multiple_of(2)) }),
        Registry::new().blocking_filter(EVEN, |n: u64| n.is_multiple_of(2)),
        Registry::new().try_blocking_filter(EVEN, |n: u64| Ok(n.is_multiple_of(2))),
    ] {
        assert!(matches!(invoke(&registry, &stage(Op::Filter), 4).await, Ok(Reply::Keep)));
        assert!(matches!(invoke(&registry, &stage(Op::Filter), 5).await, Ok(Reply::Nothing)));
    }
}

#[tokio::test]
async fn an_expansion_gives_its_outputs_in_order() {
    const BELOW: Stage<u64, u64> = Stage::named("f");
    for registry in [
        Registry::new().flat_map(BELOW, |n: u64| stream::iter(0..n)),
        Registry::new().flat_map(BELOW, |_: Context, n: u64| stream::iter(0..n)),
        Registry::new().try_flat_map(BELOW, |n: u64| stream::iter(0..n).map(Ok)),
        Registry::new().flat_map_iter(BELOW, |n: u64| async move { 0..n }),
        Registry::new().try_flat_map_iter(BELOW, |n: u64| async move { Ok(Vec::from_iter(0..n)) }),
        Registry::new().blocking_flat_map(BELOW, |n: u64| 0..n),
        Registry::new().try_blocking_flat_map(BELOW, |n: u64| Ok((0..n).map(Ok))),
    ] {
        for n in [0, 1, 100] {
            let reply = invoke(&registry, &stage(Op::FlatMap), n).await.unwrap();
            let made: Result<Vec<u64>, _> = outputs(reply).await.into_iter().collect();
            assert_eq!(made, Ok(Vec::from_iter(0..n)));
        }
    }
}

#[tokio::test]
async fn a_failure_after_the_first_output_is_the_last_item() {
    for registry in [
        Registry::new().try_flat_map("f", |_: u64| {
            stream::iter([Ok(1), Err(StageError::msg("broken")), Ok(3)])
        }),
        Registry::new().try_blocking_flat_map("f", |_: u64| {
            Ok([Ok(1), Err(StageError::msg("broken")), Ok(3)])
        }),
    ] {
        let reply = invoke(&registry, &stage(Op::FlatMap), 0).await.unwrap();
        let made: Vec<Result<u64, _>> = outputs(reply).await;
        let fault = Fault { kind: ErrorKind::Failed, message: "broken".into(), attempts: 1 };
        assert_eq!(made, [Ok(1), Err(fault)]);
    }
}

#[tokio::test]
async fn a_sink_is_done_when_it_has_returned() {
    const STORE: Sink<u64> = Sink::named("f");
    let stored = Count::default();
    let (a, b, c, d) = (stored.clone(), stored.clone(), stored.clone(), stored.clone());
    for (n, registry) in (1..).zip([
        Registry::new().for_each(STORE, move |_: u64| {
            a.up();
            async {}
        }),
        Registry::new().try_for_each(STORE, move |_: u64| {
            b.up();
            async { Ok(()) }
        }),
        Registry::new().blocking_for_each(STORE, move |_: u64| {
            c.up();
        }),
        Registry::new().try_blocking_for_each("f", move |_: Context, _: u64| {
            d.up();
            Ok(())
        }),
    ]) {
        assert!(matches!(invoke(&registry, &stage(Op::Sink), 1).await, Ok(Reply::Done)));
        assert_eq!(stored.get(), n);
    }
    let full = Registry::new().try_for_each(STORE, |_: u64| async {
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    });
    let fault = invoke(&full, &stage(Op::Sink), 1).await.unwrap_err();
    assert_eq!((fault.kind, fault.message.as_str()), (ErrorKind::Failed, "no storage space"));
}

#[tokio::test]
async fn a_panic_anywhere_is_a_fault_with_its_message() {
    fn boom<T>() -> T {
        panic!("boom {}", 1)
    }
    let maps = [
        Registry::new().map("f", |_: u64| async { boom::<u64>() }),
        Registry::new().map("f", |_: u64| boom::<std::future::Ready<u64>>()),
        Registry::new().blocking_map("f", |_: u64| boom::<u64>()),
    ];
    let expansions = [
        Registry::new().flat_map("f", |_: u64| boom::<stream::Empty<u64>>()),
        Registry::new().flat_map("f", |_: u64| stream::iter(0..1).map(|_| boom::<u64>())),
        Registry::new().flat_map_iter("f", |_: u64| async { (0..1).map(|_| boom::<u64>()) }),
        Registry::new().blocking_flat_map("f", |_: u64| boom::<Vec<u64>>()),
        Registry::new().blocking_flat_map("f", |_: u64| (0..1).map(|_| boom::<u64>())),
    ];
    let all = maps.iter().map(|r| (r, Op::Map)).chain(expansions.iter().map(|r| (r, Op::FlatMap)));
    for (registry, op) in all {
        let stage = pipeline::Stage { retries: 3, ..stage(op) };
        let fault = invoke(registry, &stage, 0).await.unwrap_err();
        let expected = Fault { kind: ErrorKind::Panicked, message: "boom 1".into(), attempts: 1 };
        assert_eq!(fault, expected);
    }

    // Later in an expansion it is the last item.
    fn one_and_boom(n: u64) -> u64 {
        if n == 0 { 0 } else { boom() }
    }
    for registry in [
        Registry::new().flat_map("f", |_: u64| stream::iter(0..3).map(one_and_boom)),
        Registry::new().blocking_flat_map("f", |_: u64| (0..3).map(one_and_boom)),
    ] {
        let reply = invoke(&registry, &super::stage(Op::FlatMap), 0).await.unwrap();
        let made: Vec<Result<u64, Fault>> = outputs(reply).await;
        assert_eq!(made.len(), 2);
        assert_eq!(made[0], Ok(0));
        assert_eq!(made[1].as_ref().unwrap_err().kind, ErrorKind::Panicked);
    }
}

#[tokio::test]
async fn a_payload_of_another_type_is_a_fault_that_names_the_field() {
    let registry = Registry::new().map("f", |page: Page| async move { page.size });
    let stage = pipeline::Stage { retries: 3, ..stage(Op::Map) };
    let fault = invoke(&registry, &stage, json!({"url": "a", "size": "big"})).await.unwrap_err();
    assert_eq!((fault.kind, fault.attempts), (ErrorKind::Decode, 1));
    assert!(fault.message.starts_with("size: invalid type: string \"big\""), "{fault}");

    let registry = Registry::new().blocking_map("f", |page: Page| page.size);
    let fault = invoke(&registry, &stage, 7).await.unwrap_err();
    assert_eq!((fault.kind, fault.attempts), (ErrorKind::Decode, 1));
}

#[tokio::test]
async fn an_output_that_does_not_encode_is_a_fault() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("a secret"))
        }
    }
    let registry = Registry::new().map("f", |_: u64| async { Refuses });
    let fault = map::<_, u64>(&registry, 0).await.unwrap_err();
    assert_eq!(fault.kind, ErrorKind::Encode);
    assert!(fault.message.contains("Refuses") && fault.message.contains("a secret"), "{fault}");
}

#[tokio::test]
async fn an_output_above_the_limit_is_a_fault_with_both_numbers() {
    let registry =
        Registry::new().max_payload(10).map("f", |n: usize| async move { Bytes::from(vec![0; n]) });
    assert_eq!(map::<_, Bytes>(&registry, 10).await.unwrap().len(), 10);
    let fault = map::<_, Bytes>(&registry, 11).await.unwrap_err();
    assert_eq!(fault.kind, ErrorKind::TooLarge);
    assert!(fault.message.contains("11 bytes") && fault.message.contains("is 10"), "{fault}");

    let registry = Registry::new()
        .max_payload(10)
        .flat_map("f", |_: u64| stream::iter([9, 11, 9]).map(|n| Bytes::from(vec![0; n])));
    let reply = invoke(&registry, &stage(Op::FlatMap), 0).await.unwrap();
    let made: Vec<Result<Bytes, Fault>> = outputs(reply).await;
    assert_eq!(made.len(), 2);
    assert_eq!(made[1].as_ref().unwrap_err().kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn an_untyped_function_takes_and_makes_anything() {
    let registry = Registry::new().map("f", |any: Value| async move { any });
    assert_eq!(map(&registry, page()).await, Ok(page()));
    assert_eq!(map(&registry, Bytes::from("abc")).await, Ok("YWJj".to_owned()));
}

#[tokio::test]
async fn a_dropped_expansion_ends_its_blocking_iterator() {
    let made = Count::default();
    let dropped = std::sync::Arc::new(());
    let (count, held) = (made.clone(), std::sync::Arc::clone(&dropped));
    let registry = Registry::new().blocking_flat_map("f", move |_: u64| {
        let (count, held) = (count.clone(), std::sync::Arc::clone(&held));
        std::iter::from_fn(move || {
            let _ = &held;
            Some(count.up())
        })
    });
    let Reply::Many(mut endless) = invoke(&registry, &stage(Op::FlatMap), 0).await.unwrap() else {
        panic!("no expansion");
    };
    for n in 1..=3 {
        assert_eq!(value::<u32>(&endless.next().await.unwrap().unwrap()), n);
    }
    drop((endless, registry));
    while std::sync::Arc::strong_count(&dropped) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(made.get() < 100, "it ran {} outputs ahead", made.get());
}
