//! A source's task asks its stream for roots, a batch at a time.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;

use futures_util::future::FutureExt;
use stageline_protocol::Content;
use tokio::sync::mpsc;

use super::gate::Gate;
use super::task::{Event, TaskSender};
use super::work::Place;
use crate::sdk::{Roots, panic_message};

/// Asks for roots, as the task's machine does. A panic of the source is its task's failure, and the job's:
/// what it still had is not known, so it must not look exhausted.
pub(super) async fn run(
    roots: Roots,
    gate: Option<Gate>,
    place: Arc<Place>,
    pulls: mpsc::UnboundedReceiver<(u64, u64)>,
    task: TaskSender,
) {
    let answers = answer(roots, gate.as_ref(), &place, pulls, &task);
    if let Err(panic) = AssertUnwindSafe(answers).catch_unwind().await {
        let said = panic_message(&*panic);
        let message = format!(
            "the source panicked, and what it had left is not known: {said}. A source that cannot \
             go on with an item answers with an error in its place"
        );
        let _task_over = task.send(Event::Failed(message));
    }
}

async fn answer(
    mut roots: Roots,
    gate: Option<&Gate>,
    place: &Place,
    mut pulls: mpsc::UnboundedReceiver<(u64, u64)>,
    task: &TaskSender,
) {
    while let Some((items, bytes)) = pulls.recv().await {
        let exhausted = make(&mut roots, gate, items, bytes).await;
        let content = |root| match root {
            Ok((encoding, values)) => Content::Values(encoding, values),
            Err(fault) => Content::Error(place.error(fault)),
        };
        let batch = roots.take().map(content).collect();
        if task.send(Event::Roots { batch, exhausted }).is_err() || exhausted {
            return;
        }
        // A source that is always ready must not keep others from running.
        tokio::task::yield_now().await;
    }
}

/// Makes some roots. The source is inside the gate while its code runs, not while it waits. Answers
/// whether it is at its end.
async fn make(roots: &mut Roots, gate: Option<&Gate>, items: u64, bytes: u64) -> bool {
    let mut entering = pin!(None);
    std::future::poll_fn(|cx| {
        let inside = match gate.map(|gate| (gate, gate.try_enter())) {
            None => None,
            Some((_, Some(inside))) => Some(inside),
            Some((gate, None)) => {
                if entering.is_none() {
                    entering.set(Some(gate.enter()));
                }
                match entering.as_mut().as_pin_mut() {
                    Some(entering) => Some(ready!(entering.poll(cx))),
                    None => None,
                }
            }
        };
        entering.set(None);
        let made = roots.poll_make(cx, items, bytes);
        drop(inside);
        made
    })
    .await
}
