//! The ack ledger: every input that is not settled, and what it waits for.

use crate::applied::Verdict;
use crate::item::{Body, Encoding, Item, ItemError};
use crate::lineage::{Lineage, Step};
use crate::pipeline::Op;
use crate::time::Time;

use bytes::Bytes;

#[cfg(any(test, feature = "planted-bugs"))]
use super::Bug;
use super::{Effect, Finished, LinkKey, Task};

/// An input that is not settled.
#[derive(Clone, Debug, Hash)]
pub(super) struct Input {
    pub(super) origin: Origin,
    pub(super) lineage: Lineage,
    /// Kept until the function is done.
    body: Option<Body>,
    pub(super) state: State,
    /// It asks before it starts, and what comes of it is marked.
    pub(super) marked: bool,
    /// Outputs that have not been sent to a task downstream.
    pub(super) unsent: u32,
    /// Outputs that have not been acked.
    pub(super) unacked: u32,
    /// Outputs that an expansion has made.
    outputs: u64,
    taken: bool,
}

/// Where an input came from, and so where its ack goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A number of a link's current connection.
    Link(LinkKey, u64),
    /// A root of this source.
    Root(u64),
    /// The task that sent it is gone: its ack has nobody to go to.
    Orphan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Queued,
    /// In a slot; marked, it may not start yet.
    Asking,
    /// In a slot.
    Running,
    /// Between two attempts, without a slot.
    Backoff,
    /// The function is done; it leaves its slot when its outputs are sent.
    Done {
        in_slot: bool,
    },
    /// A copy of an item that is not safe yet.
    Waiting,
}

impl Input {
    pub(super) const fn new(origin: Origin, lineage: Lineage, marked: bool) -> Self {
        Self {
            origin,
            lineage,
            body: None,
            state: State::Queued,
            marked,
            unsent: 0,
            unacked: 0,
            outputs: 0,
            taken: false,
        }
    }
}

impl Task {
    /// Items that a link received, with the number of the first.
    pub(super) fn receive(&mut self, now: Time, key: LinkKey, first: u64, batch: Vec<Item>) {
        for (number, item) in (first..).zip(batch) {
            self.stats.received += u64::from(item.body != Body::End);
            let origin = Origin::Link(key, number);
            let entry = Input::new(origin, item.lineage.clone(), item.marked);
            let input = self.ledger.push(entry);
            self.admit(now, input, item);
        }
    }

    fn admit(&mut self, now: Time, input: u64, item: Item) {
        if self.cut_off() {
            self.stats.cut += 1;
            return self.complete(now, input);
        }
        match (self.op, &item.body) {
            (Op::Terminal, _) => return self.apply(now, input, item),
            (_, Body::Value(..)) => {}
            // An error that passes an expansion is that expansion's end.
            (Op::FlatMap, Body::Error(_)) if !item.lineage.is_end() => {
                let lineage = item.lineage.with(Step::End(0));
                self.send_on(Item::new(lineage, item.body), input);
                return self.complete(now, input);
            }
            (_, Body::Error(_) | Body::End) => {
                self.send_on(item, input);
                return self.complete(now, input);
            }
        }
        self.enqueue(input, item.body);
    }

    fn enqueue(&mut self, input: u64, body: Body) {
        if let Some(entry) = self.ledger.get_mut(input) {
            entry.body = Some(body);
        }
        self.ready.push_back(input);
    }

