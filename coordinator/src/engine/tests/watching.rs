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
