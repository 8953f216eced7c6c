//! Marked items: who may start, who runs alone, who is convicted, and who never is.

use std::time::Duration;

use stageline_protocol::control::Up;
use stageline_protocol::suspect::{Death, MarkState, MarkedItem, Verdict};
use stageline_protocol::{Lineage, StageId};

use super::world::{JOB, Who, World, from_named_source, line};
use MarkState::{Alone, Asking, Away, Crowded, Done, Holding, Running};

const SECOND: Duration = Duration::from_secs(1);

fn root(number: u64) -> Lineage {
    Lineage::root(StageId(0), number)
}

fn marked(list: &[(u64, MarkState)]) -> Vec<MarkedItem> {
    list.iter().map(|&(n, state)| MarkedItem { lineage: root(n), state }).collect()
}

/// A worker says how far its marked items are; what it is answered.
fn says(world: &mut World, who: Who, list: &[(u64, MarkState)]) -> Vec<(u64, Verdict)> {
    world.processes[who.0].verdicts.clear();
    world.tell(who, 1, |task| task.marked = marked(list));
    answers(world, who)
}

fn answers(world: &mut World, who: Who) -> Vec<(u64, Verdict)> {
    let said = std::mem::take(&mut world.processes[who.0].verdicts);
    said.into_iter().map(|(lineage, verdict)| (lineage.root, verdict)).collect()
}

/// A running job of one stage on some workers.
fn running(names: &[&str]) -> (World, Who, Vec<Who>) {
    let mut world = World::new();
    let client = world.client("c");
    let workers = names.iter().map(|name| world.worker(name, &["fetch"])).collect();
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    (world, client, workers)
}

/// A worker's session breaks, and it does not come back.
fn dies(world: &mut World, who: Who, alive: &[Who]) {
    world.disconnect(who);
    world.pass(3 * SECOND, alive);
    alive.iter().for_each(|who| world.obey(*who));
}

fn stored(world: &World) -> usize {
    world.stored.jobs[&JOB].suspects.len()
}

fn runs_alone(world: &mut World, who: Who, number: u64) {
    assert_eq!(says(world, who, &[(number, Asking)]), [(number, Verdict::Alone)]);
    assert_eq!(says(world, who, &[(number, Holding)]), [(number, Verdict::Start)]);
    assert_eq!(says(world, who, &[(number, Alone)]), []);
}

fn suspects(world: &World, who: Who) -> u64 {
    let name = &world.processes[who.0].hello.name;
    let all = world.engine.processes();
    all.iter().find(|process| process.name == *name).map_or(0, |process| process.suspects)
}

#[test]
fn an_item_that_kills_its_process_is_convicted_at_the_third_death() {
    let (mut world, client, w) = running(&["a", "b", "c", "d"]);
    // "a" died of it before: that is why it is marked. Item 1 is in process beside it.
    assert_eq!(
        says(&mut world, w[1], &[(0, Asking), (1, Asking)]),
        [(0, Verdict::Run), (1, Verdict::Run)]
    );
    says(&mut world, w[1], &[(0, Running), (1, Running)]);
    dies(&mut world, w[1], &[client, w[0], w[2], w[3]]);
    assert_eq!(stored(&world), 2, "stored before anybody is told");

    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), [(0, Verdict::Alone)]);
    assert_eq!(suspects(&world, w[2]), 1, "who kills processes for fun spares it");
    assert_eq!(says(&mut world, w[3], &[(1, Asking)]), [(1, Verdict::Alone)]);
    assert_eq!(says(&mut world, w[2], &[(0, Holding)]), [(0, Verdict::Start)]);
    assert_eq!(says(&mut world, w[3], &[(1, Holding)]), [(1, Verdict::Start)]);
    // The innocent one gets through, and is forgotten.
    assert_eq!(says(&mut world, w[3], &[(1, Done)]), [(1, Verdict::Left)]);
    assert_eq!((stored(&world), suspects(&world, w[3])), (1, 0));
    dies(&mut world, w[2], &[client, w[0], w[3]]);

    // Who comes back within a lease was never dead: until then nothing is said.
    assert_eq!(says(&mut world, w[3], &[(0, Asking), (1, Asking)]), [(1, Verdict::Run)]);
    world.pass(12 * SECOND, &[client, w[0], w[3]]);
    let expected = |name: &str, who: Who, alone| Death {
        worker: name.to_owned(),
        process: world.processes[who.0].hello.incarnation,
        alone,
    };
    let deaths = vec![expected("b", w[1], false), expected("c", w[2], true)];
    let said = answers(&mut world, w[3]);
    assert!(said.contains(&(0, Verdict::Convicted(deaths))), "{said:?}");
    assert_eq!(says(&mut world, w[3], &[]), []);
    assert_eq!(stored(&world), 1, "in case another copy asks");
    world.source_at(client, 0, 2, None);
    assert_eq!(stored(&world), 0, "all that came of it is safe");
}

