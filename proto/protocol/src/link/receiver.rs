//! The downstream end of a link: grants credit, holds what is not settled, and remembers enough of
//! the older connection to settle it.

use crate::frame::{Ack, Grant, Items, LinkPolicy, Return, Summary};
use crate::ids::ConnId;
use crate::item::{Body, Item};
use crate::ranges::{RangeSet, Settled};
use crate::ring::Ring;

use super::Violation;

/// An item that is held: received, not settled.
#[derive(Clone, Copy, Debug, Hash)]
struct Held {
    input: u64,
    size: u64,
    released: bool,
    taken: bool,
}

/// A connection that the sender may still speak of, and how its numbers relate to today's.
#[derive(Clone, Debug, Hash)]
struct Candidate {
    conn: ConnId,
    acked: Settled,
    /// What is held: the number on that connection, the number today, and the item.
    held: Vec<(u64, u64, Held)>,
}

/// The older connection's numbers of what was carried over: `held[i]` has the number `i` now.
#[derive(Clone, Debug, Hash)]
struct Previous {
    conn: ConnId,
    acked: Settled,
    held: Vec<u64>,
}

/// What became of the held items when a new connection took over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Resumed {
    /// Inputs with the numbers that they have now.
    pub renumbered: Vec<(u64, u64)>,
    /// Inputs that no number speaks of any more: the sender will send them again, to somebody.
    pub orphans: Vec<u64>,
}

/// The downstream end of a link.
#[derive(Clone, Debug, Hash)]
pub struct Receiver {
    policy: LinkPolicy,
    conn: Option<ConnId>,
    previous: Option<Previous>,
    /// What was offered when this end dialled; settled by the sender's choice.
    offered: Vec<Candidate>,
    held: Ring<Held>,
    taken: u64,
    bytes_received: u64,
    bytes_released: u64,
    limit: Grant,
    granted: Grant,
    forfeited: u64,
    backlog: u64,
    active: bool,
    acked: Settled,
    returned: RangeSet,
    ack_due: bool,
    return_due: bool,
    grant_due: bool,
}

impl Receiver {
    /// A link that has never been connected.
    #[must_use]
    pub fn new(policy: LinkPolicy) -> Self {
        Self {
            policy,
            conn: None,
            previous: None,
            offered: Vec::new(),
            held: Ring::new(),
            taken: 0,
            bytes_received: 0,
            bytes_released: 0,
            limit: Grant::default(),
            granted: Grant::default(),
            forfeited: 0,
            backlog: 0,
            active: true,
            acked: Settled::new(),
            returned: RangeSet::new(),
            ack_due: false,
            return_due: false,
            grant_due: false,
        }
    }

    /// What it tells the sender when they connect.
    #[must_use]
    pub const fn policy(&self) -> LinkPolicy {
        self.policy
    }

