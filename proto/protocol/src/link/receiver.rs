//! The downstream end of a link: grants credit, holds what is not settled, and remembers enough of
//! the older connection to settle it.

use std::ops::Range;
use std::time::Duration;

use crate::frame::{Ack, Grant, Items, LinkPolicy, Return, Summary};
use crate::ids::ConnId;
use crate::ranges::{RangeSet, Settled};
use crate::round_trip::RoundTrip;
use crate::run::{Content, Run, Sizes};
use crate::spans::{Span, Spans};
use crate::time::Time;

use super::Violation;

/// Items that are held: received, not settled.
#[derive(Clone, Debug, Hash)]
struct Held {
    /// The input that the first became; the others follow.
    input: u64,
    sizes: Sizes,
    released: bool,
    taken: bool,
}

impl Span for Held {
    fn count(&self) -> u64 {
        self.sizes.count()
    }

    fn split_off(&mut self, at: u64) -> Self {
        let sizes = self.sizes.split_off(at);
        Self { input: self.input + at, sizes, ..*self }
    }
}

/// A connection that the sender may still speak of, and how its numbers relate to today's.
#[derive(Clone, Debug, Hash)]
struct Candidate {
    conn: ConnId,
    acked: Settled,
    /// What is held, in ascending order: the first number on that connection, the first today, and the
    /// items.
    held: Vec<(u64, u64, Held)>,
}

/// The older connection's numbers of what was carried over: in this order they are 0, 1, 2, … now.
#[derive(Clone, Debug, Hash)]
struct Previous {
    conn: ConnId,
    acked: Settled,
    held: Vec<Range<u64>>,
    count: u64,
}

/// What became of the held items when a new connection took over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Resumed {
    /// Inputs, and the number that the first of them has now; the others follow.
    pub renumbered: Vec<(Range<u64>, u64)>,
    /// Inputs that no number speaks of any more: the sender will send them again, to somebody.
    pub orphans: Vec<Range<u64>>,
}

