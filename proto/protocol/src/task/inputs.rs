//! The ack ledger: every input that is not settled, and what it waits for.
//!
//! Inputs that came together and have fared alike so far are one entry; it is cut where they part.

use std::ops::Range;

use bytes::Bytes;

use crate::applied::Verdict;
use crate::item::{Encoding, ErrorKind, ItemError};
use crate::lineage::{Lineage, Step};
use crate::link::Inputs;
use crate::pipeline::Op;
use crate::run::{Content, Packed, Run};
use crate::spans::Span;
use crate::time::Time;

#[cfg(any(test, feature = "planted-bugs"))]
use super::Bug;
use super::{Effect, Finished, LinkKey, Task};

/// Inputs that are not settled. All that is said here holds for each of them.
#[derive(Clone, Debug, Hash)]
pub(super) struct Input {
    pub(super) count: u64,
    /// Of the first; the others follow.
    pub(super) origin: Origin,
    /// Of the first; the others follow.
    pub(super) lineage: Lineage,
    /// Kept until the function needs it no more.
    pub(super) content: Option<Content>,
    pub(super) state: State,
    /// It asks before it starts, and what comes of it is marked.
    pub(super) marked: bool,
    /// Outputs that have not been sent to a task downstream.
    pub(super) unsent: u64,
    /// Outputs that have not been acked.
    pub(super) unacked: u64,
    /// Outputs that an expansion has made.
    outputs: u64,
    taken: bool,
}

impl Span for Input {
    fn count(&self) -> u64 {
        self.count
    }

    fn split_off(&mut self, at: u64) -> Self {
        let rest = self.content.as_ref().map(|content| content.slice(at..self.count));
        self.content = self.content.take().map(|content| content.slice(0..at));
        let count = self.count - at;
        self.count = at;
        let (origin, lineage) = (self.origin.after(at), self.lineage.after(at));
        Self { count, origin, lineage, content: rest, ..*self }
    }
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

impl Origin {
    const fn after(self, places: u64) -> Self {
        match self {
            Self::Link(key, number) => Self::Link(key, number + places),
            Self::Root(root) => Self::Root(root + places),
            Self::Orphan => Self::Orphan,
        }
    }
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
    pub(super) const fn new(origin: Origin, lineage: Lineage, count: u64, marked: bool) -> Self {
        Self {
            count,
            origin,
            lineage,
            content: None,
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
    pub(super) fn receive(&mut self, now: Time, key: LinkKey, first: u64, batch: Vec<Run>) {
        let mut number = first;
        for run in batch {
            let count = run.len();
            self.stats.received += if run.counts() { count } else { 0 };
            let origin = Origin::Link(key, number);
            let entry = Input::new(origin, run.lineage.clone(), count, run.marked);
            let input = self.ledger.push(entry);
            number += count;
            let finished = self.finished(&run.lineage, count);
            if finished > 0 && self.op != Op::Terminal {
                self.drop_finished(now, input..input + finished, run.counts());
                if finished < count {
                    self.admit(now, input + finished, run.slice(finished..count));
                }
            } else {
                self.admit(now, input, run);
            }
        }
    }

    /// How many of so many items, of this lineage and those that follow it, lie below the watermark:
    /// these are complete everywhere, and what is here are copies.
    pub(super) fn finished(&self, first: &Lineage, count: u64) -> u64 {
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::FinishedStartedAgain) {
            return 0;
        }
        let below = self.watermark(first.source).saturating_sub(first.root);
        if first.is_of_roots() { count.min(below) } else { count * u64::from(below > 0) }
    }

    /// Inputs that are complete everywhere, and have not started here, need nothing more.
    pub(super) fn drop_finished(&mut self, now: Time, inputs: Range<u64>, count: bool) {
        self.stats.duplicates += if count { inputs.end - inputs.start } else { 0 };
        self.complete(now, inputs);
    }

    fn admit(&mut self, now: Time, input: u64, run: Run) {
        let inputs = input..input + run.len();
        if self.cut_off() {
            self.stats.cut += run.len();
            return self.complete(now, inputs);
        }
        match (self.op, &run.content) {
            (Op::Terminal, _) => self.apply(now, input, run),
            (_, Content::Values(..)) => self.enqueue(inputs, run.content),
            // An error that passes an expansion is that expansion's end.
            (Op::FlatMap, Content::Error(_)) if !run.lineage.is_end() => {
                let lineage = run.lineage.with(Step::End(0));
                self.send_on(Run { lineage, ..run }, Inputs::Each(input));
                self.complete(now, inputs);
            }
            (_, Content::Error(_) | Content::End) => {
                self.send_on(run, Inputs::Each(input));
                self.complete(now, inputs);
            }
        }
    }

    /// These inputs, of one entry, wait for slots.
    fn enqueue(&mut self, inputs: Range<u64>, content: Content) {
        if let Some((_, entry)) = self.ledger.part(&inputs) {
            entry.content = Some(content);
        }
        match self.ready.back_mut() {
            Some(last) if last.end == inputs.start => last.end = inputs.end,
            _ => self.ready.push_back(inputs),
        }
    }

    fn apply(&mut self, now: Time, input: u64, run: Run) {
        let count = run.len();
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::NoDeduplication) && run.counts() {
            return self.enqueue(input..input + count, run.content);
        }
        if run.counts() && self.applied.apply_fresh(&run.lineage, count) {
            return self.enqueue(input..input + count, run.content);
        }
        for place in 0..count {
            let (lineage, content) =
                (run.lineage.after(place), run.content.slice(place..place + 1));
            self.apply_one(now, input + place, &lineage, content);
        }
    }

