//! The tasks at the other ends: who they are, how they are reached, and when they are given up.

use crate::control::TaskEnd;
use crate::frame::{Accept, Close, CloseReason, Frame, Open, Role};
use crate::ids::{ChannelId, ConnId, LinkId, TaskId};
use crate::link::{Flush, Receiver, Sender, Violation};
use crate::pipeline::Op;
use crate::time::Time;
use crate::{VERSIONS, link::Resumed};

use super::leave::Done;
use super::outputs::{OutLink, OutPort};
use super::wire::Wire;
use super::{Dials, Effect, InLink, LinkKey, Plan, Task};

impl Task {
    /// What should be. Peers that are gone are given up; new ones are dialled or awaited.
    pub fn set_plan(&mut self, now: Time, plan: &Plan) {
        self.slots = plan.slots;
        self.highest_epoch = self.highest_epoch.max(plan.highest_epoch);
        self.source.paused = plan.pause;
        self.credit.changed = true;
        self.set_window(plan.window);
        self.source.replaces(plan.again, self.window.as_ref(), plan.window);
        if let Some(position) = plan.position {
            self.stored_position(now, position);
        }
        let gone = |key: &LinkKey| {
            !plan.peers.contains_key(&key.peer) && key.peer.epoch <= plan.highest_epoch
        };
        let gone: Vec<LinkKey> = self.link_keys().filter(gone).collect();
        for key in gone {
            self.remove_link(now, key);
        }
        for (peer, dials) in &plan.peers {
            self.add_peer(now, *peer, *dials);
        }
        for channel in &plan.cut {
            if self.in_channels.contains_key(channel) && !self.cut.contains(channel) {
                self.cut_inputs(now);
            }
            self.cut_output(now, *channel);
        }
        self.reconsider_unreached();
        self.redial(now);
        self.settle_down(now);
    }

    fn add_peer(&mut self, now: Time, peer: TaskId, dials: Dials) {
        // On a channel that is cut there is nothing to connect for.
        for channel in self.channels_from(peer).into_iter().filter(|c| !self.cut.contains(c)) {
            let policy = self.policy();
            self.in_links.entry(LinkKey { channel, peer }).or_insert_with(|| InLink {
                wire: Wire::new(now, dials),
                receiver: Receiver::new(policy),
                flush: false,
                done: Done::No,
            });
        }
        let open = |port: &&mut OutPort| port.downstream == peer.stage && !port.cut;
        for port in self.out_ports.iter_mut().filter(open) {
            let key = LinkKey { channel: port.channel, peer };
            port.links.entry(key).or_insert_with(|| OutLink {
                wire: Wire::new(now, dials),
                sender: Sender::new(),
                flush: Flush::Nothing,
                done: false,
            });
        }
    }

    fn channels_from(&self, peer: TaskId) -> Vec<ChannelId> {
        self.upstream.iter().filter(|(_, stage)| **stage == peer.stage).map(|(c, _)| *c).collect()
    }

    fn remove_link(&mut self, now: Time, key: LinkKey) {
        self.mourn(now, key);
        self.hang_up(key);
        if let Some(mut link) = self.in_links.remove(&key) {
            self.orphan(link.receiver.drain());
            self.credit.changed = true;
        }
        for port in &mut self.out_ports {
            port.links.remove(&key);
        }
        self.dirty.remove(&key);
        self.blocked.remove(&key);
    }

    fn hang_up(&mut self, key: LinkKey) {
        if let Some(conn) = self.wire(key).and_then(|wire| wire.conn()) {
            self.effects.push_back(Effect::HangUp(key, conn));
        }
    }

    pub(super) fn wire(&mut self, key: LinkKey) -> Option<&mut Wire> {
        match self.in_links.get_mut(&key) {
            Some(link) => Some(&mut link.wire),
            None => self
                .out_ports
                .iter_mut()
                .find(|p| p.channel == key.channel)?
                .links
                .get_mut(&key)
                .map(|link| &mut link.wire),
        }
    }