    fn apply(&mut self, now: Time, input: u64, item: Item) {
        let counts = u64::from(item.body != Body::End);
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::NoDeduplication) && item.body != Body::End {
            return self.enqueue(input, item.body);
        }
        match self.applied.apply(&item.lineage, input) {
            Verdict::Fresh if item.body == Body::End => self.complete(now, input),
            Verdict::Fresh => self.enqueue(input, item.body),
            Verdict::Safe => {
                self.stats.duplicates += counts;
                self.complete_copy(now, input);
            }
            Verdict::Waits => {
                self.stats.duplicates += counts;
                #[cfg(any(test, feature = "planted-bugs"))]
                if self.has_bug(Bug::DuplicateAckedFirst) {
                    return self.complete_copy(now, input);
                }
                if let Some(entry) = self.ledger.get_mut(input) {
                    entry.state = State::Waiting;
                }
                self.take(input);
            }
            Verdict::Divergent => {
                self.stats.divergent += 1;
                self.complete_copy(now, input);
            }
        }
    }

    /// Hands queued inputs to free slots.
    pub(super) fn start_ready(&mut self) {
        while self.busy < self.slots {
            if let Some(input) = self.resuming.pop_front() {
                if self.set_running(input) && self.may_go_on(input) {
                    self.effects.push_back(Effect::Resume { input });
                }
                continue;
            }
            let Some(&input) = self.ready.front() else { return };
            let marked = self.asks && self.ledger.get(input).is_some_and(|entry| entry.marked);
            if marked && self.marks.are_full() {
                return;
            }
            self.ready.pop_front();
            if !self.set_running(input) {
                continue;
            }
            if !marked {
                self.begin(input);
            } else if let Some(entry) = self.ledger.get_mut(input) {
                entry.state = State::Asking;
                let lineage = entry.lineage.clone();
                self.ask(input, lineage);
            }
        }
    }

    /// An input in a slot starts.
    pub(super) fn begin(&mut self, input: u64) {
        let Some(entry) = self.ledger.get(input) else { return };
        let lineage = entry.lineage.clone();
        let Some(body) = entry.body.clone() else { return };
        self.stats.started += 1;
        if self.op != Op::Terminal {
            self.release_bytes(input);
        }
        self.effects.push_back(Effect::Start { input, lineage, body });
    }

    /// The input no longer waits in front of the slots: its bytes may be granted anew.
    pub(super) fn release_bytes(&mut self, input: u64) {
        if let Some(Origin::Link(key, number)) = self.ledger.get(input).map(|entry| entry.origin)
            && let Some(link) = self.in_links.get_mut(&key)
        {
            link.receiver.release(number);
            self.credit.changed = true;
        }
    }

    fn set_running(&mut self, input: u64) -> bool {
        match self.ledger.get_mut(input) {
            Some(entry) if matches!(entry.state, State::Queued | State::Backoff) => {
                entry.state = State::Running;
                self.busy += 1;
                true
            }
            _ => false,
        }
    }

    /// The function of this input waits before its next attempt: its slot is free meanwhile.
    pub fn release_slot(&mut self, now: Time, input: u64) {
        self.stats.retries += 1;
        if let Some(entry) = self.ledger.get_mut(input)
            && entry.state == State::Running
        {
            entry.state = State::Backoff;
            self.busy -= 1;
            if entry.marked {
                self.step_aside(input);
            }
            self.settle_down(now);
        }
    }

    /// The function of this input wants its slot back; [`Effect::Resume`] says when it has it.
    pub fn want_slot(&mut self, now: Time, input: u64) {
        if self.ledger.get(input).is_some_and(|entry| entry.state == State::Backoff) {
            self.resuming.push_back(input);
            self.settle_down(now);
        }
    }

    /// Whether an expansion may make more outputs now, or should wait for those it has made to leave.
    #[must_use]
    pub fn can_emit(&self) -> bool {
        let (items, bytes) = self.queued();
        items < self.limits.batch_items && bytes < self.limits.batch_bytes
    }

    /// One output of an expansion.
    pub fn emit(&mut self, now: Time, input: u64, encoding: Encoding, bytes: Bytes) {
        let Some(entry) = self.ledger.get_mut(input) else { return };
        if entry.state != State::Running {
            return;
        }
        let lineage = entry.lineage.with(Step::Output(entry.outputs));
        entry.outputs += 1;
        self.send_on(Item::new(lineage, Body::Value(encoding, bytes)), input);
        self.settle_down(now);
    }

    /// The function is done with this input.
    pub fn finish(&mut self, now: Time, input: u64, finished: Finished) {
        let Some(entry) = self.ledger.get_mut(input) else { return };
        if entry.state != State::Running {
            return;
        }
        let (lineage, outputs) = (entry.lineage.clone(), entry.outputs);
        let marked = entry.marked;
        let body = entry.body.take();
        let end = || lineage.with(Step::End(outputs));
        if marked {
            self.unmark(input);
        }
        match finished {
            Finished::One(encoding, bytes) => {
                self.send_on(Item::new(lineage, Body::Value(encoding, bytes)), input);
            }
            Finished::Keep => {
                if let Some(body) = body {
                    self.send_on(Item::new(lineage, body), input);
                }
            }
            Finished::Nothing if self.op == Op::Filter => self.stats.filtered += 1,
            Finished::Nothing => self.stats.sent += 1,
            Finished::Expanded => {
                self.stats.filtered += u64::from(outputs == 0);
                self.send_on(Item::new(end(), Body::End), input);
            }
            Finished::Failed(error) => {
                let lineage = if self.op == Op::FlatMap { end() } else { lineage };
                self.fail(lineage, error, input);
            }
        }
        self.complete(now, input);
        self.settle_down(now);
    }

    fn fail(&mut self, lineage: Lineage, error: Box<ItemError>, input: u64) {
        *self.stats.errors.entry(error.kind).or_default() += 1;
        self.send_on(Item::new(lineage, Body::Error(error)), input);
    }

    /// All outputs of this input exist.
    pub(super) fn complete(&mut self, now: Time, input: u64) {
        if let Some(entry) = self.ledger.get_mut(input) {
            let in_slot = matches!(
                entry.state,
                State::Asking | State::Running | State::Done { in_slot: true }
            );
            entry.state = State::Done { in_slot };
            entry.body = None;
        }
        self.check(now, input);
    }

    /// A copy, dropped: it is not the one that its lineage's copies wait for.
    fn complete_copy(&mut self, now: Time, input: u64) {
        if let Some(entry) = self.ledger.get_mut(input) {
            entry.state = State::Waiting;
        }
        self.settle(now, input);
    }

    /// Takes or settles the input, if it is time.
    pub(super) fn check(&mut self, now: Time, input: u64) {
        let Some(entry) = self.ledger.get(input) else { return };
        let State::Done { .. } = entry.state else { return };
        if entry.unsent > 0 {
            return;
        }
        let safe = entry.unacked == 0;
        #[cfg(any(test, feature = "planted-bugs"))]
        let safe = safe || self.has_bug(Bug::EarlyAck);
        if safe {
            self.settle(now, input);
        } else {
            self.take(input);
        }
    }

    /// The input leaves its slot, and its credit may be granted anew.
    fn take(&mut self, input: u64) {
        let Some(entry) = self.ledger.get_mut(input) else { return };
        if std::mem::replace(&mut entry.taken, true) {
            return;
        }
        if entry.state == (State::Done { in_slot: true }) {
            self.busy -= 1;
        }
        self.credit.took_one();
        if let Origin::Link(key, number) = entry.origin
            && let Some(link) = self.in_links.get_mut(&key)
        {
            link.receiver.take(number);
        }
    }

    /// Everything that came of the input is safe.
    fn settle(&mut self, now: Time, input: u64) {
        self.take(input);
        let Some(entry) = self.ledger.remove(input) else { return };
        match entry.origin {
            Origin::Link(key, number) => {
                if let Some(link) = self.in_links.get_mut(&key) {
                    link.receiver.settle(number);
                    self.dirty.insert(key);
                    self.flush_soon(now);
                }
            }
            Origin::Root(root) => {
                if let Some(window) = &mut self.window {
                    window.ack(root);
                }
                self.announce(now);
            }
            Origin::Orphan => {}
        }
        if self.op == Op::Terminal && entry.state != State::Waiting {
            for copy in self.applied.settle(&entry.lineage) {
                self.settle(now, copy);
            }
        }
    }

    /// The link's numbers changed, or it is gone.
    pub(super) fn resumed(&mut self, key: LinkKey, resumed: crate::link::Resumed) {
        for (input, number) in resumed.renumbered {
            if let Some(entry) = self.ledger.get_mut(input) {
                entry.origin = Origin::Link(key, number);
            }
        }
        self.orphan(resumed.orphans);
    }

    /// Nobody waits for the acks of these inputs. Those not started are dropped: whoever still holds
    /// them upstream will send them again. A terminal keeps them, since it has noted them as applied.
    pub(super) fn orphan(&mut self, inputs: Vec<u64>) {
        for input in inputs {
            let Some(entry) = self.ledger.get_mut(input) else { continue };
            entry.origin = Origin::Orphan;
            match entry.state {
                State::Queued if self.op != Op::Terminal => {
                    self.ledger.remove(input);
                }
                State::Asking => {
                    self.ledger.remove(input);
                    self.busy -= 1;
                    self.drop_mark(input);
                }
                _ => {}
            }
        }
        self.ready.retain(|input| self.ledger.get(*input).is_some());
    }

    /// Gives back everything that has not started; the links' credit ends with it.
    pub(super) fn give_back_queued(&mut self) {
        let asking = self.asking();
        for input in &asking {
            self.busy -= 1;
            self.drop_mark(*input);
        }
        for input in asking.into_iter().chain(std::mem::take(&mut self.ready)) {
            if let Some(entry) = self.ledger.remove(input)
                && let Origin::Link(key, number) = entry.origin
            {
                self.give_back(key, number..number + 1);
            }
        }
        for (key, link) in &mut self.in_links {
            link.receiver.withdraw();
            self.dirty.insert(*key);
        }
    }

    /// Gives back numbers of a link that are no inputs.
    pub(super) fn give_back(&mut self, key: LinkKey, numbers: std::ops::Range<u64>) {
        if let Some(link) = self.in_links.get_mut(&key) {
            for number in numbers {
                link.receiver.give_back(number);
            }
        }
    }

    /// Nobody needs what this task makes: settles all inputs, started or not.
    pub(super) fn abandon_inputs(&mut self, now: Time) {
        self.effects.push_back(Effect::Abort);
        self.drop_marks();
        self.ready.clear();
        self.resuming.clear();
        let inputs: Vec<u64> = self.ledger.iter().map(|(input, _)| input).collect();
        for input in inputs {
            if let Some(entry) = self.ledger.get_mut(input) {
                self.stats.cut += u64::from(!matches!(entry.state, State::Done { .. }));
                (entry.unsent, entry.unacked) = (0, 0);
            }
            self.complete(now, input);
        }
    }

    /// Per source, the oldest root that an input here came of.
    pub(super) fn oldest_roots(&self) -> std::collections::BTreeMap<crate::StageId, u64> {
        let mut oldest = std::collections::BTreeMap::new();
        for (_, input) in self.ledger.iter() {
            let root = oldest.entry(input.lineage.source).or_insert(input.lineage.root);
            *root = input.lineage.root.min(*root);
        }
        oldest
    }

    /// Slots in use, and inputs that wait for one. In a task that drains, a slot counts as in use
    /// while an input will want it back after its pause.
    pub(super) fn occupancy(&self) -> (u64, u64) {
        let pausing = |input: &&Input| self.draining && input.state == State::Backoff;
        let pausing = self.ledger.iter().map(|(_, input)| input).filter(pausing).count();
        let wanted = (u64::from(self.busy) + pausing as u64).min(self.slots.into());
        (wanted.max(self.busy.into()), (self.ready.len() + self.resuming.len()) as u64)
    }
}
