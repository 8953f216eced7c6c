//! Marked inputs: who is marked, who asks, and who has the process to itself.

use proptest::prelude::*;

use super::*;
use crate::ids::Incarnation;
use crate::item::ErrorKind;
use crate::run::Content;
use crate::suspect::{Death, MarkState, Verdict};
use MarkState::{Alone, Asking, Away, Crowded, Done, Holding, Running};

fn root(number: u64) -> Lineage {
    Lineage::root(StageId(0), number)
}

fn deaths() -> Vec<Death> {
    let death = |name: &str, process, alone| Death {
        worker: name.to_owned(),
        process: Incarnation(process),
        alone,
    };
    vec![death("ant", 7, false), death("bee", 8, true)]
}

/// What a task says of its marked inputs.
fn said(bench: &Bench, id: TaskId) -> Vec<(u64, MarkState)> {
    let marked = bench.report(id).marked;
    marked.into_iter().map(|item| (item.lineage.root, item.state)).collect()
}

fn tell(bench: &mut Bench, id: TaskId, number: u64, verdict: Verdict) {
    bench.with(id, |task, now| task.verdict(now, &root(number), &verdict));
}

/// Some roots are in process or queued at WORK when its process dies; OTHER has one slot.
fn after_a_death(roots: usize) -> Bench {
    let mut bench = Bench::new(None);
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, roots);
    assert_eq!(bench.started(WORK), ["0"]);
    assert_eq!(said(&bench, WORK), []);
    bench.add(OTHER);
    bench.plan_all();
    bench.wait(Duration::from_millis(50));
    bench.remove(WORK);
    bench
}

/// OTHER runs root 0, a suspect, and nothing else is in the process.
fn alone() -> (Bench, u64) {
    let mut bench = after_a_death(1);
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, 0, false));
    tell(&mut bench, OTHER, 0, Verdict::Start);
    let run = bench.take_started(OTHER);
    assert_eq!((said(&bench, OTHER), run.input), (vec![(0, Alone)], 0));
    (bench, run.input)
}

#[test]
fn what_was_unacked_when_a_task_went_asks_before_it_starts() {
    let mut bench = after_a_death(2);
    assert_eq!((bench.started(OTHER), said(&bench, OTHER)), (vec![], vec![(0, Asking)]));
    assert_eq!((bench.stats(OTHER).busy, bench.stats(OTHER).started), (1, 0), "it has the slot");
    assert!(bench.reports > 0, "the coordinator is asked at once");

    tell(&mut bench, OTHER, 1, Verdict::Run);
    tell(&mut bench, OTHER, 0, Verdict::Start);
    tell(&mut bench, OTHER, 0, Verdict::Left);
    assert_eq!(bench.started(OTHER), [""; 0], "an answer to nobody's question changes nothing");
    tell(&mut bench, OTHER, 0, Verdict::Run);
    tell(&mut bench, OTHER, 0, Verdict::Run);
    assert_eq!(
        (bench.started(OTHER), said(&bench, OTHER)),
        (vec!["0".to_owned()], vec![(0, Running)])
    );

    // What comes of it is marked, and is not asked for at a terminal.
    bench.finish(OTHER, value());
    assert_eq!(
        (bench.started(OUT), said(&bench, OTHER)),
        (vec!["0".to_owned()], vec![(1, Asking)])
    );
    let marks = bench.sent(OTHER, |frame| match frame {
        Frame::Items(items) => items.batch.first().map(|item| item.marked),
        _ => None,
    });
    assert_eq!(marks, [true]);
    // New items have no mark.
    tell(&mut bench, OTHER, 1, Verdict::Run);
    bench.finish(OTHER, value());
    bench.make_roots(SOURCE, 1);
    assert_eq!((bench.started(OTHER), said(&bench, OTHER)), (vec!["2".to_owned()], vec![]));
}

#[test]
fn a_lost_link_and_what_is_given_back_mark_nothing() {
    let mut bench = Bench::new(None);
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    bench.add(OTHER);
    bench.plan_all();
    bench.with(WORK, |task, now| task.drain(now));
    assert_eq!((bench.started(OTHER), said(&bench, OTHER)), (vec!["1".to_owned()], vec![]));
    bench.finish(OTHER, value());
    bench.sever(SOURCE, WORK);
    bench.wait(LEASE);
    assert_eq!((bench.started(OTHER), said(&bench, OTHER)), (vec!["0".to_owned()], vec![]));
}

