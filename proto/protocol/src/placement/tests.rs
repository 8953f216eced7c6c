use proptest::prelude::*;

use super::*;
use crate::pipeline::Site;

const FRESH: Offer = Offer { capacity: 8, current: 0, busy: 0 };

#[test]
fn an_uncapped_stage_uses_every_slot_at_once() {
    let offers = [FRESH, Offer { capacity: 64, current: 3, busy: 3 }];
    assert_eq!(plan(&stage(1, None, None), &offers), [8, 64]);
    assert_eq!(plan(&stage(1, None, Some(5)), &offers), [5, 5]);
}

#[test]
fn a_capped_stage_is_spread_evenly_and_stages_begin_at_different_workers() {
    assert_eq!(plan(&stage(0, Some(7), None), &[FRESH; 3]), [3, 2, 2]);
    assert_eq!(plan(&stage(1, Some(7), None), &[FRESH; 3]), [2, 3, 2]);
    assert_eq!(plan(&stage(2, Some(1), None), &[FRESH; 3]), [0, 0, 1]);
    let small = Offer { capacity: 2, ..FRESH };
    assert_eq!(plan(&stage(0, Some(9), None), &[small, FRESH, FRESH]), [2, 4, 3]);
    assert_eq!(plan(&stage(0, Some(99), None), &[small, FRESH, FRESH]), [2, 8, 8]);
}

#[test]
fn a_newcomer_gets_its_share_as_slots_fall_idle() {
    let demand = stage(0, Some(8), None);
    let mut old = Offer { capacity: 8, current: 8, busy: 8 };
    let mut new = FRESH;
    let steps = [(0, [4, 0]), (8, [4, 0]), (7, [4, 1]), (5, [4, 3]), (6, [4, 3]), (2, [4, 4])];
    // Whatever it said before: a worker that is only now told to give up slots may be using them.
    for (busy, expected) in steps {
        old.busy = busy;
        let plan = place(&demand, &[old, new]);
        assert_eq!(plan.slots, expected);
        assert_eq!(plan.settled, expected == [4, 4]);
        (old.current, new.current) = (plan.slots[0], plan.slots[1]);
    }
}

#[test]
fn a_dead_workers_slots_go_to_the_others_at_once() {
    let has = |current| Offer { capacity: 8, current, busy: current };
    assert_eq!(plan(&stage(0, Some(6), None), &[has(2), has(2)]), [3, 3]);
}

#[test]
fn a_source_is_one_task_and_stays_where_it_is() {
    let mut source = stage(1, None, None);
    source.single = true;
    assert_eq!(plan(&source, &[FRESH; 3]), [0, 1, 0]);
    let stays = Offer { current: 1, ..FRESH };
    assert_eq!(plan(&source, &[FRESH, FRESH, stays]), [0, 0, 1]);
    assert_eq!(plan(&source, &[]), [0; 0]);
    let unable = Offer::default();
    assert_eq!(plan(&source, &[FRESH, unable]), [1, 0]);
}

#[test]
fn tasks_divide_a_functions_slots() {
    assert_eq!(divide(64, &[u32::MAX]), [64]);
    assert_eq!(divide(64, &[u32::MAX; 3]), [22, 21, 21]);
    assert_eq!(divide(2, &[u32::MAX; 3]), [1, 1, 1], "at least one each");
    assert_eq!(divide(64, &[4, u32::MAX]), [4, 60], "what one cannot use is the other's");
}

#[test]
fn in_the_clients_process_a_stage_has_64_slots_or_what_it_says() {
    let mut closure = Stage::new("closure", Op::Map, Site::Client);
    assert_eq!(client_slots(&closure), 64);
    closure.workers = Some(200);
    assert_eq!(client_slots(&closure), 200);
    closure.workers_per = Some(3);
    assert_eq!(client_slots(&closure), 3);
    assert_eq!(client_slots(&Stage::new("in", Op::Source, Site::Client)), 1);
    assert_eq!(client_slots(&Stage::new("out", Op::Terminal, Site::Client)), 64);
}

