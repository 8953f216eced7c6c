//! What a task sends on: output ports, and dispatch to the links of each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ids::{ChannelId, StageId};
use crate::lineage::Step;
use crate::link::{Flush, Freed, Inputs, Sender};
use crate::pipeline::{Carries, Pipeline};
use crate::run::{Content, Run};
use crate::time::Time;

#[cfg(any(test, feature = "planted-bugs"))]
use super::Bug;
use super::pace::Pace;
use super::wire::Wire;
use super::{LinkKey, Task};

/// One output channel, with its links to the tasks downstream.
#[derive(Clone, Debug, Hash)]
pub(super) struct OutPort {
    pub(super) channel: ChannelId,
    pub(super) downstream: StageId,
    carries: Carries,
    /// Whether several channels carry everything, so that the lineage must say which.
    branch: Option<u32>,
    pub(super) links: BTreeMap<LinkKey, OutLink>,
    queue: VecDeque<Queued>,
    queued_items: u64,
    queued_bytes: u64,
    pub(super) cut: bool,
    /// Where the last item went: ties in credit are broken in rotation.
    last: Option<LinkKey>,
    sent: u64,
    pace: Pace,
}

/// Of a steady flow, no piece that goes to one link is smaller than what flows in so long. Spread evenly
/// over many links, at each of many stages, runs would end as single items; and a link that gets too much
/// now gets less of what comes next.
const LEAST_PIECE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, Hash)]
pub(super) struct OutLink {
    pub(super) wire: Wire,
    pub(super) sender: Sender,
    pub(super) flush: Flush,
    /// One of the two ends is done with the link: the other is told, and it closes.
    pub(super) done: bool,
}

#[derive(Clone, Debug, Hash)]
struct Queued {
    run: Run,
    inputs: Inputs,
    turn: Turn,
}

/// Which sending of an item it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    First,
    /// It was given back unstarted.
    Returned,
    /// A link or a task went away.
    Again,
}

impl OutPort {
    pub(super) fn of_stage(pipeline: &Pipeline, stage: StageId) -> Vec<Self> {
        let full = pipeline.outputs(stage).filter(|(_, c)| c.carries == Carries::All).count();
        (0..)
            .zip(pipeline.outputs(stage))
            .map(|(place, (channel, declared))| Self {
                channel,
                downstream: declared.to,
                carries: declared.carries,
                branch: (full > 1 && declared.carries == Carries::All).then_some(place),
                links: BTreeMap::new(),
                queue: VecDeque::new(),
                queued_items: 0,
                queued_bytes: 0,
                cut: false,
                last: None,
                sent: 0,
                pace: Pace::default(),
            })
            .collect()
    }

    /// Whether all its links have been given up.
    pub(super) fn reaches_nobody(&self) -> bool {
        !self.cut && !self.links.is_empty() && self.links.values().all(|link| link.wire.lost)
    }

    pub(super) const fn backlog(&self) -> u64 {
        self.queued_items
    }

    /// How many values could be sent at once; all that it does not carry.
    pub(super) fn room(&self) -> u64 {
        if self.cut || self.carries == Carries::Errors {
            return u64::MAX;
        }
        let credit = self.links.values().map(|link| link.sender.unused());
        credit.fold(0, u64::saturating_add).saturating_sub(self.queued_items)
    }

    fn count_in(&mut self, run: &Run) {
        self.queued_items += run.len();
        self.queued_bytes += run.size();
    }

    fn push(&mut self, run: Run, inputs: Inputs) {
        self.count_in(&run);
        self.queue.push_back(Queued { run, inputs, turn: Turn::First });
    }

    fn push_again(&mut self, runs: Vec<(Run, Inputs)>, turn: Turn) {
        for (run, inputs) in runs.into_iter().rev() {
            self.count_in(&run);
            self.queue.push_front(Queued { run, inputs, turn });
        }
    }

    /// What a link gets at a time of what is queued, when it is spread over those with credit.
    fn share(&mut self, now: Time) -> u64 {
        let since = now.since(Time::ZERO);
        let least = self.pace.measure_early(now, since, self.sent, 0, LEAST_PIECE);
        let unused = self.links.values().map(|link| link.sender.unused());
        let (links, credit) = unused
            .filter(|unused| *unused > 0)
            .fold((0, 0_u64), |(links, sum), unused| (links + 1, sum.saturating_add(unused)));
        self.queued_items.min(credit).div_ceil(u64::max(links, 1)).max(least).max(1)
    }

