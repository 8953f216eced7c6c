//! Processes that live, and cannot reach each other.

use std::time::Duration;

use stageline_protocol::control::TaskEnd;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::{ChannelId, StageId};

use super::world::{Who, World, line};

const SECOND: Duration = Duration::from_secs(1);

/// The source in the client reaches none of the tasks that its view has.
fn is_cut_off(world: &mut World, client: Who) {
    world.tell(client, 0, |task| task.unreached = vec![ChannelId(0)]);
}

/// It has had a link, and has one.
fn reaches(world: &mut World, client: Who) {
    world.tell(client, 0, |task| (task.reached, task.unreached) = (true, Vec::new()));
}

/// It has been told of other neighbours, and knows nothing ill of them.
fn obeys(world: &mut World, client: Who) {
    reaches(world, client);
    world.all_obey();
}

/// Which of the workers have a task of the stage.
fn at(world: &World, workers: &[Who], stage: u32) -> Vec<usize> {
    (0..workers.len()).filter(|i| world.task(workers[*i], stage).is_some()).collect()
}

/// A task of the first stage reaches nobody downstream, and ends.
fn loses_links(world: &mut World, who: Who) {
    world.tell(who, 1, |task| {
        (task.ended, task.unreached) = (Some(TaskEnd::LostLinks), vec![ChannelId(1)]);
    });
}

/// One task of `fetch`, on the first of two workers.
fn on_one_of_two() -> (World, Who, Who, Who) {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    let mut pipeline = line(&["fetch"]);
    pipeline.stages[1].workers = Some(1);
    world.submit(client, pipeline);
    world.all_obey();
    let (first, second) = if world.task(a, 1).is_some() { (a, b) } else { (b, a) };
    (world, client, first, second)
}

#[test]
fn a_source_that_never_reached_anybody_fails_its_job_and_says_why() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    for _ in 0..20 {
        if world.phase().name() == "running" {
            is_cut_off(&mut world, client);
            world.pass(5 * SECOND, &[client, worker]);
        }
    }
    world.all_obey();
    assert_eq!(world.phase().name(), "failed");
}

/// Others of its stage reach them all the time: it is its own network that is broken.
#[test]
fn one_that_reaches_nobody_among_others_that_do_is_moved_itself() {
    let mut world = World::new();
    let client = world.client("c");
    let l: Vec<Who> = ["l1", "l2", "l3"].iter().map(|name| world.worker(name, &["l"])).collect();
    let m: Vec<Who> = ["m1", "m2", "m3"].iter().map(|name| world.worker(name, &["m"])).collect();
    let mut pipeline = line(&["l", "m"]);
    pipeline.stages[2].workers = Some(1);
    world.submit(client, pipeline);
    world.all_obey();
    l.iter().for_each(|who| world.tell(*who, 1, |task| task.reached = true));
    let before = at(&world, &m, 2);
    loses_links(&mut world, l[0]);
    world.all_obey();
    assert_eq!(at(&world, &m, 2), before);
    assert_eq!(at(&world, &l, 1), [1, 2], "it is done without for a while");
    let all: Vec<Who> = l.iter().chain(&m).copied().chain([client]).collect();
    world.pass(70 * SECOND, &all);
    assert_eq!(at(&world, &l, 1), [0, 1, 2]);
}

#[test]
fn a_branch_that_is_reached_stays_where_it_is() {
    let channel = |from: u32, to: u32| Channel {
        from: StageId(from),
        to: StageId(to),
        carries: Carries::All,
        buffer: None,
    };
    let mut fine = Stage::new("fine", Op::Map, Site::Fleet);
    fine.workers = Some(1);
    let pipeline = Pipeline {
        name: "branches".into(),
        stages: vec![
            Stage::new("in", Op::Source, Site::Client),
            Stage::new("stuck", Op::Map, Site::Fleet),
            fine,
            Stage::new("out", Op::Terminal, Site::Client),
        ],
        channels: vec![channel(0, 1), channel(0, 2), channel(1, 3), channel(2, 3)],
        max_in_flight: None,
    };
    let mut world = World::new();
    let client = world.client("c");
    world.worker("x", &["stuck"]);
    let workers = ["a", "b"].map(|name| world.worker(name, &["fine"]));
    world.submit(client, pipeline);
    world.all_obey();
    let before = at(&world, &workers, 2);
    is_cut_off(&mut world, client);
    world.all_obey();
    assert_eq!(at(&world, &workers, 2), before);
}

#[test]
fn the_only_worker_of_a_stage_is_waited_for() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    let task = world.task(worker, 1);
    reaches(&mut world, client);
    for _ in 0..20 {
        is_cut_off(&mut world, client);
        world.pass(5 * SECOND, &[client, worker]);
    }
    assert_eq!(world.phase().name(), "running");
    assert_eq!(world.task(worker, 1), task, "nobody else could take its place");
}

#[test]
fn a_task_that_is_not_reached_is_moved_if_another_worker_can_run_it() {
    let (mut world, client, first, second) = on_one_of_two();
    is_cut_off(&mut world, client);
    obeys(&mut world, client);
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
    let (mut world, _, first, second) = on_one_of_two();
    loses_links(&mut world, first);
    world.all_obey();
    assert!(world.task(first, 1).is_none() && world.task(second, 1).is_some());
    loses_links(&mut world, second);
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
                loses_links(&mut world, worker);
                world.all_obey();
            }
        }
        assert_eq!(world.phase().name(), if reached { "running" } else { "failed" });
    }
}

/// What had links once is parted by the network, also in a later life of the coordinator.
#[test]
fn a_restart_does_not_forget_that_there_were_links() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["l"]));
    let m = world.worker("m", &["m"]);
    world.submit(client, line(&["l", "m"]));
    world.all_obey();
    world.tell(worker, 1, |task| task.reached = true);
    world.restart();
    for who in [client, worker, m] {
        world.connect(who);
    }
    world.all_obey();
    for _ in 0..5 {
        if world.phase().name() == "running" {
            loses_links(&mut world, worker);
            world.all_obey();
        }
    }
    assert_eq!(world.phase().name(), "running");
}
