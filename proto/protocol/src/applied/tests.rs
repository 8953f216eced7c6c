use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const S: StageId = StageId(0);

fn root(n: u64) -> Lineage {
    Lineage::root(S, n)
}

/// An output of root 0.
fn out(n: u64) -> Lineage {
    root(0).with(Step::Output(n))
}

/// The end of root 0's expansion.
fn end(count: u64) -> Lineage {
    root(0).with(Step::End(count))
}

/// Applies a fresh item, which is safe at once.
fn deliver(applied: &mut Applied, lineage: &Lineage) {
    assert_eq!(applied.apply(lineage, 0), Verdict::Fresh, "{lineage}");
    assert!(applied.settle(lineage, 1).is_empty());
}

#[test]
fn a_copy_waits_for_the_first_and_is_acked_with_it() {
    let mut applied = Applied::new();
    assert_eq!(applied.apply(&root(3), 10), Verdict::Fresh);
    assert_eq!(applied.apply(&root(3), 11), Verdict::Waits);
    assert_eq!(applied.apply(&root(3), 12), Verdict::Waits);
    assert_eq!(applied.settle(&root(3), 1), [11, 12]);
    assert_eq!(applied.apply(&root(3), 13), Verdict::Safe);
}

#[test]
fn outputs_beyond_the_first_end_are_divergent() {
    let mut applied = Applied::new();
    deliver(&mut applied, &out(0));
    deliver(&mut applied, &end(2));
    assert_eq!(applied.apply(&out(2), 3), Verdict::Divergent { waits: false });
    let deeper = out(2).with(Step::Output(0));
    assert_eq!(applied.apply(&deeper, 3), Verdict::Divergent { waits: false });
    assert_eq!(applied.apply(&end(3), 4), Verdict::Divergent { waits: false });
    assert_eq!(applied.apply(&end(2), 5), Verdict::Safe);
    deliver(&mut applied, &out(1));
}

/// A rerun ends earlier than the first run, and an output of that one was lost on its way.
#[test]
fn a_lower_end_closes_what_has_not_been_applied() {
    let mut applied = Applied::new();
    for lineage in [out(0), out(1), out(2), out(4), end(5)] {
        deliver(&mut applied, &lineage);
    }
    assert_eq!(applied.apply(&end(2), 7), Verdict::Closes);
    assert_eq!(applied.apply(&end(2), 8), Verdict::Waits, "its error is not safe yet");
    assert_eq!(applied.apply(&out(3), 9), Verdict::Divergent { waits: true }, "it is closed");
    assert_eq!(applied.apply(&out(4), 10), Verdict::Safe, "it was applied before");
    assert_eq!(
        applied.apply(&end(5), 11),
        Verdict::Waits,
        "a copy of the first end, which closes nothing"
    );
    assert_eq!(applied.settle(&end(2), 1), [8, 9, 11]);
    assert_eq!(applied.apply(&out(3), 12), Verdict::Divergent { waits: false });
}

/// The first run died after output 5 and before its end, and its outputs 3 and 4 with it.
#[test]
fn a_first_end_closes_what_is_missing_before_what_has_come_from_beyond_it() {
    let mut applied = Applied::new();
    for n in [0, 1, 2, 5] {
        deliver(&mut applied, &out(n));
    }
    assert_eq!(applied.apply(&end(3), 7), Verdict::Closes, "3 and 4 are missing before 5");
    assert_eq!(applied.apply(&out(4), 8), Verdict::Divergent { waits: true });

    let mut applied = Applied::new();
    for n in 0..6 {
        deliver(&mut applied, &out(n));
    }
    deliver(&mut applied, &end(3));

    let mut applied = Applied::new();
    deliver(&mut applied, &out(3).with(Step::Output(0)));
    assert_eq!(applied.apply(&end(3), 7), Verdict::Closes, "3 is there in part");
}

