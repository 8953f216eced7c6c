//! What a task does with an item: run a function, hand it to a consumer, or make roots.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use stageline_protocol::item::shortened;
use stageline_protocol::task::Finished;
use stageline_protocol::{ErrorKind, ItemError};
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::gate::{Gate, Inside};
use super::task::{Event, TaskSender};
use super::terminal::Consumer;
use crate::sdk::{Context, Fault, Invoker, Payload, Reply, Rest, Roots, Slot, said};

/// Outputs of an expansion that are handed over at a time, at the most.
const CHUNK: usize = 64;
/// Once they have so many bytes, no more are added.
const CHUNK_BYTES: usize = 64 << 10;

/// What a task does.
pub(super) enum Work {
    /// Makes roots.
    Source(Roots),
    /// Runs a function on each item.
    Function(Invoker),
    /// Hands each item to a consumer.
    Terminal(Consumer),
}

/// What names the place of a failure in an error item.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) stage: String,
    pub(super) worker: String,
}

impl Place {
    pub(super) fn error(&self, fault: Fault) -> Box<ItemError> {
        Box::new(ItemError {
            stage: self.stage.clone(),
            kind: fault.kind,
            message: shortened(fault.message),
            attempts: fault.attempts,
            worker: self.worker.clone(),
        })
    }

    /// How a call ended that panicked.
    fn panicked(&self, message: String) -> Finished {
        Finished::Failed(self.error(Fault { kind: ErrorKind::Panicked, message, attempts: 1 }))
    }

    /// How a call ended that is no expansion.
    fn finished(&self, reply: Result<Reply, Fault>) -> Finished {
        match reply {
            Ok(Reply::One(output)) => Finished::One(output.encoding, output.bytes),
            Ok(Reply::Keep) => Finished::Keep,
            Ok(Reply::Nothing | Reply::Done | Reply::Many(_)) => Finished::Nothing,
            Err(fault) => Finished::Failed(self.error(fault)),
        }
    }
}

/// Runs the function on one item and sends what comes of it to the task loop.
pub(super) async fn run_function(
    invoker: Invoker,
    cx: Context,
    payload: Payload,
    place: Arc<Place>,
    slot: Arc<TaskSlot>,
) {
    let input = slot.input;
    let owed = Owed::new(input..input + 1, slot.task.clone(), place.clone());
    let call = call(invoker, cx, payload, &place, slot);
    // The invoker catches what the function's own code does; what is left are its destructors.
    let finished = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Some(finished)) => finished,
        Ok(None) => return,
        Err(thrown) => place.panicked(said(thrown)),
    };
    owed.pay(Event::Finished { input, finished });
}

/// None if the task is over.
async fn call(
    invoker: Invoker,
    cx: Context,
    payload: Payload,
    place: &Place,
    slot: Arc<TaskSlot>,
) -> Option<Finished> {
    slot.enter().await;
    match invoker.invoke(cx, payload, slot.clone()).await {
        Ok(Reply::Many(outputs)) => expand(outputs, place, &slot).await,
        reply => Some(place.finished(reply)),
    }
}

/// Runs a call that a burst began to its end.
pub(super) async fn run_rest(
    rest: Rest,
    input: u64,
    place: Arc<Place>,
    inside: Option<Inside>,
    task: TaskSender,
) {
    let owed = Owed::new(input..input + 1, task, place.clone());
    let finished = place.finished(rest.await);
    drop(inside);
    owed.pay(Event::Finished { input, finished });
}

/// The answer that is owed to a task's loop for some inputs. Whoever owes it and dies of a panic gives it all
/// the same: its inputs fail. Dropped in peace, nobody waits for it any more.
pub(super) struct Owed {
    inputs: Range<u64>,
    task: TaskSender,
    place: Arc<Place>,
}

impl Owed {
    pub(super) const fn new(inputs: Range<u64>, task: TaskSender, place: Arc<Place>) -> Self {
        Self { inputs, task, place }
    }

    pub(super) fn pay(mut self, answer: Event) {
        self.inputs = 0..0;
        let _task_over = self.task.send(answer);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for input in self.inputs.clone() {
            let finished = self.place.panicked("the call broke, and left no word".to_owned());
            let _task_over = self.task.send(Event::Finished { input, finished });
        }
    }
}

/// A task of ours has ended. What it owed it has paid; what it threw may throw, too.
pub(super) fn reap(ended: Result<(), JoinError>) {
    if let Err(Ok(thrown)) = ended.map_err(JoinError::try_into_panic) {
        let said = said(thrown);
        tracing::debug!(said, "a task of a stage broke");
    }
}

