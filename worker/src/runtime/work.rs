//! What a task does with an item: run a function, hand it to a consumer, or make roots.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use stageline_protocol::item::shortened;
use stageline_protocol::task::Finished;
use stageline_protocol::{Body, ErrorKind, Item, ItemError, Lineage};
use tokio::sync::{mpsc, oneshot};

use super::task::{Event, TaskSender};
use crate::sdk::{Context, Fault, Invoker, Payload, Reply, Slot, panic_message};

/// Outputs of an expansion that are handed over at a time, at the most.
const CHUNK: usize = 64;
/// Once they have so many bytes, no more are added.
const CHUNK_BYTES: usize = 64 << 10;

/// The roots of a source, in order. A fault becomes an error item with a root of its own. A panic
/// fails the job: what the source still had is not known, so it must not look exhausted.
pub type RootStream = BoxStream<'static, Result<Payload, Fault>>;

/// What a task does.
pub(super) enum Work {
    /// Makes roots.
    Source(RootStream),
    /// Runs a function on each item.
    Function(Invoker),
    /// Hands each item to a consumer.
    Terminal(mpsc::UnboundedSender<Delivery>),
}

/// An item at its terminal. It counts as taken, and is acked, when it is [taken](Delivery::take);
/// until then it holds credit, so a consumer that waits slows the pipeline down. One that is dropped
/// instead is never acked.
#[derive(Debug)]
pub struct Delivery {
    item: Item,
    input: u64,
    task: TaskSender,
}

impl Delivery {
    pub(super) const fn new(item: Item, input: u64, task: TaskSender) -> Self {
        Self { item, input, task }
    }

    /// The item: a value or an error.
    #[must_use]
    pub const fn item(&self) -> &Item {
        &self.item
    }

    /// Takes the item: everything upstream may forget it.
    pub fn take(self) -> Item {
        let event = Event::Finished { input: self.input, finished: Finished::Nothing };
        let _job_over = self.task.send(event);
        self.item
    }

    /// Takes the item, and ends the channel: no more is wanted. Everything upstream stops.
    pub fn take_last(self) -> Item {
        let Self { item, input, task } = self;
        let _job_over = task.send(Event::Finished { input, finished: Finished::Nothing });
        let _job_over = task.send(Event::CutInputs);
        item
    }
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
}

/// Runs the function on one item and sends what comes of it to the task loop.
pub(super) async fn run_function(
    invoker: Invoker,
    cx: Context,
    input: u64,
    payload: Payload,
    place: Arc<Place>,
    task: TaskSender,
) {
    let call = call(invoker, cx, input, payload, &place, &task);
    // The invoker catches what the function's own code does; what is left are its destructors.
    let finished = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Some(finished)) => finished,
        Ok(None) => return,
        Err(panic) => {
            let (kind, message) = (ErrorKind::Panicked, panic_message(&*panic).to_owned());
            Finished::Failed(place.error(Fault { kind, message, attempts: 1 }))
        }
    };
    let _task_over = task.send(Event::Finished { input, finished });
}

/// None if the task is over.
async fn call(
    invoker: Invoker,
    cx: Context,
    input: u64,
    payload: Payload,
    place: &Place,
    task: &TaskSender,
) -> Option<Finished> {
    let slot = Arc::new(TaskSlot { input, task: task.clone() });
    match invoker.invoke(cx, payload, slot).await {
        Ok(Reply::One(output)) => Some(Finished::One(output.encoding, output.bytes)),
        Ok(Reply::Keep) => Some(Finished::Keep),
        Ok(Reply::Nothing | Reply::Done) => Some(Finished::Nothing),
        Ok(Reply::Many(outputs)) => expand(outputs, input, place, task).await,
        Err(fault) => Some(Finished::Failed(place.error(fault))),
    }
}

/// Hands over the outputs of an expansion, each chunk when the last has left. None if the task is over.
async fn expand(
    outputs: BoxStream<'static, Result<Payload, Fault>>,
    input: u64,
    place: &Place,
    task: &TaskSender,
) -> Option<Finished> {
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
        has_room.await.ok()?;
        next = outputs.next().await;
    }
    Some(Finished::Expanded)
}

/// A slot, as the function's policies see it.
struct TaskSlot {
    input: u64,
    task: TaskSender,
}

impl Slot for TaskSlot {
    fn release(&self) {
        let _task_over = self.task.send(Event::ReleaseSlot { input: self.input });
    }

    fn acquire(&self) -> BoxFuture<'static, ()> {
        let (granted, wait) = oneshot::channel();
        let asked = self.task.send(Event::WantSlot { input: self.input, granted });
        Box::pin(async move {
            if asked.is_err() || wait.await.is_err() {
                // The task is over; it drops this call, which must not go on meanwhile.
                std::future::pending::<()>().await;
            }
        })
    }

    fn retrying(&self) {}
}

/// Asks a source for roots, as its task's machine asks for them. A panic of the source is its task's
/// failure, and the job's.
pub(super) async fn run_source(
    roots: RootStream,
    place: Arc<Place>,
    pulls: mpsc::UnboundedReceiver<(usize, u64)>,
    task: TaskSender,
) {
    let made = make_roots(roots, &place, pulls, &task);
    if let Err(panic) = AssertUnwindSafe(made).catch_unwind().await {
        let said = panic_message(&*panic);
        let message = format!(
            "the source panicked, and what it had left is not known: {said}. A source that cannot \
             go on with an item answers with an error in its place"
        );
        let _task_over = task.send(Event::Failed(message));
    }
}

async fn make_roots(
    mut roots: RootStream,
    place: &Place,
    mut pulls: mpsc::UnboundedReceiver<(usize, u64)>,
    task: &TaskSender,
) {
    while let Some((items, bytes)) = pulls.recv().await {
        let mut batch = Vec::new();
        let mut size = 0;
        let mut exhausted = false;
        // The first root is waited for; after it, only what is there already.
        let mut next = roots.next().await;
        loop {
            let Some(root) = next else {
                exhausted = true;
                break;
            };
            let body = match root {
                Ok(payload) => Body::Value(payload.encoding, payload.bytes),
                Err(fault) => Body::Error(place.error(fault)),
            };
            size += match &body {
                Body::Value(_, bytes) => bytes.len() as u64,
                _ => 0,
            };
            batch.push(body);
            if batch.len() >= items || size >= bytes {
                break;
            }
            match Ready(&mut roots).await {
                Some(root) => next = root,
                None => break,
            }
        }
        if task.send(Event::Roots { batch, exhausted }).is_err() || exhausted {
            return;
        }
        // A source that is always ready must not keep others from running.
        tokio::task::yield_now().await;
    }
}

/// The next root if it is there already.
struct Ready<'a>(&'a mut RootStream);

impl Future for Ready<'_> {
    type Output = Option<Option<Result<Payload, Fault>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.0.poll_next_unpin(cx) {
            Poll::Ready(root) => Poll::Ready(Some(root)),
            Poll::Pending => Poll::Ready(None),
        }
    }
}

pub(super) fn delivery(lineage: Lineage, body: Body, input: u64, task: &TaskSender) -> Delivery {
    Delivery::new(Item::new(lineage, body), input, task.clone())
}
