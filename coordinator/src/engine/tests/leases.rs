use std::time::Duration;

use stageline_protocol::Incarnation;
use stageline_protocol::control::{Census, JobPhase, Outcome, ProcessKind, Up};

use super::world::{JOB, Who, World, hello, line};

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

#[test]
fn a_worker_that_is_back_within_the_grace_time_goes_on() {
    let (mut world, client, a, b) = running();
    let (task, revision) = (world.task(a, 1), world.view(b).revision);
    world.disconnect(a);
    world.pass(SECOND, &[client, b]);
    world.processes[a.0].views.clear();
    world.connect(a);
    world.pass(5 * SECOND, &[client, a, b]);
    assert_eq!(world.task(a, 1), task, "it is told again, and it is the same");
    assert_eq!(world.view(b).revision, revision, "nobody else noticed");
}

#[test]
fn two_clients_may_be_called_the_same() {
    let (mut world, client, a, b) = running();
    let other = world.client("c");
    world.pass(5 * SECOND, &[client, other, a, b]);
    assert_eq!(world.phase(), JobPhase::Running, "the first goes on");
    let clients = world.engine.processes();
    let clients = clients.iter().filter(|process| process.kind == ProcessKind::Client);
    assert_eq!(clients.filter(|client| client.connected).count(), 2);
}

#[test]
fn a_worker_that_is_not_back_is_dead_and_its_tasks_come_back_in_a_new_life() {
    let (mut world, client, a, b) = running();
    let (lost, other) = (world.task(a, 1).unwrap(), world.task(b, 1));
    world.disconnect(a);
    world.pass(2 * SECOND, &[client, b]);
    assert!(world.view(client).peers.iter().all(|peer| peer.id != lost));
    assert_eq!(world.task(b, 1), other, "the other just goes on");

    world.connect(a);
    let new = world.task(a, 1).unwrap();
    assert!(new.epoch > lost.epoch);
    world.obey(a);
    assert_eq!(world.phase(), JobPhase::Running);
}

#[test]
fn a_worker_that_says_nothing_is_dead_when_its_lease_runs_out() {
    let (mut world, client, a, b) = running();
    world.pass(9 * SECOND, &[client, b]);
    assert_eq!(world.engine.processes().len(), 3);
    world.pass(SECOND, &[client, b]);
    assert_eq!(world.engine.processes().len(), 2);
    assert_eq!(world.processes[a.0].session, None, "its session is closed");
    assert_eq!(world.view(client).peers.len(), 3);
}

#[test]
fn a_coordinator_that_was_paused_fences_nobody() {
    let (mut world, client, a, b) = running();
    world.disconnect(b);
    world.now = world.now + 300 * SECOND;
    world.engine.handle_timeout(world.now);
    assert_eq!(world.engine.processes().len(), 3, "every lease and grace time begins anew");
    world.pass(SECOND, &[client, a]);
    assert_eq!(world.engine.processes().len(), 3);
    world.pass(SECOND, &[client, a]);
    assert_eq!(world.engine.processes().len(), 2, "and then counts");
    // Not even when the first thing that it hears is an event.
    world.now = world.now + 300 * SECOND;
    world.say(client, Up::Heartbeat(Census::default()));
    assert_eq!(world.engine.processes().len(), 2);
}

#[test]
fn a_new_life_of_the_same_name_is_the_old_ones_death_at_once() {
    let (mut world, client, a, b) = running();
    let lost = world.task(a, 1).unwrap();
    let functions = world.processes[a.0].hello.functions.clone();
    let again = world.join(hello(ProcessKind::Worker, "a", functions));
    assert!(world.processes[a.0].refused.as_ref().unwrap().contains("counts as dead"));
    assert!(world.view(client).peers.iter().all(|peer| peer.id != lost));
    assert!(world.task(again, 1).unwrap().epoch > lost.epoch);
    assert_eq!(world.view(b).peers, world.view(client).peers);

    // Two workers of one name must not throw each other out for ever.
    world.connect(a);
    assert!(world.processes[a.0].refused.as_ref().unwrap().contains("name of its own"));
    assert_eq!(world.engine.processes().len(), 3);
    // A client of that name is somebody else.
    world.client("a");
    assert_eq!(world.engine.processes().len(), 4);
}

