//! Processes that live, and cannot reach each other.

use std::time::Duration;

use stageline_protocol::control::{SourceReport, TaskEnd};

use super::world::{Who, World, line};

const SECOND: Duration = Duration::from_secs(1);

/// The source in the client reaches none of the tasks that its view has.
fn is_cut_off(world: &mut World, client: Who) {
    world.tell(client, 0, |task| {
        task.source = Some(SourceReport { cut_off: true, ..SourceReport::default() });
    });
}

fn reaches(world: &mut World, client: Who) {
    world.source_at(client, 0, 0, None);
}

#[test]
fn the_only_worker_of_a_stage_is_waited_for() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    let task = world.task(worker, 1);
    for _ in 0..20 {
        is_cut_off(&mut world, client);
        world.pass(5 * SECOND, &[client, worker]);
    }
    assert_eq!(world.phase().name(), "running");
    assert_eq!(world.task(worker, 1), task, "nobody else could take its place");
}

#[test]
fn a_task_that_is_not_reached_is_moved_if_another_worker_can_run_it() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut pipeline = line(&["fetch"]);
    pipeline.stages[1].workers = Some(1);
    world.submit(client, pipeline);
    world.all_obey();
    let (first, second) = if world.task(a, 1).is_some() { (a, b) } else { (b, a) };
    is_cut_off(&mut world, client);
    world.all_obey();
    assert!(world.task(first, 1).is_none() && world.task(second, 1).is_some());

    // A report that was on its way says nothing of the new task.
    world.processes[client.0].applied.insert(super::world::JOB, Default::default());
    world.report(client, super::world::JOB);
    world.obey(first);
    world.obey(second);
    assert!(world.task(second, 1).is_some());
    reaches(&mut world, client);

    // The one that is avoided is better than none.
    world.disconnect(second);
    world.pass(3 * SECOND, &[client, first]);
    assert!(world.task(first, 1).is_some());
}

/// With all workers in use, whoever reaches nobody goes; and is back when the network may be whole.
#[test]
fn a_task_that_reaches_nobody_is_moved_and_its_worker_is_avoided_for_a_while() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut pipeline = line(&["fetch"]);
    pipeline.stages[1].workers = Some(1);
    world.submit(client, pipeline);
    world.all_obey();
    let (first, second) = if world.task(a, 1).is_some() { (a, b) } else { (b, a) };
    world.tell(first, 1, |task| task.ended = Some(TaskEnd::LostLinks));
    world.all_obey();
    assert!(world.task(first, 1).is_none() && world.task(second, 1).is_some());
    world.tell(second, 1, |task| task.ended = Some(TaskEnd::LostLinks));
    world.all_obey();
    assert_eq!(world.phase().name(), "running", "one of the two is tried again");
}

/// What never reached anybody is a mistake; what did once is a network that will be whole again.
#[test]
fn a_stage_that_has_had_a_link_never_fails_its_job_for_lost_links() {
    for reached in [false, true] {
        let mut world = World::new();
        let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
        world.submit(client, line(&["fetch"]));
        world.all_obey();
        world.tell(worker, 1, |task| task.reached = reached);
        for _ in 0..5 {
            if world.phase().name() == "running" {
                world.tell(worker, 1, |task| task.ended = Some(TaskEnd::LostLinks));
                world.all_obey();
            }
        }
        assert_eq!(world.phase().name(), if reached { "running" } else { "failed" });
    }
}