#[test]
fn a_suspect_has_the_process_to_itself_until_the_coordinator_knows_that_it_is_done() {
    let mut bench = after_a_death(1);
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    assert_eq!(
        (said(&bench, OTHER), &*bench.process),
        (vec![(0, Asking)], &["isolate 0".into()][..])
    );
    bench.with(OTHER, |task, now| task.isolated(now, 0, false));
    assert_eq!((said(&bench, OTHER), bench.started(OTHER)), (vec![(0, Holding)], vec![]));
    tell(&mut bench, OTHER, 0, Verdict::Run);
    assert_eq!(bench.started(OTHER), [""; 0], "that was no answer to this question");
    tell(&mut bench, OTHER, 0, Verdict::Start);
    assert_eq!(
        (said(&bench, OTHER), bench.started(OTHER)),
        (vec![(0, Alone)], vec!["0".to_owned()])
    );

    bench.finish(OTHER, value());
    assert_eq!((said(&bench, OTHER), bench.started(OUT)), (vec![(0, Done)], vec!["0".to_owned()]));
    assert_eq!(bench.process.len(), 1, "nobody else starts yet");
    tell(&mut bench, OTHER, 0, Verdict::Left);
    assert_eq!((said(&bench, OTHER), bench.process[1].as_str()), (vec![], "rejoin 0"));
}

#[test]
fn what_runs_beside_abandoned_calls_is_not_said_to_run_alone() {
    let mut bench = after_a_death(1);
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, 0, true));
    assert_eq!(said(&bench, OTHER), [(0, Crowded)]);
    tell(&mut bench, OTHER, 0, Verdict::Start);
    assert_eq!(
        (said(&bench, OTHER), bench.started(OTHER)),
        (vec![(0, Running)], vec!["0".to_owned()])
    );
    bench.finish(OTHER, value());
    tell(&mut bench, OTHER, 0, Verdict::Left);
    assert_eq!(bench.process, ["isolate 0", "rejoin 0"]);
}

#[test]
fn a_suspect_gives_the_process_up_between_two_attempts() {
    let (mut bench, input) = alone();
    bench.with(OTHER, |task, now| task.release_slot(now, input));
    assert_eq!((said(&bench, OTHER), bench.process.len()), (vec![(0, Away)], 1));
    // It wants to go on before it was heard that it waits: it asks when that was.
    bench.with(OTHER, |task, now| task.want_slot(now, input));
    assert_eq!((said(&bench, OTHER), bench.resumed.len()), (vec![(0, Away)], 0));
    tell(&mut bench, OTHER, 0, Verdict::Left);
    assert_eq!((said(&bench, OTHER), bench.process[1].as_str()), (vec![(0, Asking)], "rejoin 0"));
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, input, false));
    tell(&mut bench, OTHER, 0, Verdict::Start);
    assert_eq!((said(&bench, OTHER), bench.resumed.as_slice()), (vec![(0, Alone)], &[input][..]));
    bench.with(OTHER, |task, now| task.finish(now, input, value()));
    assert_eq!((said(&bench, OTHER), bench.started(OUT)), (vec![(0, Done)], vec!["0".to_owned()]));
}

#[test]
fn a_suspect_gives_the_process_up_while_it_waits_for_room() {
    let (mut bench, input) = alone();
    assert!(bench.tasks[&OTHER].is_alone(input));
    bench.with(OTHER, |task, now| task.park(now, input));
    // There is room: it goes on as soon as the coordinator knows that it had left, and is back.
    assert_eq!(said(&bench, OTHER), [(0, Away)]);
    tell(&mut bench, OTHER, 0, Verdict::Left);
    assert_eq!((said(&bench, OTHER), bench.resumed.len()), (vec![(0, Asking)], 0));
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, input, false));
    tell(&mut bench, OTHER, 0, Verdict::Start);
    assert_eq!(bench.resumed, [input]);
}

