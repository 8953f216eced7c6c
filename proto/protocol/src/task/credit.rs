//! How a task's input credit is shared among its links.
//!
//! The limit is slots plus the channel's buffer, and never below the number of links. Each link
//! always has one credit. What is free goes first to links that announce backlog, evenly; then links
//! that are in use are topped up to an even share, so that a steady sender need not ask.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::link::Receiver;
use crate::time::Time;

use super::pace::Pace;
use super::{InLink, LinkKey, Task};

/// What an automatic buffer holds: what the stage takes in so long and a round trip.
const AUTOMATIC_BUFFER: Duration = Duration::from_millis(20);
/// What took longer was no round trip, but a pause.
const LONGEST_TRIP: Duration = Duration::from_secs(1);
/// No buffer is larger; byte credits bound large items long before this.
const LARGEST_BUFFER: u64 = 65_536;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Pool {
    /// Whether the shares may have to change.
    pub(super) changed: bool,
    taken: u64,
    /// How long there have been items to take, up to `holds_since`.
    spent: Duration,
    holds_since: Option<Time>,
    /// What the stage takes in the time that a buffer is to last.
    pace: Pace,
    buffer: u64,
}

impl Pool {
    pub(super) const fn took(&mut self, items: u64) {
        self.taken += items;
        self.changed = true;
    }
}

impl Task {
    /// The task's limit: how many items may be granted and not taken, over all its links.
    fn limit(&self, links: u64) -> u64 {
        let slots = u64::from(self.slots);
        let automatic = self.credit.buffer.clamp(slots, LARGEST_BUFFER.max(slots));
        let buffers: u64 = self.in_channels.values().map(|b| b.map_or(automatic, u64::from)).sum();
        let limit = slots + buffers;
        #[cfg(any(test, feature = "planted-bugs"))]
        let limit = if self.has_bug(super::Bug::LostCredit) {
            limit.saturating_sub(self.credit.taken / 8)
        } else {
            limit
        };
        limit.max(links)
    }

    /// What the task takes in 20 ms and a round trip while it has something to take: a sender that uses up
    /// its credit does not hear of more before that. Time without items does not count, or little credit
    /// would bring few items, and few items little credit.
    fn size_buffer(&mut self, now: Time) {
        let begun = u64::from(self.busy);
        let holds = self.in_links.values().any(|link| link.receiver.untaken() > 0);
        let pool = &mut self.credit;
        if let Some(since) = pool.holds_since {
            pool.spent += now.since(since);
        }
        pool.holds_since = holds.then_some(now);
        let up = self.in_links.values().filter(|link| link.wire.is_up());
        let trip = up.filter_map(|link| link.receiver.round_trip()).max().unwrap_or_default();
        let span = AUTOMATIC_BUFFER + trip.min(LONGEST_TRIP);
        pool.buffer = pool.pace.measure_early(now, pool.spent, pool.taken, begun, span);
    }

    /// Shares out what is free.
    pub(super) fn regrant(&mut self, now: Time) {
        if !self.credit.changed || self.draining {
            return;
        }
        self.credit.changed = false;
        self.size_buffer(now);
        let links = up(&mut self.in_links).count() as u64;
        if links == 0 {
            return;
        }
        #[cfg(any(test, feature = "planted-bugs"))]
        let lossy = self.has_bug(super::Bug::LostCredit);
        #[cfg(not(any(test, feature = "planted-bugs")))]
        let lossy = false;
        let limit = self.limit(if lossy { 0 } else { links });
        let out: u64 = self
            .in_links
            .values()
            .map(|l| if l.wire.is_up() { l.receiver.outstanding() } else { l.receiver.untaken() })
            .sum();
        let mut free = limit.saturating_sub(out);
        for receiver in up(&mut self.in_links).filter(|r| !lossy && r.outstanding() == 0) {
            receiver.grant(1);
            free = free.saturating_sub(1);
        }
        // Evenly among those that want: whoever wants less leaves the rest to the others.
        loop {
            let wanting = up(&mut self.in_links).filter(|r| r.wanted() > 0).count() as u64;
            if wanting == 0 || free == 0 {
                break;
            }
            let share = (free / wanting).max(1);
            for receiver in up(&mut self.in_links) {
                let granted = receiver.wanted().min(share).min(free);
                receiver.grant(granted);
                free -= granted;
            }
        }
        let active = up(&mut self.in_links).filter(|r| r.is_active()).count() as u64;
        let even = limit / active.max(1);
        for receiver in up(&mut self.in_links).filter(|r| r.is_active()) {
            let granted = even.saturating_sub(receiver.outstanding()).min(free);
            receiver.grant(granted);
            free -= granted;
        }
        let mut news = false;
        for (key, link) in &self.in_links {
            if link.wire.is_up() && link.receiver.has_grant() {
                news = true;
                self.dirty.insert(*key);
            }
        }
        if news {
            self.flush_soon(now);
        }
    }

    /// Whether a grant to this link should go now: its sender waits, or half its share is news.
    pub(super) fn grant_is_due(&self, key: LinkKey) -> bool {
        let Some(link) = self.in_links.get(&key) else { return false };
        let receiver = &link.receiver;
        receiver.has_grant()
            && (link.flush
                || receiver.owes_first_grant()
                || receiver.is_starved()
                || receiver.news() >= receiver.outstanding().div_ceil(2))
    }
}

/// The receiving ends of the links that are up.
fn up(links: &mut BTreeMap<LinkKey, InLink>) -> impl Iterator<Item = &mut Receiver> {
    links.values_mut().filter(|link| link.wire.is_up()).map(|link| &mut link.receiver)
}
