use std::time::Duration;

use stageline_protocol::control::{FailureKind, JobPhase, Outcome};
use stageline_protocol::pipeline::{Op, Site, Stage};
use stageline_protocol::{Incarnation, JobId, StageId};

use super::world::{JOB, World, chain, function, hello, line, tag};

#[test]
fn a_job_starts_on_client_and_workers_at_once() {
    let mut world = World::new();
    let worker = world.worker("w1", &["fetch:map:8"]);
    let client = world.client("c");
    world.submit(client, line(&["fetch"]));

    assert_eq!(world.phase(), JobPhase::Running);
    assert_eq!(world.last_status(client).phase, JobPhase::Running);
    let (mine, theirs) = (world.view(client), world.view(worker));
    assert_eq!(mine.peers, theirs.peers, "everybody knows all tasks");
    assert_eq!(mine.tasks.len(), 2, "source and terminal");
    assert_eq!((world.slots(client, 0), world.slots(client, 2)), (1, 64));
    assert_eq!((theirs.tasks.len(), world.slots(worker, 1)), (1, 8));
    let peer = mine.peers.iter().find(|p| p.id.stage == StageId(1)).unwrap();
    assert_eq!(peer.address.as_deref(), Some("w1:1"));
    assert_eq!(mine.highest_epoch.0, 3);
    assert_eq!(mine.window, 16_384);
}

#[test]
fn a_job_of_closures_needs_no_worker() {
    let mut world = World::new();
    let client = world.client("c");
    let mut p = line(&["local"]);
    p.stages[1].site = Site::Client;
    p.stages[1].workers = Some(3);
    world.submit(client, p);
    assert_eq!(world.phase(), JobPhase::Running);
    assert_eq!(world.slots(client, 1), 3);
}

#[test]
fn a_job_waits_for_its_functions_and_then_runs() {
    let mut world = World::new();
    let client = world.client("c");
    let first = world.worker("w1", &["fetch"]);
    world.submit(client, line(&["fetch", "parse"]));
    assert_eq!(world.last_status(client).phase, JobPhase::Waiting(vec!["parse".into()]));

    world.say(first, stageline_protocol::control::Up::Goodbye);
    let both = vec!["fetch".into(), "parse".into()];
    assert_eq!(world.last_status(client).phase, JobPhase::Waiting(both));

    world.worker("w2", &["parse"]);
    assert_eq!(world.last_status(client).phase, JobPhase::Waiting(vec!["fetch".into()]));
    world.worker("w3", &["fetch"]);
    assert_eq!(world.last_status(client).phase, JobPhase::Running);
}

#[test]
fn a_function_that_never_comes_fails_the_job_with_all_that_helps() {
    let mut world = World::new();
    let client = world.client("c");
    let workers = [world.worker("w1", &["fetch", "parse"]), world.worker("w2", &["write"])];
    world.submit(client, line(&["fecth", "parse"]));
    let alive = [client, workers[0], workers[1]];
    world.pass(Duration::from_secs(59), &alive);
    assert_eq!(world.phase().name(), "waiting");
    world.pass(Duration::from_secs(1), &alive);

    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::MissingStage);
    for part in [
        "\"fecth\"",
        "mean \"fetch\"?",
        "60s",
        "worker \"w1\": fetch, parse",
        "worker \"w2\": write",
        "start a worker",
    ] {
        assert!(failure.message.contains(part), "{:?} lacks {part:?}", failure.message);
    }
    assert_eq!(world.last_status(client).phase, JobPhase::Ended(Outcome::Failed(failure)));
    assert_eq!(world.processes[client.0].forgotten, [JOB]);
}

#[test]
fn a_failure_does_not_grow_with_the_fleet() {
    let mut world = World::new();
    let client = world.client("c");
    for number in 0..500 {
        world.worker(&format!("worker-with-a-long-name-{number:0100}"), &["fetch", "parse"]);
    }
    world.submit_waiting(client, JOB, line(&["fecth"]), Duration::ZERO);
    let message = world.failure().message;
    assert!(message.len() < 16 << 10, "{} bytes", message.len());
    assert!(message.contains("more offer. Correct the name"), "{message}");
}

