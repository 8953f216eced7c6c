//! The upstream end of a link: spends credit, retains what is not acked.

use crate::frame::{Grant, Items, LinkPolicy, Return, Summary};
use crate::ids::{ConnId, StageId};
use crate::ranges::Settled;
use crate::run::Run;
use crate::spans::{Span, Spans};
use crate::time::Time;

use super::Violation;

/// The inputs that the items of a run were made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inputs {
    /// One after the other, from this one on: each made one of the items.
    Each(u64),
    /// This one made all of them.
    One(u64),
}

impl Inputs {
    /// Those of the items from this place on.
    #[must_use]
    pub const fn after(self, places: u64) -> Self {
        match self {
            Self::Each(first) => Self::Each(first + places),
            one @ Self::One(_) => one,
        }
    }

    /// The inputs of so many items, and how many of these each made.
    #[must_use]
    pub const fn of(self, items: u64) -> (std::ops::Range<u64>, u64) {
        match self {
            Self::Each(first) => (first..first + items, 1),
            Self::One(input) => (input..input + 1, items),
        }
    }
}

/// Items that were sent and are retained, and the inputs that they were made of.
#[derive(Clone, Debug, Hash)]
struct Retained {
    run: Run,
    inputs: Inputs,
}

impl Span for Retained {
    fn count(&self) -> u64 {
        self.run.len()
    }

    /// What is left of a large run is not to keep the memory of all of it.
    fn split_off(&mut self, at: u64) -> Self {
        let mut rest = Self { run: self.run.split_off(at), inputs: self.inputs.after(at) };
        self.run.compact();
        rest.run.compact();
        rest
    }
}

impl Retained {
    fn slice(&self, places: std::ops::Range<u64>) -> (Run, Inputs) {
        (self.run.slice(places.clone()), self.inputs.after(places.start))
    }
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
    /// How many items are acked, and their inputs.
    pub acked: Vec<(u64, Inputs)>,
    /// Items to be sent again by somebody, oldest first.
    pub resend: Vec<(Run, Inputs)>,
    /// Items that were given back unstarted, oldest first.
    pub returned: Vec<(Run, Inputs)>,
}

/// What is worth a frame without items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flush {
    /// Only that items wait, if none did.
    #[default]
    Nothing,
    /// Also that backlog or forfeited credit has changed.
    Credit,
    /// Also that a watermark has risen.
    Watermarks,
}

