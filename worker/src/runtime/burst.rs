//! Calls by the burst: what a task does with a run whose function may be called item by item on the spot.
//!
//! One rule: **a burst aims at 32 µs of work**, or at 128 µs if its calls take less than 1 µs, by what the
//! first polls of this task's calls have cost so far. A run that fits is called at once, in the task's
//! loop: nothing is spawned, nothing is sent. One that does not is cut into bursts that do, of one item at
//! the least, each a tokio task in the caller's runtime: so a function that costs something spreads over the
//! cores, and the loop is never held up by it. As long as nothing is known of the cost, each item is a burst
//! of its own beside the loop: the function may block.
//!
//! A call that is not done when it is first polled goes on in a tokio task of its own, be the burst in
//! the loop or beside it. The loop spawns it, and so can drop it.
//!
//! Bursts in the loop end their **turn** after 200 µs; what is left waits until the loop has looked at its
//! events and has let others run. That is no timer: the loop goes on as soon as it may.
//!
//! Bursts in the loop need no slots, since one call is done before the next begins. When the calls of a
//! function have long been done at once, the machine may start more than there are slots; should one not
//! be done after all, the burst ends with it, and the rest of the run goes back to the queue.
//!
//! A burst is inside the gate as a whole, and each call that goes on is inside from before the burst
//! leaves. Not by the burst go marked items, functions with policies, blocking ones and expansions, and
//! nothing does while somebody is, or wants to be, alone in the process.

#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use stageline_protocol::Time;
use stageline_protocol::run::Run;
use stageline_protocol::task::{Finished, Task};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
// Tokio's clock: it stands still in a simulation, whose course must not depend on the machine.
use tokio::time::Instant;

use super::cost::Cost;
use super::gate::{Gate, Inside};
use super::task::{Event, TaskSender};
use super::work::{self, Owed, Place};
use crate::sdk::{Burst, Outcome, Outcomes, TaskContext};

/// How long bursts may hold the loop up before it turns to its events.
const TURN: Duration = Duration::from_micros(200);
/// After so many calls in a row that were done at once, bursts in the loop may be larger than the slots.
const CALM: u64 = 256;

/// What the calls of a task need.
pub(super) struct Calls {
    pub(super) burst: Burst,
    pub(super) max_payload: usize,
    pub(super) cx: TaskContext,
    pub(super) place: Arc<Place>,
    pub(super) gate: Option<Gate>,
    pub(super) own: TaskSender,
    /// The runtime that the function belongs to.
    pub(super) functions: Handle,
    /// When the loop's time began.
    pub(super) started: Instant,
}

/// The calls of one task, by the burst.
pub(super) struct Bursts {
    calls: Calls,
    cost: Cost,
    /// What came of the burst in the loop; empty between two.
    outcomes: Outcomes,
    /// When this turn's first burst began.
    turn: Option<Instant>,
    /// The turn is over.
    over: bool,
    /// Runs that wait for the next turn, with the number of the first input.
    waiting: Vec<(u64, Run)>,
    /// How often all calls were dropped.
    life: u64,
    /// So many calls in a row were done when they were first polled.
    at_once: u64,
}

/// A burst that ran beside the loop.
pub(crate) struct Done {
    /// The number of its first input.
    input: u64,
    calls: u64,
    outcomes: Outcomes,
    took: Duration,
    inside: Option<Inside>,
    life: u64,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Done({}..{})", self.input, self.input + self.calls)
    }
}

impl Bursts {
    pub(super) fn new(calls: Calls) -> Self {
        Self {
            cost: Cost::default(),
            outcomes: Outcomes::new(calls.max_payload),
            calls,
            turn: None,
            over: false,
            waiting: Vec::new(),
            life: 0,
            at_once: 0,
        }
    }

    /// Calls the function for these inputs, now or soon. Gives them back if they are to be called one by
    /// one.
    pub(super) fn start(
        &mut self,
        task: &mut Task,
        running: &mut JoinSet<()>,
        input: u64,
        run: Run,
    ) -> Option<Run> {
        if run.marked {
            return Some(run);
        }
        let fitting = self.cost.fitting();
        let here = run.len() <= fitting && !self.over;
        let run = if here { run } else { keep_to_slots(task, self.now(), input, run)? };
        let calls = run.len();
        if calls <= fitting && self.over {
            self.waiting.push((input, run));
            return None;
        }
        let inside = match &self.calls.gate {
            None => None,
            Some(gate) => match gate.try_enter() {
                None => return keep_to_slots(task, self.now(), input, run),
                inside => inside,
            },
        };
        if here {
            self.here(task, running, input, &run, inside);
        } else {
            self.beside(running, input, &run, fitting.max(1), inside);
        }
        None
    }