#[test]
fn a_convicted_item_is_an_error_that_names_its_history() {
    let mut bench = after_a_death(2);
    tell(&mut bench, OTHER, 0, Verdict::Convicted(deaths()));
    assert_eq!(bench.started(OTHER), [""; 0], "its function is not called");
    assert_eq!(bench.stats(OTHER).errors[&ErrorKind::Crashed], 1);
    let errors = bench.sent(OTHER, |frame| match frame {
        Frame::Items(items) => items.batch.first().map(|run| run.content.clone()),
        _ => None,
    });
    let [Content::Error(error)] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((error.stage.as_str(), error.attempts, error.worker.as_str()), ("work", 2, "bee"));
    assert!(error.message.contains("\"ant\", \"bee\" (where it ran alone)"), "{}", error.message);
    assert_eq!(said(&bench, OTHER), [(1, Asking)], "and the next has the slot");

    // The same while it holds the process: others may have it again.
    tell(&mut bench, OTHER, 1, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, 1, false));
    tell(&mut bench, OTHER, 1, Verdict::Convicted(deaths()));
    assert_eq!(
        (bench.process.as_slice(), said(&bench, OTHER)),
        (&["isolate 1".to_owned(), "rejoin 1".to_owned()][..], vec![])
    );
    while bench.try_take_started(OUT).is_some() {}
    assert_eq!(bench.stats(OTHER).busy, 0);
}

#[test]
fn a_draining_task_gives_back_what_only_asks() {
    let mut bench = after_a_death(2);
    tell(&mut bench, OTHER, 0, Verdict::Alone);
    bench.with(OTHER, |task, now| task.isolated(now, 0, false));
    bench.add(WORK);
    bench.plan_all();
    bench.with(OTHER, |task, now| task.drain(now));
    assert_eq!((bench.process[1].as_str(), said(&bench, OTHER)), ("rejoin 0", vec![]));
    assert_eq!(
        (bench.stats(OTHER).busy, said(&bench, WORK)),
        (0, vec![(0, Asking)]),
        "marked still"
    );
}

#[test]
fn a_source_that_replaces_another_marks_what_that_may_have_admitted() {
    let mut bench = Bench::new(None);
    (bench.again, bench.window) = (true, 2);
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    for number in 0..2 {
        assert_eq!(said(&bench, WORK), [(number, Asking)]);
        tell(&mut bench, WORK, number, Verdict::Run);
        bench.finish(WORK, value());
        bench.finish(OUT, Finished::Nothing);
    }
    bench.wait(Duration::from_millis(50));
    bench.make_roots(SOURCE, 1);
    assert_eq!((bench.started(WORK), said(&bench, WORK)), (vec!["2".to_owned()], vec![]));
}

#[test]
fn closures_in_the_client_never_ask() {
    let mut bench = Bench::new(None);
    bench.pipeline.stages[1].site = Site::Client;
    bench.again = true;
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    assert_eq!((bench.started(WORK), said(&bench, WORK)), (vec!["0".to_owned()], vec![]));
}

/// A step of a random run.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// The coordinator answers one item: fittingly, or with anything.
    Answer(usize, bool, u8),
    /// The shell has emptied the process for somebody it was asked to.
    Isolated(bool),
    Finish,
    Backoff,
    Back,
    Park,
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        6 => (0..4_usize, prop::bool::weighted(0.8), 0..5_u8).prop_map(|(n, fits, v)| Do::Answer(n, fits, v)),
        2 => prop::bool::weighted(0.2).prop_map(Do::Isolated),
        2 => Just(Do::Finish),
        1 => Just(Do::Backoff),
        1 => Just(Do::Back),
        1 => Just(Do::Park),
    ]
}

/// The shell of a task with three slots, as far as it has to do with the process.
struct Shell {
    bench: Bench,
    isolating: Vec<u64>,
    holder: Option<u64>,
    seen: usize,
    /// Calls that go on, and those that wait for a slot or for room.
    running: Vec<u64>,
    backoff: Vec<u64>,
    started: std::collections::BTreeSet<u64>,
}

