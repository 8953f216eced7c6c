use std::time::Duration;

use stageline_protocol::StageId;
use stageline_protocol::control::{Census, HeldUp, SourceReport, Up};

use super::world::{JOB, World, from_named_source, line};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_client_is_told_at_once_of_a_phase_and_else_twice_a_second() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    let told = |world: &World| world.processes[client.0].statuses.len();
    world.pass(SECOND, &[client, worker]);
    let before = told(&world);
    for n in 1..100 {
        world.tell(worker, 1, |task| task.stats.started = n);
        world.pass(Duration::from_millis(20), &[client, worker]);
    }
    let after = told(&world);
    assert!((3..=6).contains(&(after - before)), "{} in 2 s", after - before);
    world.pass(SECOND, &[client, worker]);
    assert_eq!(world.last_status(client).stages[1].totals.started, 99, "the last word is said");
    let quiet = told(&world);
    world.report(worker, JOB);
    world.pass(5 * SECOND, &[client, worker]);
    assert_eq!(told(&world), quiet, "nothing new, nothing said");
}

#[test]
fn figures_outlive_the_tasks_and_workers_that_made_them() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    for (who, n) in [(a, 10), (b, 20)] {
        world.tell(who, 1, |task| {
            (task.stats.started, task.stats.busy) = (n, 3);
        });
    }
    world.say(a, Up::Goodbye);
    let status = world.engine.job(JOB, world.now).unwrap();
    let fetch = &status.stages[1];
    assert_eq!((fetch.totals.started, fetch.totals.busy, fetch.slots), (30, 3, 8));
    assert_eq!(fetch.by_worker, [("a".to_owned(), 10), ("b".to_owned(), 20)].into());
    assert_eq!((status.client.as_str(), status.name.as_str()), ("c", "story"));

    // A worker of the same name adds to what its earlier life did.
    let again = world.worker("a", &["fetch"]);
    world.tell(again, 1, |task| task.stats.started = 5);
    let status = world.engine.job(JOB, world.now).unwrap();
    assert_eq!(status.stages[1].by_worker["a"], 15);
}

#[test]
fn a_status_does_not_grow_with_the_lives_of_workers() {
    let mut world = World::new();
    let client = world.client("c");
    let stays = world.worker("stays", &["fetch"]);
    world.submit(client, line(&["fetch"]));
    world.tell(stays, 1, |task| task.stats.started = 1_000);
    for life in 1..=300 {
        let worker = world.worker(&format!("host-{life}"), &["fetch"]);
        // Every third does nothing.
        world.tell(worker, 1, |task| task.stats.started = if life % 3 == 0 { 0 } else { life });
        world.say(worker, Up::Goodbye);
    }
    let by_worker =
        |world: &World| world.engine.job(JOB, world.now).unwrap().stages[1].by_worker.clone();
    let told = by_worker(&world);
    assert_eq!(told.len(), 33, "{told:?}");
    assert_eq!((told["stays"], told.get("host-3")), (1_000, None));
    let all: u64 = (1..=300).filter(|life| life % 3 > 0).sum();
    assert_eq!(told.values().sum::<u64>(), 1_000 + all, "nothing is lost: {told:?}");
    assert!(!told["others"].is_multiple_of(1_000) && told["host-299"] == 299);

    // Nor with those that live.
    for living in 0..60 {
        let worker = world.worker(&format!("new-{living}"), &["fetch"]);
        world.tell(worker, 1, |task| task.stats.started = 10_000);
    }
    let told = by_worker(&world);
    assert_eq!((told.len(), told.values().sum::<u64>()), (33, 601_000 + all));

    let listed = world.engine.jobs(world.now);
    assert!(listed[0].stages[1].by_worker.is_empty(), "a list has no figures by worker");
    assert_eq!(listed[0].stages[1].totals.started, 601_000 + all);
}

#[test]
fn the_root_that_holds_a_source_up_is_named_with_its_stage() {
    let mut world = World::new();
    let client = world.client("c");
    let worker = world.worker("w", &["ticks:source", "work"]);
    let mut p = from_named_source();
    p.max_in_flight = Some(10);
    world.submit(client, p);
    let held = |world: &World| world.engine.job(JOB, world.now).unwrap().held_up_by;

    let says = |full| Some(SourceReport { watermark: 4, exhausted: None, full });
    world.tell(worker, 0, |task| task.source = says(false));
    assert_eq!(held(&world), [], "more may come");
    world.tell(worker, 0, |task| task.source = says(true));
    let at = |stage: &str| [HeldUp { source: "ticks".into(), root: 4, stage: stage.into() }];
    assert_eq!(held(&world), at("ticks"), "nobody else has heard of it");
    world.tell(worker, 1, |task| task.oldest = vec![(StageId(0), 4)]);
    assert_eq!(held(&world), at("work"));
    world.tell(client, 2, |task| task.oldest = vec![(StageId(0), 4)]);
    assert_eq!(held(&world), at("out"), "the terminal waits for its consumer");
}

#[test]
fn processes_are_listed_with_what_they_run() {
    let mut world = World::new();
    let client = world.client("c");
    let worker = world.worker("w", &["fetch"]);
    world.say(worker, Up::Heartbeat(Census { tasks: 4, ..Census::default() }));
    world.disconnect(client);
    let all = world.engine.processes();
    let listed: Vec<_> =
        all.iter().map(|p| (p.name.as_str(), p.connected, p.census.tasks)).collect();
    assert_eq!(listed, [("w", true, 4), ("c", false, 0)]);
    assert_eq!(all[0].functions[0].name, "fetch");
}
