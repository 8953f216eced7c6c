//! Faults, drawn from the seed and put in between two steps of the simulation.
//!
//! A simulated connection does not send again what a cut link swallowed: it hangs until a keepalive
//! finds out. So a *cut* breaks connections, and a *stall*, which keeps what is under way, does not. A crash
//! closes the connections of a host in good order; a machine that is *lost* is cut off first, so that nobody
//! hears of its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use turmoil::Sim;

use crate::cluster::{CLIENT, COORDINATOR, Hosts, WORKERS};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A worker dies and is started again later.
    Crash,
    /// A worker dies and is started again at once.
    Bounce,
    /// A worker's machine is gone from one moment to the next; it is started again later.
    Lost,
    /// A worker is asked to leave; it is started again later.
    Leave,
    /// The coordinator dies and is started again later, with what it has stored.
    CrashCoordinator,
    /// Two hosts hear nothing of each other.
    Cut,
    /// One host does not hear the other, which hears it.
    OneWay,
    /// What two hosts send each other is held, and arrives later.
    Stall,
    /// The same for all links of a worker.
    Pause,
    /// The same for all links of the coordinator.
    PauseCoordinator,
    /// A worker hears nobody, and nobody hears it; it lives on, maybe past its lease.
    Isolate,
    /// The coordinator hears nobody.
    IsolateCoordinator,
}

const KINDS: [Kind; 12] = [
    Kind::Crash,
    Kind::Bounce,
    Kind::Lost,
    Kind::Leave,
    Kind::CrashCoordinator,
    Kind::Cut,
    Kind::OneWay,
    Kind::Stall,
    Kind::Pause,
    Kind::PauseCoordinator,
    Kind::Isolate,
    Kind::IsolateCoordinator,
];

/// Two hosts, by name, in alphabetical order.
type Pair = (&'static str, &'static str);

/// Faults under way, and how many there were.
#[derive(Debug)]
pub(crate) struct Faults {
    rng: Rng,
    hosts: Hosts,
    lease: Duration,
    next: Duration,
    /// By the time at which they end.
    ends: BTreeMap<(Duration, u64), End>,
    /// No two faults at a time on one pair of hosts, or on one worker's life.
    taken: BTreeSet<Pair>,
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// How often no worker was killed because of a suspect.
    pub(crate) spared: u64,
}

/// How a fault ends.
#[derive(Debug)]
struct End {
    pairs: Vec<Pair>,
    how: Heal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heal {
    Repair,
    RepairOneWay(&'static str, &'static str),
    Release,
    /// Repair, and start the host's software again.
    Restart(&'static str),
}

impl Faults {
    pub(crate) fn new(mut rng: Rng, hosts: Hosts, lease: Duration) -> Self {
        let next = Duration::from_millis(rng.u64(100..2_000));
        let (ends, taken, counts) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { rng, hosts, lease, next, ends, taken, counts, spared: 0 }
    }

    /// Between two steps: ends what is due, and begins something now and then.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while let Some(due) = self.ends.first_entry().filter(|end| end.key().0 <= now) {
            let end = due.remove();
            self.heal(sim, end);
        }
        self.restart_the_ended(sim);
        if now >= self.next {
            self.next = now + Duration::from_millis(self.rng.u64(50..1_200));
            let kind = KINDS[self.rng.usize(..KINDS.len())];
            if self.begin(sim, kind).is_some() {
                *self.counts.entry(kind).or_default() += 1;
            }
        }
    }

    /// Ends all that is under way.
    pub(crate) fn heal_all(&mut self, sim: &mut Sim<'_>) {
        while let Some((_, end)) = self.ends.pop_first() {
            self.heal(sim, end);
        }
    }

