use stageline_protocol::control::{FailureKind, JobPhase, Outcome, TaskEnd, Up};
use stageline_protocol::{ChannelId, StageId};

use super::world::{Who, World, from_named_source, line};

/// ticks → work → out, with two workers that offer both functions.
fn running(source: &str) -> (World, Who, Who, Who) {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &[source, "work"]), world.worker("b", &[source, "work"]));
    world.submit(client, from_named_source());
    world.all_obey();
    assert!(world.task(a, 0).is_some() && world.task(b, 0).is_none());
    (world, client, a, b)
}

#[test]
fn a_named_sources_position_is_stored_then_announced_and_its_replacement_starts_there() {
    let (mut world, client, a, b) = running("ticks:source");
    world.source_at(a, 0, 40, None);
    // The world checks that the record came first.
    assert_eq!(world.view(client).positions[&StageId(0)], 40);
    world.source_at(a, 0, 39, None);
    assert_eq!(world.view(client).positions[&StageId(0)], 40, "it never goes back");

    world.say(a, Up::Goodbye);
    let replacement = world.task(b, 0).expect("the other worker has it now");
    assert!(replacement.epoch.0 > 4);
    assert_eq!(world.view(b).positions[&StageId(0)], 40);
}

#[test]
fn a_source_that_cannot_be_replayed_takes_the_job_with_it() {
    let (mut world, _, a, _) = running("ticks:once");
    world.say(a, Up::Goodbye);
    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::SourceLost);
    for part in ["\"ticks\"", "worker \"a\"", "it left", "replayable"] {
        assert!(failure.message.contains(part), "{:?} lacks {part:?}", failure.message);
    }
}

#[test]
fn a_source_that_is_finished_is_not_missed() {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["ticks:once"]), world.worker("b", &["work"]));
    // A second source keeps the job going.
    let mut p = from_named_source();
    p.stages.push(line(&[]).stages[0].clone());
    p.channels
        .push(stageline_protocol::pipeline::Channel { from: StageId(3), ..p.channels[0].clone() });
    world.submit(client, p);
    world.source_at(a, 0, 7, Some(7));
    world.say(a, Up::Goodbye);
    assert_eq!(world.phase(), JobPhase::Running);
    assert!(world.view(b).peers.iter().all(|peer| peer.id.stage != StageId(0)));
    world.source_at(client, 3, 2, Some(2));
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
}

#[test]
fn a_source_in_the_client_that_reaches_nobody_fails_the_job() {
    let mut world = World::new();
    let client = world.client("c");
    world.worker("w", &["fetch"]);
    world.submit(client, line(&["fetch"]));
    world.tell(client, 0, |task| task.ended = Some(TaskEnd::LostLinks));
    let failure = world.failure();
    assert_eq!(failure.kind, FailureKind::SourceLost);
    assert!(failure.message.contains("\"in\"") && failure.message.contains("addresses"));
}

#[test]
fn a_section_is_finished_when_its_source_is_exhausted_and_all_is_acked() {
    let (mut world, _, a, _) = running("ticks:source");
    world.source_at(a, 0, 9, None);
    world.source_at(a, 0, 9, Some(10));
    assert_eq!(world.phase(), JobPhase::Running);
    world.source_at(a, 0, 10, Some(10));
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
}

#[test]
fn a_replacement_that_finds_nothing_more_finishes_too() {
    let (mut world, _, a, b) = running("ticks:source");
    world.source_at(a, 0, 10, None);
    world.say(a, Up::Goodbye);
    world.source_at(b, 0, 10, Some(10));
    assert_eq!(world.phase(), JobPhase::Ending(Outcome::Completed));
}

#[test]
fn sources_pause_while_some_task_is_over_its_budget() {
    let (mut world, client, a, b) = running("ticks:source");
    world.tell(b, 1, |task| task.over_budget = true);
    assert!(world.view(a).pause_sources && world.view(client).pause_sources);
    world.tell(b, 1, |task| task.over_budget = false);
    assert!(!world.view(a).pause_sources);
    // A dead task weighs nothing.
    world.tell(b, 1, |task| task.over_budget = true);
    world.say(b, Up::Goodbye);
    assert!(!world.view(a).pause_sources);
}

#[test]
fn a_cut_is_part_of_what_should_be_for_tasks_started_later_too() {
    let (mut world, client, a, b) = running("ticks:source");
    // The terminal cuts its input, channel 1; the channel 0 is none of its business.
    world.tell(client, 2, |task| task.cut = vec![ChannelId(0), ChannelId(1), ChannelId(9)]);
    assert_eq!(world.view(a).cut, [ChannelId(1)]);
    world.tell(b, 1, |task| task.cut = vec![ChannelId(0), ChannelId(1)]);
    assert_eq!(world.view(a).cut, [ChannelId(0), ChannelId(1)]);
    let late = world.worker("z", &["work"]);
    assert_eq!(world.view(late).cut, [ChannelId(0), ChannelId(1)]);
}