/// The upstream end of a link.
#[derive(Clone, Debug, Default, Hash)]
pub struct Sender {
    /// The connection that the numbers speak of.
    conn: Option<ConnId>,
    next: Option<Next>,
    up: bool,
    /// What is not settled, by number.
    retained: Spans<Retained>,
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
    pub fn drain(&mut self) -> Vec<(Run, Inputs)> {
        let rest = self.retained.drain().map(|(_, r)| (r.run, r.inputs)).collect();
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

    /// How many items of the run, from the first on, may be sent now. One above the byte window is
    /// admitted when nothing of this link is in flight.
    #[must_use]
    pub fn admits(&self, run: &Run) -> u64 {
        let left = self.limit.bytes.saturating_sub(self.bytes);
        let alone = u64::from(left >= self.window);
        match self.unused() {
            0 => 0,
            unused => run.fitting(left).max(alone).min(unused),
        }
    }

    /// Takes a run that [`Sender::admits`] said yes to as a whole.
    pub fn send(&mut self, now: Time, run: Run, inputs: Inputs) {
        let size = run.size();
        self.bytes += size;
        self.retained_bytes += size;
        self.last_used = now;
        self.retained.push(Retained { run, inputs });
    }

    /// The next frame, if there is something to say: items not yet framed (up to a cap of items and
    /// bytes, at least one), a first announcement of backlog, or what a `flush` is worth a frame for.
    /// Whatever goes takes along all that has changed.
    pub fn poll_items(
        &mut self,
        cap: (u64, u64),
        backlog: u64,
        watermarks: &[(StageId, u64)],
        flush: Flush,
    ) -> Option<Items> {
        if !self.up {
            return None;
        }
        let starved = backlog > 0 && self.has_said_none();
        let unframed = self.framed < self.retained.next();
        let news = flush >= Flush::Credit && self.has_news(backlog)
            || flush == Flush::Watermarks && self.announced.watermarks != watermarks;
        if !(unframed || starved || news) {
            return None;
        }
        let batch = self.frame(cap);
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

    /// Items not yet framed, up to a cap of items and bytes, at least one. A run that is first may be a
    /// little larger: cut, its rest would be a small frame, or be copied together with what follows.
    fn frame(&mut self, (mut items, mut bytes): (u64, u64)) -> Vec<Run> {
        let mut batch = Vec::new();
        while items > 0 {
            let unframed = self.framed..self.retained.next();
            let Some((first, entry)) = self.retained.first_in(&unframed) else {
                self.framed = unframed.end;
                break;
            };
            let start = self.framed.saturating_sub(first);
            let mut run = entry.run.slice(start..entry.count());
            let fitting = if batch.is_empty() {
                run.nearly_fitting(bytes).max(1)
            } else {
                run.fitting(bytes)
            };
            let fitting = fitting.min(items);
            if fitting == 0 {
                break;
            }
            if fitting < run.len() {
                run = run.slice(0..fitting);
            }
            self.framed = first + start + fitting;
            items -= fitting;
            bytes = bytes.saturating_sub(run.size());
            batch.push(run);
        }
        batch
    }

    /// Whether what the receiver shares out credit by has changed since it was last announced.
    #[must_use]
    pub const fn has_news(&self, backlog: u64) -> bool {
        self.up && (self.announced.backlog != backlog || self.announced.forfeited != self.forfeited)
    }

    /// Whether the last that it said is that no items wait for credit.
    #[must_use]
    pub const fn has_said_none(&self) -> bool {
        self.announced.backlog == 0
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
        let mut carried = Spans::new();
        let mut bytes = 0;
        if let Some(summary) = &next.summary {
            let held = |range| self.retained.parts(range).iter().all(|(_, there)| *there);
            let fits = Some(summary.conn) == self.conn
                && summary.acked.end() <= self.framed
                && summary.held.iter().all(|range| range.end <= self.framed && held(range));
            if !fits {
                return Err(Violation::Summary(summary.conn));
            }
        }
        for (first, entry) in self.retained.drain() {
            let all = first..first + entry.count();
            let Some(summary) = &next.summary else {
                freed.resend.push((entry.run, entry.inputs));
                continue;
            };
            for (part, acked) in summary.acked.parts(all) {
                if acked {
                    let inputs = entry.inputs.after(part.start - first);
                    freed.acked.push((part.end - part.start, inputs));
                    continue;
                }
                for (part, held) in summary.held.parts(part) {
                    let (run, inputs) = entry.slice(part.start - first..part.end - first);
                    if held {
                        bytes += run.size();
                        carried.push(Retained { run, inputs });
                    } else {
                        freed.resend.push((run, inputs));
                    }
                }
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
        for range in settled.since(&self.acked) {
            while let Some((_, entry)) = self.retained.take(&range) {
                self.retained_bytes -= entry.run.size();
                freed.acked.push((entry.count(), entry.inputs));
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
            self.give_back(range, &mut freed);
        }
        // What has a number but was never framed will not be taken there either.
        self.give_back(self.framed..self.retained.next(), &mut freed);
        self.framed = self.retained.next();
        Ok(freed)
    }

    fn give_back(&mut self, range: std::ops::Range<u64>, freed: &mut Freed) {
        while let Some((_, entry)) = self.retained.take(&range) {
            self.retained_bytes -= entry.run.size();
            freed.returned.push((entry.run, entry.inputs));
        }
    }

    /// How many items it retains.
    #[must_use]
    pub const fn unacked(&self) -> u64 {
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
