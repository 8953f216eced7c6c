//! A run called at once fares as its items called one by one.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use proptest::prelude::*;
use stageline_protocol::pipeline::Op;
use stageline_protocol::run::{Content, Packed, Packer, Run};
use stageline_protocol::{Encoding, JobId, Lineage, StageId, Step};
use tokio_util::sync::CancellationToken;

use super::super::{Context, Outcome, Outcomes, StageError, TaskContext};
use super::*;

/// The largest output that the functions here may make.
const MOST: usize = 20_000;

/// What an item's call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answers,
    AnswersMuch,
    AnswersTooMuch,
    Fails,
    PanicsWhenCalled,
    PanicsWhenPolled,
    AnswersLater,
    FailsLater,
    PanicsLater,
    IsNotDecoded,
}

use Does::*;

const ALL: [Does; 10] = [
    Answers,
    AnswersMuch,
    AnswersTooMuch,
    Fails,
    PanicsWhenCalled,
    PanicsWhenPolled,
    AnswersLater,
    FailsLater,
    PanicsLater,
    IsNotDecoded,
];

/// Pending once.
async fn later() {
    let mut before = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut before, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Does it, and answers with a text that names the item.
fn act(cx: Context, n: u64) -> impl Future<Output = Result<String, StageError>> + Send + 'static {
    let does = ALL[n as usize % ALL.len()];
    assert!(does != PanicsWhenCalled, "called with {n}");
    async move {
        let said = format!("{n} of {} in attempt {}", cx.lineage(), cx.attempt());
        if matches!(does, AnswersLater | FailsLater | PanicsLater) {
            later().await;
        }
        match does {
            Fails | FailsLater => Err(StageError::msg(said)),
            PanicsWhenPolled | PanicsLater => panic!("{said}"),
            AnswersMuch => Ok(said.repeat(200)),
            AnswersTooMuch => Ok(said.repeat(2_000)),
            _ => Ok(said),
        }
    }
}

/// The functions that go by the run, with their operators. All of them act.
fn functions() -> Vec<(Op, Registry)> {
    let registry = || Registry::new().max_payload(MOST);
    vec![
        (Op::Map, registry().try_map("f", act)),
        (
            Op::Map,
            registry().map("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { acts.await.map_err(|error| error.to_string()) }
            }),
        ),
        (
            Op::Map,
            registry().try_map("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { acts.await.map(Bytes::from) }
            }),
        ),
        (
            Op::Filter,
            registry().try_filter("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { acts.await.map(|_| !(n / 10).is_multiple_of(3)) }
            }),
        ),
        (
            Op::Filter,
            registry().filter("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { acts.await.is_ok() }
            }),
        ),
        (
            Op::Sink,
            registry().try_for_each("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { acts.await.map(|_| ()) }
            }),
        ),
        (
            Op::Sink,
            registry().for_each("f", |cx: Context, n: u64| {
                let acts = act(cx, n);
                async move { drop(acts.await) }
            }),
        ),
    ]
}

/// What came of an item.
#[derive(Debug, PartialEq)]
enum Fate {
    Output(Payload),
    Kept,
    Nothing,
    Failed(Fault),
}

fn fate(reply: Result<Reply, Fault>) -> Fate {
    match reply {
        Ok(Reply::One(payload)) => Fate::Output(payload),
        Ok(Reply::Keep) => Fate::Kept,
        Ok(Reply::Nothing | Reply::Done) => Fate::Nothing,
        Ok(other @ Reply::Many(_)) => panic!("{other:?}"),
        Err(fault) => Fate::Failed(fault),
    }
}

async fn fates(outcomes: &mut Outcomes) -> Vec<Fate> {
    let mut fates = Vec::new();
    for outcome in outcomes.drain() {
        match outcome {
            Outcome::Outputs(encoding, outputs) => {
                let payload = |place| Payload { encoding, bytes: outputs.get(place) };
                fates.extend((0..outputs.len()).map(|place| Fate::Output(payload(place))));
            }
            Outcome::Kept(count) => fates.extend((0..count).map(|_| Fate::Kept)),
            Outcome::Nothing(count) => fates.extend((0..count).map(|_| Fate::Nothing)),
            Outcome::Failed(fault) => fates.push(Fate::Failed(fault)),
            Outcome::Pending(rest) => fates.push(fate(rest.await)),
        }
    }
    fates
}

fn task_context() -> TaskContext {
    TaskContext::new(JobId(1), "stage", "worker", CancellationToken::new())
}

