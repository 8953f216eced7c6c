//! The hand-over of items to the consumer of a terminal.
//!
//! Runs go over a channel as they are, and the consumer goes through them item by item. An item counts as
//! taken when the consumer says so; until then it holds credit, so a consumer that waits slows the
//! pipeline down. One that is dropped instead is never acked.
//!
//! What has been taken is one number ([`Tally`]), since the consumer goes through the items in order. Only
//! the first item taken since the task last looked is told, by an event; the task then hears of
//! all that have been taken until it looks. So a fast consumer wakes the task once for many items, a slow
//! one at once for each, and nobody waits for a timer.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskWaker, Poll, ready};

use stageline_protocol::{Body, Content, Item, ItemError, Lineage, Run};
use tokio::sync::mpsc;

use super::task::{Event, TaskSender};

/// Where a terminal's items go. Unbounded, because credits bound what is handed over and not yet taken.
#[derive(Debug)]
pub struct Consumer {
    runs: mpsc::UnboundedSender<(Run, Arc<Tally>)>,
}

/// The items of a terminal as they come, in the process of their consumer.
#[derive(Debug)]
pub struct Deliveries {
    runs: mpsc::UnboundedReceiver<(Run, Arc<Tally>)>,
    /// The run at hand, of which some items are left.
    run: Option<(Run, Arc<Tally>)>,
    /// The place of the next of them.
    next: u64,
}

/// An item at its terminal, a value or an error. It is acked when it is [taken](Delivery::take); dropped
/// instead, it never is.
#[derive(Debug)]
pub struct Delivery<'a> {
    run: &'a Run,
    tally: &'a Tally,
    place: u64,
    taken: bool,
}

/// A consumer, and what comes to it.
#[must_use]
pub fn consumer() -> (Consumer, Deliveries) {
    let (sender, runs) = mpsc::unbounded_channel();
    (Consumer { runs: sender }, Deliveries { runs, run: None, next: 0 })
}

impl Deliveries {
    /// Whether there is an item: [`next`](Self::next) has it then. False when no more will come. Cancel
    /// safe.
    pub fn poll_ready(&mut self, waker: &mut TaskWaker<'_>) -> Poll<bool> {
        if !self.is_ready() {
            self.run = None;
            self.run = ready!(self.runs.poll_recv(waker));
            self.next = 0;
        }
        Poll::Ready(self.run.is_some())
    }

    fn is_ready(&self) -> bool {
        self.run.as_ref().is_some_and(|(run, _)| self.next < run.len())
    }

    /// The next item, if there is one at hand.
    #[allow(clippy::should_implement_trait, reason = "an item borrows from where it came")]
    pub fn next(&mut self) -> Option<Delivery<'_>> {
        let (run, tally) = self.run.as_ref()?;
        let place = self.next;
        if place == run.len() {
            return None;
        }
        self.next += 1;
        Some(Delivery { run, tally, place, taken: false })
    }
}

impl Delivery<'_> {
    /// What it carries: a value or an error.
    #[must_use]
    pub fn body(&self) -> Body {
        self.run.content.body(self.place)
    }

    /// Its identity.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.run.lineage.after(self.place)
    }

    /// The item as it travelled.
    #[must_use]
    pub fn item(&self) -> Item {
        Item { lineage: self.lineage(), body: self.body(), marked: self.run.marked }
    }

    /// The error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&ItemError> {
        match &self.run.content {
            Content::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Takes the item: everything upstream may forget it.
    pub fn take(mut self) {
        self.taken = true;
        self.tally.take();
    }

    /// Takes the item, and ends the channel: no more is wanted. Everything upstream stops.
    pub fn take_last(self) {
        let task = self.tally.task.clone();
        self.take();
        let _job_over = task.send(Event::CutInputs);
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.tally.pass_over();
        }
    }
}

/// How many items the consumer is done with.
#[derive(Debug)]
struct Tally {
    /// Twice their number; and one more while the task is told and has not looked yet.
    done: AtomicU64,
    /// The places of those that were not taken, counted from the first item that was handed over.
    passed_over: Mutex<Vec<u64>>,
    task: TaskSender,
}

const TOLD: u64 = 1;
const ONE: u64 = 2;

