//! A worker that was asked to leave: it takes nothing more, and goes when it has finished.

use std::time::Duration;

use stageline_protocol::control::{FailureKind, JobPhase, Outcome, TaskEnd, Up};
use stageline_protocol::{JobId, StageId};

use super::world::{JOB, Who, World, from_named_source, line};

const SECOND: Duration = Duration::from_secs(1);

/// A task has given back and finished all that it had, and says so.
fn drained(world: &mut World, who: Who, stage: u32) {
    world.tell(who, stage, |task| {
        task.stats.busy = 0;
        task.ended = Some(TaskEnd::Stopped);
    });
}

fn drains(world: &World, who: Who, stage: u32) -> bool {
    let plans = &world.view(who).tasks;
    plans.iter().find(|plan| plan.id.stage == StageId(stage)).expect("it has a task").drain
}

fn is_leaving(world: &World, name: &str) -> bool {
    world.engine.processes().iter().find(|process| process.name == name).unwrap().leaving
}

#[test]
fn what_runs_on_it_stays_a_neighbour_until_it_has_ended() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    let (leaving, other) = (world.task(a, 1).unwrap(), world.task(b, 1));

    world.say(a, Up::Leaving);
    assert!(is_leaving(&world, "a") && !is_leaving(&world, "b"));
    assert_eq!(
        (world.task(a, 1), world.slots(a, 1)),
        (Some(leaving), 8),
        "it finishes what it has"
    );
    assert!(drains(&world, a, 1) && !drains(&world, b, 1));
    assert!(world.view(client).peers.iter().any(|peer| peer.id == leaving), "acks still come");
    // Saying so again changes nothing.
    let revision = world.view(client).revision;
    world.say(a, Up::Leaving);
    assert_eq!(world.view(client).revision, revision);

    drained(&mut world, a, 1);
    assert!(world.view(client).peers.iter().all(|peer| peer.id != leaving));
    assert_eq!(world.task(a, 1), None, "and gets nothing in its place");
    world.say(a, Up::Goodbye);
    assert_eq!(world.task(b, 1), other, "the other just went on");
    assert_eq!(world.phase(), JobPhase::Running);
}

#[test]
fn under_a_cap_others_get_its_slots_as_they_fall_idle() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut p = line(&["fetch"]);
    p.stages[1].workers = Some(4);
    world.submit(client, p);
    world.all_obey();
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (2, 2));
    world.tell(a, 1, |task| task.stats.busy = 2);

    world.say(a, Up::Leaving);
    assert_eq!(world.slots(b, 1), 2, "it may have begun more than it has said");
    world.tell(a, 1, |task| task.stats.busy = 1);
    assert_eq!(world.slots(b, 1), 3);
    drained(&mut world, a, 1);
    assert_eq!(world.slots(b, 1), 4);
}

#[test]
fn alone_with_its_functions_it_leaves_all_the_same_and_the_next_one_goes_on() {
    let mut world = World::new();
    let (client, a) = (world.client("c"), world.worker("a", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    world.say(a, Up::Leaving);
    drained(&mut world, a, 1);
    assert_eq!(world.phase(), JobPhase::Running, "what it gave back waits upstream");
    world.say(a, Up::Goodbye);
    let b = world.worker("b", &["fetch"]);
    assert_eq!(world.slots(b, 1), 8);
}

#[test]
fn new_jobs_pass_it_by() {
    let mut world = World::new();
    let (client, a) = (world.client("c"), world.worker("a", &["fetch"]));
    world.say(a, Up::Leaving);
    world.submit(client, line(&["fetch"]));
    assert_eq!(world.phase(), JobPhase::Waiting(vec!["fetch".into()]));
    let b = world.worker("b", &["fetch"]);
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (0, 8));
    // Nor does it count among those that a job might have meant.
    world.submit_waiting(client, JobId(99), line(&["fetsh"]), Duration::ZERO);
    let late = world.engine.job(JobId(99), world.now).unwrap();
    let JobPhase::Ended(Outcome::Failed(failure)) = late.phase else { panic!() };
    assert!(failure.message.contains("worker \"b\""), "{failure}");
    assert!(!failure.message.contains("worker \"a\""), "{failure}");
}

#[test]
fn a_session_that_breaks_meanwhile_does_not_make_it_stay() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    world.say(a, Up::Leaving);
    world.disconnect(a);
    world.pass(SECOND, &[client, b]);
    world.connect(a);
    assert!(is_leaving(&world, "a") && drains(&world, a, 1));
    // Its death is like any other.
    world.disconnect(a);
    world.pass(2 * SECOND, &[client, b]);
    assert_eq!(world.view(client).peers.len(), 3);
}