    fn apply_one(&mut self, now: Time, input: u64, lineage: &Lineage, content: Content) {
        let inputs = input..input + 1;
        let counts = u64::from(content != Content::End);
        match self.applied.apply(lineage, input) {
            Verdict::Fresh if content == Content::End => self.complete(now, inputs),
            Verdict::Fresh => self.enqueue(inputs, content),
            #[cfg(any(test, feature = "planted-bugs"))]
            Verdict::Closes if self.has_bug(Bug::LowerEndSwallowed) => self.complete(now, inputs),
            Verdict::Closes => {
                let content = match content {
                    Content::End => Content::Error(Box::new(self.divergence(lineage))),
                    told => told,
                };
                self.enqueue(inputs, content);
            }
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
                self.await_first(inputs);
            }
            Verdict::Divergent { waits } => {
                self.stats.divergent += 1;
                if waits {
                    self.await_first(inputs);
                } else {
                    self.complete_copy(now, input);
                }
            }
        }
    }

    /// A copy waits until what it is a copy of is safe.
    fn await_first(&mut self, inputs: Range<u64>) {
        if let Some((_, entry)) = self.ledger.part(&inputs) {
            entry.state = State::Waiting;
        }
        self.take(inputs);
    }

    /// What is told where an expansion came to an earlier end than before, without an error of its own.
    fn divergence(&mut self, end: &Lineage) -> ItemError {
        let expansion = end.steps.iter().filter(|step| matches!(step, Step::Output(_))).count();
        let stage = self.expansions.get(expansion).unwrap_or(&self.stage).clone();
        let count = match end.steps.last() {
            Some(Step::End(count)) => *count,
            _ => 0,
        };
        let message = format!(
            "run again after a death or a lost connection, it made {count} outputs, fewer than before; \
             of those it made first, some after the first {count} are missing: make it give the same \
             outputs in the same order each time, or process this root again"
        );
        let error = ItemError {
            stage,
            kind: ErrorKind::Divergent,
            message,
            attempts: 1,
            worker: String::new(),
        };
        self.count_error(&error);
        error
    }

    /// Whether an expansion may make more outputs now, or should wait for those it has made to leave.
    #[must_use]
    pub fn can_emit(&self) -> bool {
        let (items, bytes) = self.queued();
        items < self.limits.batch_items && bytes < self.limits.batch_bytes
    }

    /// One output of an expansion.
    pub fn emit(&mut self, now: Time, input: u64, encoding: Encoding, bytes: Bytes) {
        self.emit_all(now, input, encoding, bytes.into());
    }

    /// Some outputs of an expansion.
    pub fn emit_all(&mut self, now: Time, input: u64, encoding: Encoding, outputs: Packed) {
        let Some(entry) = self.ledger.one(input) else { return };
        if entry.state != State::Running {
            return;
        }
        let lineage = entry.lineage.with(Step::Output(entry.outputs));
        entry.outputs += outputs.len();
        let marked = entry.marked;
        let content = Content::Values(encoding, outputs);
        self.send_on(Run { lineage, content, marked }, Inputs::One(input));
        self.settle_down(now);
    }

