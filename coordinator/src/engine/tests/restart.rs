//! The coordinator dies and comes back with its store: what was, is again.

use std::time::Duration;

use stageline_protocol::control::{JobPhase, Outcome, ProcessKind, TaskEnd};

use super::world::{JOB, Who, World, from_named_source, hello, line};
use crate::engine::{Config, Event};

const SECOND: Duration = Duration::from_secs(1);

/// A running job of one stage on two workers.
fn running() -> (World, Who, Who, Who) {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    (world, client, a, b)
}

fn back(world: &mut World, who: &[Who]) {
    for who in who {
        world.connect(*who);
        world.obey(*who);
    }
}

#[test]
fn a_running_job_goes_on_as_if_nothing_had_happened() {
    let (mut world, client, a, b) = running();
    let before = world.view(client).clone();
    world.restart();
    world.pass(9 * SECOND, &[]);
    back(&mut world, &[a, client, b]);
    world.all_obey();
    world.pass(20 * SECOND, &[client, a, b]);
    let after = world.view(client);
    assert!(after.term > before.term);
    assert_eq!((&after.tasks, &after.peers), (&before.tasks, &before.peers));
    assert_eq!((after.window, after.highest_epoch), (before.window, before.highest_epoch));
    assert_eq!(world.phase(), JobPhase::Running);
    world.source_at(client, 0, 5, Some(5));
    world.all_obey();
    assert_eq!(world.phase().name(), "completed");
}

#[test]
fn a_waiting_job_waits_anew() {
    let mut world = World::new();
    let client = world.client("c");
    world.submit_waiting(client, JOB, line(&["fetch"]), 5 * SECOND);
    world.pass(4 * SECOND, &[client]);
    world.restart();
    world.pass(SECOND, &[]);
    back(&mut world, &[client]);
    world.pass(8 * SECOND, &[client]);
    assert!(matches!(world.phase(), JobPhase::Waiting(_)), "whom it waits for may be on the way");
    let worker = world.worker("w", &["fetch"]);
    world.all_obey();
    assert_eq!(world.phase(), JobPhase::Running);
    assert!(world.task(worker, 1).is_some());
}

#[test]
fn a_job_that_waits_in_vain_fails_all_the_same() {
    let mut world = World::new();
    let client = world.client("c");
    world.submit_waiting(client, JOB, line(&["fetch"]), 5 * SECOND);
    world.restart();
    back(&mut world, &[client]);
    world.pass(10 * SECOND, &[client]);
    assert_eq!(world.phase().name(), "failed");
}

#[test]
fn a_job_that_was_ending_is_over_and_who_still_runs_it_is_told() {
    let (mut world, client, a, b) = running();
    world.source_at(client, 0, 5, Some(5));
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
    world.processes[client.0].statuses.clear();
    world.restart();
    assert_eq!(world.phase(), JobPhase::Ended(Outcome::Completed));
    for who in [client, a, b] {
        world.connect(who);
        world.report(who, JOB);
        assert_eq!(world.processes[who.0].forgotten.first(), Some(&JOB));
    }
    assert_eq!(world.last_status(client).phase, JobPhase::Ended(Outcome::Completed));
}

#[test]
fn a_client_that_did_not_hear_of_the_end_hears_of_it_after_the_restart() {
    let mut world = World::with(Config { history: 0, ..Config::default() });
    let client = world.client("c");
    let worker = world.worker("w", &["fetch"]);
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    world.source_at(client, 0, 5, Some(5));
    world.obey(client);
    world.disconnect(client);
    world.obey(worker);
    world.restart();
    world.connect(client);
    let status = world.last_status(client);
    assert_eq!(status.phase, JobPhase::Ended(Outcome::Completed));
    assert_eq!(status.stages.len(), 3);
    // Nobody else's business any more.
    world.pass(11 * SECOND, &[client]);
    world.restart();
    assert_eq!(world.engine.job(JOB, world.now), None);
}

#[test]
fn a_worker_that_died_meanwhile_is_replaced_when_its_lease_is_over() {
    let (mut world, client, a, b) = running();
    let lost = world.task(a, 1).unwrap();
    world.restart();
    back(&mut world, &[client, b]);
    world.pass(9 * SECOND, &[client, b]);
    assert_eq!(world.view(client).peers.len(), 4, "a full lease, and no shorter grace");
    world.pass(SECOND, &[client, b]);
    assert!(world.view(client).peers.iter().all(|peer| peer.id != lost));
    assert_eq!(world.phase(), JobPhase::Running);
}

