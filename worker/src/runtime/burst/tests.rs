//! Bursts in a loop and beside it, without the rest of the loop.

use std::future::Future;

use bytes::Bytes;
use futures_util::FutureExt;
use stageline_protocol::pipeline::{Op, Pipeline, Site, Stage};
use stageline_protocol::run::Packed;
use stageline_protocol::task::Limits;
use stageline_protocol::{Content, Encoding, Epoch, JobId, Lineage, StageId, TaskId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sdk::{Registry, StageFunction};

/// A task's calls without the rest of its loop. Its machine knows of no inputs, and takes what is
/// said of them for late.
struct Shell {
    bursts: Bursts,
    task: Task,
    running: JoinSet<()>,
    events: mpsc::UnboundedReceiver<Event>,
    gate: Gate,
}

impl Shell {
    fn new(function: StageFunction) -> Self {
        let stage = Stage { function: "f".to_owned(), ..Stage::new("s", Op::Map, Site::Fleet) };
        let invoker = Registry::new().function("f", function).invoker(&stage).unwrap();
        let pipeline = Pipeline { stages: vec![stage], ..Pipeline::default() };
        let (job, id) = (JobId(1), TaskId { stage: StageId(0), epoch: Epoch(1) });
        let task = Task::new(job, id, &pipeline, 0, Limits::default()).unwrap();
        let cx = TaskContext::new(job, "s", "w", CancellationToken::new());
        let place = Arc::new(Place { stage: "s".to_owned(), worker: "w".to_owned() });
        let (own, events) = mpsc::unbounded_channel();
        let gate = Gate::default();
        let (burst, max_payload) = invoker.burst().unwrap();
        let (functions, started) = (Handle::current(), Instant::now());
        let gate_of_calls = Some(gate.clone());
        let calls =
            Calls { burst, max_payload, cx, place, gate: gate_of_calls, own, functions, started };
        let bursts = Bursts::new(calls);
        Self { bursts, task, running: JoinSet::new(), events, gate }
    }

    fn start(&mut self, input: u64, run: Run) -> Option<Run> {
        self.bursts.start(&mut self.task, &mut self.running, input, run)
    }

    /// A burst that was beside the loop reports.
    async fn next_done(&mut self) -> Done {
        match self.events.recv().await.unwrap() {
            Event::Burst(done) => *done,
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, done: Done) {
        self.bursts.done(&mut self.task, &mut self.running, done);
    }
}

fn run_of(items: u64) -> Run {
    let values = Packed::alike(Bytes::from(vec![7; items as usize]), 1, items).unwrap();
    Run::new(Lineage::root(StageId(0), 0), Content::Values(Encoding::Raw, values))
}

/// A function that waits for a permit.
fn waiting(permits: &Arc<Semaphore>) -> StageFunction {
    let permits = permits.clone();
    StageFunction::map(move |n: Bytes| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            n
        }
    })
}

fn is_ready(future: &mut (impl Future + Unpin)) -> bool {
    future.now_or_never().is_some()
}

#[tokio::test]
async fn who_is_alone_waits_for_a_burst_and_for_what_it_left() {
    for beside in [true, false] {
        let permits = Arc::new(Semaphore::new(0));
        let mut shell = Shell::new(waiting(&permits));
        if !beside {
            shell.bursts.cost.learn(Duration::ZERO, 1);
        }
        assert_eq!(shell.start(0, run_of(3)), None);
        let gate = shell.gate.clone();
        let mut alone = Box::pin(gate.alone());
        assert!(!is_ready(&mut alone));
        assert_eq!(shell.start(3, run_of(3)), Some(run_of(3)), "one by one, which waits");
        for _ in 0..if beside { 3 } else { 0 } {
            let done = shell.next_done().await;
            assert!(!is_ready(&mut alone));
            shell.done(done);
        }
        for left in (0..3).rev() {
            assert!(!is_ready(&mut alone));
            permits.add_permits(1);
            let event = shell.events.recv().await.unwrap();
            assert!(matches!(event, Event::Finished { .. }), "{event:?}");
            assert_eq!(is_ready(&mut alone), left == 0);
        }
    }
}

#[tokio::test]
async fn what_is_not_known_to_be_cheap_is_called_beside_the_loop() {
    let permits = Arc::new(Semaphore::new(100));
    let mut shell = Shell::new(waiting(&permits));
    assert_eq!(shell.start(0, run_of(3)), None);
    assert_eq!((permits.available_permits(), shell.running.len()), (100, 3), "one each");

    shell.bursts.cost.learn(Duration::from_micros(8), 1);
    assert_eq!(shell.start(3, run_of(9)), None);
    assert_eq!((permits.available_permits(), shell.running.len()), (100, 6), "three each");
    assert_eq!(shell.start(12, run_of(4)), None);
    assert_eq!((permits.available_permits(), shell.running.len()), (96, 6), "on the spot");
    shell.running.join_all().await;
    assert_eq!(permits.available_permits(), 84);
}

#[tokio::test]
async fn a_turn_ends_and_the_rest_comes_in_the_next() {
    let permits = Arc::new(Semaphore::new(100));
    let mut shell = Shell::new(waiting(&permits));
    shell.bursts.cost.learn(Duration::ZERO, 1);
    shell.bursts.turn = Instant::now().checked_sub(TURN);
    assert_eq!((shell.start(0, run_of(3)), permits.available_permits()), (None, 97));
    assert!(!shell.bursts.are_left());
    assert_eq!((shell.start(3, run_of(3)), permits.available_permits()), (None, 97));
    assert!(shell.bursts.are_left());
    for (input, run) in shell.bursts.next_turn() {
        assert_eq!((input, shell.start(input, run)), (3, None));
    }
    assert_eq!((permits.available_permits(), shell.bursts.are_left()), (94, false));
}

#[tokio::test]
async fn of_calls_that_were_dropped_nothing_goes_on() {
    let permits = Arc::new(Semaphore::new(0));
    let mut shell = Shell::new(waiting(&permits));
    assert_eq!(shell.start(0, run_of(1)), None);
    let done = shell.next_done().await;
    let cx = TaskContext::new(JobId(1), "s", "w", CancellationToken::new());
    shell.bursts.abort(cx);
    let before = shell.running.len();
    shell.done(done);
    assert_eq!(shell.running.len(), before);
    assert!(is_ready(&mut Box::pin(shell.gate.alone())), "and nothing is inside");
}

#[tokio::test]
async fn marked_items_do_not_go_by_the_burst() {
    let mut shell = Shell::new(StageFunction::map(|n: Bytes| async move { n }));
    let run = Run { marked: true, ..run_of(1) };
    assert_eq!(shell.start(0, run.clone()), Some(run));
}