    pub(super) fn link_keys(&self) -> impl Iterator<Item = LinkKey> + '_ {
        self.in_links.keys().chain(self.out_ports.iter().flat_map(|p| p.links.keys())).copied()
    }

    fn link_id(&self, key: LinkKey) -> LinkId {
        let (from, to) = if self.in_channels.contains_key(&key.channel) {
            (key.peer, self.id)
        } else {
            (self.id, key.peer)
        };
        LinkId { job: self.job, channel: key.channel, from, to }
    }

    /// Dials the links whose time has come.
    pub(super) fn redial(&mut self, now: Time) {
        let own = self.id;
        let keys: Vec<LinkKey> = self.link_keys().collect();
        for key in keys {
            if self.ended || self.cut.contains(&key.channel) {
                continue;
            }
            let Some(conn) = self.wire(key).and_then(|wire| wire.dial(now, own)) else { continue };
            let link = self.link_id(key);
            let policy = self.policy();
            let open = match self.in_links.get_mut(&key) {
                Some(input) => Open {
                    versions: VERSIONS,
                    link,
                    role: Role::Receiver,
                    conn,
                    resume: None,
                    summaries: input.receiver.dial(),
                    policy: Some(policy),
                },
                None => Open {
                    versions: VERSIONS,
                    link,
                    role: Role::Sender,
                    conn,
                    resume: self.out_link(key).and_then(|link| link.sender.resume()),
                    summaries: Vec::new(),
                    policy: None,
                },
            };
            self.effects.push_back(Effect::Dial(key, Box::new(open)));
        }
    }

    /// The other end dialled. Answers the frame to send first, or the reason to refuse it.
    ///
    /// # Errors
    /// The frame to refuse it with: no common version, a stale epoch or connection, a channel that
    /// is cut, or an `Open` that breaks the protocol.
    pub fn on_open(&mut self, now: Time, open: &Open) -> Result<(LinkKey, Accept), Close> {
        let refuse = |reason, message: String| Err(Close { reason, message });
        let Some(version) = VERSIONS.agree(open.versions) else {
            return refuse(
                CloseReason::Version,
                format!("this end speaks protocol {VERSIONS}, the other {}", open.versions),
            );
        };
        let (own, peer) = match open.role {
            Role::Sender => (open.link.to, open.link.from),
            Role::Receiver => (open.link.from, open.link.to),
        };
        let key = LinkKey { channel: open.link.channel, peer };
        if own != self.id || self.ended || open.link.job != self.job {
            return refuse(CloseReason::NoSuchTask, format!("task {own} is not here"));
        }
        if self.cut.contains(&key.channel) {
            return refuse(CloseReason::Cut, format!("{} is cut", key.channel));
        }
        if open.conn.dialler != peer.epoch {
            let message = format!("connection {} is not one of task {peer}", open.conn);
            return refuse(CloseReason::Violation, message);
        }
        if self.wire(key).is_none() {
            let stale = peer.epoch <= self.highest_epoch;
            #[cfg(any(test, feature = "planted-bugs"))]
            let stale = stale && !self.has_bug(super::Bug::StaleEpochAccepted);
            if stale {
                self.stats.stale += 1;
                return refuse(CloseReason::Stale, format!("task {peer} has been replaced"));
            }
            self.add_peer(now, peer, Dials::They);
        }
        let before = self.wire(key).and_then(|wire| wire.conn());
        match self.wire(key).map(|wire| wire.accept(open.conn)) {
            None => {
                let message = format!("{} does not lead from or to task {peer}", key.channel);
                return refuse(CloseReason::Violation, message);
            }
            Some(false) => {
                self.stats.stale += 1;
                return refuse(CloseReason::Stale, format!("{} is superseded", open.conn));
            }
            Some(true) => {}
        }
        if let Some(before) = before {
            self.effects.push_back(Effect::HangUp(key, before));
        }
        let accept = match (open.role, self.in_links.get_mut(&key)) {
            (Role::Sender, Some(link)) => {
                let (summary, resumed) = link.receiver.accept(open.conn, open.resume);
                let policy = Some(link.receiver.policy());
                self.credit.changed = true;
                self.resumed(key, resumed);
                Ok(Accept { version, resume: None, summary, policy })
            }
            (Role::Receiver, None) => self.accept_as_sender(now, key, open, version),
            _ => Err(format!("{} runs the other way", key.channel)),
        };
        match accept {
            Ok(accept) => {
                self.dirty.insert(key);
                self.settle_down(now);
                Ok((key, accept))
            }
            Err(message) => {
                self.on_down(now, key, open.conn);
                refuse(CloseReason::Violation, message)
            }
        }
    }

    fn accept_as_sender(
        &mut self,
        now: Time,
        key: LinkKey,
        open: &Open,
        version: u32,
    ) -> Result<Accept, String> {
        let policy = open.policy.ok_or("an Open from a receiver carries its policy")?;
        let link = self.out_link(key).ok_or("no such link")?;
        let resume = link.sender.resume();
        let summary = open.summaries.iter().find(|s| Some(s.conn) == resume).cloned();
        if summary.is_none() && resume.is_some() {
            // The receiver knows nothing of what was sent: all of it is sent again.
            self.lose(now, key);
        }
        let resume = summary.as_ref().map(|s| s.conn);
        if let Some(link) = self.out_link(key) {
            link.sender.connect(open.conn, summary, policy);
            self.reach();
        }
        Ok(Accept { version, resume, summary: None, policy: None })
    }

    /// A task downstream has been reached.
    fn reach(&mut self) {
        self.reconsider_unreached();
        if !std::mem::replace(&mut self.reached, true) {
            self.effects.push_back(Effect::Report);
        }
    }

    /// A frame of a connection. One of a superseded connection changes nothing.
    ///
    /// # Errors
    /// What the peer did that the protocol forbids: the connection is down then, and the shell
    /// closes it with that reason.
    pub fn on_frame(
        &mut self,
        now: Time,
        key: LinkKey,
        conn: ConnId,
        frame: Frame,
    ) -> Result<(), Violation> {
        let stale = self.wire(key).and_then(|wire| wire.conn()) != Some(conn);
        #[cfg(any(test, feature = "planted-bugs"))]
        let stale = stale
            && !(self.has_bug(super::Bug::OldConnectionAccepted)
                && self.wire(key).is_some_and(|wire| wire.is_up()));
        if self.ended || stale {
            self.stats.stale += 1;
            return Ok(());
        }
        let result = self.handle_frame(now, key, conn, frame);
        if result.is_err() {
            self.on_down(now, key, conn);
        }
        self.settle_down(now);
        result
    }

    fn handle_frame(
        &mut self,
        now: Time,
        key: LinkKey,
        conn: ConnId,
        frame: Frame,
    ) -> Result<(), Violation> {
        let dialling = self.wire(key).is_some_and(|wire| wire.is_dialling());
        match frame {
            Frame::Accept(accept) if dialling => return self.on_accept(now, key, conn, accept),
            Frame::Close(close) => {
                self.on_close(now, key, conn, &close);
                return Ok(());
            }
            _ if dialling => return Err(Violation::Unexpected("something else before its Accept")),
            _ => {}
        }
        if let Some(link) = self.in_links.get_mut(&key) {
            let Frame::Items(items) = frame else {
                return Err(Violation::Unexpected("a receiver's frame from a sender"));
            };
            let first = link.receiver.on_items(now, &items, self.ledger.next())?;
            let count = items.count();
            self.credit.changed = true;
            for (source, watermark) in items.watermarks {
                self.raise_watermark(now, source, watermark);
            }
            if self.draining {
                self.give_back(key, first..first + count);
            } else {
                self.receive(now, key, first, items.batch);
            }
            self.dirty.insert(key);
            return Ok(());
        }
        #[cfg(any(test, feature = "planted-bugs"))]
        let returned_is_acked = self.has_bug(super::Bug::ReturnTakenAsAck);
        let Some(link) = self.out_link(key) else { return Ok(()) };
        let freed = match frame {
            Frame::Grant(grant) => link.sender.on_grant(now, grant)?,
            Frame::Ack(ack) => link.sender.on_ack(&ack.settled)?,
            #[cfg(any(test, feature = "planted-bugs"))]
            Frame::Return(returned) if returned_is_acked => {
                let mut freed = link.sender.on_return(&returned)?;
                let returned = freed.returned.drain(..);
                freed.acked.extend(returned.map(|(run, inputs)| (run.len(), inputs)));
                freed
            }
            Frame::Return(returned) => link.sender.on_return(&returned)?,
            Frame::Items(_) => return Err(Violation::Unexpected("items from a receiver")),
            _ => return Err(Violation::Unexpected("a second handshake")),
        };
        self.dirty.insert(key);
        self.freed(now, key.channel, freed);
        Ok(())
    }

    fn on_accept(
        &mut self,
        now: Time,
        key: LinkKey,
        conn: ConnId,
        accept: Accept,
    ) -> Result<(), Violation> {
        if let Some(wire) = self.wire(key) {
            wire.up(conn);
        }
        self.dirty.insert(key);
        let resumed: Option<Resumed> = match self.in_links.get_mut(&key) {
            Some(link) => Some(link.receiver.accepted(conn, accept.resume)?),
            None => {
                let policy =
                    accept.policy.ok_or(Violation::Unexpected("an Accept without a policy"))?;
                if let Some(link) = self.out_link(key) {
                    link.sender.connect(conn, accept.summary, policy);
                    self.reach();
                }
                None
            }
        };
        if let Some(resumed) = resumed {
            self.resumed(key, resumed);
            self.credit.changed = true;
        }
        self.flush_soon(now);
        Ok(())
    }

    fn on_close(&mut self, now: Time, key: LinkKey, conn: ConnId, close: &Close) {
        if close.reason == CloseReason::Cut && !self.in_channels.contains_key(&key.channel) {
            self.cut_output(now, key.channel);
        }
        if close.reason == CloseReason::Done {
            return self.peer_is_done(now, key, conn);
        }
        self.on_down(now, key, conn);
    }

    /// The connection is gone, or the dial failed.
    pub fn on_down(&mut self, now: Time, key: LinkKey, conn: ConnId) {
        if self.wire(key).and_then(|wire| wire.conn()) != Some(conn) {
            return;
        }
        let cut = self.cut.contains(&key.channel);
        if let Some(wire) = self.wire(key) {
            if cut { wire.close() } else { wire.down(now) }
        }
        if let Some(link) = self.out_link(key) {
            link.sender.disconnect();
        }
        self.blocked.remove(&key);
        self.credit.changed = true;
        self.effects.push_back(Effect::HangUp(key, conn));
        self.redial(now);
        self.settle_down(now);
    }

    /// Gives up the links that have been down for a lease.
    pub(super) fn expire_links(&mut self, now: Time) {
        let lease = self.limits.lease;
        let expired: Vec<LinkKey> = {
            let keys: Vec<LinkKey> = self.link_keys().collect();
            let mut due = |key: &LinkKey| {
                self.wire(*key).and_then(|w| w.lost_at(lease)).is_some_and(|at| at <= now)
            };
            keys.into_iter().filter(|key| due(key)).collect()
        };
        for key in expired {
            if let Some(wire) = self.wire(key) {
                wire.lost = true;
            }
            self.lose(now, key);
            if let Some(link) = self.in_links.get_mut(&key) {
                let orphans = link.receiver.drain();
                self.orphan(orphans);
                self.credit.changed = true;
            }
            // A dial that is under way offers to resume what has just been given up.
            let dialling = self.wire(key).filter(|wire| wire.is_dialling());
            if let Some(conn) = dialling.and_then(|wire| wire.conn()) {
                self.on_down(now, key, conn);
            }
        }
    }

    /// The coordinator was heard, and the plan is still what it wants. The shell says so whenever
    /// anything comes from it, at least every quarter of a lease.
    ///
    /// A task ends itself, to be replaced, when none of the peers of an output channel can be reached;
    /// a source, which may be the only one there can be, says so and goes on dialling. But only while the coordinator is there and counts them as alive. If they are dead, and it
    /// was paused or away when they died, it needs a lease to notice after it is back: so its silence
    /// starts the count anew, and the count goes to two leases.
    pub fn heard(&mut self, now: Time) {
        let lease = self.limits.lease;
        let (since, last) = self.heard.unwrap_or((now, now));
        let since = if now.since(last) > lease / 2 { now } else { since };
        self.heard = Some((since, now));
        let long = |since: Time| now.since(since) >= lease * 2;
        let before = self.unreached.len();
        if long(since) {
            let unreachable = |l: &OutLink| l.wire.down_since().is_some_and(long);
            let ports = self.out_ports.iter().filter(|port| port.reaches_nobody());
            let cut_off = ports.filter(|port| port.links.values().all(unreachable));
            self.unreached.extend(cut_off.map(|port| port.channel));
        }
        let stays = self.op == Op::Source;
        #[cfg(any(test, feature = "planted-bugs"))]
        let stays = stays && !self.has_bug(super::Bug::SourceGivesUp);
        if !stays && !self.unreached.is_empty() {
            self.end(TaskEnd::LostLinks);
        } else if self.unreached.len() > before {
            self.effects.push_back(Effect::Report);
        }
    }

    /// There may be links again, or others.
    fn reconsider_unreached(&mut self) {
        if self.unreached.is_empty() || self.ended {
            return;
        }
        let ports = self.out_ports.iter().filter(|port| port.reaches_nobody());
        let nobody: Vec<ChannelId> = ports.map(|port| port.channel).collect();
        let before = self.unreached.len();
        self.unreached.retain(|channel| nobody.contains(channel));
        if self.unreached.len() < before {
            self.effects.push_back(Effect::Report);
        }
    }
}