#[test]
fn a_worker_that_was_started_again_meanwhile_takes_its_place_at_once() {
    let (mut world, client, a, b) = running();
    let lost = world.task(a, 1).unwrap();
    world.restart();
    back(&mut world, &[client, b]);
    let functions = world.processes[a.0].hello.functions.clone();
    let again = world.join(hello(ProcessKind::Worker, "a", functions));
    assert!(world.task(again, 1).unwrap().epoch > lost.epoch);
    assert!(world.view(client).peers.iter().all(|peer| peer.id != lost));
    // That the older life counts as dead is remembered, too.
    world.restart();
    world.connect(a);
    assert!(world.processes[a.0].refused.as_ref().unwrap().contains("name of its own"));
}

#[test]
fn slots_that_were_taken_away_are_given_to_nobody_before_they_are_idle() {
    let mut world = World::new();
    let client = world.client("c");
    let a = world.worker("a", &["fetch"]);
    let mut pipeline = line(&["fetch"]);
    pipeline.stages[1].workers = Some(4);
    world.submit(client, pipeline);
    world.all_obey();
    world.tell(a, 1, |task| task.stats.busy = 4);
    let b = world.worker("b", &["fetch"]);
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (2, 0));

    world.restart();
    // It has not heard of it, and what it says of the earlier term's view confirms nothing.
    world.connect(a);
    world.report(a, JOB);
    back(&mut world, &[client, b]);
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (2, 0));
    world.tell(a, 1, |task| task.stats.busy = 3);
    world.restart();
    back(&mut world, &[client, b]);
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (2, 1), "one is idle since");
    world.connect(a);
    world.tell(a, 1, |task| task.stats.busy = 1);
    assert_eq!((world.slots(a, 1), world.slots(b, 1)), (2, 2));
}

#[test]
fn a_task_that_should_end_is_ended_after_the_restart() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut pipeline = line(&["fetch"]);
    pipeline.stages[1].workers = Some(1);
    world.submit(client, pipeline);
    world.all_obey();
    let holder = if world.task(a, 1).is_some() { a } else { b };
    let task = world.task(holder, 1).unwrap();
    // Its function is gone from a new build of the same life's registry: the task has to go.
    world.processes[holder.0].hello.functions.clear();
    world.connect(holder);
    assert_eq!(world.task(holder, 1), None);
    let other = if holder == a { b } else { a };
    assert_eq!(world.slots(other, 1), 0, "its slot may be in use");
    world.restart();
    back(&mut world, &[client, other]);
    assert_eq!(world.slots(other, 1), 0, "and still may be");
    back(&mut world, &[holder]);
    assert!(world.processes[holder.0].tasks[&JOB][&task.epoch].ended == Some(TaskEnd::Stopped));
    assert_eq!(world.slots(other, 1), 1);
}

#[test]
fn a_client_that_does_not_come_back_has_its_job_cancelled() {
    let (mut world, _, a, b) = running();
    world.restart();
    back(&mut world, &[a, b]);
    world.pass(10 * SECOND, &[a, b]);
    assert!(matches!(world.phase(), JobPhase::Ending(Outcome::Cancelled(_))));
    assert!(world.view(a).tasks.is_empty());
}

#[test]
fn a_named_source_goes_on_from_its_stored_position_and_is_not_begun_again_once_finished() {
    let mut world = World::new();
    let client = world.client("c");
    let one = world.worker("one", &["ticks:source"]);
    let work = world.worker("work", &["work"]);
    world.submit(client, from_named_source());
    world.all_obey();
    world.source_at(one, 0, 7, None);
    world.restart();
    back(&mut world, &[client, one, work]);
    assert_eq!(world.view(one).positions.values().copied().collect::<Vec<_>>(), [7]);
    world.source_at(one, 0, 9, Some(9));
    world.restart();
    assert_eq!(world.phase().name(), "completed");
}

#[test]
fn a_job_that_is_cancelled_after_the_restart_ends_everywhere() {
    let (mut world, client, a, b) = running();
    world.restart();
    back(&mut world, &[client, a, b]);
    world.event(Event::CancelJob { job: JOB, reason: "by hand".into() });
    world.all_obey();
    assert_eq!(world.phase().name(), "cancelled");
    assert!(world.stored.jobs.is_empty());
}