impl Tally {
    /// The consumer has taken the next item.
    fn take(&self) {
        let before = self.done.fetch_add(ONE, Ordering::AcqRel);
        // The task unsets it only after an event, and none is on its way: so nobody is in between.
        if before & TOLD == 0 {
            self.done.fetch_or(TOLD, Ordering::AcqRel);
            let _job_over = self.task.send(Event::Taken);
        }
    }

    /// The consumer does not take the next item. Nobody waits to hear of that.
    fn pass_over(&self) {
        let place = self.done.load(Ordering::Acquire) / ONE;
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        self.done.fetch_add(ONE, Ordering::AcqRel);
    }

    /// The task looks: the next item that is taken is told again.
    fn look(&self) -> u64 {
        self.done.fetch_and(!TOLD, Ordering::AcqRel) / ONE
    }
}

/// The task's side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    consumer: Consumer,
    tally: Arc<Tally>,
    /// The inputs that were handed over and that the consumer is not known to be done with.
    handed: VecDeque<Range<u64>>,
    /// How many it is known to be done with.
    done: u64,
}

impl Terminal {
    pub(super) fn new(consumer: Consumer, task: TaskSender) -> Self {
        let tally = Tally { done: AtomicU64::new(0), passed_over: Mutex::default(), task };
        Self { consumer, tally: Arc::new(tally), handed: VecDeque::new(), done: 0 }
    }

    /// Hands a run over, whose first item is this input.
    pub(super) fn hand(&mut self, input: u64, run: Run) {
        self.handed.push_back(input..input + run.len());
        let _consumer_gone = self.consumer.runs.send((run, self.tally.clone()));
    }