    /// The function is done with this input.
    pub fn finish(&mut self, now: Time, input: u64, finished: Finished) {
        let Some(entry) = self.ledger.one(input) else { return };
        if entry.state != State::Running {
            return;
        }
        let (lineage, outputs) = (entry.lineage.clone(), entry.outputs);
        let marked = entry.marked;
        let kept = entry.content.take();
        let end = || lineage.with(Step::End(outputs));
        if marked {
            self.unmark(input);
        }
        let made = match finished {
            Finished::One(encoding, bytes) => {
                Some((lineage, Content::Values(encoding, bytes.into())))
            }
            Finished::Keep => kept.map(|content| (lineage, content)),
            Finished::Nothing => {
                self.made_nothing(1);
                None
            }
            Finished::Expanded => {
                self.stats.filtered += u64::from(outputs == 0);
                Some((end(), Content::End))
            }
            Finished::Failed(error) => {
                let lineage = if self.op == Op::FlatMap { end() } else { lineage };
                self.count_error(&error);
                Some((lineage, Content::Error(error)))
            }
        };
        if let Some((lineage, content)) = made {
            self.send_on(Run { lineage, content, marked }, Inputs::Each(input));
        }
        self.complete(now, input..input + 1);
        self.settle_down(now);
    }

    /// A map is done with inputs that came one after the other: each made one output. Of those that are
    /// not in process any more nothing is heard.
    pub fn finish_each(&mut self, now: Time, first: u64, encoding: Encoding, outputs: &Packed) {
        let mut rest = first..first.saturating_add(outputs.len());
        while let Some((start, entry)) = self.ledger.part(&rest) {
            let inputs = start..start + entry.count;
            rest.start = inputs.end;
            if entry.state != State::Running {
                continue;
            }
            entry.content = None;
            let (lineage, marked) = (entry.lineage.clone(), entry.marked);
            if marked {
                inputs.clone().for_each(|input| self.unmark(input));
            }
            let outputs = outputs.slice(start - first..inputs.end - first);
            let content = Content::Values(encoding, outputs);
            self.send_on(Run { lineage, content, marked }, Inputs::Each(start));
            self.complete(now, inputs);
        }
        self.settle_down(now);
    }

    /// Done with inputs that came one after the other: a filter keeps all of them, or drops them; a
    /// sink or terminal has taken them. Of those that are not in process any more nothing is heard.
    pub fn finish_all(&mut self, now: Time, inputs: Range<u64>, keep: bool) {
        let mut rest = inputs;
        while let Some((start, entry)) = self.ledger.part(&rest) {
            let inputs = start..start + entry.count;
            rest.start = inputs.end;
            if entry.state != State::Running {
                continue;
            }
            let kept = entry.content.take().filter(|_| keep);
            let (lineage, marked) = (entry.lineage.clone(), entry.marked);
            if marked {
                inputs.clone().for_each(|input| self.unmark(input));
            }
            match kept {
                Some(content) => {
                    self.send_on(Run { lineage, content, marked }, Inputs::Each(start))
                }
                None => self.made_nothing(inputs.end - inputs.start),
            }
            self.complete(now, inputs);
        }
        self.settle_down(now);
    }

    const fn made_nothing(&mut self, inputs: u64) {
        match self.op {
            Op::Filter => self.stats.filtered += inputs,
            _ => self.stats.sent += inputs,
        }
    }

    pub(super) fn count_error(&mut self, error: &ItemError) {
        *self.stats.errors.entry(error.kind).or_default() += 1;
    }

    /// All outputs of these inputs exist.
    pub(super) fn complete(&mut self, now: Time, inputs: Range<u64>) {
        self.ledger.change(inputs.clone(), |_, entry| {
            let in_slot = matches!(
                entry.state,
                State::Asking | State::Running | State::Done { in_slot: true }
            );
            entry.state = State::Done { in_slot };
            entry.content = None;
        });
        self.check(now, inputs);
    }

    /// A copy, dropped: it is not the one that its lineage's copies wait for.
    fn complete_copy(&mut self, now: Time, input: u64) {
        if let Some(entry) = self.ledger.one(input) {
            entry.state = State::Waiting;
        }
        self.settle(now, input..input + 1);
    }

    /// Takes or settles those of the inputs for which it is time.
    pub(super) fn check(&mut self, now: Time, inputs: Range<u64>) {
        let mut rest = inputs;
        while let Some((first, entry)) = self.ledger.first_in(&rest) {
            let part = first.max(rest.start)..(first + entry.count).min(rest.end);
            rest.start = part.end;
            if !matches!(entry.state, State::Done { .. }) || entry.unsent > 0 {
                continue;
            }
            let safe = entry.unacked == 0;
            #[cfg(any(test, feature = "planted-bugs"))]
            let safe = safe || self.has_bug(Bug::EarlyAck);
            if safe {
                self.settle(now, part);
            } else {
                self.take(part);
            }
        }
    }