/// Hands over the outputs of an expansion, each chunk when the last has left. None if the task is over.
async fn expand(
    outputs: BoxStream<'static, Result<Payload, Fault>>,
    place: &Place,
    slot: &TaskSlot,
) -> Option<Finished> {
    let (input, task) = (slot.input, &slot.task);
    let mut outputs = outputs.fuse().boxed();
    let mut next = outputs.next().await;
    while next.is_some() {
        let (mut payloads, mut size, mut fault) = (Vec::new(), 0, None);
        // The first output is waited for; after it, what is there already, up to a batch.
        while let Some(output) = next.take() {
            match output {
                Ok(payload) => {
                    size += payload.bytes.len();
                    payloads.push(payload);
                }
                Err(error) => fault = Some(error),
            }
            if payloads.len() < CHUNK && size < CHUNK_BYTES && fault.is_none() {
                next = Ready(&mut outputs).await.flatten();
            }
        }
        let (room, has_room) = oneshot::channel();
        task.send(Event::Outputs { input, payloads, room }).ok()?;
        if let Some(fault) = fault {
            return Some(Finished::Failed(place.error(fault)));
        }
        slot.leave();
        has_room.await.ok()?;
        slot.enter().await;
        next = outputs.next().await;
    }
    Some(Finished::Expanded)
}

/// A slot, as the function's policies see it, and the call's place in the process.
pub(super) struct TaskSlot {
    input: u64,
    task: TaskSender,
    /// None for a call that needs not pass it.
    gate: Option<Gate>,
    /// While the call is in process.
    inside: Mutex<Option<Inside>>,
    own: Weak<Self>,
}

impl TaskSlot {
    pub(super) fn new(input: u64, task: TaskSender, gate: Option<Gate>) -> Arc<Self> {
        let inside = Mutex::new(None);
        Arc::new_cyclic(|own| Self { input, task, gate, inside, own: own.clone() })
    }

    /// The call is in process, once nobody else is alone there.
    async fn enter(&self) {
        if let Some(gate) = &self.gate {
            let inside = gate.enter().await;
            *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some(inside);
        }
    }

    /// The call waits for something.
    fn leave(&self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Slot for TaskSlot {
    fn release(&self) {
        self.leave();
        let _task_over = self.task.send(Event::ReleaseSlot { input: self.input });
    }

    fn acquire(&self) -> BoxFuture<'static, ()> {
        let (granted, wait) = oneshot::channel();
        let asked = self.task.send(Event::WantSlot { input: self.input, granted });
        let own = self.own.upgrade();
        Box::pin(async move {
            if asked.is_err() || wait.await.is_err() {
                // The task is over; it drops this call, which must not go on meanwhile.
                std::future::pending::<()>().await;
            }
            if let Some(slot) = own {
                slot.enter().await;
            }
        })
    }

    fn retrying(&self) {}
}

/// The next output if it is there already.
struct Ready<'a>(&'a mut BoxStream<'static, Result<Payload, Fault>>);

impl Future for Ready<'_> {
    type Output = Option<Option<Result<Payload, Fault>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.0.poll_next_unpin(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test]
    async fn whoever_dies_of_a_panic_fails_its_inputs_and_disturbs_nobody() {
        let (task, mut events) = mpsc::unbounded_channel();
        let place = Arc::new(Place { stage: "s".to_owned(), worker: "w".to_owned() });
        let owed = Owed::new(3..5, task, place);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let _owed = owed;
            std::panic::panic_any(Bomb);
        });
        while let Some(ended) = running.join_next().await {
            reap(ended);
        }
        for expected in 3..5 {
            let Some(Event::Finished { input, finished: Finished::Failed(error) }) =
                events.recv().await
            else {
                panic!("no answer for {expected}");
            };
            assert_eq!((input, error.kind), (expected, ErrorKind::Panicked));
        }
        assert!(events.recv().await.is_none(), "each input fails once");
    }

    #[tokio::test]
    async fn what_is_paid_or_not_wanted_any_more_is_not_said_again() {
        let (task, mut events) = mpsc::unbounded_channel();
        let place = Arc::new(Place { stage: "s".to_owned(), worker: "w".to_owned() });
        Owed::new(0..1, task.clone(), place.clone()).pay(Event::Taken);
        drop(Owed::new(1..2, task, place));
        assert!(matches!(events.recv().await, Some(Event::Taken)));
        assert!(events.recv().await.is_none());
    }
}