#[test]
fn a_lower_end_that_hides_nothing_is_a_copy() {
    let mut applied = Applied::new();
    for lineage in [out(0), out(1), out(2)] {
        deliver(&mut applied, &lineage);
    }
    assert_eq!(applied.apply(&out(3), 0), Verdict::Fresh);
    deliver(&mut applied, &end(5));
    assert_eq!(applied.apply(&out(4), 0), Verdict::Fresh);
    assert_eq!(applied.apply(&end(1), 7), Verdict::Waits, "3 and 4 are not safe yet");
    assert!(applied.settle(&out(3), 1).is_empty());
    assert_eq!(applied.settle(&out(4), 1), [7]);
    assert_eq!(applied.weight(), 1, "a finished root is a number");
}

/// An output that is itself expanded counts only when all of it is there.
#[test]
fn a_lower_end_closes_an_expansion_that_is_half_applied() {
    let half = |applied: &mut Applied| {
        for lineage in [
            out(0).with(Step::Output(0)),
            out(0).with(Step::End(1)),
            out(1).with(Step::Output(0)),
            out(1).with(Step::End(2)),
            end(2),
        ] {
            deliver(applied, &lineage);
        }
    };
    let mut applied = Applied::new();
    half(&mut applied);
    assert_eq!(applied.apply(&end(1), 7), Verdict::Closes);
    let late = out(1).with(Step::Output(1));
    assert_eq!(applied.apply(&late, 8), Verdict::Divergent { waits: true });

    let mut applied = Applied::new();
    half(&mut applied);
    deliver(&mut applied, &late);
    assert_eq!(applied.apply(&end(1), 7), Verdict::Safe, "1 is there, with all that came of it");
}

#[test]
fn a_finished_expansion_is_a_place_of_what_it_is_part_of() {
    let mut applied = Applied::new();
    for place in 0..1_000 {
        for sub in 0..3 {
            deliver(&mut applied, &out(place).with(Step::Output(sub)));
        }
        deliver(&mut applied, &out(place).with(Step::End(3)));
        assert!(applied.weight() <= 3, "{} after output {place}", applied.weight());
    }
    let copy = out(500).with(Step::Output(1));
    assert_eq!(applied.apply(&copy, 0), Verdict::Safe);
    deliver(&mut applied, &end(1_000));
    assert_eq!(applied.weight(), 1);
    assert_eq!(applied.apply(&end(400), 0), Verdict::Safe, "nothing is missing");
}

/// Nobody knows here how many branches there are, and so whether all has come.
#[test]
fn an_expansion_in_branches_is_never_taken_for_finished() {
    let mut applied = Applied::new();
    let in_branch = |n, branch| out(n).with(Step::Branch(branch));
    deliver(&mut applied, &in_branch(0, 0));
    deliver(&mut applied, &end(1));
    deliver(&mut applied, &in_branch(0, 1));
    assert_eq!(applied.apply(&end(0), 7), Verdict::Closes);
}

#[test]
fn below_the_watermark_everything_is_a_copy_and_nothing_is_remembered() {
    let mut applied = Applied::new();
    for n in 0..10 {
        deliver(&mut applied, &root(n).with(Step::Output(n)));
    }
    applied.advance(S, 9);
    assert_eq!(applied.weight(), 2, "the expansion of root 9, and its output");
    assert_eq!(applied.apply(&root(3).with(Step::Output(77)), 0), Verdict::Safe);
    applied.advance(S, 4);
    let below = root(8).with(Step::Output(0));
    assert_eq!(applied.apply(&below, 0), Verdict::Safe, "a watermark does not fall");
}

/// Items as a pipeline makes them: all of one depth, and markers of the expansions on the way.
fn arrivals(markers: bool) -> impl Strategy<Value = Vec<(Lineage, u64, bool)>> {
    let shape = prop_oneof![Just("r"), Just("b"), Just("o"), Just("ob"), Just("oo"), Just("bobo")];
    shape.prop_flat_map(move |shape| {
        let numbers = prop::collection::vec(0u64..3, shape.len());
        let one = (0u64..4, numbers, 1u64..4, any::<bool>(), 0usize..8, 0u64..3);
        let one = one.prop_map(move |(root, numbers, count, settle, cut, end)| {
            let steps = shape.chars().zip(numbers).filter_map(|(kind, number)| match kind {
                'o' => Some(Step::Output(number)),
                'b' => Some(Step::Branch(number as u32 % 2)),
                _ => None,
            });
            let mut steps: Vec<Step> = steps.collect();
            let expanded = steps.iter().enumerate().skip(cut % 4);
            let at =
                expanded.filter(|(_, s)| matches!(s, Step::Output(_))).map(|(at, _)| at).next();
            if let Some(at) = at.filter(|_| markers && cut >= 4) {
                steps.truncate(at);
                steps.push(Step::End(end));
                return (Lineage { source: S, root, steps }, 1, settle);
            }
            (Lineage { source: S, root, steps }, count, settle)
        });
        prop::collection::vec(one, 0..80)
    })
}

