use std::time::Duration;

use stageline_protocol::JobId;
use stageline_protocol::control::{FailureKind, JobPhase, Outcome, TaskEnd, Up};

use super::world::{JOB, Who, World, line};
use crate::engine::{Config, Event};

const SECOND: Duration = Duration::from_secs(1);

fn running() -> (World, Who, Who) {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    (world, client, worker)
}

#[test]
fn a_job_ends_when_every_process_has_said_so_and_is_then_forgotten() {
    let (mut world, client, worker) = running();
    world.tell(worker, 1, |task| task.stats.started = 3);
    world.source_at(client, 0, 3, Some(3));
    assert_eq!(world.last_status(client).phase, JobPhase::Ending(Outcome::Completed));
    assert!(world.view(worker).tasks.is_empty());

    // A report that was on its way already says nothing about the end.
    world.report(worker, JOB);
    world.obey(client);
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
    assert!(world.processes[worker.0].forgotten.is_empty());

    let task = world.processes[worker.0].tasks.get_mut(&JOB).unwrap().values_mut().next().unwrap();
    task.stats.started = 4;
    world.obey(worker);
    let last = world.last_status(client);
    assert_eq!(last.phase, JobPhase::Ended(Outcome::Completed));
    assert_eq!(last.stages[1].totals.started, 4, "the counters are the final ones");
    assert_eq!(world.processes[worker.0].forgotten, [JOB]);
    assert_eq!(world.processes[client.0].forgotten, [JOB]);
    assert_eq!(world.engine.jobs(world.now)[0].phase.name(), "completed");
}

#[test]
fn a_task_that_was_announced_and_never_begun_is_not_waited_for() {
    let mut world = World::new();
    let (client, worker) = (world.client("c"), world.worker("w", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.say(client, Up::Cancel(JOB, "enough".into()));
    assert_eq!(world.phase().name(), "ending");
    // Both see only the last view.
    world.obey(client);
    world.obey(worker);
    assert_eq!(world.phase().name(), "cancelled");
}

#[test]
fn a_dead_process_counts_as_done_and_a_silent_one_is_waited_for_one_lease() {
    let (mut world, client, worker) = running();
    let other = world.worker("w2", &["fetch"]);
    world.say(client, Up::Cancel(JOB, "enough".into()));
    world.obey(client);
    world.say(other, Up::Goodbye);
    assert_eq!(world.phase().name(), "ending");
    world.pass(9 * SECOND, &[client, worker]);
    assert_eq!(world.phase().name(), "ending");
    world.pass(SECOND, &[client, worker]);
    assert_eq!(world.phase().name(), "cancelled");
    // It wakes up: the job is not known any more.
    world.processes[worker.0].forgotten.clear();
    world.report(worker, JOB);
    assert_eq!(world.processes[worker.0].forgotten, [JOB]);
}

#[test]
fn the_client_or_somebody_else_cancels() {
    let (mut world, client, _) = running();
    world.event(Event::CancelJob { job: JOB, reason: "cancelled by hand".into() });
    let cancelled = Outcome::Cancelled("cancelled by hand".into());
    assert_eq!(world.last_status(client).phase, JobPhase::Ending(cancelled.clone()));
    // The first reason stands.
    world.say(client, Up::Cancel(JOB, "too late".into()));
    world.all_obey();
    assert_eq!(world.phase(), JobPhase::Ended(cancelled));

    // Another client cannot; and a job that is not there is no reason to fall over.
    let (mut world, _, _) = running();
    let other = world.client("other");
    world.say(other, Up::Cancel(JOB, "mine now".into()));
    assert_eq!(world.phase(), JobPhase::Running);
    world.event(Event::CancelJob { job: JobId(77), reason: String::new() });
}

#[test]
fn a_task_that_cannot_go_on_fails_the_job_by_name() {
    let (mut world, _, worker) = running();
    world.tell(worker, 1, |task| task.ended = Some(TaskEnd::Failed("no such model".into())));
    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert_eq!(failure.message, "stage \"fetch\" failed on worker \"w\": no such model");
}

#[test]
fn a_terminal_that_ended_by_itself_fails_the_job() {
    let (mut world, client, _) = running();
    world.tell(client, 2, |task| task.ended = Some(TaskEnd::Stopped));
    assert!(world.failure().message.contains("terminal \"out\""));
}

#[test]
fn a_client_that_missed_the_end_hears_it_when_it_is_back() {
    let (mut world, client, worker) = running();
    world.source_at(client, 0, 0, Some(0));
    world.obey(client);
    world.disconnect(client);
    world.obey(worker);
    assert_eq!(world.phase().name(), "completed");
    world.connect(client);
    assert_eq!(world.last_status(client).phase.name(), "completed");
    assert_eq!(world.processes[client.0].forgotten, [JOB]);
}

#[test]
fn so_many_ended_jobs_stay_listed() {
    let mut world = World::with(Config { history: 2, ..Config::default() });
    let client = world.client("c");
    for id in 1..=4 {
        world.submit_waiting(client, JobId(id), line(&["nobody"]), Duration::ZERO);
    }
    let listed = |world: &World| -> Vec<u64> {
        world.engine.jobs(world.now).iter().map(|job| job.job.0).collect()
    };
    assert_eq!(listed(&world), [4, 3, 2, 1], "their client may not have heard yet");
    world.pass(Duration::from_secs(10), &[client]);
    assert_eq!(listed(&world), [4, 3], "the latest first");
    assert_eq!(world.stored.ended.len(), 2);

    for id in 5..=7 {
        world.submit_waiting(client, JobId(id), line(&["nobody"]), Duration::ZERO);
    }
    world.say(client, Up::Goodbye);
    assert_eq!(listed(&world), [7, 6], "who is gone need not be told");
}
