//! Whatever happens, in whatever order: what must hold, holds, and the same story has the same end.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use stageline_protocol::control::{JobPhase, ProcessKind, SourceReport, TaskEnd, TaskPlan, Up};
use stageline_protocol::pipeline::{Op, Pipeline, Site, Stage};
use stageline_protocol::{Incarnation, JobId, StageId, TaskId};

use super::world::{Who, World, chain, function, hello, line};
use crate::engine::Event;
use crate::engine::job::Life;

#[derive(Clone, Debug)]
enum Act {
    Join(u8),
    Disconnect(usize),
    Connect(usize),
    Leaving(usize),
    Goodbye(usize),
    Submit(usize, u8, u64),
    Cancel(u64),
    Obey(usize),
    /// Apply and report with these figures, some of them wild.
    Tell(usize, u64, u8),
    Pass(u64, u16),
    /// The coordinator is paused.
    Pause,
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..8;
    prop_oneof![
        2 => (0u8..6).prop_map(Act::Join),
        1 => who.clone().prop_map(Act::Disconnect),
        1 => who.clone().prop_map(Act::Connect),
        1 => who.clone().prop_map(Act::Leaving),
        1 => who.clone().prop_map(Act::Goodbye),
        2 => (who.clone(), 0u8..4, 1u64..4).prop_map(|(who, kind, job)| Act::Submit(who, kind, job)),
        1 => (1u64..4).prop_map(Act::Cancel),
        6 => who.clone().prop_map(Act::Obey),
        6 => (who, 0u64..20, any::<u8>()).prop_map(|(who, n, kind)| Act::Tell(who, n, kind)),
        3 => (1u64..40, any::<u16>()).prop_map(|(tenths, alive)| Act::Pass(tenths, alive)),
        1 => Just(Act::Pause),
    ]
}