proptest! {
    #[test]
    fn a_run_is_applied_as_its_items_are(arrivals in arrivals(true)) {
        let (mut runs, mut items) = (Applied::new(), Applied::new());
        for (input, (first, count, settle)) in arrivals.into_iter().enumerate() {
            let input = input as u64;
            let all = || (0..count).map(|n| first.after(n));
            let one_by_one: Vec<_> = all().map(|l| items.apply(&l, input)).collect();
            if runs.apply_fresh(&first, count) {
                prop_assert!(one_by_one.iter().all(|verdict| *verdict == Verdict::Fresh));
            } else {
                let verdicts: Vec<_> = all().map(|l| runs.apply(&l, input)).collect();
                prop_assert_eq!(verdicts, one_by_one);
            }
            if settle {
                let waited: BTreeSet<u64> = all().flat_map(|l| items.settle(&l, 1)).collect();
                let together: BTreeSet<u64> = runs.settle(&first, count).into_iter().collect();
                prop_assert_eq!(together, waited);
            }
        }
        prop_assert_eq!(runs.weight(), items.weight());
    }

    #[test]
    fn a_lineage_is_fresh_once(arrivals in arrivals(false)) {
        let (mut applied, mut seen, mut unsettled) = (Applied::new(), BTreeSet::new(), BTreeSet::new());
        for (input, (lineage, _, settle)) in arrivals.into_iter().enumerate() {
            let verdict = applied.apply(&lineage, input as u64);
            let expected = if seen.insert(lineage.clone()) {
                unsettled.insert(lineage.clone());
                Verdict::Fresh
            } else if unsettled.contains(&lineage) {
                Verdict::Waits
            } else {
                Verdict::Safe
            };
            prop_assert_eq!(verdict, expected);
            if settle {
                let waited = applied.settle(&lineage, 1);
                prop_assert!(waited.is_empty() || unsettled.contains(&lineage));
                unsettled.remove(&lineage);
            }
        }
    }

    /// Whatever arrives, in whatever order: nothing is applied twice, what waits is released when all
    /// is safe, and an end tells an error where it closes a place that has not been applied.
    #[test]
    fn what_waits_is_released_and_nothing_is_applied_twice(arrivals in arrivals(true)) {
        let (mut applied, mut fresh, mut waiting) = (Applied::new(), BTreeSet::new(), BTreeSet::new());
        let mut settled = BTreeSet::new();
        for (input, (lineage, _, settle)) in arrivals.into_iter().enumerate() {
            let input = input as u64;
            match applied.apply(&lineage, input) {
                Verdict::Fresh | Verdict::Closes => prop_assert!(fresh.insert(lineage.clone())),
                Verdict::Waits | Verdict::Divergent { waits: true } => {
                    waiting.insert(input);
                }
                Verdict::Safe | Verdict::Divergent { waits: false } => {}
            }
            if settle && fresh.contains(&lineage) && settled.insert(lineage.clone()) {
                for input in applied.settle(&lineage, 1) {
                    prop_assert!(waiting.remove(&input), "{} was not waiting", input);
                }
            }
        }
        for lineage in fresh.difference(&settled) {
            for input in applied.settle(lineage, 1) {
                prop_assert!(waiting.remove(&input), "{} was not waiting", input);
            }
        }
        prop_assert!(waiting.is_empty(), "never released: {:?}", waiting);
    }
}