    /// Whether it has never been connected, or has been given up since: it has nothing to tell.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.conn.is_none()
    }

    /// The sender dialled, and resumes from that connection (none: it holds nothing of this link).
    /// Answers the summary of that connection; this end moves to the new numbers at once.
    pub fn accept(&mut self, conn: ConnId, resume: Option<ConnId>) -> (Option<Summary>, Resumed) {
        let candidate = self.candidates().into_iter().find(|c| Some(c.conn) == resume);
        let summary = candidate.as_ref().map(Candidate::summary);
        (summary, self.advance(conn, candidate))
    }

    /// This end dials: summaries of the connections that the sender may resume from.
    pub fn dial(&mut self) -> Vec<Summary> {
        self.offered = self.candidates();
        self.offered.iter().map(Candidate::summary).collect()
    }

    /// The sender accepted, and resumes from that connection.
    pub fn accepted(&mut self, conn: ConnId, resume: Option<ConnId>) -> Result<Resumed, Violation> {
        let offered = std::mem::take(&mut self.offered);
        match resume {
            None => Ok(self.advance(conn, None)),
            Some(resume) => match offered.into_iter().find(|c| c.conn == resume) {
                Some(candidate) => Ok(self.advance(conn, Some(candidate))),
                None => Err(Violation::Summary(resume)),
            },
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let Some(conn) = self.conn else { return candidates };
        let held = self.held.iter().map(|(n, h)| (n, n, *h)).collect();
        candidates.push(Candidate { conn, acked: self.acked.clone(), held });
        if let Some(previous) = &self.previous
            && self.held.next() == previous.held.len() as u64
        {
            let mut acked = previous.acked.clone();
            let mut held = Vec::new();
            for (now, &then) in (0..).zip(&previous.held) {
                if let Some(entry) = self.held.get(now) {
                    held.push((then, now, *entry));
                } else if self.acked.contains(now) {
                    acked.insert(then);
                }
            }
            candidates.push(Candidate { conn: previous.conn, acked, held });
        }
        candidates
    }

    /// Moves to a new connection. Of the candidate's items, some may have been settled since it was
    /// offered: they keep their new number, settled.
    fn advance(&mut self, conn: ConnId, candidate: Option<Candidate>) -> Resumed {
        let mut resumed = Resumed::default();
        let mut fresh = Self::new(self.policy);
        fresh.conn = Some(conn);
        if let Some(candidate) = candidate {
            for &(_, now, entry) in &candidate.held {
                let entry = match self.held.remove(now) {
                    Some(entry) => {
                        let number = fresh.held.push(entry);
                        resumed.renumbered.push((entry.input, number));
                        entry
                    }
                    None => {
                        let number = fresh.held.skip();
                        if self.returned.contains(now) {
                            fresh.returned.insert(number);
                            fresh.return_due = true;
                        } else {
                            fresh.acked.insert(number);
                            fresh.ack_due = true;
                        }
                        Held { released: true, taken: true, ..entry }
                    }
                };
                fresh.taken += u64::from(entry.taken);
                fresh.bytes_received += entry.size;
                fresh.bytes_released += if entry.released { entry.size } else { 0 };
            }
            fresh.limit.items = fresh.held.next();
            fresh.previous = Some(Previous {
                conn: candidate.conn,
                acked: candidate.acked,
                held: candidate.held.iter().map(|&(then, ..)| then).collect(),
            });
        }
        resumed.orphans = self.held.drain().into_iter().map(|(_, entry)| entry.input).collect();
        fresh.limit.bytes = fresh.bytes_released + fresh.policy.window_bytes;
        fresh.grant_due = true;
        *self = fresh;
        resumed
    }

    /// The link is lost: answers the inputs that it held.
    pub fn drain(&mut self) -> Vec<u64> {
        let orphans = self.held.drain().into_iter().map(|(_, entry)| entry.input).collect();
        *self = Self::new(self.policy);
        orphans
    }

    /// A batch arrived. Its items are to become the inputs `first_input`, `first_input + 1`, …;
    /// answers the number of the first. Checked before anything changes.
    pub fn on_items(&mut self, items: &Items, first_input: u64) -> Result<u64, Violation> {
        if items.forfeited < self.forfeited {
            return Err(Violation::CounterFell("forfeited credit"));
        }
        let first = self.held.next();
        let sent = first.saturating_add(items.batch.len() as u64).saturating_add(items.forfeited);
        if sent > self.limit.items {
            return Err(Violation::ItemCredit { sent, limit: self.limit.items });
        }
        let mut received = self.bytes_received;
        for item in &items.batch {
            self.check_payload(item)?;
            let idle = self.limit.bytes.saturating_sub(received) >= self.policy.window_bytes;
            received += item.size();
            if received > self.limit.bytes && !idle {
                return Err(Violation::ByteCredit { sent: received, limit: self.limit.bytes });
            }
        }
        for (input, item) in (first_input..).zip(&items.batch) {
            self.held.push(Held { input, size: item.size(), released: false, taken: false });
        }
        self.bytes_received = received;
        self.active = !items.batch.is_empty() || (self.active && items.forfeited == self.forfeited);
        self.forfeited = items.forfeited;
        self.backlog = items.backlog;
        Ok(first)
    }

    fn check_payload(&self, item: &Item) -> Result<(), Violation> {
        match &item.body {
            Body::Value(_, bytes) if bytes.len() as u64 > self.policy.max_payload => {
                let size = bytes.len() as u64;
                Err(Violation::PayloadTooLarge { size, max: self.policy.max_payload })
            }
            _ => Ok(()),
        }
    }

    /// The item no longer sits in a queue here: its bytes may be granted anew.
    pub fn release(&mut self, number: u64) {
        if let Some(entry) = self.held.get_mut(number)
            && !entry.released
        {
            entry.released = true;
            self.bytes_released += entry.size;
            self.limit.bytes = self.bytes_released + self.policy.window_bytes;
        }
    }

    /// The item has left its slot: its credit may be granted anew.
    pub fn take(&mut self, number: u64) {
        self.release(number);
        if let Some(entry) = self.held.get_mut(number)
            && !entry.taken
        {
            entry.taken = true;
            self.taken += 1;
        }
    }

    /// Everything that came of the item is safe.
    pub fn settle(&mut self, number: u64) {
        self.take(number);
        if self.held.remove(number).is_some() {
            self.acked.insert(number);
            self.ack_due = true;
        }
    }

    /// The item is given back unstarted.
    pub fn give_back(&mut self, number: u64) {
        self.take(number);
        if self.held.remove(number).is_some() {
            self.returned.insert(number);
            self.return_due = true;
        }
    }

    /// This end is leaving: the rest of the credit is void, even if nothing is given back.
    pub const fn withdraw(&mut self) {
        self.return_due = true;
    }

    /// Credit that is out: granted, and neither given up nor taken.
    #[must_use]
    pub const fn outstanding(&self) -> u64 {
        self.limit.items.saturating_sub(self.forfeited).saturating_sub(self.taken)
    }

    /// Credit that the sender has not used, as far as this end knows.
    #[must_use]
    pub fn unused(&self) -> u64 {
        self.limit.items.saturating_sub(self.forfeited + self.held.next())
    }

    /// What the sender has queued beyond its unused credit.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.backlog.saturating_sub(self.unused())
    }

    /// Whether the sender has sent something since it last gave up credit.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the sender waits: it has backlog and no credit that it knows of.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        let known_items = self.granted.items.saturating_sub(self.forfeited + self.held.next());
        let known_bytes = self.granted.bytes.saturating_sub(self.bytes_received);
        self.backlog > 0 && (known_items == 0 || known_bytes < self.policy.window_bytes / 2)
    }

    /// Grants so many items more.
    pub const fn grant(&mut self, items: u64) {
        self.limit.items += items;
    }

    /// Items granted that the sender does not know of.
    #[must_use]
    pub const fn news(&self) -> u64 {
        self.limit.items - self.granted.items
    }

    /// Whether a grant is ready that the sender does not know of.
    #[must_use]
    pub fn has_grant(&self) -> bool {
        self.grant_due || self.limit != self.granted
    }

    /// Whether an ack, a return or the connection's first grant is ready.
    #[must_use]
    pub const fn has_settled(&self) -> bool {
        self.ack_due || self.return_due
    }

    /// Whether the connection's first grant has not gone out: the sender waits for it.
    #[must_use]
    pub const fn owes_first_grant(&self) -> bool {
        self.grant_due
    }

    /// The grant to send, if it is news.
    pub fn poll_grant(&mut self) -> Option<Grant> {
        if !self.has_grant() {
            return None;
        }
        self.grant_due = false;
        self.granted = self.limit;
        Some(self.limit)
    }

    /// The ack to send, if it is news.
    pub fn poll_ack(&mut self) -> Option<Ack> {
        std::mem::take(&mut self.ack_due).then(|| Ack { settled: self.acked.clone() })
    }

    /// The return to send, if it is news.
    pub fn poll_return(&mut self) -> Option<Return> {
        std::mem::take(&mut self.return_due).then(|| Return { numbers: self.returned.clone() })
    }

    /// Items received and not taken: never above what was granted.
    #[must_use]
    pub fn untaken(&self) -> u64 {
        self.held.next() - self.taken
    }
}

impl Candidate {
    fn summary(&self) -> Summary {
        Summary {
            conn: self.conn,
            acked: self.acked.clone(),
            held: self.held.iter().map(|&(then, ..)| then..then + 1).collect(),
        }
    }
}