#[test]
fn who_is_only_told_to_run_alone_is_not_in_process() {
    let (mut world, client, w) = running(&["a", "b"]);
    says(&mut world, w[0], &[(0, Asking)]);
    dies(&mut world, w[0], &[client, w[1]]);
    assert_eq!(says(&mut world, w[1], &[(0, Asking)]), [(0, Verdict::Alone)]);
    // It waits for another to leave, and that one kills the process.
    let c = world.worker("c", &["fetch"]);
    world.all_obey();
    dies(&mut world, w[1], &[client, c]);
    world.pass(12 * SECOND, &[client, c]);
    runs_alone(&mut world, c, 0);
}

#[test]
fn who_left_is_not_in_process_any_more() {
    for left in [Away, Done] {
        let (mut world, client, w) = running(&["a", "b", "c"]);
        says(&mut world, w[0], &[(0, Running)]);
        dies(&mut world, w[0], &[client, w[1], w[2]]);
        runs_alone(&mut world, w[1], 0);
        assert_eq!(says(&mut world, w[1], &[(0, left)]), [(0, Verdict::Left)]);
        dies(&mut world, w[1], &[client, w[2]]);
        world.pass(12 * SECOND, &[client, w[2]]);
        let verdict = if left == Away { Verdict::Alone } else { Verdict::Run };
        assert_eq!(says(&mut world, w[2], &[(0, Asking)]), [(0, verdict)]);
    }
}

#[test]
fn a_death_beside_abandoned_calls_proves_nothing() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    assert_eq!(says(&mut world, w[1], &[(0, Asking)]), [(0, Verdict::Alone)]);
    assert_eq!(says(&mut world, w[1], &[(0, Crowded)]), [(0, Verdict::Start)]);
    dies(&mut world, w[1], &[client, w[2]]);
    world.pass(12 * SECOND, &[client, w[2]]);
    runs_alone(&mut world, w[2], 0);
}

#[test]
fn leaving_silence_and_refusal_are_no_deaths() {
    for way in 0..3 {
        let (mut world, client, w) = running(&["a", "b"]);
        says(&mut world, w[0], &[(0, Running)]);
        match way {
            0 => world.say(w[0], Up::Goodbye),
            1 => world.pass(12 * SECOND, &[client, w[1]]),
            _ => {
                let hello = world.processes[w[0].0].hello.clone();
                world.say(w[0], Up::Hello(hello));
                world.pass(3 * SECOND, &[client, w[1]]);
            }
        }
        world.all_obey();
        assert_eq!(world.engine.processes().len(), 2, "way {way}: it is gone");
        assert_eq!(says(&mut world, w[1], &[(0, Asking)]), [(0, Verdict::Run)], "way {way}");
    }
}

#[test]
fn what_is_done_is_forgotten_and_a_task_that_ends_takes_nothing_with_it() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running), (1, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    assert_eq!(stored(&world), 2);
    runs_alone(&mut world, w[1], 0);
    assert_eq!(says(&mut world, w[1], &[(0, Done)]), [(0, Verdict::Left)]);
    assert_eq!(stored(&world), 1, "0 is done");
    runs_alone(&mut world, w[1], 1);
    world.say(w[1], Up::Goodbye);
    world.all_obey();
    assert_eq!(says(&mut world, w[2], &[(1, Asking)]), [(1, Verdict::Alone)]);
}

#[test]
fn a_process_that_is_back_takes_its_deaths_back() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    runs_alone(&mut world, w[1], 0);
    dies(&mut world, w[1], &[client, w[2]]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), [], "not yet certain");
    // The one that seemed to die of it alone was cut off; so was the other.
    world.connect(w[1]);
    assert_eq!(answers(&mut world, w[2]), [(0, Verdict::Alone)]);
    world.connect(w[0]);
    assert_eq!((answers(&mut world, w[2]), stored(&world)), (vec![(0, Verdict::Run)], 0));
}

