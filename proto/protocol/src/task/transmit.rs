//! What goes out and when: frames on demand, and timers.
//!
//! Items and urgent grants go at once; acks and the rest are gathered for the flush timer, or ride
//! along with what goes that way before. Watermarks, which nobody waits for, have a slower timer.

use crate::frame::{Close, CloseReason, Frame};
use crate::ids::{ConnId, StageId};
use crate::link::Flush;
use crate::pipeline::Op;
use crate::time::Time;

use super::{LinkKey, Task};

impl Task {
    /// The next frame to put on a wire. Ask until there is none. A link for which
    /// [`Task::block`] was called gives none until [`Task::unblock`].
    pub fn poll_frame(&mut self, now: Time) -> Option<(LinkKey, ConnId, Frame)> {
        loop {
            while let Some(key) = self.dirty.iter().find(|key| !self.blocked.contains(key)).copied()
            {
                let conn = self.wire(key).filter(|wire| wire.is_up()).and_then(|wire| wire.conn());
                let frame = conn.and_then(|_| self.frame_for(now, key));
                match (conn, frame) {
                    (Some(conn), Some(frame)) => return Some((key, conn, frame)),
                    _ => {
                        self.dirty.remove(&key);
                    }
                }
            }
            if !self.part() {
                return None;
            }
        }
    }

    fn frame_for(&mut self, now: Time, key: LinkKey) -> Option<Frame> {
        if self.in_links.contains_key(&key) {
            return self.upstream_frame(now, key);
        }
        let cap = (self.limits.batch_items, self.limits.batch_bytes);
        if self.out_link(key)?.done {
            return self.close_done(key);
        }
        let port = self.out_ports.iter_mut().find(|p| p.channel == key.channel)?;
        let backlog = port.backlog();
        let link = port.links.get_mut(&key)?;
        if !link.sender.is_up() {
            return None;
        }
        let flush = std::mem::take(&mut link.flush);
        let frame = link.sender.poll_items(cap, backlog, &self.watermarks, flush);
        if frame.is_none() && link.sender.has_news(backlog) {
            self.flush_soon(now);
        }
        if frame.as_ref().is_some_and(|items| !items.batch.is_empty()) {
            self.stats.frames += 1;
        }
        frame.map(Frame::Items)
    }

    fn upstream_frame(&mut self, now: Time, key: LinkKey) -> Option<Frame> {
        if self.cut.contains(&key.channel) {
            let conn = self.wire(key).and_then(|wire| wire.conn())?;
            let message = format!("{} is cut", key.channel);
            if let Some(wire) = self.wire(key) {
                wire.close();
            }
            self.effects.push_back(super::Effect::HangUp(key, conn));
            return Some(Frame::Close(Close { reason: CloseReason::Cut, message }));
        }
        if self.has_said_done(key) {
            return None;
        }
        let due = self.grant_is_due(key);
        let link = self.in_links.get_mut(&key)?;
        let all = link.flush || due;
        // The first grant of a connection comes before any ack of it.
        if due && let Some(grant) = link.receiver.poll_grant(now) {
            link.flush = true;
            return Some(Frame::Grant(grant));
        }
        if let Some(returned) = link.receiver.poll_return() {
            return Some(Frame::Return(returned));
        }
        if all && let Some(ack) = link.receiver.poll_ack() {
            return Some(Frame::Ack(ack));
        }
        link.flush = false;
        if self.draining && self.ledger.is_empty() && !link.receiver.has_settled() {
            return self.say_done(key);
        }
        if link.receiver.has_settled() || link.receiver.has_grant() {
            self.flush_soon(now);
        }
        None
    }

    /// The wire of this link takes no more for now.
    pub fn block(&mut self, key: LinkKey) {
        self.blocked.insert(key);
    }

    /// The wire of this link takes frames again.
    pub fn unblock(&mut self, key: LinkKey) {
        self.blocked.remove(&key);
    }

    /// The highest watermark seen of a source: all roots below it are complete everywhere.
    #[must_use]
    pub fn watermark(&self, source: StageId) -> u64 {
        let known = self.watermarks.iter().find(|(stage, _)| *stage == source);
        known.map_or(0, |(_, watermark)| *watermark)
    }

    /// A watermark arrived, or the own one rose. A boundary forgets what lies below. Of a stage that is
    /// no source there is none: a peer that speaks of many would be remembered for ever.
    pub(super) fn raise_watermark(&mut self, now: Time, source: StageId, watermark: u64) {
        if !self.sources.contains(&source) {
            return;
        }
        let known = self.watermarks.iter().position(|(stage, _)| *stage == source);
        let at = known.unwrap_or_else(|| {
            self.watermarks.push((source, 0));
            self.watermarks.len() - 1
        });
        let (_, seen) = &mut self.watermarks[at];
        if watermark > *seen {
            *seen = watermark;
            if self.op == Op::Terminal {
                self.applied.advance(source, watermark);
            }
            if !self.out_ports.is_empty() {
                self.watermarks_at.get_or_insert(now + self.limits.watermark);
            }
        }
    }

    /// When [`Task::handle_timeout`] wants to be called. Earlier calls are harmless.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.ended {
            return None;
        }
        let (lease, forfeit) = (self.limits.lease, self.limits.forfeit);
        let mut next = self.flush_at;
        let mut at = |time: Option<Time>| next = [next, time].into_iter().flatten().min();
        at(self.watermarks_at);
        for link in self.in_links.values() {
            at(link.wire.retry_at());
            at(link.wire.lost_at(lease));
        }
        for port in &self.out_ports {
            let idle = port.backlog() == 0;
            for link in port.links.values() {
                at(link.wire.retry_at());
                at(link.wire.lost_at(lease));
                at(link.sender.forfeits_at(forfeit).filter(|_| idle));
            }
        }
        next
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.ended {
            return;
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            for (key, link) in &mut self.in_links {
                link.flush = true;
                self.dirty.insert(*key);
            }
            self.flush_outputs(Flush::Credit);
        }
        if self.watermarks_at.is_some_and(|at| at <= now) {
            self.watermarks_at = None;
            self.flush_outputs(Flush::Watermarks);
        }
        self.forfeit_idle(now);
        self.expire_links(now);
        self.redial(now);
        self.settle_down(now);
    }

    fn flush_outputs(&mut self, flush: Flush) {
        for port in &mut self.out_ports {
            for (key, link) in &mut port.links {
                link.flush = link.flush.max(flush);
                self.dirty.insert(*key);
            }
        }
    }

    fn forfeit_idle(&mut self, now: Time) {
        let after = self.limits.forfeit;
        for port in self.out_ports.iter_mut().filter(|p| p.backlog() == 0) {
            for (key, link) in &mut port.links {
                if link.sender.forfeits_at(after).is_some_and(|at| at <= now) {
                    link.sender.forfeit();
                    link.flush = link.flush.max(Flush::Credit);
                    self.dirty.insert(*key);
                }
            }
        }
    }
}