/// A run of these numbers; those that are not to be decoded are texts.
fn run_of(numbers: &[u64]) -> Run {
    let mut packer = Packer::new();
    for n in numbers {
        let is_text = ALL[*n as usize % ALL.len()] == IsNotDecoded;
        let item = if is_text { payload("not a number") } else { payload(*n) };
        assert!(packer.push(&item.bytes));
    }
    let lineage = Lineage::root(StageId(0), 7).with(Step::Output(40));
    Run::new(lineage, Content::Values(Encoding::MessagePack, packer.take().unwrap()))
}

async fn one_by_one(registry: &Registry, op: Op, run: &Run) -> Vec<Fate> {
    let invoker = registry.invoker(&stage(op)).unwrap();
    let mut fates = Vec::new();
    for item in run.items() {
        let stageline_protocol::Body::Value(encoding, bytes) = item.body else { panic!() };
        let cx = task_context().item(item.lineage);
        let slot = Arc::new(Watched::default());
        fates.push(fate(invoker.invoke(cx, Payload { encoding, bytes }, slot).await));
    }
    fates
}

fn at_once(registry: &Registry, op: Op, run: &Run) -> Outcomes {
    let (burst, most) = registry.invoker(&stage(op)).unwrap().burst().unwrap();
    let mut outcomes = Outcomes::new(most);
    burst(&task_context(), run, &mut outcomes);
    outcomes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_run_called_at_once_fares_as_its_items_one_by_one(
        numbers in proptest::collection::vec(0_u64..60, 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let run = run_of(&numbers);
        runtime.block_on(async {
            for (op, registry) in functions() {
                let mut outcomes = at_once(&registry, op, &run);
                let counted: u64 = outcomes.drain().map(|outcome| outcome.calls()).sum();
                assert_eq!(counted, run.len());
                let mut outcomes = at_once(&registry, op, &run);
                assert_eq!(fates(&mut outcomes).await, one_by_one(&registry, op, &run).await);
            }
        });
    }
}

#[test]
fn what_is_done_at_once_is_packed_and_what_is_not_is_left() {
    let numbers = [0, 10, 20, 3, 30, 6, 40];
    let (op, registry) = functions().swap_remove(0);
    let mut outcomes = at_once(&registry, op, &run_of(&numbers));
    let kinds: Vec<String> = outcomes
        .drain()
        .map(|outcome| match outcome {
            Outcome::Outputs(_, outputs) => format!("{} outputs", outputs.len()),
            Outcome::Failed(fault) => fault.message,
            Outcome::Pending(_) => "pending".to_owned(),
            Outcome::Kept(_) | Outcome::Nothing(_) => panic!("of a map"),
        })
        .collect();
    let failed = "3 of 7.43 in attempt 1";
    assert_eq!(kinds, ["3 outputs", failed, "1 outputs", "pending", "1 outputs"]);
}

#[test]
fn bytes_pass_as_they_are() {
    let registry = Registry::new().map("f", |bytes: Bytes| async move { bytes });
    let large = Bytes::from(vec![7; 50_000]);
    let content = Content::Values(Encoding::Raw, Packed::from(large.clone()));
    let run = Run::new(Lineage::root(StageId(0), 0), content);
    let mut outcomes = at_once(&registry, Op::Map, &run);
    let Some(Outcome::Outputs(Encoding::Raw, outputs)) = outcomes.drain().next() else { panic!() };
    assert_eq!(outputs.get(0).as_ptr(), large.as_ptr());
}

#[test]
fn only_functions_of_one_answer_without_policies_go_by_the_run() {
    let goes =
        |registry: Registry, stage: Stage| registry.invoker(&stage).unwrap().burst().is_some();
    let map = || Registry::new().map("f", |n: u64| async move { n });
    assert!(goes(map(), stage(Op::Map)));
    assert!(!goes(map(), Stage { retries: 1, ..stage(Op::Map) }));
    let timeout = Some(std::time::Duration::from_secs(1));
    assert!(!goes(map(), Stage { timeout, ..stage(Op::Map) }));
    assert!(!goes(Registry::new().blocking_map("f", |n: u64| n), stage(Op::Map)));
    let expansion = Registry::new().flat_map_iter("f", |n: u64| async move { [n] });
    assert!(!goes(expansion, stage(Op::FlatMap)));
}

#[test]
fn a_destructor_that_panics_is_not_heard_when_nobody_waits() {
    struct Bomb(Count);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.up();
            panic!("dropped");
        }
    }
    let dropped = Count::default();
    let counted = dropped.clone();
    let registry = Registry::new().map("f", move |n: u64| {
        let bomb = Bomb(counted.clone());
        async move {
            std::future::pending::<()>().await;
            drop(bomb);
            n
        }
    });
    drop(at_once(&registry, Op::Map, &run_of(&[0, 10])));
    assert_eq!(dropped.get(), 2);
}