proptest! {
    #[test]
    fn the_cap_holds_with_what_is_still_busy(demand in demand(), offers in offers()) {
        let plan = place(&demand, &offers);
        for (slots, offer) in plan.slots.iter().zip(&offers) {
            prop_assert!(*slots <= offer.capacity.min(demand.limit()));
        }
        if let Some(cap) = demand.workers {
            let held = |slots: &[u32]| -> u32 {
                slots.iter().zip(&offers).map(|(s, o)| o.busy.max(o.current).max(*s)).sum()
            };
            // Where more is out than allowed already, nothing is added to it.
            let present: Vec<u32> = offers.iter().map(|o| o.current).collect();
            prop_assert!(held(&plan.slots) <= cap.max(held(&present)));
        }
    }

    #[test]
    fn a_plan_fed_back_is_unchanged(demand in demand(), offers in offers()) {
        let first = place(&demand, &offers);
        prop_assert_eq!(&first, &place(&demand, &offers));
        // Nobody has confirmed anything yet.
        let unconfirmed: Vec<_> =
            offers.iter().map(|o| Offer { busy: o.busy.max(o.current), ..*o }).collect();
        prop_assert_eq!(&first, &place(&demand, &feed_back(&unconfirmed, &first.slots)));
        // And what is settled stays as it is when all is confirmed.
        if first.settled {
            prop_assert_eq!(&first, &place(&demand, &feed_back(&offers, &first.slots)));
        }
    }

    #[test]
    fn when_all_is_idle_the_plan_becomes_even(demand in demand(), offers in offers()) {
        let idle: Vec<_> = offers.iter().map(|o| Offer { busy: 0, ..*o }).collect();
        let taken = place(&demand, &idle);
        let plan = place(&demand, &feed_back(&idle, &taken.slots));
        prop_assert!(plan.settled);
        let limits: Vec<u32> = offers.iter().map(|o| o.capacity.min(demand.limit())).collect();
        let total: u32 = plan.slots.iter().sum();
        let possible: u32 = limits.iter().sum();
        prop_assert_eq!(total, possible.min(demand.workers.unwrap_or(u32::MAX)));
        // Whoever could take one more has at most one less than anybody else.
        for (slots, limit) in plan.slots.iter().zip(&limits) {
            if slots < limit {
                prop_assert!(plan.slots.iter().all(|other| *other <= slots + 1));
            }
        }
        let able = limits.iter().filter(|limit| **limit > 0).count();
        if demand.workers.is_none_or(|n| n as usize >= able) {
            prop_assert_eq!(plan.slots.iter().filter(|s| **s > 0).count(), able);
        }
    }

    #[test]
    fn a_single_task_is_single(stage_id in 0u32..9, offers in offers()) {
        let demand = Demand { single: true, ..stage(stage_id, None, None) };
        let plan = place(&demand, &offers);
        let able = offers.iter().any(|o| o.capacity > 0);
        prop_assert_eq!(plan.slots.iter().sum::<u32>(), u32::from(able));
        prop_assert_eq!(&place(&demand, &feed_back(&offers, &plan.slots)), &plan);
    }

    #[test]
    fn a_divided_function_is_used_up_and_leaves_nobody_out(
        slots in 1u32..70, limits in prop::collection::vec(1u32..80, 1..6),
    ) {
        let shares = divide(slots, &limits);
        prop_assert!(shares.iter().zip(&limits).all(|(s, l)| (1..=*l).contains(s)));
        let total: u32 = shares.iter().sum();
        prop_assert_eq!(total, slots.min(limits.iter().sum()).max(limits.len() as u32));
    }

    /// Numbers come from the network: none is too large.
    #[test]
    fn large_numbers_are_only_numbers(n in any::<u32>(), capacity in any::<u32>(), busy in any::<u32>()) {
        let offers = [Offer { capacity, current: busy, busy }, Offer { capacity: u32::MAX, ..FRESH }];
        let _ = place(&stage(3, Some(n), None), &offers);
        let _ = divide(n, &[capacity, busy, u32::MAX]);
    }
}

fn stage(id: u32, workers: Option<u32>, workers_per: Option<u32>) -> Demand {
    Demand { stage: StageId(id), single: false, workers, workers_per }
}

fn plan(demand: &Demand, offers: &[Offer]) -> Vec<u32> {
    place(demand, offers).slots
}

fn feed_back(offers: &[Offer], slots: &[u32]) -> Vec<Offer> {
    offers.iter().zip(slots).map(|(offer, slots)| Offer { current: *slots, ..*offer }).collect()
}

fn demand() -> impl Strategy<Value = Demand> {
    (0u32..5, prop::option::of(1u32..20), prop::option::of(1u32..10))
        .prop_map(|(id, workers, per)| stage(id, workers, per))
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    let offer = (0u32..12, 0u32..12, 0u32..12).prop_map(|(capacity, current, busy)| Offer {
        capacity,
        current,
        busy,
    });
    prop::collection::vec(offer, 0..6)
}