/// The downstream end of a link.
#[derive(Clone, Debug, Hash)]
pub struct Receiver {
    policy: LinkPolicy,
    conn: Option<ConnId>,
    previous: Option<Previous>,
    /// What was offered when this end dialled; settled by the sender's choice.
    offered: Vec<Candidate>,
    held: Spans<Held>,
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
    trip: RoundTrip,
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
            held: Spans::new(),
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
            trip: RoundTrip::default(),
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
        let held = self.held.iter().map(|(n, h)| (n, n, h.clone())).collect();
        candidates.push(Candidate { conn, acked: self.acked.clone(), held });
        if let Some(previous) = &self.previous
            && self.held.next() == previous.count
        {
            let mut acked = previous.acked.clone();
            let mut held = Vec::new();
            let mut now = 0;
            for then in &previous.held {
                let end = now + (then.end - then.start);
                for (part, is_held) in self.held.parts(now..end) {
                    let then = |number: u64| then.start + (number - now);
                    if is_held {
                        held.extend(self.slice(&part).map(|h| (then(part.start), part.start, h)));
                        continue;
                    }
                    for (part, is_acked) in self.acked.parts(part) {
                        if is_acked {
                            acked.insert_range(then(part.start)..then(part.end));
                        }
                    }
                }
                now = end;
            }
            candidates.push(Candidate { conn: previous.conn, acked, held });
        }
        candidates
    }

    /// What is held under these numbers, which one entry stands for.
    fn slice(&self, numbers: &Range<u64>) -> Option<Held> {
        let (first, entry) = self.held.get(numbers.start)?;
        Some(entry.clone().slice(numbers.start - first..numbers.end - first))
    }

    /// Moves to a new connection. Of the candidate's items, some may have been settled since it was
    /// offered: they keep their new number, settled.
    fn advance(&mut self, conn: ConnId, candidate: Option<Candidate>) -> Resumed {
        let mut resumed = Resumed::default();
        let mut fresh = Self::new(self.policy);
        fresh.conn = Some(conn);
        if let Some(candidate) = candidate {
            for (_, now, offered) in &candidate.held {
                for (part, is_held) in self.held.parts(*now..now + offered.count()) {
                    let offered = offered.clone().slice(part.start - now..part.end - now);
                    fresh.carry_over(self, part, is_held, offered, &mut resumed);
                }
            }
            fresh.limit.items = fresh.held.next();
            let then = candidate.held.iter().map(|(then, _, held)| *then..then + held.count());
            fresh.previous = Some(Previous {
                conn: candidate.conn,
                acked: candidate.acked,
                held: then.collect(),
                count: fresh.held.next(),
            });
        }
        resumed.orphans = self.held.drain().map(|(_, entry)| entry.inputs()).collect();
        fresh.limit.bytes = fresh.bytes_released + fresh.policy.window_bytes;
        fresh.grant_due = true;
        *self = fresh;
        resumed
    }

    /// Gives items of `older`, all held there or all settled since they were offered, new numbers here.
    fn carry_over(
        &mut self,
        older: &mut Self,
        part: Range<u64>,
        is_held: bool,
        offered: Held,
        resumed: &mut Resumed,
    ) {
        if !is_held {
            for (part, returned) in older.returned.parts(part) {
                let count = part.end - part.start;
                let number = self.held.skip(count);
                if returned {
                    self.returned.insert_range(number..number + count);
                    self.return_due = true;
                } else {
                    self.acked.insert_range(number..number + count);
                    self.ack_due = true;
                }
            }
            self.count_in(&Held { released: true, taken: true, ..offered });
            return;
        }
        while let Some((_, entry)) = older.held.take(&part) {
            self.count_in(&entry);
            let inputs = entry.inputs();
            let number = self.held.push(entry);
            resumed.renumbered.push((inputs, number));
        }
    }

    fn count_in(&mut self, entry: &Held) {
        let size = entry.sizes.total();
        self.taken += if entry.taken { entry.count() } else { 0 };
        self.bytes_received += size;
        self.bytes_released += if entry.released { size } else { 0 };
    }

    /// The link is lost: answers the inputs that it held.
    pub fn drain(&mut self) -> Vec<Range<u64>> {
        let orphans = self.held.drain().map(|(_, entry)| entry.inputs()).collect();
        *self = Self::new(self.policy);
        orphans
    }

    /// A batch arrived. Its items are to become the inputs `first_input`, `first_input + 1`, …;
    /// answers the number of the first. Checked before anything changes.
    pub fn on_items(
        &mut self,
        now: Time,
        items: &Items,
        first_input: u64,
    ) -> Result<u64, Violation> {
        if items.forfeited < self.forfeited {
            return Err(Violation::CounterFell("forfeited credit"));
        }
        let first = self.held.next();
        let sent = first.saturating_add(items.count()).saturating_add(items.forfeited);
        if sent > self.limit.items {
            return Err(Violation::ItemCredit { sent, limit: self.limit.items });
        }
        let mut received = self.bytes_received;
        for run in &items.batch {
            self.check_payloads(run)?;
            let fitting = run.fitting(self.limit.bytes.saturating_sub(received));
            if fitting == run.len() {
                received += run.size();
                continue;
            }
            let sizes = run.content.sizes();
            for place in 0..run.len() {
                let idle = self.limit.bytes.saturating_sub(received) >= self.policy.window_bytes;
                received += sizes.first(place + 1) - sizes.first(place);
                if received > self.limit.bytes && !idle {
                    return Err(Violation::ByteCredit { sent: received, limit: self.limit.bytes });
                }
            }
        }
        let mut input = first_input;
        for run in &items.batch {
            let sizes = run.content.sizes();
            self.held.push(Held { input, sizes, released: false, taken: false });
            input += run.len();
        }
        self.bytes_received = received;
        self.active = !items.batch.is_empty() || (self.active && items.forfeited == self.forfeited);
        if !items.batch.is_empty() {
            self.trip.ends(now);
        } else if items.backlog == 0 {
            // What waited has gone elsewhere: what comes next is no answer.
            self.trip.breaks_off();
        }
        self.forfeited = items.forfeited;
        self.backlog = items.backlog;
        Ok(first)
    }

    fn check_payloads(&self, run: &Run) -> Result<(), Violation> {
        let max = self.policy.max_payload;
        if let Content::Values(_, values) = &run.content
            && values.blob().len() as u64 > max
            && let Some(size) = values.lengths().find(|length| *length > max)
        {
            return Err(Violation::PayloadTooLarge { size, max });
        }
        Ok(())
    }

    /// The items no longer sit in a queue here: their bytes may be granted anew.
    pub fn release(&mut self, numbers: Range<u64>) {
        let released = &mut self.bytes_released;
        self.held.change(numbers, |_, entry| {
            if !std::mem::replace(&mut entry.released, true) {
                *released += entry.sizes.total();
            }
        });
        self.grant_bytes();
    }

    /// The items have left their slots: their credit may be granted anew.
    pub fn take(&mut self, numbers: Range<u64>) {
        let (released, taken) = (&mut self.bytes_released, &mut self.taken);
        self.held.change(numbers, |_, entry| entry.take(released, taken));
        self.grant_bytes();
    }

    fn grant_bytes(&mut self) {
        if self.conn.is_some() {
            self.limit.bytes = self.bytes_released + self.policy.window_bytes;
        }
    }

    fn remove(&mut self, numbers: Range<u64>, settled: impl Fn(&mut Self, Range<u64>)) {
        while let Some((first, mut entry)) = self.held.take(&numbers) {
            entry.take(&mut self.bytes_released, &mut self.taken);
            settled(self, first..first + entry.count());
        }
        self.grant_bytes();
    }

    /// Everything that came of the items is safe.
    pub fn settle(&mut self, numbers: Range<u64>) {
        self.remove(numbers, |receiver, numbers| {
            receiver.acked.insert_range(numbers);
            receiver.ack_due = true;
        });
    }

    /// The items are given back unstarted.
    pub fn give_back(&mut self, numbers: Range<u64>) {
        self.remove(numbers, |receiver, numbers| {
            receiver.returned.insert_range(numbers);
            receiver.return_due = true;
        });
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

    /// Whether the sender waits, or soon will: it has backlog and little credit that it knows of, and
    /// there is enough to grant. While much of what it was granted is still queued here, a little is
    /// not worth a frame, and would come back as little; in the end there is nothing else here.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        let known_items = self.known_unused();
        let known_bytes = self.granted.bytes.saturating_sub(self.bytes_received);
        let (window, bytes) = (self.policy.window_bytes, self.limit.bytes - self.granted.bytes);
        let lacks_items = known_items == 0 && self.news().saturating_mul(4) >= self.outstanding();
        let lacks_bytes = known_bytes < window / 2 && bytes >= window / 8;
        self.backlog > 0 && (lacks_items || lacks_bytes)
    }

    /// Credit that the sender knows of and has not used, as far as this end knows.
    fn known_unused(&self) -> u64 {
        self.granted.items.saturating_sub(self.forfeited + self.held.next())
    }

    /// How long it takes from a grant that the sender waits for to the items that it lets go; none before
    /// a sender had to wait.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.trip.smoothed()
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
    pub fn poll_grant(&mut self, now: Time) -> Option<Grant> {
        if !self.has_grant() {
            return None;
        }
        // Only a sender that waits for credit answers at once.
        if self.backlog > 0 && self.known_unused() == 0 && self.news() > 0 {
            self.trip.begins(now);
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

impl Held {
    fn inputs(&self) -> Range<u64> {
        self.input..self.input + self.count()
    }

    fn slice(mut self, places: Range<u64>) -> Self {
        if places.end < self.count() {
            let _rest = self.split_off(places.end);
        }
        if places.start > 0 { self.split_off(places.start) } else { self }
    }

    fn take(&mut self, bytes_released: &mut u64, taken: &mut u64) {
        if !std::mem::replace(&mut self.released, true) {
            *bytes_released += self.sizes.total();
        }
        if !std::mem::replace(&mut self.taken, true) {
            *taken += self.count();
        }
    }
}

impl Candidate {
    fn summary(&self) -> Summary {
        Summary {
            conn: self.conn,
            acked: self.acked.clone(),
            held: self.held.iter().map(|(then, _, held)| *then..then + held.count()).collect(),
        }
    }
}