    /// The link with the most unused credit that admits the first of a run, and how many it admits; of
    /// several, the one after `last`.
    fn pick(&self, run: &Run) -> Option<(LinkKey, u64)> {
        let after_last = |key: &LinkKey| Some(*key) > self.last;
        self.links
            .iter()
            .map(|(key, link)| (*key, &link.sender, link.sender.admits(run)))
            .filter(|(_, _, admitted)| *admitted > 0)
            .max_by_key(|(key, sender, _)| {
                (sender.unused(), after_last(key), std::cmp::Reverse(*key))
            })
            .map(|(key, _, admitted)| (key, admitted))
    }

    /// What goes next, and where: at most `share` items, of one run.
    fn pop(&mut self, share: u64) -> Option<(LinkKey, Queued)> {
        let first = self.queue.front()?;
        let (key, admitted) = self.pick(&first.run)?;
        let admitted = admitted.min(share);
        let first = if admitted < first.run.len() {
            let first = self.queue.front_mut()?;
            let rest = first.run.split_off(admitted);
            let run = std::mem::replace(&mut first.run, rest);
            let inputs = first.inputs;
            first.inputs = inputs.after(admitted);
            Queued { run, inputs, turn: first.turn }
        } else {
            self.queue.pop_front()?
        };
        self.queued_items -= first.run.len();
        self.queued_bytes -= first.run.size();
        self.sent += first.run.len();
        self.last = Some(key);
        Some((key, first))
    }
}

impl Task {
    /// Queues a run on the ports that carry it. Its inputs wait for it.
    pub(super) fn send_on(&mut self, run: Run, inputs: Inputs) {
        let (waiting, each) = inputs.of(run.len());
        for port in &mut self.out_ports {
            if port.carries == Carries::Errors && !matches!(run.content, Content::Error(_)) {
                continue;
            }
            if port.cut {
                self.stats.cut += run.len();
                continue;
            }
            self.ledger.change(waiting.clone(), |_, entry| {
                entry.unsent += each;
                entry.unacked += each;
            });
            let mut run = run.clone();
            if let (Some(branch), false) = (port.branch, run.lineage.is_end()) {
                run.lineage = run.lineage.with(Step::Branch(branch));
            }
            port.push(run, inputs);
        }
    }

    /// Sends queued items where there is credit for them.
    pub(super) fn dispatch(&mut self, now: Time) {
        for index in 0..self.out_ports.len() {
            if self.out_ports[index].backlog() == 0 {
                continue;
            }
            let share = self.out_ports[index].share(now);
            while let Some((key, queued)) = self.out_ports[index].pop(share) {
                let Some(queued) = self.drop_finished_outputs(now, queued) else { continue };
                let Queued { run, inputs, turn } = queued;
                let items = run.len();
                let counts = if run.counts() { items } else { 0 };
                if let Some(link) = self.out_ports[index].links.get_mut(&key) {
                    link.sender.send(now, run, inputs);
                }
                self.dirty.insert(key);
                match turn {
                    Turn::First => {
                        self.stats.sent += counts;
                        let (waiting, each) = inputs.of(items);
                        self.ledger.change(waiting.clone(), |_, entry| entry.unsent -= each);
                        self.check(now, waiting);
                    }
                    Turn::Returned => {}
                    Turn::Again => self.stats.resent += counts,
                }
            }
            let port = &self.out_ports[index];
            let backlog = port.backlog();
            if backlog > 0 {
                // Those that have announced none so far will.
                let silent = port.links.iter().filter(|(_, link)| link.sender.has_said_none());
                self.dirty.extend(silent.map(|(key, _)| *key));
            }
            if port.links.values().any(|link| link.sender.has_news(backlog)) {
                self.flush_soon(now);
            }
        }
    }

    /// What is queued may have been finished meanwhile, by copies of it: that part needs not be sent.
    /// Answers the rest.
    fn drop_finished_outputs(&mut self, now: Time, queued: Queued) -> Option<Queued> {
        let Queued { mut run, inputs, turn } = queued;
        let finished = self.finished(&run.lineage, run.len());
        if finished == 0 {
            return Some(Queued { run, inputs, turn });
        }
        if turn == Turn::First {
            let (waiting, each) = inputs.of(finished);
            self.ledger.change(waiting, |_, entry| entry.unsent -= each);
        }
        self.outputs_acked(now, finished, inputs);
        (finished < run.len()).then(|| {
            run = run.slice(finished..run.len());
            Queued { run, inputs: inputs.after(finished), turn }
        })
    }

    /// Items that left a link, one way or the other.
    pub(super) fn freed(&mut self, now: Time, channel: ChannelId, freed: Freed) {
        for (items, inputs) in freed.acked {
            self.outputs_acked(now, items, inputs);
        }
        if let Some(port) = self.out_ports.iter_mut().find(|port| port.channel == channel) {
            if port.cut {
                for (run, inputs) in freed.resend.into_iter().chain(freed.returned) {
                    self.outputs_acked(now, run.len(), inputs);
                }
            } else {
                port.push_again(freed.returned, Turn::Returned);
                port.push_again(freed.resend, Turn::Again);
            }
        }
    }