    /// The inputs leave their slots, and their credit may be granted anew.
    fn take(&mut self, inputs: Range<u64>) {
        let mut rest = inputs;
        while let Some((first, entry)) = self.ledger.part(&rest) {
            rest.start = first + entry.count;
            if std::mem::replace(&mut entry.taken, true) {
                continue;
            }
            if entry.state == (State::Done { in_slot: true }) {
                self.busy -= u32::try_from(entry.count).unwrap_or(u32::MAX);
            }
            self.credit.took(entry.count);
            if let Origin::Link(key, number) = entry.origin
                && let Some(link) = self.in_links.get_mut(&key)
            {
                link.receiver.take(number..number + entry.count);
            }
        }
    }

    /// Everything that came of the inputs is safe.
    fn settle(&mut self, now: Time, inputs: Range<u64>) {
        self.take(inputs.clone());
        while let Some((_, entry)) = self.ledger.take(&inputs) {
            match entry.origin {
                Origin::Link(key, number) => {
                    if let Some(link) = self.in_links.get_mut(&key) {
                        link.receiver.settle(number..number + entry.count);
                        self.dirty.insert(key);
                        self.flush_soon(now);
                    }
                }
                Origin::Root(root) => {
                    if let Some(window) = &mut self.window {
                        window.ack(root..root + entry.count);
                    }
                    self.announce(now);
                }
                Origin::Orphan => {}
            }
            if self.op == Op::Terminal && entry.state != State::Waiting {
                for copy in self.applied.settle(&entry.lineage, entry.count) {
                    self.settle(now, copy..copy + 1);
                }
            }
        }
    }

    /// The link's numbers changed, or it is gone.
    pub(super) fn resumed(&mut self, key: LinkKey, resumed: crate::link::Resumed) {
        for (inputs, number) in resumed.renumbered {
            let first = inputs.start;
            self.ledger.change(inputs, |start, entry| {
                entry.origin = Origin::Link(key, number + (start - first));
            });
        }
        self.orphan(resumed.orphans);
    }

    /// Nobody waits for the acks of these inputs. Those not started are dropped: whoever still holds
    /// them upstream will send them again. A terminal keeps them, since it has noted them as applied.
    pub(super) fn orphan(&mut self, inputs: Vec<Range<u64>>) {
        for mut rest in inputs {
            while let Some((first, entry)) = self.ledger.part(&rest) {
                let part = first..first + entry.count;
                rest.start = part.end;
                entry.origin = Origin::Orphan;
                match entry.state {
                    State::Queued if self.op != Op::Terminal => {
                        self.ledger.take(&part);
                    }
                    State::Asking => {
                        self.ledger.take(&part);
                        for input in part {
                            self.busy -= 1;
                            self.drop_mark(input);
                        }
                    }
                    _ => {}
                }
            }
        }
        let queued = std::mem::take(&mut self.ready).into_iter();
        let parts = queued.flat_map(|inputs| self.ledger.parts(inputs));
        self.ready = parts.filter(|(_, is_there)| *is_there).map(|(part, _)| part).collect();
    }

    /// Gives back everything that has not started; the links' credit ends with it.
    pub(super) fn give_back_queued(&mut self) {
        let asking = self.asking();
        for input in &asking {
            self.busy -= 1;
            self.drop_mark(*input);
        }
        let asking = asking.into_iter().map(|input| input..input + 1);
        for inputs in asking.chain(std::mem::take(&mut self.ready)) {
            while let Some((_, entry)) = self.ledger.take(&inputs) {
                if let Origin::Link(key, number) = entry.origin {
                    self.give_back(key, number..number + entry.count);
                }
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
            link.receiver.give_back(numbers);
        }
    }

    /// Nobody needs what this task makes: settles all inputs, started or not.
    pub(super) fn abandon_inputs(&mut self, now: Time) {
        self.effects.push_back(Effect::Abort);
        self.drop_marks();
        self.ready.clear();
        self.resuming.clear();
        let all = 0..self.ledger.next();
        let cut = &mut self.stats.cut;
        self.ledger.change(all.clone(), |_, entry| {
            *cut += if matches!(entry.state, State::Done { .. }) { 0 } else { entry.count };
            (entry.unsent, entry.unacked) = (0, 0);
        });
        self.complete(now, all);
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
        let entries = self.ledger.iter().map(|(_, input)| input);
        let pausing: u64 = entries.filter(pausing).map(|input| input.count).sum();
        let wanted = (u64::from(self.busy) + pausing).min(self.slots.into());
        let queued: u64 = self.ready.iter().map(|inputs| inputs.end - inputs.start).sum();
        (wanted.max(self.busy.into()), queued + self.resuming.len() as u64)
    }
}