    /// One burst, in the loop.
    fn here(
        &mut self,
        task: &mut Task,
        running: &mut JoinSet<()>,
        input: u64,
        run: &Run,
        inside: Option<Inside>,
    ) {
        let began = Instant::now();
        // Beyond the slots there is room for one that is not done, and no more.
        self.outcomes.stop_at_pending(task.excess() > 0);
        let called = {
            let _callers = self.calls.functions.enter();
            (self.calls.burst)(&self.calls.cx, run, &mut self.outcomes)
        };
        let ended = Instant::now();
        self.cost.learn(ended - began, called);
        self.over = ended - *self.turn.get_or_insert(began) >= TURN;
        let mut outcomes = mem::replace(&mut self.outcomes, Outcomes::new(self.calls.max_payload));
        self.at_once = if outcomes.are_done() { self.at_once.saturating_add(called) } else { 0 };
        task.set_burst(if self.at_once < CALM { 0 } else { self.cost.fitting() });
        self.settle(task, running, ended, input, &mut outcomes, inside.as_ref());
        self.outcomes = outcomes;
        if called < run.len() {
            task.postpone(self.time(ended), input + called, &run.slice(called..run.len()));
        }
    }

    /// Bursts of at most so many calls, each a tokio task.
    fn beside(
        &self,
        running: &mut JoinSet<()>,
        input: u64,
        run: &Run,
        most: u64,
        mut inside: Option<Inside>,
    ) {
        let bursts = run.len().div_ceil(most);
        let mut start = 0;
        for burst in 1..=bursts {
            // Even ones: the last would be idle, and the others late, with all that is left for it.
            let end = run.len() * burst / bursts;
            let part = run.slice(start..end);
            let inside =
                if end < run.len() { inside.as_ref().map(Inside::another) } else { inside.take() };
            let (call, cx) = (self.calls.burst.clone(), self.calls.cx.clone());
            let (input, life) = (input + start, self.life);
            let mut outcomes = Outcomes::new(self.calls.max_payload);
            let inputs = input + start..input + start + part.len();
            let owed = Owed::new(inputs, self.calls.own.clone(), self.calls.place.clone());
            let burst = async move {
                let began = Instant::now();
                call(&cx, &part, &mut outcomes);
                let (took, calls) = (began.elapsed(), part.len());
                let done = Done { input, calls, outcomes, took, inside, life };
                owed.pay(Event::Burst(Box::new(done)));
            };
            running.spawn_on(burst, &self.calls.functions);
            start = end;
        }
    }

    /// A burst beside the loop is done.
    pub(super) fn done(&mut self, task: &mut Task, running: &mut JoinSet<()>, done: Done) {
        self.cost.learn(done.took, done.calls);
        if done.life == self.life {
            let (mut outcomes, inside) = (done.outcomes, done.inside);
            if !outcomes.are_done() {
                self.at_once = 0;
                task.set_burst(0);
            }
            let now = Instant::now();
            self.settle(task, running, now, done.input, &mut outcomes, inside.as_ref());
        }
    }

    /// Tells the machine what came of inputs, and lets those go on that are not done.
    fn settle(
        &self,
        task: &mut Task,
        running: &mut JoinSet<()>,
        now: Instant,
        mut input: u64,
        outcomes: &mut Outcomes,
        inside: Option<&Inside>,
    ) {
        let now = self.time(now);
        for outcome in outcomes.drain() {
            let first = input;
            input += outcome.calls();
            match outcome {
                Outcome::Outputs(encoding, outputs) => {
                    task.finish_each(now, first, encoding, &outputs);
                }
                Outcome::Kept(_) => task.finish_all(now, first..input, true),
                Outcome::Nothing(_) => task.finish_all(now, first..input, false),
                Outcome::Failed(fault) => {
                    task.finish(now, first, Finished::Failed(self.calls.place.error(fault)));
                }
                Outcome::Pending(rest) => {
                    let (place, own) = (self.calls.place.clone(), self.calls.own.clone());
                    let inside = inside.map(Inside::another);
                    let rest = work::run_rest(rest, first, place, inside, own);
                    running.spawn_on(rest, &self.calls.functions);
                }
            }
        }
    }

    fn now(&self) -> Time {
        self.time(Instant::now())
    }

    fn time(&self, at: Instant) -> Time {
        let micros = (at - self.calls.started).as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Whether runs wait for the next turn.
    pub(super) const fn are_left(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next turn begins. What the last one left is to be started again.
    pub(super) fn next_turn(&mut self) -> Vec<(u64, Run)> {
        (self.turn, self.over) = (None, false);
        mem::take(&mut self.waiting)
    }

    /// All calls are dropped; calls from now on have this context.
    pub(super) fn abort(&mut self, cx: TaskContext) {
        self.calls.cx = cx;
        self.waiting.clear();
        self.life += 1;
    }
}

/// What is not run on the spot has a slot for each input: the machine takes the others back. None if there
/// are no others.
fn keep_to_slots(task: &mut Task, now: Time, first: u64, mut run: Run) -> Option<Run> {
    let excess = task.excess().min(run.len());
    if excess == run.len() {
        task.postpone(now, first, &run);
        return None;
    }
    if excess > 0 {
        let kept = run.len() - excess;
        let others = run.split_off(kept);
        task.postpone(now, first + kept, &others);
    }
    Some(run)
}