    fn outputs_acked(&mut self, now: Time, items: u64, inputs: Inputs) {
        let (waiting, each) = inputs.of(items);
        self.ledger.change(waiting.clone(), |_, entry| {
            entry.unacked = entry.unacked.saturating_sub(each);
        });
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::AckedAfterFirstChild) {
            self.ledger.change(waiting.clone(), |_, entry| entry.unacked = 0);
        }
        self.check(now, waiting);
    }

    /// The link is lost: what was not acked goes elsewhere.
    pub(super) fn lose(&mut self, now: Time, key: LinkKey) {
        self.take_back(now, key, false);
    }

    /// The task at the other end is gone: what it had not acked goes elsewhere, marked, since the
    /// process may have died of it.
    pub(super) fn mourn(&mut self, now: Time, key: LinkKey) {
        self.take_back(now, key, true);
    }

    fn take_back(&mut self, now: Time, key: LinkKey, mark: bool) {
        let Some(link) = self.out_link(key) else { return };
        let mut resend = link.sender.drain();
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::ForgottenUnacked) {
            forget_last(&mut resend);
        }
        if mark {
            resend.iter_mut().for_each(|(run, _)| run.marked = true);
        }
        self.freed(now, key.channel, Freed { resend, ..Freed::default() });
    }

    pub(super) fn out_link(&mut self, key: LinkKey) -> Option<&mut OutLink> {
        self.out_ports.iter_mut().find(|p| p.channel == key.channel)?.links.get_mut(&key)
    }

    /// Nothing is needed of this output channel any more: what was made for it counts as acked. A
    /// task with all outputs cut cuts its inputs; a source so cut is exhausted.
    pub(super) fn cut_output(&mut self, now: Time, channel: ChannelId) {
        let Some(port) = self.out_ports.iter_mut().find(|p| p.channel == channel) else { return };
        if std::mem::replace(&mut port.cut, true) {
            return;
        }
        self.cut.insert(channel);
        let queue = std::mem::take(&mut port.queue);
        (port.queued_items, port.queued_bytes) = (0, 0);
        let queued = queue.into_iter();
        let mut dropped: Vec<(u64, Inputs, bool)> =
            queued.map(|q| (q.run.len(), q.inputs, q.turn == Turn::First)).collect();
        for (key, link) in &mut port.links {
            let sent = link.sender.drain().into_iter();
            dropped.extend(sent.map(|(run, inputs)| (run.len(), inputs, false)));
            // What the other end still says of these items has no meaning any more.
            if let Some(conn) = link.wire.conn() {
                self.effects.push_back(super::Effect::HangUp(*key, conn));
            }
            link.wire.close();
        }
        for (items, inputs, first) in dropped {
            self.stats.cut += items;
            let (waiting, each) = inputs.of(items);
            if first {
                self.ledger.change(waiting, |_, entry| entry.unsent -= each);
            }
            self.outputs_acked(now, items, inputs);
        }
        self.effects.push_back(super::Effect::Report);
        if self.cut_off() {
            self.cut_inputs(now);
        }
    }

    /// Whether all that this task makes is dropped.
    pub(super) fn cut_off(&self) -> bool {
        let cut = |port: &OutPort| port.cut;
        if self.out_ports.is_empty() {
            self.in_channels.keys().any(|c| self.cut.contains(c))
        } else {
            self.out_ports.iter().all(cut)
        }
    }

    /// This task needs no more input: a terminal that has enough, or a task with all outputs cut.
    pub fn cut_inputs(&mut self, now: Time) {
        self.cut.extend(self.in_channels.keys());
        if let Some(window) = &mut self.window {
            window.exhaust();
        }
        self.abandon_inputs(now);
        for (key, link) in &mut self.in_links {
            if link.wire.conn().is_none() {
                link.wire.close();
            }
            self.dirty.insert(*key);
        }
        self.announce(now);
        self.effects.push_back(super::Effect::Report);
        self.settle_down(now);
    }

    /// Items and bytes that wait for credit.
    pub(super) fn queued(&self) -> (u64, u64) {
        self.out_ports
            .iter()
            .fold((0, 0), |(items, bytes), p| (items + p.queued_items, bytes + p.queued_bytes))
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
fn forget_last(runs: &mut Vec<(Run, Inputs)>) {
    if let Some((mut run, inputs)) = runs.pop()
        && run.len() > 1
    {
        let _forgotten = run.split_off(run.len() - 1);
        runs.push((run, inputs));
    }
}
