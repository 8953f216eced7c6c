//! Timeouts, retries, and the slot meanwhile. Time is paused: it moves only when nothing else can.

use std::future::pending;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use stageline_protocol::pipeline::Op;
use stageline_protocol::{ErrorKind, JobId, Lineage, StageId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Context, Registry, StageError, TaskContext};
use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn retried(retries: u32) -> Stage {
    Stage { retries, ..stage(Op::Map) }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_repeated_with_its_slot_free_meanwhile() {
    let registry = Registry::new().try_map("f", |cx: Context, n: u64| async move {
        if cx.attempt() < 3 { Err(StageError::msg("not yet")) } else { Ok(n) }
    });
    let slot = Arc::new(Watched::default());
    let invoker = registry.invoker(&retried(5)).unwrap();
    let start = Instant::now();
    let reply = invoker.invoke(test_context(), payload(7), Arc::clone(&slot) as _).await;

    assert!(matches!(reply, Ok(Reply::One(p)) if value::<u64>(&p) == 7));
    let once = ["retrying", "release", "acquire"];
    assert_eq!(slot.seen(), [once, once].concat());
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_millis(150) && waited <= Duration::from_millis(310),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn retries_run_out_and_the_fault_counts_the_attempts() {
    let calls = Count::default();
    let counted = calls.clone();
    let registry = Registry::new().try_map("f", move |_: u64| {
        let call = counted.up();
        async move { Err::<u64, _>(StageError::msg(format_args!("call {call}"))) }
    });
    let fault = invoke(&registry, &retried(4), 0).await.unwrap_err();
    let expected = Fault { kind: ErrorKind::Failed, message: "call 5".into(), attempts: 5 };
    assert_eq!((fault, calls.get()), (expected, 5));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_not_repeated() {
    let registry = Registry::new()
        .try_map("f", |_: u64| async { Err::<u64, _>(StageError::msg("never").permanent()) });
    let slot = Arc::new(Watched::default());
    let invoker = registry.invoker(&retried(5)).unwrap();
    let fault =
        invoker.invoke(test_context(), payload(0), Arc::clone(&slot) as _).await.unwrap_err();
    assert_eq!((fault.attempts, slot.seen().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_servers_retry_after_is_honoured() {
    let registry = Registry::new().try_map("f", |cx: Context, n: u64| async move {
        match cx.attempt() {
            1 => Err(StageError::msg("busy").retry_after(secs(60))),
            _ => Ok(n),
        }
    });
    let start = Instant::now();
    invoke(&registry, &retried(1), 0).await.unwrap();
    let waited = start.elapsed();
    assert!(waited >= secs(60) && waited <= secs(62), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_whole_timeout() {
    let registry = Registry::new().map("f", |cx: Context, n: u64| async move {
        if cx.attempt() < 3 {
            pending::<()>().await;
        }
        tokio::time::sleep(secs(9)).await;
        n
    });
    let stage = Stage { timeout: Some(secs(10)), ..retried(2) };
    assert!(invoke(&registry, &stage, 0).await.is_ok());
    let stage = Stage { timeout: Some(secs(10)), ..retried(1) };
    let fault = invoke(&registry, &stage, 0).await.unwrap_err();
    let message = "no answer within 10s".to_owned();
    assert_eq!(fault, Fault { kind: ErrorKind::Timeout, message, attempts: 2 });
}

#[tokio::test(start_paused = true)]
async fn under_a_timeout_other_failures_stay_what_they_are() {
    let registry = Registry::new().try_map("f", |n: u64| async move {
        match n {
            0 => Err(StageError::msg("no").permanent()),
            _ => panic!("oh"),
        }
        .map(|n: u64| n)
    });
    let stage = Stage { timeout: Some(secs(10)), ..retried(3) };
    let fault = invoke(&registry, &stage, 0).await.unwrap_err();
    assert_eq!((fault.kind, fault.message.as_str(), fault.attempts), (ErrorKind::Failed, "no", 1));
    let fault = invoke(&registry, &stage, 1).await.unwrap_err();
    assert_eq!(
        (fault.kind, fault.message.as_str(), fault.attempts),
        (ErrorKind::Panicked, "oh", 1)
    );
}

#[tokio::test]
async fn a_blocking_call_that_times_out_is_abandoned() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let registry = Registry::new().blocking_map("f", move |_: u64| {
        gate.lock().unwrap().recv().ok();
    });
    let stage = Stage { timeout: Some(Duration::from_millis(1)), ..stage(Op::Map) };
    let fault = invoke(&registry, &stage, 0).await.unwrap_err();
    assert_eq!(fault.kind, ErrorKind::Timeout);
    drop(open);
}

#[tokio::test(start_paused = true)]
async fn an_expansion_is_repeated_until_its_first_output_only() {
    let registry = Registry::new().try_flat_map("f", |cx: Context, _: u64| {
        let attempt = cx.attempt();
        stream::iter(0..3).map(move |n| match (attempt, n) {
            (1, 0) => Err(StageError::msg("at the start")),
            (2, 2) => Err(StageError::msg("in the middle")),
            _ => Ok(n),
        })
    });
    let stage = Stage { retries: 5, ..stage(Op::FlatMap) };
    let reply = invoke(&registry, &stage, 0).await.unwrap();
    let fault = Fault { kind: ErrorKind::Failed, message: "in the middle".into(), attempts: 2 };
    assert_eq!(outputs::<u64>(reply).await, [Ok(0), Ok(1), Err(fault)]);
}

#[tokio::test(start_paused = true)]
async fn an_expansions_timeout_holds_for_each_output_and_not_while_its_reader_is_busy() {
    let registry = Registry::new().flat_map("f", |cx: Context, stuck: u64| {
        let attempt = u64::from(cx.attempt());
        stream::iter(0..4).then(move |n| async move {
            if n == stuck && attempt == 1 {
                pending::<()>().await;
            }
            tokio::time::sleep(secs(9)).await;
            n
        })
    });
    let stage = Stage { timeout: Some(secs(10)), retries: 1, ..stage(Op::FlatMap) };

    // Stuck at its first output it is repeated; its outputs may then take 36 s in all.
    let reply = invoke(&registry, &stage, 0_u64).await.unwrap();
    assert_eq!(outputs::<u64>(reply).await, [Ok(0), Ok(1), Ok(2), Ok(3)]);

    // Stuck later it ends, and the time in which nobody asked does not count.
    let Reply::Many(mut made) = invoke(&registry, &stage, 2_u64).await.unwrap() else {
        panic!("no expansion");
    };
    assert!(made.next().await.unwrap().is_ok());
    tokio::time::sleep(secs(3600)).await;
    assert!(made.next().await.unwrap().is_ok());
    let fault = made.next().await.unwrap().unwrap_err();
    let message = "no output within 10s, after 2 outputs".to_owned();
    assert_eq!(fault, Fault { kind: ErrorKind::Timeout, message, attempts: 1 });
    assert!(made.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_once_the_task_is_cancelled() {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let registry = Registry::new().try_map("f", move |_: u64| {
        cancel.cancel();
        async { Err::<u64, _>(StageError::msg("too late")) }
    });
    let cx =
        TaskContext::new(JobId(1), "stage", "worker", token).item(Lineage::root(StageId(0), 0));
    let invoker = registry.invoker(&retried(5)).unwrap();
    let fault = invoker.invoke(cx, payload(0), Arc::new(Watched::default())).await.unwrap_err();
    assert_eq!(fault.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_backoff_has_given_its_slot_back() {
    let registry =
        Registry::new().try_map("f", |_: u64| async { Err::<u64, _>(StageError::msg("no")) });
    let slot = Arc::new(Watched::default());
    let call = registry.invoker(&retried(5)).unwrap().invoke(
        test_context(),
        payload(0),
        Arc::clone(&slot) as _,
    );
    tokio::time::timeout(Duration::from_millis(1), call).await.unwrap_err();
    assert_eq!(slot.seen(), ["retrying", "release"]);
}
