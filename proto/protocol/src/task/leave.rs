//! How a task leaves: it gives back what has not started, finishes the rest, and parts with its
//! neighbours.
//!
//! A [`Return`](crate::frame::Return) gives items back and ends a link's credit; what was under way
//! then is given back as it arrives. When nothing is left, each upstream neighbour hears the last acks
//! and behind them that this end is *done*. It answers the same, and only that answer says that the
//! acks were heard: a task that went before might leave a neighbour that sends everything again. Then
//! the downstream neighbours, who have acked all, are told, and the task ends.
//!
//! What a neighbour still holds as unacked when it hears *done* was on its way back, and never began:
//! it goes elsewhere. So nothing runs twice.
//!
//! A link that breaks meanwhile is dialled again by its sender, settles by its handshake, and hears
//! it all once more. One that stays away counts as lost after a lease, as ever.

use crate::control::TaskEnd;
use crate::frame::{Close, CloseReason, Frame};
use crate::ids::ConnId;
use crate::link::Freed;
use crate::time::Time;

use super::{Effect, InLink, LinkKey, Task};

/// How far this end has parted with its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Done {
    No,
    /// Said on this connection, and not answered.
    Said(ConnId),
    /// The sender has nothing more of this link either.
    Both,
}

impl InLink {
    /// Whether its sender knows all that there is to know, or never will.
    fn has_parted(&self) -> bool {
        self.done == Done::Both || self.wire.lost || self.receiver.is_new()
    }
}

impl Task {
    /// Stops taking items: gives back what has not started, and ends when all else is acked and its
    /// neighbours know. A source admits no more roots. Doing so again changes nothing.
    pub fn drain(&mut self, now: Time) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.give_back_queued();
        self.settle_down(now);
    }

    /// A draining task parts with those downstream when all upstream have heard its last acks, and
    /// is over then. Answers whether there is something to say.
    pub(super) fn part(&mut self) -> bool {
        let through = self.draining && self.ledger.is_empty();
        if self.ended || !through || !self.in_links.values().all(InLink::has_parted) {
            return false;
        }
        let (mut up, mut news) = (false, false);
        for port in &mut self.out_ports {
            for (key, link) in port.links.iter_mut().filter(|(_, link)| link.wire.is_up()) {
                up = true;
                if !std::mem::replace(&mut link.done, true) {
                    self.dirty.insert(*key);
                    news = true;
                }
            }
        }
        if !up {
            self.end(TaskEnd::Stopped);
        }
        news
    }

    /// Whether this end has told the sender on this connection that it is done: nothing follows.
    pub(super) fn has_said_done(&mut self, key: LinkKey) -> bool {
        let conn = self.wire(key).and_then(|wire| wire.conn());
        self.in_links
            .get(&key)
            .is_some_and(|link| conn.is_some_and(|conn| link.done == Done::Said(conn)))
    }

    /// Tells the sender that this end is done. The connection stays up for the answer.
    pub(super) fn say_done(&mut self, key: LinkKey) -> Option<Frame> {
        let link = self.in_links.get_mut(&key)?;
        link.done = Done::Said(link.wire.conn()?);
        Some(done())
    }

    /// Tells the receiver that this end is done, and closes.
    pub(super) fn close_done(&mut self, key: LinkKey) -> Option<Frame> {
        let wire = self.wire(key)?;
        let conn = wire.conn()?;
        wire.close();
        self.effects.push_back(Effect::HangUp(key, conn));
        Some(done())
    }

    /// The other end is done with this link.
    pub(super) fn peer_is_done(&mut self, now: Time, key: LinkKey, conn: ConnId) {
        if let Some(link) = self.in_links.get_mut(&key) {
            link.done = Done::Both;
            link.wire.close();
            self.effects.push_back(Effect::HangUp(key, conn));
            let orphans = link.receiver.drain();
            self.orphan(orphans);
            self.credit.changed = true;
            return;
        }
        let Some(link) = self.out_link(key) else { return };
        link.done = true;
        let returned = link.sender.drain();
        self.dirty.insert(key);
        self.freed(now, key.channel, Freed { returned, ..Freed::default() });
    }
}

fn done() -> Frame {
    let message = "the task ends in good order".to_owned();
    Frame::Close(Close { reason: CloseReason::Done, message })
}
