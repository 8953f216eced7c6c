//! Timeouts, retries and backoff.

use std::collections::BTreeMap;
use std::time::Duration;

use stageline::{Context, ErrorKind, StageError, Stream};
use stageline_tests::stages::{
    CHECK, FLAKY, HOPELESS, POLITE, SLEEPY, STUCK, STUCK_LATER, complaint,
};

use crate::world::{everywhere, item_error, sorted};

/// Shorter than anything that a test waits for.
const SHORT: Duration = Duration::from_millis(20);
/// Longer than a test runs.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_call_that_takes_too_long_is_an_error_item() {
    everywhere(async |world| {
        let stuck = Stream::from_iter(0..5u64).map(STUCK).timeout(SHORT);
        let here = Stream::from_iter(0..5u64)
            .map_local(|_: u64| std::future::pending::<u64>())
            .timeout(SHORT);
        for stuck in [stuck, here] {
            let (values, errors) = stuck.collect_split(&world.client).await.unwrap();
            assert_eq!((values, errors.len()), (vec![], 5));
            for error in errors {
                assert_eq!((error.kind, error.attempts), (ErrorKind::Timeout, 1));
                assert!(error.message.contains("20ms"), "{error}");
            }
        }
        let (values, errors) = Stream::from_iter(0..5u64)
            .flat_map(STUCK_LATER)
            .timeout(SHORT)
            .collect_split(&world.client)
            .await
            .unwrap();
        assert_eq!(sorted(values), sorted(0..5), "what an expansion has given stays given");
        assert!(errors.iter().all(|error| error.kind == ErrorKind::Timeout));
        assert_eq!(errors.len(), 5);

        let quick = Stream::from_iter(0..5u64).map(CHECK).timeout(LONG);
        let (values, errors) = quick.collect_split(&world.client).await.unwrap();
        assert_eq!((sorted(values), errors.len()), (vec![1, 2, 3, 4], 1));
        assert_eq!((errors[0].kind, errors[0].message.clone()), (ErrorKind::Failed, complaint(0)));
    })
    .await;
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_as_often_as_allowed() {
    everywhere(async |world| {
        let flaky = Stream::from_iter(0..4u64).map(FLAKY).retry(2).results(&world.client);
        let job = flaky.job();
        use futures_util::StreamExt;
        let values: Vec<u64> = flaky.map(Result::unwrap).collect().await;
        assert_eq!(sorted(values), [0, 1, 2, 3]);
        assert_eq!(job.ended().await.unwrap().stages[1].totals.retries, 8);
        let attempts = sorted((0..4).flat_map(|n| (1..4).map(move |a| format!("{n}#{a}"))));
        assert_eq!(sorted(world.trace("flaky")), attempts);

        let too_few = Stream::from_iter([9u64]).map(FLAKY).retry(1);
        let error = item_error(too_few.collect(&world.client).await);
        assert_eq!((error.kind, error.attempts), (ErrorKind::Failed, 2));
        assert_eq!(error.message, "not yet");

        let hopeless = Stream::from_iter([9u64]).map(HOPELESS).retry(1_000);
        let error = item_error(hopeless.collect(&world.client).await);
        assert_eq!((error.attempts, error.message.as_str()), (1, "hopeless"));

        let slept = Stream::from_iter(0..4u64).map(SLEEPY).timeout(SHORT).retry(1_000);
        assert_eq!(sorted(slept.collect(&world.client).await.unwrap()), [0, 1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn a_closure_is_repeated_too() {
    everywhere(async |world| {
        let flaky = |cx: Context, n: u64| async move {
            if cx.attempt() < 3 { Err(StageError::msg("not yet")) } else { Ok((n, cx.attempt())) }
        };
        let values = Stream::from_iter(0..4u64).try_map_local(flaky).retry(2);
        let values: BTreeMap<u64, u32> =
            values.collect(&world.client).await.unwrap().into_iter().collect();
        assert_eq!(values, (0..4).map(|n| (n, 3)).collect());
    })
    .await;
}

#[tokio::test]
async fn a_slot_is_free_while_its_item_waits_for_another_attempt() {
    everywhere(async |world| {
        // Item 0 fails until item 1 has run, and there is one slot.
        let polite = Stream::from_iter(0..2u64).map(POLITE).workers(1).retry(100_000);
        assert_eq!(sorted(polite.collect(&world.client).await.unwrap()), [0, 1]);
        let trace = world.trace("polite");
        assert!(trace.len() > 2, "item 0 was repeated: {trace:?}");
        assert_eq!(trace.iter().filter(|line| *line == "1").count(), 1);
        assert_eq!(trace.last().unwrap(), "0", "it went on once item 1 had run");
    })
    .await;
}