#[test]
fn without_waiting_a_missing_function_fails_at_once() {
    let mut world = World::new();
    let client = world.client("c");
    world.submit_waiting(client, JOB, line(&["fetch"]), Duration::ZERO);
    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::MissingStage);
    assert!(failure.message.contains("No worker is connected"), "{}", failure.message);
}

#[test]
fn an_illegal_pipeline_is_answered_with_what_is_wrong() {
    let mut world = World::new();
    let client = world.client("c");
    let mut p = line(&["fetch"]);
    p.stages[1].workers = Some(0);
    world.submit(client, p);
    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("\"fetch\" has workers(0)"));
    assert_eq!(world.last_status(client).phase.name(), "failed");
    assert!(world.stored.jobs.is_empty());
}

#[test]
fn types_that_do_not_fit_are_refused_by_stage_and_type() {
    let mut world = World::new();
    let client = world.client("c");
    let mut fetch = function("fetch");
    fetch.output = Some(tag("Page"));
    let mut parse = function("parse");
    parse.input = Some(tag("Doc"));
    world.join(hello(stageline_protocol::control::ProcessKind::Worker, "w", vec![fetch, parse]));

    // Stage against its function.
    let mut p = line(&["fetch"]);
    p.stages[1].output = Some(tag("Text"));
    world.submit_waiting(client, JobId(1), p, Duration::ZERO);
    // Function against function.
    world.submit_waiting(client, JobId(2), line(&["fetch", "parse"]), Duration::ZERO);
    // Neighbours, as declared.
    let mut p = line(&["fetch", "parse"]);
    (p.stages[1].output, p.stages[2].input) = (Some(tag("Page")), Some(tag("Text")));
    world.submit_waiting(client, JobId(3), p, Duration::ZERO);
    // Another operator.
    let p = chain(vec![
        Stage::new("in", Op::Source, Site::Client),
        Stage::new("fetch", Op::FlatMap, Site::Fleet),
        Stage::new("out", Op::Terminal, Site::Client),
    ]);
    world.submit_waiting(client, JobId(4), p, Duration::ZERO);

    let expected = [
        (FailureKind::TypeMismatch, ["\"fetch\" makes Text", "registered to make Page"]),
        (FailureKind::TypeMismatch, ["\"fetch\" makes Page", "\"parse\" takes Doc"]),
        (FailureKind::TypeMismatch, ["\"fetch\" makes Page", "\"parse\" takes Text"]),
        (FailureKind::Invalid, ["\"fetch\" is a flat_map", "registered as a map"]),
    ];
    for (id, (kind, parts)) in (1..).map(JobId).zip(expected) {
        let JobPhase::Ended(Outcome::Failed(failure)) =
            world.engine.job(id, world.now).unwrap().phase
        else {
            panic!("job {id} has not failed");
        };
        assert_eq!(failure.kind, kind);
        for part in parts {
            assert!(failure.message.contains(part), "{:?} lacks {part:?}", failure.message);
        }
    }
}

#[test]
fn while_two_builds_run_side_by_side_only_the_one_that_fits_is_used() {
    let mut world = World::new();
    let client = world.client("c");
    let mut old = function("fetch");
    old.input = Some(tag("OldUrl"));
    let kind = stageline_protocol::control::ProcessKind::Worker;
    let old = world.join(hello(kind, "old", vec![old]));
    let new = world.worker("new", &["fetch"]);
    let mut p = line(&["fetch"]);
    p.stages[1].input = Some(tag("Url"));
    world.submit(client, p);
    assert_eq!(world.phase(), JobPhase::Running);
    assert_eq!((world.slots(old, 1), world.slots(new, 1)), (0, 8));
}

