//! The upstream end of a link: spends credit, retains what is not acked.

use crate::frame::{Grant, Items, LinkPolicy, Return, Summary};
use crate::ids::{ConnId, StageId};
use crate::item::Item;
use crate::ranges::Settled;
use crate::ring::Ring;
use crate::time::Time;

use super::Violation;

/// An item that was sent and is retained, and the input that it was made of.
#[derive(Clone, Debug, Hash)]
struct Retained {
    item: Item,
    input: u64,
}

/// A newer connection that becomes the current one with its first grant.
#[derive(Clone, Debug, Hash)]
struct Next {
    conn: ConnId,
    summary: Option<Summary>,
    policy: LinkPolicy,
}

/// What a frame set free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Freed {
    /// The inputs of items that are acked, one entry an item.
    pub acked: Vec<u64>,
    /// Items to be sent again by somebody, with their inputs, oldest first.
    pub resend: Vec<(Item, u64)>,
    /// Items that were given back unstarted, with their inputs, oldest first.
    pub returned: Vec<(Item, u64)>,
}

/// The upstream end of a link.
#[derive(Clone, Debug, Default, Hash)]
pub struct Sender {
    /// The connection that the numbers speak of.
    conn: Option<ConnId>,
    next: Option<Next>,
    up: bool,
    /// What is not settled, by number.
    retained: Ring<Retained>,
    retained_bytes: u64,
    /// Numbers below this have been put into a frame.
    framed: u64,
    acked: Settled,
    limit: Grant,
    bytes: u64,
    window: u64,
    forfeited: u64,
    withdrawn: bool,
    last_used: Time,
    announced: Announced,
}

#[derive(Clone, Debug, Default, Hash)]
struct Announced {
    backlog: u64,
    forfeited: u64,
    watermarks: Vec<(StageId, u64)>,
}

impl Sender {
    /// A link that has never been connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection that it would resume from: what an `Open` or `Accept` names.
    #[must_use]
    pub const fn resume(&self) -> Option<ConnId> {
        self.conn
    }

    /// Whether items can be sent: connected, with the first grant received.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// A new connection has been agreed upon, with the receiver's summary of the older one and its
    /// policy. It becomes the current one with its first grant.
    pub fn connect(&mut self, conn: ConnId, summary: Option<Summary>, policy: LinkPolicy) {
        self.up = false;
        self.next = Some(Next { conn, summary, policy });
    }

    /// The connection broke. What is retained stays so, until a newer one settles it.
    pub fn disconnect(&mut self) {
        self.up = false;
        self.next = None;
    }

    /// The link is lost, or its channel cut: takes everything out.
    pub fn drain(&mut self) -> Vec<(Item, u64)> {
        self.retained_bytes = 0;
        let rest = self.retained.drain().into_iter().map(|(_, r)| (r.item, r.input)).collect();
        *self = Self::new();
        rest
    }

    /// Item credit that is left; zero while the link is not up or has been withdrawn.
    #[must_use]
    pub fn unused(&self) -> u64 {
        if !self.up || self.withdrawn {
            return 0;
        }
        self.limit.items.saturating_sub(self.forfeited + self.retained.next())
    }

    /// Whether an item of this size may be sent now. One above the byte window is admitted when
    /// nothing of this link is in flight.
    #[must_use]
    pub fn admits(&self, size: u64) -> bool {
        self.unused() > 0
            && (self.bytes + size <= self.limit.bytes
                || self.limit.bytes.saturating_sub(self.bytes) >= self.window)
    }

    /// Takes an item that [`Sender::admits`] said yes to.
    pub fn send(&mut self, now: Time, item: Item, input: u64) {
        let size = item.size();
        self.bytes += size;
        self.retained_bytes += size;
        self.last_used = now;
        self.retained.push(Retained { item, input });
    }

