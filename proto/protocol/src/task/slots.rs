//! How inputs get slots: from the queue, in bursts beyond the slots, and anew after a pause.

use std::ops::Range;

use crate::pipeline::Op;
use crate::run::Run;
use crate::time::Time;

use super::inputs::{Input, Origin, State};
use super::outputs::OutPort;
use super::{Effect, Task};

impl Task {
    /// Hands queued inputs to free slots.
    pub(super) fn start_ready(&mut self, now: Time) {
        while self.busy < self.slots {
            if let Some(input) = self.resuming.pop_front() {
                if self.set_running(&(input..input + 1)).is_some() && self.may_go_on(input) {
                    self.effects.push_back(Effect::Resume { input });
                }
                continue;
            }
            if self.skip_finished(now) {
                continue;
            }
            let Some(queued) = self.ready.front() else { return };
            let free = u64::from(self.slots - self.busy);
            let first = self.ledger.get(queued.start).map(|(_, entry)| entry);
            let marked = self.asks && first.is_some_and(|entry| entry.marked);
            let burst = if self.burst > free { self.burst_room(first) } else { 0 };
            let mut inputs = queued.start..queued.end.min(queued.start + free.max(burst));
            if marked {
                if self.marks.are_full() {
                    return;
                }
                inputs.end = inputs.start + 1;
            }
            let started = self.set_running(&inputs).unwrap_or(inputs);
            self.unqueue(started.end);
            if !marked {
                self.begin(started);
            } else if let Some(entry) = self.ledger.one(started.start) {
                entry.state = State::Asking;
                let lineage = entry.lineage.clone();
                self.ask(started.start, lineage);
            }
        }
    }

    /// The first inputs that are queued may have been finished meanwhile, by copies of theirs. False if
    /// they have not.
    fn skip_finished(&mut self, now: Time) -> bool {
        let Some(queued) = self.ready.front().cloned().filter(|_| self.op != Op::Terminal) else {
            return false;
        };
        let Some((first, entry)) = self.ledger.get(queued.start) else { return false };
        if entry.lineage.root >= self.watermark(entry.lineage.source) {
            return false;
        }
        let (at, count) = (queued.start - first, entry.count.min(queued.end - first));
        let finished = self.finished(&entry.lineage.after(at), count - at);
        let inputs = queued.start..queued.start + finished;
        self.unqueue(inputs.end);
        self.drop_finished(now, inputs, true);
        finished > 0
    }

    /// How many inputs a burst may have: as many as can be sent on at once, and small ones only, so that
    /// slots are a bound of what is held here even if nothing can be sent.
    fn burst_room(&self, first: Option<&Input>) -> u64 {
        let content = first.and_then(|entry| entry.content.as_ref());
        let small =
            content.map_or(0, |content| content.sizes().nearly_fitting(self.limits.batch_bytes));
        self.out_ports.iter().map(OutPort::room).fold(small.min(self.burst), u64::min)
    }

    /// The shell can run so many inputs on the spot, one after the other, each done before the next begins:
    /// they may be started beyond the slots, as long as one is free. What it does not run so after all,
    /// it [postpones](Task::postpone). None at first, and never any at a terminal.
    pub const fn set_burst(&mut self, inputs: u64) {
        self.burst = inputs;
    }

    /// How many inputs have started beyond the slots, or had one that has been taken away since.
    #[must_use]
    pub fn excess(&self) -> u64 {
        u64::from(self.busy.saturating_sub(self.slots))
    }

    /// Inputs that have been started, and whose calls have not begun, are queued again before all others.
    pub fn postpone(&mut self, now: Time, first: u64, run: &Run) {
        let mut rest = first..first.saturating_add(run.len());
        let mut queued = Vec::new();
        while let Some((start, entry)) = self.ledger.part(&rest) {
            let inputs = start..start + entry.count;
            rest.start = inputs.end;
            if entry.state == State::Running {
                entry.state = State::Queued;
                entry.content = Some(run.content.slice(start - first..inputs.end - first));
                self.busy -= u32::try_from(entry.count).unwrap_or(u32::MAX);
                self.stats.started -= entry.count;
                queued.push(inputs);
            }
        }
        for inputs in queued.into_iter().rev() {
            match self.ready.front_mut() {
                Some(next) if next.start == inputs.end => next.start = inputs.start,
                _ => self.ready.push_front(inputs),
            }
        }
        self.settle_down(now);
    }

    /// What is queued first has gone, up to this input.
    fn unqueue(&mut self, end: u64) {
        if let Some(first) = self.ready.front_mut() {
            first.start = end;
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
    }

    /// Inputs of one entry, in slots, start.
    pub(super) fn begin(&mut self, inputs: Range<u64>) {
        // Only a filter may pass on what it was given.
        let keeps = self.op == Op::Filter;
        let Some((input, entry)) = self.ledger.part(&inputs) else { return };
        let content = if keeps { entry.content.clone() } else { entry.content.take() };
        let (lineage, marked) = (entry.lineage.clone(), entry.marked);
        let Some(content) = content else { return };
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.op != Op::Terminal && lineage.root < self.watermark(lineage.source) {
            self.began_finished.get_or_insert_with(|| lineage.clone());
        }
        self.stats.started += content.len();
        if self.op != Op::Terminal {
            self.release_bytes(inputs);
        }
        self.effects.push_back(Effect::Start { input, run: Run { lineage, content, marked } });
    }

    /// The inputs no longer wait in front of the slots: their bytes may be granted anew.
    pub(super) fn release_bytes(&mut self, mut inputs: Range<u64>) {
        while let Some((first, entry)) = self.ledger.part(&inputs) {
            inputs.start = first + entry.count;
            if let Origin::Link(key, number) = entry.origin
                && let Some(link) = self.in_links.get_mut(&key)
            {
                link.receiver.release(number..number + entry.count);
                self.credit.changed = true;
            }
        }
    }

    /// The first of these inputs, as far as they are of one entry, get slots if they wait for some.
    fn set_running(&mut self, inputs: &Range<u64>) -> Option<Range<u64>> {
        let (first, entry) = self.ledger.part(inputs)?;
        if !matches!(entry.state, State::Queued | State::Backoff) {
            return None;
        }
        entry.state = State::Running;
        // No more than there are slots.
        self.busy += u32::try_from(entry.count).unwrap_or(u32::MAX);
        Some(first..first + entry.count)
    }

    /// The function of this input waits before its next attempt: its slot is free meanwhile.
    pub fn release_slot(&mut self, now: Time, input: u64) {
        self.stats.retries += 1;
        if let Some(entry) = self.ledger.one(input)
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
        if self.ledger.get(input).is_some_and(|(_, entry)| entry.state == State::Backoff) {
            self.resuming.push_back(input);
            self.settle_down(now);
        }
    }
}
