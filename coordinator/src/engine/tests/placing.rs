use std::time::Duration;

use stageline_protocol::JobId;
use stageline_protocol::control::{JobPhase, Up};

use super::world::{JOB, Who, World, line};

#[test]
fn a_worker_that_joins_an_uncapped_stage_gets_its_share_at_once() {
    let mut world = World::new();
    let (client, first) = (world.client("c"), world.worker("w1", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    let before = world.task(first, 1);
    let second = world.worker("w2", &["fetch:map:4"]);
    assert_eq!((world.slots(first, 1), world.slots(second, 1)), (8, 4));
    assert_eq!(world.task(first, 1), before, "the other just goes on");
    assert!(world.view(client).peers.iter().any(|peer| Some(peer.id) == world.task(second, 1)));
}

#[test]
fn under_a_cap_a_newcomer_gets_slots_only_as_they_fall_idle() {
    let mut world = World::new();
    let (client, old) = (world.client("c"), world.worker("w1", &["fetch"]));
    let mut p = line(&["fetch"]);
    p.stages[1].workers = Some(4);
    world.submit(client, p);
    world.tell(old, 1, |task| task.stats.busy = 4);

    let new = world.worker("w2", &["fetch"]);
    assert_eq!((world.slots(old, 1), world.slots(new, 1)), (2, 0), "shrinking is said at once");
    // Idle, but said before the worker knew that it has less: it may have begun more since.
    let job = world.processes[old.0].tasks.get_mut(&JOB).unwrap();
    job.values_mut().for_each(|task| task.stats.busy = 0);
    world.report(old, JOB);
    assert_eq!(world.slots(new, 1), 0);
    // Now it knows.
    world.tell(old, 1, |task| task.stats.busy = 3);
    assert_eq!((world.slots(old, 1), world.slots(new, 1)), (2, 1));
    world.tell(old, 1, |task| task.stats.busy = 2);
    assert_eq!((world.slots(old, 1), world.slots(new, 1)), (2, 2));
}

#[test]
fn a_dead_workers_share_goes_to_the_others() {
    let mut world = World::new();
    let client = world.client("c");
    let workers = ["w1", "w2", "w3"].map(|name| world.worker(name, &["fetch"]));
    let mut p = line(&["fetch"]);
    p.stages[1].workers = Some(6);
    world.submit(client, p);
    assert_eq!(workers.map(|w| world.slots(w, 1)), [2, 2, 2]);
    world.say(workers[1], Up::Goodbye);
    assert_eq!((world.slots(workers[0], 1), world.slots(workers[2], 1)), (3, 3));
}

#[test]
fn jobs_share_the_slots_of_a_function() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    assert_eq!(world.slots(worker, 1), 8);
    world.submit_waiting(client, JobId(99), line(&["fetch"]), Duration::ZERO);
    assert_eq!(world.slots(worker, 1), 4);
    world.say(client, Up::Cancel(JobId(99), "enough".into()));
    assert_eq!(world.slots(worker, 1), 4, "the other's tasks have not ended");
    world.all_obey();
    assert_eq!(world.slots(worker, 1), 8);
}

#[test]
fn a_stage_without_any_worker_waits_and_the_list_shows_it() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.say(worker, Up::Goodbye);
    let slots = |world: &World| world.engine.job(JOB, world.now).unwrap().stages[1].slots;
    assert_eq!((world.phase(), slots(&world)), (JobPhase::Running, 0));
    world.pass(Duration::from_secs(100), &[client]);
    assert_eq!(world.phase(), JobPhase::Running);
    let next = world.worker("w2", &["fetch"]);
    assert_eq!((world.slots(next, 1), slots(&world)), (8, 8));
}

#[test]
fn a_task_that_lost_its_links_is_replaced_and_its_late_reports_are_only_counted() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    let old = world.task(worker, 1).unwrap();
    world.tell(worker, 1, |task| {
        task.stats.started = 5;
        task.ended = Some(stageline_protocol::control::TaskEnd::LostLinks);
    });
    let new = world.task(worker, 1).unwrap();
    assert!(new.epoch > old.epoch);
    assert_eq!(world.slots(worker, 1), 8);

    // The old life says once more that it ended, and that it would cut and fail: it does nothing.
    let report = world.processes[worker.0].tasks.get_mut(&JOB).unwrap();
    let stale = report.get_mut(&old.epoch).unwrap();
    stale.stats.started = 7;
    stale.cut = vec![stageline_protocol::ChannelId(0)];
    stale.ended = Some(stageline_protocol::control::TaskEnd::Failed("no".into()));
    world.obey(worker);
    assert_eq!(world.phase(), JobPhase::Running);
    assert!(world.view(client).cut.is_empty());
    assert_eq!(world.engine.job(JOB, world.now).unwrap().stages[1].totals.started, 7);
    assert_eq!(world.task(worker, 1), Some(new));
}

#[test]
fn a_closure_in_the_client_is_replaced_too() {
    let mut world = World::new();
    let client = world.client("c");
    let mut p = line(&["local"]);
    p.stages[1].site = stageline_protocol::pipeline::Site::Client;
    world.submit(client, p);
    let old = world.task(client, 1).unwrap();
    world.tell(client, 1, |task| {
        task.ended = Some(stageline_protocol::control::TaskEnd::LostLinks);
    });
    assert!(world.task(client, 1).unwrap().epoch > old.epoch);
}

#[test]
fn the_window_follows_the_slots_unless_it_is_declared() {
    let mut world = World::new();
    let client = world.client("c");
    let who: Vec<Who> =
        (0..3).map(|i| world.worker(&format!("w{i}"), &["fetch:map:10000"])).collect();
    let mut p = line(&["fetch"]);
    p.channels[0].buffer = Some(10);
    world.submit(client, p.clone());
    // Source 1, fetch 30,000 slots + 3 × 10 of buffer, terminal 64 + 64; twice.
    assert_eq!(world.view(client).window, 2 * (1 + 30_000 + 30 + 64 + 64));
    world.say(who[2], Up::Goodbye);
    assert_eq!(world.view(client).window, 2 * (1 + 20_000 + 20 + 64 + 64));

    let mut world = World::new();
    let client = world.client("c");
    world.worker("w", &["fetch:map:3000"]);
    p.max_in_flight = Some(10);
    world.submit(client, p);
    assert_eq!(world.view(client).window, 10);
}
