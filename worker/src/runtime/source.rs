//! A source's task asks its stream for roots, a batch at a time.
//!
//! A stream whose roots cost little is polled on the task's own thread, one that costs more, or of which
//! nothing is known, in the caller's runtime: the same rule as for calls, see [`cost`](super::cost).

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use futures_util::future::FutureExt;
use stageline_protocol::Content;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
// Tokio's clock: it stands still in a simulation, whose course must not depend on the machine.
use tokio::time::Instant;

use super::cost::Cost;
use super::gate::Gate;
use super::task::{Event, TaskSender};
use super::work::Place;
use crate::sdk::{Roots, said};

/// A source, and who asks it.
pub(super) struct Source {
    pub(super) roots: Roots,
    pub(super) gate: Option<Gate>,
    pub(super) place: Arc<Place>,
    /// How many items and bytes the task's machine asks for.
    pub(super) pulls: mpsc::UnboundedReceiver<(u64, u64)>,
    pub(super) task: TaskSender,
    /// What its roots have cost.
    pub(super) cost: Cost,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Why a source stops answering where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Its roots cost more, or less, than is right for this thread.
    Moves,
    /// Nobody asks any more, or it has no more.
    Over,
}

impl Source {
    /// Has it answer its task where its cost says: on this thread, or in the runtime that it belongs to.
    pub(super) fn spawn(self, running: &mut JoinSet<()>, functions: &Handle) {
        if self.is_cheap() {
            running.spawn(self.run(Some(functions.clone())));
        } else {
            running.spawn_on(self.run(None), functions);
        }
    }

    /// Answers its task until it is exhausted, or wants to be elsewhere, or the task is over. On the task's
    /// thread, `here` is the runtime that the stream belongs to. A panic of the stream is the task's
    /// failure, and the job's: what it still had is not known, so it must not look exhausted.
    async fn run(mut self, here: Option<Handle>) {
        let thrown = match AssertUnwindSafe(self.answer(here.as_ref())).catch_unwind().await {
            Ok(Stop::Over) => return,
            Ok(Stop::Moves) => {
                let task = self.task.clone();
                let _task_over = task.send(Event::Moved(Box::new(self)));
                return;
            }
            Err(thrown) => thrown,
        };
        let said = said(thrown);
        let message = format!(
            "the source panicked, and what it had left is not known: {said}. A source that cannot \
             go on with an item answers with an error in its place"
        );
        let _task_over = self.task.send(Event::Failed(message));
    }

    fn is_cheap(&self) -> bool {
        self.cost.fitting() > 0
    }

    async fn answer(&mut self, here: Option<&Handle>) -> Stop {
        while let Some((items, bytes)) = self.pulls.recv().await {
            let (exhausted, took) = self.make(here, items, bytes).await;
            let place = &self.place;
            let content = |root| match root {
                Ok((encoding, values)) => Content::Values(encoding, values),
                Err(fault) => Content::Error(place.error(fault)),
            };
            let batch: Vec<Content> = self.roots.take().map(content).collect();
            self.cost.learn(took, batch.iter().map(Content::len).sum());
            if self.task.send(Event::Roots { batch, exhausted }).is_err() || exhausted {
                return Stop::Over;
            }
            if here.is_some() != self.is_cheap() {
                return Stop::Moves;
            }
            // A source that is always ready must not keep others from running.
            tokio::task::yield_now().await;
        }
        Stop::Over
    }

    /// Makes some roots. The source is inside the gate while its code runs, not while it waits. Answers
    /// whether it is at its end, and how long its code ran.
    async fn make(&mut self, here: Option<&Handle>, items: u64, bytes: u64) -> (bool, Duration) {
        let Self { roots, gate, .. } = self;
        let mut entering = pin!(None);
        let mut took = Duration::ZERO;
        let made = std::future::poll_fn(|cx| {
            let inside = match gate.as_ref().map(|gate| (gate, gate.try_enter())) {
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
            let began = Instant::now();
            let made = {
                let _callers = here.map(Handle::enter);
                roots.poll_make(cx, items, bytes)
            };
            took += began.elapsed();
            drop(inside);
            made
        })
        .await;
        (made, took)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};

    use bytes::Bytes;
    use futures_util::stream::{self, StreamExt};

    use super::super::threads::Threads;
    use super::*;

    /// The caller's clock stands still, so the first root costs nothing.
    #[tokio::test(start_paused = true)]
    async fn roots_that_cost_little_are_made_on_the_tasks_thread_but_in_the_callers_runtime() {
        let threads = Threads::own().unwrap();
        let seen: Arc<Mutex<Vec<(ThreadId, _)>>> = Arc::default();
        let made = seen.clone();
        let stream = stream::iter(0..3).map(move |n| {
            made.lock().unwrap().push((thread::current().id(), Handle::current().id()));
            Ok(Bytes::from(vec![n]))
        });
        let (pull, pulls) = mpsc::unbounded_channel();
        let (task, mut events) = mpsc::unbounded_channel();
        let source = Source {
            roots: Roots::new(stream, 10),
            gate: None,
            place: Arc::new(Place { stage: "s".to_owned(), worker: "w".to_owned() }),
            pulls,
            task,
            cost: Cost::default(),
        };
        let mut running = JoinSet::new();
        source.spawn(&mut running, &Handle::current());
        for n in 0..3 {
            pull.send((1, 1 << 20)).unwrap();
            assert!(matches!(events.recv().await, Some(Event::Roots { exhausted: false, .. })));
            if n == 0 {
                let Some(Event::Moved(source)) = events.recv().await else { panic!("it moves") };
                running.join_next().await.unwrap().unwrap();
                let functions = Handle::current();
                let _on_the_tasks_thread = threads.links().enter();
                source.spawn(&mut running, &functions);
            }
        }
        drop(pull);
        running.join_all().await;

        let seen = seen.lock().unwrap();
        let here = thread::current().id();
        let on_this_thread: Vec<bool> = seen.iter().map(|(thread, _)| *thread == here).collect();
        assert_eq!(on_this_thread, [true, false, false], "nothing is known of the first");
        assert!(seen.iter().all(|(_, runtime)| *runtime == Handle::current().id()));
    }
}