    /// Answers none if something else is under way where it would have been.
    fn begin(&mut self, sim: &mut Sim<'_>, kind: Kind) -> Option<()> {
        let worker = WORKERS[self.rng.usize(..WORKERS.len())];
        match kind {
            Kind::Crash | Kind::Bounce | Kind::Lost if self.has_suspects() => {
                self.spared += 1;
                return None;
            }
            Kind::Crash | Kind::Bounce => {
                let pairs = self.take(pairs_of(worker))?;
                self.note(sim, kind, worker);
                sim.crash(worker);
                let down = if kind == Kind::Bounce { 0 } else { self.rng.u64(50..4_000) };
                self.end_after(sim, down, pairs, Heal::Restart(worker));
            }
            Kind::Lost => {
                let pairs = self.take(pairs_of(worker))?;
                self.note(sim, kind, worker);
                pairs.iter().for_each(|(a, b)| sim.partition(*a, *b));
                sim.crash(worker);
                let down = self.rng.u64(50..15_000);
                self.end_after(sim, down, pairs, Heal::Restart(worker));
            }
            Kind::Leave => {
                let pairs = self.take(pairs_of(worker))?;
                self.note(sim, kind, worker);
                self.hosts.leave[worker].notify_one();
                // It has gone by then.
                let gone = self.rng.u64(6_000..10_000);
                self.end_after(sim, gone, pairs, Heal::Restart(worker));
            }
            Kind::CrashCoordinator => {
                let pairs = self.take(pairs_of(COORDINATOR))?;
                self.note(sim, kind, COORDINATOR);
                // Who does not hear of it finds out by keepalive: a client may take its lease for that.
                if self.patient() && self.rng.bool() {
                    pairs.iter().for_each(|(a, b)| sim.partition(*a, *b));
                }
                sim.crash(COORDINATOR);
                let down = self.rng.u64(0..6_000);
                self.end_after(sim, down, pairs, Heal::Restart(COORDINATOR));
            }
            Kind::Cut => {
                let pair = self.pair_to_cut();
                let pairs = self.take(vec![pair])?;
                self.note(sim, kind, format_args!("{} - {}", pair.0, pair.1));
                sim.partition(pair.0, pair.1);
                let down = self.rng.u64(10..8_000);
                self.end_after(sim, down, pairs, Heal::Repair);
            }
            Kind::OneWay => {
                let pair = self.pair_to_cut();
                let pairs = self.take(vec![pair])?;
                let (from, to) = if self.rng.bool() { pair } else { (pair.1, pair.0) };
                self.note(sim, kind, format_args!("{from} -> {to}"));
                sim.partition_oneway(from, to);
                let down = self.rng.u64(10..8_000);
                self.end_after(sim, down, pairs, Heal::RepairOneWay(from, to));
            }
            Kind::Stall => {
                let all = all_pairs();
                let pair = all[self.rng.usize(..all.len())];
                let pairs = self.take(vec![pair])?;
                self.note(sim, kind, format_args!("{} - {}", pair.0, pair.1));
                sim.hold(pair.0, pair.1);
                let down = self.for_less_than_the_lease();
                self.end_after(sim, down, pairs, Heal::Release);
            }
            Kind::Pause | Kind::PauseCoordinator => {
                let host = if kind == Kind::Pause { worker } else { COORDINATOR };
                let pairs = self.take(pairs_of(host))?;
                self.note(sim, kind, host);
                pairs.iter().for_each(|(a, b)| sim.hold(*a, *b));
                let down = match kind {
                    Kind::Pause => self.rng.u64(10..8_000),
                    _ => self.for_less_than_the_lease(),
                };
                self.end_after(sim, down, pairs, Heal::Release);
            }
            Kind::Isolate => {
                let pairs = self.take(pairs_of(worker))?;
                self.note(sim, kind, worker);
                pairs.iter().for_each(|(a, b)| sim.partition(*a, *b));
                let down = self.rng.u64(500..15_000);
                self.end_after(sim, down, pairs, Heal::Repair);
            }
            Kind::IsolateCoordinator => {
                let pairs: Vec<Pair> =
                    pairs_of(COORDINATOR).into_iter().filter(|pair| self.may_cut(*pair)).collect();
                let pairs = self.take(pairs)?;
                self.note(sim, kind, COORDINATOR);
                pairs.iter().for_each(|(a, b)| sim.partition(*a, *b));
                let down = self.rng.u64(10..8_000);
                self.end_after(sim, down, pairs, Heal::Repair);
            }
        }
        Some(())
    }