#[test]
fn a_restarted_worker_proves_that_the_one_before_is_dead() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    world.disconnect(w[0]);
    let again = world.worker("a", &["fetch"]);
    world.all_obey();
    runs_alone(&mut world, w[1], 0);
    dies(&mut world, w[1], &[client, w[2], again]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), []);
    world.worker("b", &["fetch"]);
    let said = answers(&mut world, w[2]);
    assert!(
        matches!(&said[..], [(0, Verdict::Convicted(deaths))] if deaths.len() == 2),
        "{said:?}"
    );
}

#[test]
fn a_restarted_coordinator_remembers_who_is_suspected() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    runs_alone(&mut world, w[1], 0);
    world.restart();
    for who in [client, w[1], w[2]] {
        world.connect(who);
        world.obey(who);
    }
    assert_eq!(suspects(&world, w[1]), 1, "its report says so");
    dies(&mut world, w[1], &[client, w[2]]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), []);
    world.pass(12 * SECOND, &[client, w[2]]);
    assert_eq!(answers(&mut world, w[2]), [], "the root may be finished: its source has to say");
    world.source_at(client, 0, 0, None);
    let said = answers(&mut world, w[2]);
    assert!(matches!(said.last(), Some((0, Verdict::Convicted(deaths))) if deaths.len() == 2));
}

/// Three copies of a killer; two are convicted, its root is finished, and the third asks.
#[test]
fn a_copy_of_what_is_finished_is_told_so_and_does_not_run() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    world.source_at(client, 0, 1, None);
    assert_eq!(stored(&world), 0, "its deaths are forgotten");
    for state in [Asking, Holding, Crowded] {
        assert_eq!(says(&mut world, w[1], &[(0, state)]), [(0, Verdict::Finished)]);
    }
    assert_eq!(says(&mut world, w[1], &[(1, Asking)]), [(1, Verdict::Run)], "another root");
    world.restart();
    for who in [client, w[1], w[2]] {
        world.connect(who);
        world.obey(who);
    }
    assert_eq!(says(&mut world, w[1], &[(0, Asking)]), [(0, Verdict::Finished)]);
}

#[test]
fn a_source_that_is_placed_again_is_told_so() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["ticks:source"]), world.worker("b", &["ticks:source"]));
    let w = world.worker("w", &["work"]);
    world.submit(client, from_named_source());
    world.all_obey();
    let again = |world: &World, who| world.view(who).tasks.iter().any(|plan| plan.again);
    let (first, second) = if world.task(a, 0).is_some() { (a, b) } else { (b, a) };
    assert!(!again(&world, first));
    dies(&mut world, first, &[client, second, w]);
    assert!(again(&world, second) && !again(&world, w));
}

#[test]
fn a_clients_name_proves_nothing() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    runs_alone(&mut world, w[1], 0);
    dies(&mut world, w[1], &[client, w[2]]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), []);
    world.client("b");
    assert_eq!(answers(&mut world, w[2]), []);
}

#[test]
fn a_worker_that_lives_and_loses_its_name_convicts_nothing() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    runs_alone(&mut world, w[1], 0);
    world.worker("b", &["fetch"]);
    world.all_obey();
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), [(0, Verdict::Alone)]);
}

#[test]
fn a_leaving_task_is_answered_too() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    // A copy runs alone on c, too, and waits for its next attempt; c leaves.
    runs_alone(&mut world, w[2], 0);
    assert_eq!(says(&mut world, w[2], &[(0, Away)]), [(0, Verdict::Left)]);
    runs_alone(&mut world, w[1], 0);
    world.say(w[2], Up::Leaving);
    dies(&mut world, w[1], &[client, w[2]]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), []);
    world.pass(14 * SECOND, &[client, w[2]]);
    assert!(!answers(&mut world, w[2]).is_empty());
}

#[test]
fn what_was_given_back_is_as_suspect_as_before() {
    let (mut world, client, w) = running(&["a", "b", "c"]);
    says(&mut world, w[0], &[(0, Running)]);
    dies(&mut world, w[0], &[client, w[1], w[2]]);
    assert_eq!(says(&mut world, w[1], &[(0, Asking)]), [(0, Verdict::Alone)]);
    assert_eq!(says(&mut world, w[1], &[(0, Holding)]), [(0, Verdict::Start)]);
    // It drains, and has given it back before the answer came.
    says(&mut world, w[1], &[]);
    assert_eq!(says(&mut world, w[2], &[(0, Asking)]), [(0, Verdict::Alone)]);
}