#[test]
fn a_second_session_of_the_same_life_replaces_the_first() {
    let (mut world, _, a, _) = running();
    let (task, old) = (world.task(a, 1), world.processes[a.0].session.unwrap());
    world.connect(a);
    assert_eq!(world.task(a, 1), task);
    // The old session's end comes late, and means nothing.
    world.event(crate::engine::Event::SessionClosed { session: old });
    assert!(world.engine.processes().iter().all(|process| process.connected));
    assert!(world.processes[a.0].welcome.is_some());
}

#[test]
fn a_client_has_its_whole_lease_to_come_back() {
    let (mut world, client, a, b) = running();
    world.disconnect(client);
    world.pass(8 * SECOND, &[a, b]);
    assert_eq!(world.phase(), JobPhase::Running);
    world.processes[client.0].views.clear();
    world.connect(client);
    assert_eq!(world.view(client).tasks.len(), 2);
    assert_eq!(world.last_status(client).phase, JobPhase::Running);
    world.pass(20 * SECOND, &[client, a, b]);
    assert_eq!(world.phase(), JobPhase::Running);
}

#[test]
fn a_dead_clients_job_is_cancelled_everywhere() {
    let (mut world, client, a, b) = running();
    world.disconnect(client);
    world.pass(10 * SECOND, &[a, b]);
    let JobPhase::Ending(Outcome::Cancelled(why)) = world.phase() else { panic!() };
    assert!(why.contains("client \"c\" went away: nothing was heard of it for 10s"), "{why}");
    assert!(world.view(a).tasks.is_empty() && world.view(b).tasks.is_empty());
    world.obey(a);
    world.obey(b);
    assert_eq!(world.phase().name(), "cancelled");
    assert_eq!(
        (&world.processes[a.0].forgotten[..], &world.processes[b.0].forgotten[..]),
        (&[JOB][..], &[JOB][..])
    );
}

#[test]
fn a_goodbye_needs_no_waiting() {
    let (mut world, client, a, _) = running();
    let lost = world.task(a, 1).unwrap();
    world.say(a, Up::Goodbye);
    assert!(world.view(client).peers.iter().all(|peer| peer.id != lost));
    world.say(client, Up::Goodbye);
    assert!(
        matches!(world.phase(), JobPhase::Ending(Outcome::Cancelled(why)) if why.contains("it left"))
    );
}

#[test]
fn a_worker_declared_dead_that_still_runs_its_tasks_is_told_to_end_them() {
    let (mut world, client, a, b) = running();
    let lost = world.task(a, 1).unwrap();
    world.disconnect(a);
    world.pass(2 * SECOND, &[client, b]);
    world.connect(a);
    world.report(a, JOB);
    assert!(world.view(a).tasks.iter().all(|plan| plan.id != lost));
    assert!(world.view(a).highest_epoch > lost.epoch, "so it is known to be gone");
}

#[test]
fn a_job_that_nobody_knows_is_to_be_forgotten() {
    let mut world = World::new();
    let worker = world.worker("w", &["fetch"]);
    world.report(worker, JOB);
    assert_eq!(world.processes[worker.0].forgotten, [JOB]);
}

#[test]
fn nonsense_is_refused_or_ignored() {
    let (mut world, _, a, b) = running();
    // A report about a task of another process.
    let theirs = world.processes[b.0].tasks[&JOB].clone();
    world.processes[a.0].tasks.insert(JOB, theirs);
    for task in world.processes[a.0].tasks.get_mut(&JOB).unwrap().values_mut() {
        task.ended = Some(stageline_protocol::control::TaskEnd::Failed("not mine".into()));
        task.stats.busy = u64::MAX;
    }
    world.report(a, JOB);
    assert_eq!(world.phase(), JobPhase::Running);
    // A second hello.
    let mut again = world.processes[a.0].hello.clone();
    again.incarnation = Incarnation(5);
    world.say(a, Up::Hello(again));
    assert!(world.processes[a.0].refused.is_some());
    let connected = |world: &World| world.engine.processes()[0].connected;
    assert!(!connected(&world), "its session is over");
    world.connect(a);
    assert!(connected(&world));
}