    /// The inputs that have been taken since this was last asked.
    pub(super) fn taken(&mut self) -> Vec<Range<u64>> {
        let done = self.tally.look();
        let mut passed_over = {
            let mut places = self.tally.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was passed over after the look counts at the next.
            let later = places.partition_point(|place| *place < done);
            let later = places.split_off(later);
            std::mem::replace(&mut *places, later).into_iter().peekable()
        };
        let mut taken: Vec<Range<u64>> = Vec::new();
        while self.done < done {
            let Some(inputs) = self.handed.front_mut() else { break };
            let is_passed_over = passed_over.next_if_eq(&self.done).is_some();
            let until = match is_passed_over {
                true => self.done + 1,
                false => passed_over.peek().map_or(done, |place| (*place).min(done)),
            };
            let count = (until - self.done).min(inputs.end - inputs.start);
            let part = inputs.start..inputs.start + count;
            inputs.start = part.end;
            self.done += count;
            if inputs.is_empty() {
                self.handed.pop_front();
            }
            match taken.last_mut() {
                _ if is_passed_over => {}
                Some(last) if last.end == part.start => last.end = part.end,
                _ => taken.push(part),
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use stageline_protocol::{Encoding, Packed, StageId};

    use super::*;

    fn run(count: u64) -> Run {
        let values = Packed::alike(vec![0; count as usize].into(), 1, count).unwrap();
        let content = Content::Values(Encoding::Raw, values);
        Run::new(Lineage::root(StageId(0), 0), content)
    }

    fn ready(deliveries: &mut Deliveries) -> bool {
        let mut nobody = TaskWaker::from_waker(std::task::Waker::noop());
        deliveries.poll_ready(&mut nobody) == Poll::Ready(true)
    }

    fn heard(terminal: &mut Terminal) -> Vec<u64> {
        terminal.taken().into_iter().flatten().collect()
    }

    /// What happens next, on either side.
    #[derive(Clone, Debug)]
    enum Op {
        /// The task hands over so many items, after leaving out so many input numbers.
        Hand(u64, u64),
        Take,
        PassOver,
        /// The task handles one event.
        Hear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (1..6_u64, 0..3_u64).prop_map(|(count, gap)| Op::Hand(count, gap)),
            5 => Just(Op::Take),
            1 => Just(Op::PassOver),
            2 => Just(Op::Hear),
        ]
    }

    proptest! {
        #[test]
        fn what_has_been_taken_is_what_the_task_hears(ops in prop::collection::vec(op(), 0..80)) {
            let (sender, mut events) = mpsc::unbounded_channel();
            let (consumer, mut deliveries) = consumer();
            let mut terminal = Terminal::new(consumer, sender);
            let (mut input, mut waiting) = (0, VecDeque::new());
            let (mut taken, mut heard) = (BTreeSet::new(), BTreeSet::new());
            for op in ops.into_iter().chain([Op::Hear]) {
                match op {
                    Op::Hand(count, gap) => {
                        input += gap;
                        terminal.hand(input, run(count));
                        waiting.extend(input..input + count);
                        input += count;
                    }
                    Op::Take | Op::PassOver => {
                        prop_assert_eq!(ready(&mut deliveries), !waiting.is_empty());
                        let Some(delivery) = deliveries.next() else { continue };
                        let item = waiting.pop_front().unwrap();
                        if matches!(op, Op::Take) {
                            delivery.take();
                            taken.insert(item);
                        }
                    }
                    Op::Hear => if let Ok(event) = events.try_recv() {
                        prop_assert!(matches!(event, Event::Taken));
                        for inputs in terminal.taken() {
                            for input in inputs {
                                prop_assert!(heard.insert(input), "{} twice", input);
                            }
                        }
                        // One look is enough, whatever was taken before it.
                        prop_assert_eq!(&heard, &taken);
                    }
                }
                prop_assert!(heard.is_subset(&taken));
                // Told if there is something to hear, and never twice.
                prop_assert_eq!(events.len(), usize::from(heard != taken));
            }
            prop_assert_eq!(heard, taken);
        }
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        const RUNS: u64 = 3_000;
        let (sender, mut events) = mpsc::unbounded_channel();
        let (consumer, mut deliveries) = consumer();
        let mut terminal = Terminal::new(consumer, sender);
        let count = |n: u64| 1 + n % 7;
        let items: u64 = (0..RUNS).map(count).sum();
        // The last one is taken, so that the task is told of all before it.
        let is_taken = move |item| item % 11 != 3 || item == items - 1;
        let takes = std::thread::spawn(move || {
            let mut item = 0;
            while item < items {
                if !ready(&mut deliveries) {
                    std::thread::yield_now();
                    continue;
                }
                while let Some(delivery) = deliveries.next() {
                    if is_taken(item) {
                        delivery.take();
                    }
                    item += 1;
                }
            }
        });
        let (mut handed, mut heard, mut first) = (0, Vec::new(), 0);
        while heard.last() != Some(&(items - 1)) {
            if handed < RUNS {
                terminal.hand(first, run(count(handed)));
                first += count(handed);
                handed += 1;
            }
            let event = if handed < RUNS { events.try_recv().ok() } else { events.blocking_recv() };
            if event.is_some() {
                heard.extend(terminal.taken().into_iter().flatten());
            }
        }
        takes.join().unwrap();
        assert!(heard.into_iter().eq((0..items).filter(|item| is_taken(*item))));
        assert!(events.try_recv().is_err() && terminal.taken().is_empty());
    }

    #[test]
    fn the_last_item_is_heard_of_before_the_cut() {
        let (sender, mut events) = mpsc::unbounded_channel();
        let (consumer, mut deliveries) = consumer();
        let mut terminal = Terminal::new(consumer, sender);
        terminal.hand(5, run(3));
        assert!(ready(&mut deliveries));
        deliveries.next().unwrap().take();
        deliveries.next().unwrap().take_last();
        assert!(matches!(events.try_recv(), Ok(Event::Taken)));
        assert_eq!(heard(&mut terminal), [5, 6]);
        assert!(matches!(events.try_recv(), Ok(Event::CutInputs)));
        // What was under way may still be taken, and is told like the rest.
        deliveries.next().unwrap().take();
        assert!(matches!(events.try_recv(), Ok(Event::Taken)));
        assert_eq!(heard(&mut terminal), [7]);
    }

    #[test]
    fn an_item_is_what_it_was_in_its_run() {
        let (sender, _events) = mpsc::unbounded_channel();
        let (consumer, mut deliveries) = consumer();
        let mut terminal = Terminal::new(consumer, sender);
        terminal.hand(0, run(3));
        assert!(ready(&mut deliveries));
        let mut items = Vec::new();
        while let Some(delivery) = deliveries.next() {
            assert!(delivery.error().is_none());
            items.push(delivery.item());
        }
        assert!(items.into_iter().eq(run(3).items()));
        drop(terminal);
        let mut nobody = TaskWaker::from_waker(std::task::Waker::noop());
        assert_eq!(deliveries.poll_ready(&mut nobody), Poll::Ready(false));
    }
}