/// Mostly, somebody is there and a job runs before the troubles begin.
fn story(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Act>> {
    (0u8..4, 0u8..4, prop::collection::vec(act(), length)).prop_map(|(start, kind, acts)| {
        let beginning = [
            Act::Join(0),
            Act::Join(2),
            Act::Join(3 + start % 2),
            Act::Submit(0, kind, 1),
            Act::Obey(0),
            Act::Obey(1),
        ];
        let beginning = if start == 0 { &[][..] } else { &beginning[..] };
        beginning.iter().cloned().chain(acts).collect()
    })
}

fn pipeline(kind: u8) -> Pipeline {
    match kind {
        0 => line(&["fetch"]),
        1 => {
            let mut p = line(&["fetch", "parse"]);
            (p.stages[1].workers, p.stages[2].workers_per) = (Some(5), Some(2));
            p
        }
        2 => chain(vec![
            Stage::new("ticks", Op::Source, Site::Fleet),
            Stage { workers: Some(3), ..Stage::new("fetch", Op::Map, Site::Fleet) },
            Stage::new("local", Op::Filter, Site::Client),
            Stage::new("out", Op::Terminal, Site::Client),
        ]),
        _ => line(&["nobody"]),
    }
}

fn join(world: &mut World, kind: u8) {
    if kind < 2 {
        world.client(["c", "d"][usize::from(kind)]);
        return;
    }
    let name = ["a", "b", "e", "f"][usize::from(kind - 2)];
    let mut functions = vec![function("fetch:map:4"), function("parse:map:3")];
    let once = kind == 3;
    functions.push(function(if once { "ticks:once" } else { "ticks:source" }));
    world.join(hello(ProcessKind::Worker, name, functions));
}

fn perform(world: &mut World, act: &Act) {
    let count = world.processes.len();
    let pick = |n: usize| Who(n % count.max(1));
    if count == 0 && !matches!(act, Act::Join(_)) {
        return;
    }
    match *act {
        Act::Join(kind) => join(world, kind),
        Act::Disconnect(n) => world.disconnect(pick(n)),
        Act::Connect(n) => world.connect(pick(n)),
        Act::Leaving(n) => world.say(pick(n), Up::Leaving),
        Act::Goodbye(n) => world.say(pick(n), Up::Goodbye),
        Act::Submit(n, kind, job) => {
            world.submit_waiting(pick(n), JobId(job), pipeline(kind), Duration::from_secs(5));
        }
        Act::Cancel(job) => world.event(Event::CancelJob { job: JobId(job), reason: "so".into() }),
        Act::Obey(n) => world.obey(pick(n)),
        Act::Tell(n, figure, kind) => tell(world, pick(n), figure, kind),
        Act::Pass(tenths, alive) => {
            let alive: Vec<Who> =
                (0..count).filter(|n| alive >> (n % 16) & 1 == 1).map(Who).collect();
            world.pass(Duration::from_millis(tenths * 100), &alive);
        }
        Act::Pause => {
            world.now = world.now + Duration::from_secs(60);
            world.pass(Duration::from_millis(1), &[]);
        }
    }
}

fn tell(world: &mut World, who: Who, figure: u64, kind: u8) {
    let jobs: Vec<JobId> = world.processes[who.0].views.keys().copied().collect();
    for job in jobs {
        if kind & 1 == 0 {
            world.apply(who, job);
        }
        let process = &mut world.processes[who.0];
        let view = &process.views[&job];
        let slots: BTreeMap<_, _> = {
            let given = |plan: &TaskPlan| if plan.drain { 0 } else { plan.slots };
            view.tasks.iter().map(|plan| (plan.id, given(plan))).collect()
        };
        for task in process.tasks.entry(job).or_default().values_mut() {
            // A process that has applied its view starts nothing beyond its slots; what is in use
            // beyond them, or while it drains, only shrinks.
            let slots = slots.get(&task.id).map_or(0, |slots| u64::from(*slots));
            task.stats.busy = if kind & 1 == 0 {
                figure.min(slots.max(task.stats.busy))
            } else {
                task.stats.busy
            };
            task.stats.started = task.stats.started.saturating_add(figure);
            task.over_budget = kind & 2 != 0;
            task.cut =
                if kind & 12 == 12 { vec![stageline_protocol::ChannelId(0)] } else { Vec::new() };
            if task.id.stage == StageId(0) {
                let exhausted = (kind & 48 == 48).then_some(figure);
                task.source =
                    Some(SourceReport { watermark: figure, exhausted, ..SourceReport::default() });
            }
            if kind & 0xc0 == 0xc0 && task.ended.is_none() && figure < 4 {
                task.stats.busy = 0;
                task.ended = Some(match figure {
                    0 => TaskEnd::Stopped,
                    1 => TaskEnd::Failed("so".into()),
                    _ => TaskEnd::LostLinks,
                });
            }
        }
        world.report(who, job);
    }
}

/// Under `workers(n)`, slots that are given and those that may still be in use are at most `n`.
fn check_caps(world: &World) -> Result<(), TestCaseError> {
    for job in world.engine.jobs.values() {
        for (id, stage) in job.graph.pipeline().stages().filter(|(_, s)| s.site == Site::Fleet) {
            let mut held: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for task in job.tasks.values().filter(|task| task.id.stage == id) {
                let (slots, busy) = held.entry(task.process).or_default();
                *slots += u64::from(task.slots);
                *busy += u64::from(task.in_use());
            }
            let total: u64 = held.values().map(|(slots, busy)| slots.max(busy)).sum();
            if let Some(cap) = stage.workers {
                prop_assert!(total <= u64::from(cap), "{}: {held:?}", stage.name);
            }
            if let (Some(per), false) = (stage.workers_per, job.is_over()) {
                prop_assert!(held.values().all(|(slots, _)| *slots <= u64::from(per)));
            }
        }
        let known = |process| world.engine.fleet.get(process).is_some();
        prop_assert!(
            job.tasks.values().all(|task| known(task.process)),
            "a dead process runs a task"
        );
        prop_assert!(job.phase == JobPhase::Running || job.current().next().is_none());
    }
    Ok(())
}

/// The tasks of the jobs that run, and whether views have them.
fn tasks(world: &World) -> Vec<(JobId, TaskId, Incarnation, bool)> {
    let running = world.engine.jobs.values().filter(|job| !job.is_over());
    let tasks = running.flat_map(|job| job.tasks.values().map(move |task| (job.id, task)));
    let living = tasks.filter(|(_, task)| task.life != Life::Over);
    living.map(|(job, t)| (job, t.id, t.process, t.life.in_views())).collect()
}

fn play(acts: &[Act]) -> Result<World, TestCaseError> {
    let mut world = World::new();
    for act in acts {
        world.log.push(format!("{act:?}"));
        perform(&mut world, act);
        check_caps(&world)?;
    }
    Ok(world)
}

proptest! {
    #[test]
    fn what_must_hold_holds_and_every_job_comes_to_an_end(acts in story(1..60)) {
        let mut world = play(&acts)?;
        // Everybody goes: each job ends, and nothing is left that would have to be waited for.
        for who in (0..world.processes.len()).map(Who) {
            world.disconnect(who);
        }
        world.pass(Duration::from_secs(30), &[]);
        let now = world.now;
        prop_assert!(world.engine.jobs(now).iter().all(|job| matches!(job.phase, JobPhase::Ended(_))));
        prop_assert!(world.engine.processes().is_empty());
        prop_assert_eq!(world.engine.poll_timeout(), None);
        prop_assert!(world.stored.jobs.is_empty(), "a job is listed as over, and not stored so");
        prop_assert!(world.stored.processes.is_empty());
    }

    #[test]
    fn a_restart_at_any_moment_changes_no_more_than_broken_sessions_do(acts in story(1..60)) {
        let [broken, restarted] = [false, true].map(|restart| {
            let mut world = play(&acts)?;
            let ending = world.engine.jobs.values().any(|job| job.is_over());
            let alive = |who: &Who| {
                world.engine.fleet.get(world.processes[who.0].hello.incarnation).is_some()
            };
            let alive: Vec<Who> = (0..world.processes.len()).map(Who).filter(alive).collect();
            let before = tasks(&world);
            if restart {
                world.restart();
                prop_assert_eq!(&tasks(&world), &before);
            } else {
                alive.iter().for_each(|who| world.disconnect(*who));
            }
            for who in alive {
                world.connect(who);
                world.obey(who);
            }
            world.all_obey();
            check_caps(&world)?;
            Ok((ending, tasks(&world)))
        });
        let ((ending, broken), (_, restarted)) = (broken?, restarted?);
        // One that was ending is over at once, and the others have its slots sooner.
        if !ending {
            prop_assert_eq!(broken, restarted);
        }
    }

    #[test]
    fn the_same_story_has_the_same_commands(acts in story(1..40)) {
        prop_assert_eq!(play(&acts)?.log, play(&acts)?.log);
    }
}

/// The stories above are about something: what they are to try does happen in them.
#[test]
fn the_random_stories_are_not_empty() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let stories = story(40..60);
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..200 {
        let acts = stories.new_tree(&mut runner).unwrap().current();
        let world = play(&acts).unwrap();
        let log = world.log.join("\n");
        for what in [
            "Persist(Epochs",
            "Persist(Position",
            "Completed",
            "Cancelled",
            "SourceLost",
            "MissingStage",
            "Internal",
            "counts as dead",
            "drain: true",
            "pause_sources: true",
            "cut: [ChannelId",
        ] {
            *seen.entry(what).or_default() += u32::from(log.contains(what));
        }
        let unsettled = world.engine.jobs.values().any(|job| job.unsettled);
        *seen.entry("slots are handed over").or_default() += u32::from(unsettled);
    }
    assert!(seen.values().all(|count| *count >= 3), "{seen:?}");
}