impl Shell {
    fn look(&mut self) {
        for text in self.bench.process.split_off(self.seen) {
            let (what, input) = text.split_once(' ').expect("two words");
            let input = input.parse().expect("a number");
            match what {
                "isolate" => self.isolating.push(input),
                "drop" => self.backoff.retain(|waits| *waits != input),
                "rejoin" if self.holder == Some(input) => {
                    self.holder = None;
                    let running: Vec<_> = self.running.iter().filter(|i| **i == input).collect();
                    assert!(running.is_empty(), "{input} runs on, and no longer alone");
                }
                "rejoin" => {
                    let place = self.isolating.iter().position(|i| *i == input);
                    self.isolating.remove(place.expect("rejoins once, after isolate"));
                }
                _ => {}
            }
        }
        while let Some(run) = self.bench.try_take_started(OTHER) {
            assert!(self.started.insert(run.input), "{} started twice", run.lineage);
            self.running.push(run.input);
        }
        for input in std::mem::take(&mut self.bench.resumed) {
            self.running.push(input);
        }
        while self.bench.try_take_started(OUT).is_some() {}
        let stats = self.bench.stats(OTHER);
        assert!(stats.busy <= 3);
        for (root, state) in said(&self.bench, OTHER) {
            let runs = self.running.contains(&root);
            match state {
                Alone => assert!(runs && self.holder == Some(root)),
                Running => {}
                Holding => assert!(!runs && self.holder == Some(root)),
                Crowded | Asking | Away | Done => assert!(!runs, "{root} {state:?}"),
            }
        }
    }

    fn act(&mut self, step: Do) {
        let marked = said(&self.bench, OTHER);
        match step {
            Do::Answer(n, fits, v) if !marked.is_empty() => {
                let (number, state) = marked[n % marked.len()];
                let any = [
                    Verdict::Run,
                    Verdict::Alone,
                    Verdict::Start,
                    Verdict::Convicted(deaths()),
                    Verdict::Left,
                ];
                let fitting = match (state, v) {
                    (Asking | Holding, 0) => Verdict::Convicted(deaths()),
                    (Asking, 1 | 2) => Verdict::Run,
                    (Asking, _) => Verdict::Alone,
                    (Holding | Crowded, _) => Verdict::Start,
                    (Away | Done, _) => Verdict::Left,
                    (Running | Alone, _) => return,
                };
                let verdict = if fits { fitting } else { any[usize::from(v)].clone() };
                tell(&mut self.bench, OTHER, number, verdict);
            }
            Do::Isolated(crowded) if self.holder.is_none() && !self.isolating.is_empty() => {
                let input = self.isolating.remove(0);
                self.holder = Some(input);
                self.bench.with(OTHER, |task, now| task.isolated(now, input, crowded));
            }
            Do::Finish if !self.running.is_empty() => {
                let input = self.running.remove(0);
                self.bench.with(OTHER, |task, now| task.finish(now, input, value()));
            }
            Do::Backoff if !self.running.is_empty() => {
                let input = self.running.remove(0);
                self.backoff.push(input);
                self.bench.with(OTHER, |task, now| task.release_slot(now, input));
            }
            Do::Back if !self.backoff.is_empty() => {
                let input = self.backoff.remove(0);
                self.bench.with(OTHER, |task, now| task.want_slot(now, input));
            }
            Do::Park if self.running.iter().any(|i| self.bench.tasks[&OTHER].is_alone(*i)) => {
                let tasks = &self.bench.tasks;
                let place = self.running.iter().position(|i| tasks[&OTHER].is_alone(*i));
                let input = self.running.remove(place.expect("one that is alone"));
                self.bench.with(OTHER, |task, now| task.park(now, input));
            }
            _ => {}
        }
        self.look();
    }
}

proptest! {
    /// Whatever is answered and when, an item starts once, runs alone only with the process to itself,
    /// gives it up, and all come to an end.
    #[test]
    fn every_marked_item_ends(steps in prop::collection::vec(step(), 0..80)) {
        let mut bench = Bench::new(None);
        bench.slots = 3;
        bench.start(&[SOURCE, WORK, OUT]);
        bench.make_roots(SOURCE, 5);
        bench.add(OTHER);
        bench.plan_all();
        bench.wait(Duration::from_millis(50));
        bench.remove(WORK);
        let mut shell = Shell {
            bench,
            isolating: Vec::new(),
            holder: None,
            seen: 0,
            running: Vec::new(),
            backoff: Vec::new(),
            started: Default::default(),
        };
        shell.look();
        for step in steps {
            shell.act(step);
        }
        let rest = [Do::Isolated(false), Do::Finish, Do::Back];
        for round in 0..200 {
            shell.act(Do::Answer(round, true, 3));
            rest.into_iter().for_each(|step| shell.act(step));
        }
        prop_assert_eq!(said(&shell.bench, OTHER), []);
        let stats = shell.bench.stats(OTHER);
        prop_assert_eq!((stats.busy, stats.queued, stats.unacked, shell.holder), (0, 0, 5, None));
        prop_assert!(shell.isolating.is_empty());
    }
}