    fn heal(&mut self, sim: &mut Sim<'_>, end: End) {
        tracing::info!(target: "faults", "over: {:?} of {:?}", end.how, end.pairs);
        for pair in &end.pairs {
            self.taken.remove(pair);
            match end.how {
                Heal::Repair | Heal::Restart(_) => sim.repair(pair.0, pair.1),
                Heal::RepairOneWay(from, to) => sim.repair_oneway(from, to),
                Heal::Release => sim.release(pair.0, pair.1),
            }
        }
        if let Heal::Restart(host) = end.how {
            sim.bounce(host);
        }
    }

    /// Whatever runs workers starts one again that has ended by itself.
    pub(crate) fn restart_the_ended(&self, sim: &mut Sim<'_>) {
        for worker in WORKERS {
            let expected = self.ends.values().any(|end| end.how == Heal::Restart(worker));
            if !expected && !sim.is_host_running(worker) {
                sim.bounce(worker);
            }
        }
    }

    fn take(&mut self, pairs: Vec<Pair>) -> Option<Vec<Pair>> {
        if pairs.iter().any(|pair| self.taken.contains(pair)) {
            return None;
        }
        self.taken.extend(&pairs);
        Some(pairs)
    }

    fn end_after(&mut self, sim: &Sim<'_>, millis: u64, pairs: Vec<Pair>, how: Heal) {
        let at = sim.elapsed() + Duration::from_millis(millis);
        // A number of its own for each, as several may end at one time.
        let number = self.counts.values().sum();
        self.ends.insert((at, number), End { pairs, how });
    }

    fn pair_to_cut(&mut self) -> Pair {
        let pairs: Vec<Pair> = all_pairs().into_iter().filter(|pair| self.may_cut(*pair)).collect();
        pairs[self.rng.usize(..pairs.len())]
    }

    /// A client that is cut off for its lease ends its job, rightly. What a cut swallows is found out by
    /// keepalive after 10 s at the latest, and it takes some seconds to come back.
    fn may_cut(&self, pair: Pair) -> bool {
        pair != (CLIENT, COORDINATOR) || self.patient()
    }

    /// An item in process when a worker died twice runs alone; a third death would convict it, and rightly
    /// so, for all that the coordinator can know. No item kills a worker here: so none is killed then.
    fn has_suspects(&self) -> bool {
        self.hosts.store.stored().jobs.values().any(|job| !job.suspects.is_empty())
    }

    fn patient(&self) -> bool {
        self.lease >= Duration::from_secs(25)
    }

    /// A stall that no lease outlives would end the job, if it is the client's.
    fn for_less_than_the_lease(&mut self) -> u64 {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        self.rng.u64(10..(lease / 2).min(8_000))
    }

    fn note(&self, sim: &Sim<'_>, kind: Kind, what: impl std::fmt::Display) {
        tracing::info!(target: "faults", at = ?sim.elapsed(), "{kind:?} {what}");
    }
}

fn all_pairs() -> Vec<Pair> {
    let mut hosts = vec![CLIENT, COORDINATOR];
    hosts.extend(WORKERS);
    let pairs = hosts.iter().enumerate();
    pairs.flat_map(|(place, a)| hosts[place + 1..].iter().map(|b| (*a, *b))).collect()
}

fn pairs_of(host: &'static str) -> Vec<Pair> {
    all_pairs().into_iter().filter(|(a, b)| *a == host || *b == host).collect()
}