    /// The next frame, if there is something to say: items not yet framed (up to a cap of items and
    /// bytes, at least one), a first announcement of backlog, or with `flush` whatever has changed.
    pub fn poll_items(
        &mut self,
        cap: (usize, u64),
        backlog: u64,
        watermarks: &[(StageId, u64)],
        flush: bool,
    ) -> Option<Items> {
        if !self.up {
            return None;
        }
        let starved = backlog > 0 && self.announced.backlog == 0;
        let unframed = self.framed < self.retained.next();
        let news = flush && self.has_news(backlog, watermarks);
        if !(unframed || starved || news) {
            return None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while self.framed < self.retained.next() && batch.len() < cap.0 {
            let Some(entry) = self.retained.get(self.framed) else {
                self.framed += 1;
                continue;
            };
            let size = entry.item.size();
            if !batch.is_empty() && bytes + size > cap.1 {
                break;
            }
            bytes += size;
            batch.push(entry.item.clone());
            self.framed += 1;
        }
        let watermarks = if self.announced.watermarks == watermarks {
            Vec::new()
        } else {
            self.announced.watermarks = watermarks.to_vec();
            watermarks.to_vec()
        };
        self.announced.backlog = backlog;
        self.announced.forfeited = self.forfeited;
        Some(Items { batch, backlog, forfeited: self.forfeited, watermarks })
    }

    /// Whether the sender's state has changed since it was last announced.
    #[must_use]
    pub fn has_news(&self, backlog: u64, watermarks: &[(StageId, u64)]) -> bool {
        self.up
            && (self.announced.backlog != backlog
                || self.announced.forfeited != self.forfeited
                || self.announced.watermarks != watermarks)
    }

    /// Whether items wait to be put into a frame.
    #[must_use]
    pub fn has_items(&self) -> bool {
        self.up && self.framed < self.retained.next()
    }

    /// When unused credit beyond one will be given up, if nothing is sent until then.
    #[must_use]
    pub fn forfeits_at(&self, after: std::time::Duration) -> Option<Time> {
        (self.unused() > 1).then(|| self.last_used + after)
    }

    /// Gives up unused credit beyond one, so that links with backlog can have it.
    pub fn forfeit(&mut self) {
        self.forfeited += self.unused().saturating_sub(1);
    }

    /// Leave to send. The first grant of a newer connection moves the sender to that connection.
    pub fn on_grant(&mut self, now: Time, grant: Grant) -> Result<Freed, Violation> {
        let freed = match self.next.take() {
            Some(next) => self.advance(now, next)?,
            None => Freed::default(),
        };
        self.limit.items = self.limit.items.max(grant.items);
        self.limit.bytes = self.limit.bytes.max(grant.bytes);
        Ok(freed)
    }

    fn advance(&mut self, now: Time, next: Next) -> Result<Freed, Violation> {
        let mut freed = Freed::default();
        let mut carried = Ring::new();
        let mut bytes = 0;
        if let Some(summary) = &next.summary {
            let fits = Some(summary.conn) == self.conn
                && summary.acked.end() <= self.framed
                && summary.held.iter().all(|range| range.end <= self.framed)
                && summary.held.iter().flatten().all(|n| self.retained.get(n).is_some());
            if !fits {
                return Err(Violation::Summary(summary.conn));
            }
        }
        for (number, entry) in self.retained.drain() {
            match &next.summary {
                Some(summary) if summary.acked.contains(number) => freed.acked.push(entry.input),
                Some(summary) if summary.held.contains(number) => {
                    bytes += entry.item.size();
                    carried.push(entry);
                }
                _ => freed.resend.push((entry.item, entry.input)),
            }
        }
        *self = Self {
            conn: Some(next.conn),
            up: true,
            retained_bytes: bytes,
            framed: carried.next(),
            bytes,
            retained: carried,
            window: next.policy.window_bytes,
            last_used: now,
            ..Self::new()
        };
        Ok(freed)
    }

    /// What is safe downstream.
    pub fn on_ack(&mut self, settled: &Settled) -> Result<Freed, Violation> {
        if settled.end() > self.framed {
            return Err(Violation::SettledUnsent { number: settled.end(), sent: self.framed });
        }
        let mut freed = Freed::default();
        for number in settled.since(&self.acked).into_iter().flatten() {
            if let Some(entry) = self.retained.remove(number) {
                self.retained_bytes -= entry.item.size();
                freed.acked.push(entry.input);
            }
        }
        self.acked.merge(settled);
        Ok(freed)
    }

    /// Items given back; the receiver is leaving, so the rest of the credit is void.
    pub fn on_return(&mut self, returned: &Return) -> Result<Freed, Violation> {
        self.withdrawn = true;
        let mut freed = Freed::default();
        for range in returned.numbers.iter() {
            if range.end > self.framed {
                return Err(Violation::SettledUnsent { number: range.end, sent: self.framed });
            }
            for number in range {
                if let Some(entry) = self.retained.remove(number) {
                    self.retained_bytes -= entry.item.size();
                    freed.returned.push((entry.item, entry.input));
                }
            }
        }
        // What has a number but was never framed will not be taken there either.
        for number in self.framed..self.retained.next() {
            if let Some(entry) = self.retained.remove(number) {
                self.retained_bytes -= entry.item.size();
                freed.returned.push((entry.item, entry.input));
            }
        }
        self.framed = self.retained.next();
        Ok(freed)
    }

    /// How many items it retains.
    #[must_use]
    pub const fn unacked(&self) -> usize {
        self.retained.len()
    }

    /// How many bytes it retains.
    #[must_use]
    pub const fn retained_bytes(&self) -> u64 {
        self.retained_bytes
    }

    /// Items sent on this connection, and the limit with forfeits taken off: `sent ≤ granted`.
    #[must_use]
    pub fn sent_and_granted(&self) -> (u64, u64) {
        (self.retained.next(), self.limit.items.saturating_sub(self.forfeited))
    }
}
