//! Who runs what, as arithmetic: demands, offers and the present plan in, a plan out.
//!
//! - An uncapped stage uses all that it is offered, on every worker, at once.
//! - Under `workers(n)` the slots are spread evenly. Who has too many gives up at once; who has too
//!   few gets them only as they fall idle elsewhere, so that no more than `n` items ever run.
//! - A source is one task, and stays where it is.
//!
//! A plan that is fed back as the present one comes out unchanged. What does not divide evenly stays
//! with those who have it already; failing that, stages begin their round at different workers.

use crate::ids::StageId;
use crate::pipeline::{Op, Stage};

/// Slots of a stage in the client's process, unless the stage says otherwise; for a terminal, how
/// many items may wait there for the consumer.
pub const CLIENT_SLOTS: u32 = 64;

/// A stage on the fleet that wants slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The stage.
    pub stage: StageId,
    /// Whether it is exactly one task.
    pub single: bool,
    /// Cap on its slots in all.
    pub workers: Option<u32>,
    /// Cap on its slots on each worker.
    pub workers_per: Option<u32>,
}

impl Demand {
    /// What a stage wants.
    #[must_use]
    pub const fn of(id: StageId, stage: &Stage) -> Self {
        Self {
            stage: id,
            single: stage.op.is_single(),
            workers: stage.workers,
            workers_per: stage.workers_per,
        }
    }

    /// The most that it may use on one worker.
    #[must_use]
    pub fn limit(&self) -> u32 {
        if self.single {
            return 1;
        }
        self.workers.unwrap_or(u32::MAX).min(self.workers_per.unwrap_or(u32::MAX))
    }
}

/// What one worker offers to one stage, and what the stage has there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Slots that the stage may use there: its share of the function's ([`divide`]).
    pub capacity: u32,
    /// Slots that it has there now; 0 without a task.
    pub current: u32,
    /// Slots that are, or may still be, in use there: as last reported, and those taken away that
    /// the worker has not yet confirmed.
    pub busy: u32,
}

/// A plan for one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Slots per offer, in the offers' order; 0 for no task.
    pub slots: Vec<u32>,
    /// Whether that is the even plan. If not, it is to be made again when slots have fallen idle.
    pub settled: bool,
}

/// How many slots the one task of a stage has in the client's process.
#[must_use]
pub fn client_slots(stage: &Stage) -> u32 {
    match stage.op {
        Op::Source => 1,
        Op::Terminal => CLIENT_SLOTS,
        _ => stage.workers.unwrap_or(CLIENT_SLOTS).min(stage.workers_per.unwrap_or(u32::MAX)),
    }
}

/// Divides the slots of one function on one worker among the tasks that share it there, of whichever
/// job: evenly, none above its limit, and at least one each.
#[must_use]
pub fn divide(slots: u32, limits: &[u32]) -> Vec<u32> {
    spread(slots, limits, |_| false, 0).into_iter().map(|share| share.max(1)).collect()
}

/// Plans one stage. An offer with a capacity of 0 is none.
#[must_use]
pub fn place(demand: &Demand, offers: &[Offer]) -> Plan {
    if demand.single {
        return place_single(demand, offers);
    }
    let per = demand.workers_per.unwrap_or(u32::MAX);
    let limits: Vec<u32> = offers.iter().map(|offer| offer.capacity.min(per)).collect();
    let Some(cap) = demand.workers else {
        return Plan { slots: limits, settled: true };
    };
    let keeps = |level| move |i: usize| offers.get(i).is_some_and(|o| o.current > level);
    let level = level(cap, &limits);
    let target = spread(cap, &limits, keeps(level), demand.stage.0);
    hand_over(cap, offers, target)
}

/// From what is towards what should be, as far as slots are idle. What is taken away here is not
/// idle yet: its worker does not know.
fn hand_over(cap: u32, offers: &[Offer], target: Vec<u32>) -> Plan {
    let held = |offer: &Offer| offer.current.max(offer.busy);
    // Growing into slots that are in use there anyway takes nothing from anybody.
    let mut slots: Vec<u32> =
        offers.iter().zip(&target).map(|(offer, target)| held(offer).min(*target)).collect();
    let all_held: u64 = offers.iter().map(|offer| u64::from(held(offer))).sum();
    let idle = u32::try_from(u64::from(cap).saturating_sub(all_held)).unwrap_or(u32::MAX);
    let wanted: Vec<u32> =
        target.iter().zip(&slots).map(|(target, slots)| target - slots).collect();
    for (slots, more) in slots.iter_mut().zip(spread(idle, &wanted, |_| false, 0)) {
        *slots += more;
    }
    Plan { settled: slots == target, slots }
}

fn place_single(demand: &Demand, offers: &[Offer]) -> Plan {
    let able = |i: &usize| offers.get(*i).is_some_and(|offer| offer.capacity > 0);
    let round = rotation(offers.len(), demand.stage.0);
    let present = (0..offers.len()).find(|i| able(i) && offers[*i].current > 0);
    let mut slots = vec![0; offers.len()];
    if let Some(chosen) = present.or_else(|| round.into_iter().find(able)) {
        slots[chosen] = 1;
    }
    Plan { slots, settled: true }
}

/// Spreads an amount evenly, none above its limit. What is left when everybody has the same goes to
/// those that `keeps` names, then round from the place `start`.
fn spread(amount: u32, limits: &[u32], keeps: impl Fn(usize) -> bool, start: u32) -> Vec<u32> {
    let level = level(amount, limits);
    let mut shares: Vec<u32> = limits.iter().map(|limit| (*limit).min(level)).collect();
    let given: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let rest = u64::from(amount).saturating_sub(given);
    let (mut first, mut then): (Vec<_>, Vec<_>) = rotation(limits.len(), start)
        .into_iter()
        .filter(|i| limits[*i] > level)
        .partition(|i| keeps(*i));
    first.append(&mut then);
    for i in first.into_iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
        shares[i] += 1;
    }
    shares
}

/// The highest level to which everybody can be filled, up to their limits.
fn level(amount: u32, limits: &[u32]) -> u32 {
    let mut sorted = limits.to_vec();
    sorted.sort_unstable();
    let (mut left, mut takers) = (amount, u32::try_from(sorted.len()).unwrap_or(u32::MAX));
    for limit in sorted {
        if u64::from(limit) * u64::from(takers) >= u64::from(left) {
            return left / takers;
        }
        left -= limit;
        takers -= 1;
    }
    // Everybody has as much as they can take.
    u32::MAX
}

/// The places from 0 to `len`, beginning at `start`.
fn rotation(len: usize, start: u32) -> Vec<usize> {
    (0..len).map(|i| (i + start as usize) % len).collect()
}

#[cfg(test)]
mod tests;