#[test]
fn a_restart_remembers_who_is_leaving() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut p = line(&["fetch"]);
    p.stages[1].workers = Some(4);
    world.submit(client, p);
    world.all_obey();
    world.tell(a, 1, |task| task.stats.busy = 2);
    world.say(a, Up::Leaving);
    world.tell(a, 1, |task| task.stats.busy = 1);
    let task = world.task(a, 1);
    assert_eq!(world.slots(b, 1), 3);

    world.restart();
    world.connect(client);
    world.connect(b);
    assert!(is_leaving(&world, "a"), "it need not be back for that");
    assert_eq!(world.slots(b, 1), 3, "the slot that it still uses is nobody else's");
    world.connect(a);
    assert_eq!(world.task(a, 1), task);
    assert!(drains(&world, a, 1));
    drained(&mut world, a, 1);
    assert_eq!(world.slots(b, 1), 4);
}

#[test]
fn a_job_that_ends_stops_what_it_still_has_of_it() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    world.say(a, Up::Leaving);
    world.say(client, Up::Cancel(JOB, "enough".into()));
    assert!(world.view(a).tasks.is_empty());
    for who in [a, b, client] {
        world.obey(who);
    }
    assert_eq!(world.phase().name(), "cancelled");
}

#[test]
fn a_source_begins_elsewhere_where_the_leaving_one_has_ended() {
    let mut world = World::new();
    let client = world.client("c");
    let functions = ["ticks:source", "work"];
    let (a, b) = (world.worker("a", &functions), world.worker("b", &functions));
    world.submit(client, from_named_source());
    world.all_obey();
    world.source_at(a, 0, 5, None);

    world.say(a, Up::Leaving);
    world.source_at(a, 0, 8, None);
    assert_eq!(world.task(b, 0), None, "a source is one task");
    assert_eq!(world.view(a).positions[&StageId(0)], 8, "and its acks still count");
    world.tell(a, 0, |task| {
        task.source.as_mut().unwrap().watermark = 9;
        task.ended = Some(TaskEnd::Stopped);
    });
    assert!(world.task(b, 0).is_some());
    assert_eq!(world.view(b).positions[&StageId(0)], 9, "with the last word of the old one");
}

#[test]
fn a_source_that_ends_while_its_worker_leaves_is_finished() {
    let mut world = World::new();
    let client = world.client("c");
    let functions = ["ticks:source", "work"];
    let (a, b) = (world.worker("a", &functions), world.worker("b", &functions));
    world.submit(client, from_named_source());
    world.all_obey();
    world.say(a, Up::Leaving);
    world.source_at(a, 0, 9, Some(9));
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
    assert_eq!(world.task(b, 0), None);
}

#[test]
fn a_source_that_cannot_be_replayed_goes_on_while_it_can() {
    let mut world = World::new();
    let (client, a) = (world.client("c"), world.worker("a", &["ticks:once", "work"]));
    world.submit(client, from_named_source());
    world.all_obey();
    world.say(a, Up::Leaving);
    assert!(!drains(&world, a, 0) && drains(&world, a, 1));
    world.say(a, Up::Goodbye);
    assert_eq!(world.failure().kind, FailureKind::SourceLost);
}

#[test]
fn a_client_cannot_leave_its_job_behind() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    let revision = world.view(worker).revision;
    world.say(client, Up::Leaving);
    assert!(!is_leaving(&world, "c"));
    assert_eq!(world.view(worker).revision, revision);
}