#[test]
fn submitting_twice_is_harmless() {
    let mut world = World::new();
    let client = world.client("c");
    let worker = world.worker("w", &["fetch"]);
    world.submit(client, line(&["fetch"]));
    let before = world.view(worker).clone();
    world.submit(client, line(&["fetch"]));
    assert_eq!(world.view(worker), &before);
    assert_eq!(world.engine.jobs(world.now).len(), 1);

    // Somebody else's job stays somebody else's.
    let other = world.client("other");
    world.submit(other, line(&["fetch"]));
    assert!(world.processes[other.0].refused.as_ref().unwrap().contains("another client"));
    assert_eq!(world.phase(), JobPhase::Running);

    // And a job that has ended is not begun again.
    world.say(client, stageline_protocol::control::Up::Cancel(JOB, "enough".into()));
    world.all_obey();
    world.submit(client, line(&["fetch"]));
    assert_eq!(world.last_status(client).phase.name(), "cancelled");
    assert_eq!(world.engine.jobs(world.now).len(), 1);
}

#[test]
fn an_id_stands_for_one_pipeline_of_one_client() {
    let mut world = World::new();
    let [client, stranger] = ["c", "stranger"].map(|name| world.client(name));
    world.worker("w", &["fetch", "parse"]);
    world.submit(client, line(&["fetch"]));
    world.submit(client, line(&["fetch", "parse"]));
    let why = world.processes[client.0].refused.clone().unwrap();
    assert!(why.contains("another pipeline") && why.contains("id of its own"), "{why}");
    assert_eq!(world.phase(), JobPhase::Running, "the first is not touched");

    // Nor is it free when its job has ended.
    world.connect(client);
    world.say(client, stageline_protocol::control::Up::Cancel(JOB, "enough".into()));
    world.all_obey();
    world.submit(stranger, line(&["fetch"]));
    let why = world.processes[stranger.0].refused.clone().unwrap();
    assert!(why.contains("another client"), "{why}");
    assert_eq!(world.processes[client.0].refused, None);
    world.submit(client, line(&["fetch", "parse"]));
    let why = world.processes[client.0].refused.clone().unwrap();
    assert!(why.contains("another pipeline"), "{why}");
    assert_eq!(world.engine.jobs(world.now).len(), 1);
}

#[test]
fn only_a_client_submits() {
    let mut world = World::new();
    let worker = world.worker("w", &["fetch"]);
    world.submit(worker, line(&["fetch"]));
    assert!(world.processes[worker.0].refused.as_ref().unwrap().contains("only a client"));
    assert!(world.engine.jobs(world.now).is_empty());
}

#[test]
fn hellos_that_cannot_be_taken_say_why() {
    let mut world = World::new();
    let kind = stageline_protocol::control::ProcessKind::Worker;
    let mut future = hello(kind, "future", Vec::new());
    future.versions = stageline_protocol::VersionRange { oldest: 7, newest: 9 };
    let rows = [
        (future, ["\"future\" speaks the protocol versions 7 to 9", "coordinator 1: upgrade"]),
        (hello(kind, " ", Vec::new()), ["must have a name", "give it one"]),
        (hello(kind, "w", vec![function("f"), function("f")]), ["\"f\" twice", "another name"]),
        (hello(kind, "w", vec![function("f:map:0")]), ["\"f\" with 0 slots", "offer 1"]),
        (hello(kind, "w", vec![function(":map:1")]), ["without a name", "name it"]),
    ];
    for (hello, parts) in rows {
        let who = world.join(hello);
        let process = &world.processes[who.0];
        let why = process.refused.as_ref().expect("it is refused");
        for part in parts {
            assert!(why.contains(part), "{why:?} lacks {part:?}");
        }
        assert_eq!((process.session, &process.welcome), (None, &None));
    }
    assert!(world.engine.processes().is_empty());

    let mut world = World::new();
    world.client("c");
    let mut thief = hello(kind, "thief", Vec::new());
    thief.incarnation = Incarnation(100);
    let thief = world.join(thief);
    assert!(world.processes[thief.0].refused.is_some());
}
