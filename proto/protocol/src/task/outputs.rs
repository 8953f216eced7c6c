//! What a task sends on: output ports, and dispatch to the links of each.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ChannelId, StageId};
use crate::item::{Body, Item};
use crate::lineage::Step;
use crate::link::{Freed, Sender};
use crate::pipeline::{Carries, Pipeline};
use crate::time::Time;

#[cfg(any(test, feature = "planted-bugs"))]
use super::Bug;
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
    queued_bytes: u64,
    pub(super) cut: bool,
    /// Where the last item went: ties in credit are broken in rotation.
    last: Option<LinkKey>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct OutLink {
    pub(super) wire: Wire,
    pub(super) sender: Sender,
    pub(super) flush: bool,
    /// One of the two ends is done with the link: the other is told, and it closes.
    pub(super) done: bool,
}

#[derive(Clone, Debug, Hash)]
struct Queued {
    item: Item,
    input: u64,
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
                queued_bytes: 0,
                cut: false,
                last: None,
            })
            .collect()
    }

    pub(super) fn backlog(&self) -> u64 {
        self.queue.len() as u64
    }

    fn push(&mut self, item: Item, input: u64) {
        self.queued_bytes += item.size();
        self.queue.push_back(Queued { item, input, turn: Turn::First });
    }

    fn push_again(&mut self, items: Vec<(Item, u64)>, turn: Turn) {
        for (item, input) in items.into_iter().rev() {
            self.queued_bytes += item.size();
            self.queue.push_front(Queued { item, input, turn });
        }
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.item.size();
        Some(queued)
    }

    /// The link with the most unused credit that admits the item; of several, the one after `last`.
    fn pick(&self, size: u64) -> Option<LinkKey> {
        let after_last = |key: &LinkKey| Some(*key) > self.last;
        self.links
            .iter()
            .filter(|(_, link)| link.sender.admits(size))
            .max_by_key(|(key, link)| {
                (link.sender.unused(), after_last(key), std::cmp::Reverse(**key))
            })
            .map(|(key, _)| *key)
    }
}

impl Task {
    /// Queues an item on the ports that carry it. Its input waits for it.
    pub(super) fn send_on(&mut self, item: Item, input: u64) {
        let Some(entry) = self.ledger.get_mut(input) else { return };
        for port in &mut self.out_ports {
            if port.carries == Carries::Errors && !matches!(item.body, Body::Error(_)) {
                continue;
            }
            if port.cut {
                self.stats.cut += 1;
                continue;
            }
            entry.unsent += 1;
            entry.unacked += 1;
            let mut item = item.clone();
            item.marked |= entry.marked;
            if let (Some(branch), false) = (port.branch, item.lineage.is_end()) {
                item.lineage = item.lineage.with(Step::Branch(branch));
            }
            port.push(item, input);
        }
    }

    /// Sends queued items where there is credit for them.
    pub(super) fn dispatch(&mut self, now: Time) {
        for index in 0..self.out_ports.len() {
            loop {
                let port = &mut self.out_ports[index];
                let Some(size) = port.queue.front().map(|queued| queued.item.size()) else { break };
                let Some(key) = port.pick(size) else { break };
                let Some(queued) = port.pop() else { break };
                let counts = u64::from(queued.item.body != Body::End);
                port.last = Some(key);
                if let Some(link) = port.links.get_mut(&key) {
                    link.sender.send(now, queued.item, queued.input);
                }
                self.dirty.insert(key);
                match queued.turn {
                    Turn::First => {
                        self.stats.sent += counts;
                        if let Some(entry) = self.ledger.get_mut(queued.input) {
                            entry.unsent -= 1;
                        }
                        self.check(now, queued.input);
                    }
                    Turn::Returned => {}
                    Turn::Again => self.stats.resent += counts,
                }
            }
            let port = &self.out_ports[index];
            if port.backlog() > 0 {
                // Those that have announced none so far will.
                self.dirty.extend(port.links.keys());
            }
        }
    }

    /// Items that left a link, one way or the other.
    pub(super) fn freed(&mut self, now: Time, channel: ChannelId, freed: Freed) {
        for input in freed.acked {
            self.output_acked(now, input);
        }
        if let Some(port) = self.out_ports.iter_mut().find(|port| port.channel == channel) {
            if port.cut {
                for (_, input) in freed.resend.into_iter().chain(freed.returned) {
                    self.output_acked(now, input);
                }
            } else {
                port.push_again(freed.returned, Turn::Returned);
                port.push_again(freed.resend, Turn::Again);
            }
        }
    }

    fn output_acked(&mut self, now: Time, input: u64) {
        if let Some(entry) = self.ledger.get_mut(input) {
            entry.unacked = entry.unacked.saturating_sub(1);
        }
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.has_bug(Bug::AckedAfterFirstChild)
            && let Some(entry) = self.ledger.get_mut(input)
        {
            entry.unacked = 0;
        }
        self.check(now, input);
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
            resend.pop();
        }
        if mark {
            resend.iter_mut().for_each(|(item, _)| item.marked = true);
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
        port.queued_bytes = 0;
        let mut dropped: Vec<(u64, bool)> =
            queue.into_iter().map(|q| (q.input, q.turn == Turn::First)).collect();
        for (key, link) in &mut port.links {
            dropped.extend(link.sender.drain().into_iter().map(|(_, input)| (input, false)));
            // What the other end still says of these items has no meaning any more.
            if let Some(conn) = link.wire.conn() {
                self.effects.push_back(super::Effect::HangUp(*key, conn));
            }
            link.wire.close();
        }
        for (input, first) in dropped {
            self.stats.cut += 1;
            if let (true, Some(entry)) = (first, self.ledger.get_mut(input)) {
                entry.unsent -= 1;
            }
            self.output_acked(now, input);
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
    pub(super) fn queued(&self) -> (usize, u64) {
        self.out_ports
            .iter()
            .fold((0, 0), |(items, bytes), p| (items + p.queue.len(), bytes + p.queued_bytes))
    }
}
