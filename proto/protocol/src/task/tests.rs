//! Scenarios: a few tasks wired by hand, over wires that carry a frame at once or not at all.

mod bench;
mod credit;
mod marks;

use std::time::Duration;

use super::*;
use crate::VERSIONS;
use crate::frame::{Accept, CloseReason, Frame, Items, Role, Summary};
use crate::ids::LinkId;
use crate::item::{Body, Item};
use crate::pipeline::Site;
use crate::ranges::Settled;
use bench::{Bench, LEASE};

const SOURCE: TaskId = task(0, 1);
const WORK: TaskId = task(1, 2);
const OTHER: TaskId = task(1, 3);
const OUT: TaskId = task(2, 4);

#[test]
fn a_channel_without_a_buffer_is_a_rendezvous() {
    let mut bench = Bench::new(Some(0));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 5);
    assert_eq!(bench.started(WORK), ["0"], "one slot, no buffer: one item");
    assert_eq!(bench.stats(SOURCE).waiting_for_credit, 4);

    bench.finish(WORK, value());
    assert_eq!(bench.started(WORK), ["1"], "taken when its output is sent, acked or not");
    assert_eq!((bench.started(OUT), bench.watermark(SOURCE)), (vec!["0".to_owned()], 0));
    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.watermark(SOURCE), 1);
}

#[test]
fn a_source_stops_at_its_window_until_its_oldest_root_is_acked() {
    let mut bench = Bench::new(None);
    bench.window = 3;
    bench.start(&[SOURCE, WORK, OUT]);
    for _ in 0..5 {
        bench.make_roots(SOURCE, 1);
    }
    assert_eq!(bench.tasks[&SOURCE].admitted(), Some(3));
    // Roots that are done out of turn open nothing: here root 0 fails its first attempt, and waits.
    let first = bench.take_started(WORK);
    bench.with(WORK, |task, now| task.release_slot(now, first.input));
    for _ in 1..3 {
        bench.finish(WORK, value());
        bench.finish(OUT, Finished::Nothing);
    }
    bench.wait(Duration::from_millis(50));
    assert_eq!((bench.watermark(SOURCE), bench.pulls(SOURCE)), (0, 0));

    bench.with(WORK, |task, now| task.want_slot(now, first.input));
    assert_eq!(bench.resumed, [first.input]);
    bench.with(WORK, |task, now| task.finish(now, first.input, value()));
    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_millis(50));
    assert_eq!((bench.watermark(SOURCE), bench.pulls(SOURCE)), (3, 1));
}

#[test]
fn a_named_source_counts_its_window_from_what_is_stored() {
    let mut bench = Bench::new(None);
    bench.pipeline.stages[0].site = Site::Fleet;
    bench.window = 2;
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    for _ in 0..2 {
        bench.finish(WORK, value());
        bench.finish(OUT, Finished::Nothing);
    }
    bench.wait(Duration::from_millis(50));
    assert_eq!((bench.watermark(SOURCE), bench.pulls(SOURCE)), (2, 0), "acked, and not stored");
    assert!(bench.reports > 0, "the coordinator is asked to store it");

    bench.position = Some(2);
    bench.plan_all();
    assert_eq!(bench.pulls(SOURCE), 1);
}

#[test]
fn frames_that_carry_nothing_do_not_count() {
    let mut bench = Bench::new(Some(8));
    bench.start(&[SOURCE, WORK, OUT]);
    for _ in 0..2 {
        bench.make_roots(SOURCE, 3);
        while bench.try_take_started(WORK).is_some_and(|run| {
            bench.with(WORK, |task, now| task.finish(now, run.input, value()));
            true
        }) {
            bench.finish(OUT, Finished::Nothing);
        }
        bench.wait(Duration::from_secs(1));
    }
    let carried = bench.sent(SOURCE, |frame| match frame {
        Frame::Items(items) => Some(items.count()),
        _ => None,
    });
    assert!(carried.contains(&0), "watermarks alone: {carried:?}");
    let full = carried.iter().filter(|&&items| items > 0).count();
    assert_eq!((bench.stats(SOURCE).frames, carried.iter().sum()), (full as u64, 6));
}

#[test]
fn a_cut_travels_up_and_exhausts_the_source() {
    let mut bench = Bench::new(Some(4));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 8);
    bench.finish(WORK, value());
    assert_eq!(bench.started(OUT), ["0"]);

    bench.finish(OUT, Finished::Nothing);
    bench.with(OUT, |task, now| task.cut_inputs(now));
    let source = bench.report(SOURCE).source.expect("a source");
    assert_eq!(source.exhausted, Some(8), "no more than it had made");
    assert_eq!(source.watermark, 8, "all of them count as acked");
    assert_eq!(bench.aborted, [OUT, WORK, SOURCE], "nobody needs what was running");
    for id in [SOURCE, WORK, OUT] {
        let stats = bench.stats(id);
        assert_eq!((stats.busy, stats.queued, stats.unacked, stats.links), (0, 0, 0, 0), "{id}");
        bench.wait(LEASE * 2);
        assert_eq!(bench.tasks[&id].poll_timeout(), None, "{id} waits for nothing");
    }
    assert_eq!(bench.ends, [], "a cut link is not a lost one");
}

#[test]
fn a_cut_that_comes_with_the_plan_finds_links_in_any_state() {
    let mut bench = Bench::new(Some(4));
    bench.severed.insert((SOURCE, OTHER));
    bench.start(&[SOURCE, WORK, OTHER, OUT]);
    bench.make_roots(SOURCE, 8);
    // The receiver has not heard of it: its next ack crosses the cut.
    bench.cut.insert(ChannelId(0));
    bench.plan(SOURCE);
    bench.finish(WORK, value());
    bench.finish(OUT, Finished::Nothing);
    bench.wait(LEASE * 3);
    assert_eq!(bench.violations, []);
    assert_eq!(bench.tasks[&SOURCE].poll_timeout(), None, "no dial is due any more");

    // A task that comes later is not dialled, and is told if it dials.
    bench.add(task(1, 9));
    bench.plan(SOURCE);
    assert_eq!(bench.stats(SOURCE).links, 0);
    assert_eq!(bench.tasks[&SOURCE].poll_timeout(), None);
    let open = open(task(1, 9), SOURCE, Role::Receiver, 1);
    let close = bench.with(SOURCE, |task, now| task.on_open(now, &open)).unwrap_err();
    assert_eq!(close.reason, CloseReason::Cut);
}

#[test]
fn an_input_whose_outputs_wait_for_credit_frees_its_slot_when_it_is_cut() {
    let mut bench = Bench::new(Some(0));
    bench.severed.insert((WORK, OUT));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    bench.finish(WORK, value());
    assert_eq!(bench.stats(WORK).busy, 1, "its output has nowhere to go");
    bench.cut.extend([ChannelId(0), ChannelId(1)]);
    bench.plan(WORK);
    assert_eq!(bench.stats(WORK).busy, 0);
}

#[test]
fn who_never_gave_its_slot_up_gets_none_back() {
    let mut bench = Bench::new(Some(2));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    let first = bench.take_started(WORK);
    let queued = first.input + 1;
    bench.with(WORK, |task, now| task.want_slot(now, queued));
    bench.with(WORK, |task, now| task.finish(now, first.input, value()));
    assert_eq!((bench.started(WORK), bench.resumed.len()), (vec!["1".to_owned()], 0));
}

#[test]
fn a_drain_returns_what_has_not_started_and_nothing_runs_twice() {
    let mut bench = Bench::new(Some(8));
    bench.slots = 1;
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 6);
    assert_eq!((bench.started(WORK), bench.stats(WORK).queued), (vec!["0".to_owned()], 5));

    bench.add(OTHER);
    bench.plan_all();
    bench.with(WORK, |task, now| task.drain(now));
    let returned = bench.sent(WORK, |frame| match frame {
        Frame::Return(returned) => Some(returned.numbers.iter().flatten().collect::<Vec<u64>>()),
        _ => None,
    });
    assert_eq!(returned, [[1, 2, 3, 4, 5]]);
    assert_eq!(bench.ends, [], "it finishes what has started");
    bench.finish(WORK, value());
    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.ends, [(WORK, TaskEnd::Stopped)], "all is acked, and its ack is out");
    bench.remove(WORK);

    let mut ran = Vec::new();
    while let Some(run) = bench.try_take_started(OTHER) {
        ran.push(run.lineage.root);
        bench.with(OTHER, |task, now| task.finish(now, run.input, value()));
        bench.finish(OUT, Finished::Nothing);
    }
    ran.sort_unstable();
    assert_eq!(ran, [1, 2, 3, 4, 5]);
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.watermark(SOURCE), 6);
    assert_eq!(bench.stats(OUT).duplicates, 0);
    assert_eq!((bench.stats(SOURCE).resent, bench.stats(SOURCE).unacked), (0, 0));
}

#[test]
fn what_arrives_after_a_drain_goes_back_unstarted() {
    let mut bench = Bench::new(Some(8));
    bench.slots = 8;
    bench.start(&[SOURCE, WORK, OUT]);
    // What the two say crosses on its way.
    bench.severed.insert((SOURCE, WORK));
    bench.make_roots(SOURCE, 3);
    bench.with(WORK, |task, now| task.drain(now));
    bench.severed.clear();
    bench.add(OTHER);
    bench.plan_all();
    let crossing = |frame: &Frame| match frame {
        Frame::Items(items) => !items.batch.is_empty(),
        frame => matches!(frame, Frame::Return(_) | Frame::Close(_)),
    };
    let crossed: Vec<_> =
        bench.frames.iter().filter(|(.., frame)| crossing(frame)).cloned().collect();
    assert!(crossed.len() >= 3, "{crossed:?}");
    for (from, key, frame) in crossed {
        let conn = bench.tasks.get_mut(&from).and_then(|task| task.wire(key)?.conn()).unwrap();
        bench.deliver(from, key, conn, frame);
        bench.settle();
        assert!(bench.started(WORK).is_empty(), "nothing of it begins");
    }
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.ends, [(WORK, TaskEnd::Stopped)]);
    assert_eq!(bench.started(OTHER).len(), 3);
    assert_eq!(bench.stats(SOURCE).resent, 0);
}

#[test]
fn who_leaves_waits_until_its_last_acks_are_heard() {
    let mut bench = Bench::new(Some(8));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    bench.finish(WORK, value());
    bench.with(WORK, |task, now| task.drain(now));
    // The link breaks before the last item is acked, and what is said then is lost.
    bench.sever(SOURCE, WORK);
    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_secs(1));
    assert_eq!((bench.stats(WORK).unacked, bench.watermark(SOURCE)), (0, 0));
    assert_eq!(bench.ends, [], "the source would send the item again");
    bench.severed.clear();
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.ends, [(WORK, TaskEnd::Stopped)]);
    assert_eq!((bench.watermark(SOURCE), bench.stats(SOURCE).resent), (1, 0));
    assert_eq!(bench.stats(SOURCE).links, 0, "and nobody dials it again");
    assert_eq!(bench.violations, []);
}

#[test]
fn who_leaves_does_not_wait_for_the_lost() {
    let mut bench = Bench::new(Some(8));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    bench.finish(WORK, value());
    bench.finish(OUT, Finished::Nothing);
    bench.sever(SOURCE, WORK);
    bench.with(WORK, |task, now| task.drain(now));
    bench.wait(LEASE - Duration::from_secs(1));
    assert_eq!(bench.ends, []);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.ends, [(WORK, TaskEnd::Stopped)]);
}

#[test]
fn a_source_that_drains_admits_nothing_more_and_goes_when_all_is_acked() {
    let mut bench = Bench::new(Some(8));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    bench.with(SOURCE, |task, now| task.drain(now));
    // It was asked for these before.
    bench.make_roots(SOURCE, 5);
    assert_eq!(bench.stats(SOURCE).received, 1);
    assert_eq!((bench.pulls(SOURCE), &bench.ends[..]), (0, &[][..]));
    bench.finish(WORK, value());
    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.ends, [(SOURCE, TaskEnd::Stopped)]);
    assert_eq!(bench.watermark(SOURCE), 1, "where the next one begins");
    assert_eq!(bench.stats(WORK).links, 1, "its neighbour knows");
}

#[test]
fn a_pause_between_two_attempts_keeps_its_slot_in_a_task_that_drains() {
    let mut bench = Bench::new(Some(8));
    bench.slots = 2;
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 2);
    let pausing = bench.take_started(WORK).input;
    bench.with(WORK, |task, now| task.release_slot(now, pausing));
    assert_eq!(bench.stats(WORK).busy, 1);
    bench.make_roots(SOURCE, 1);
    assert_eq!(bench.stats(WORK).busy, 2, "another has its slot now");
    bench.with(WORK, |task, now| task.drain(now));
    assert_eq!(bench.stats(WORK).busy, 2, "three want two slots");
    bench.finish(WORK, value());
    assert_eq!(bench.stats(WORK).busy, 2);
    bench.finish(WORK, value());
    assert_eq!(bench.stats(WORK).busy, 1);
    bench.with(WORK, |task, now| task.want_slot(now, pausing));
    assert_eq!(bench.resumed, [pausing]);
}

#[test]
fn a_stale_epoch_is_refused_and_counted() {
    let mut bench = Bench::new(None);
    bench.start(&[WORK, OUT]);
    let replaced = open(SOURCE, WORK, Role::Sender, 1);
    let close = bench.with(WORK, |task, now| task.on_open(now, &replaced)).unwrap_err();
    assert_eq!((close.reason, bench.stats(WORK).stale), (CloseReason::Stale, 1));

    // A higher epoch than the plan's is newer than the plan, and is let in.
    let newer = task(0, 99);
    let accepted =
        bench.with(WORK, |task, now| task.on_open(now, &open(newer, WORK, Role::Sender, 2)));
    let (key, _) = accepted.expect("let in");
    assert_eq!(key.peer, newer);

    // So is a newer connection of it; of the older one, nothing is heard any more.
    let second = open(newer, WORK, Role::Sender, 3);
    bench.with(WORK, |task, now| task.on_open(now, &second)).expect("newer");
    let older = ConnId { dialler: newer.epoch, number: 2 };
    let items = Frame::Items(Items { batch: vec![item(0).into()], ..Items::default() });
    bench.with(WORK, |task, now| task.on_frame(now, key, older, items)).expect("no violation");
    let again =
        bench.with(WORK, |task, now| task.on_open(now, &open(newer, WORK, Role::Sender, 2)));
    assert_eq!(again.unwrap_err().reason, CloseReason::Stale);
    assert_eq!((bench.stats(WORK).stale, bench.stats(WORK).received), (3, 0));
}

#[test]
fn a_watermark_of_what_is_no_source_is_not_remembered() {
    let mut bench = Bench::new(None);
    bench.start(&[WORK, OUT]);
    bench.peers.insert(SOURCE);
    bench.plan(WORK);
    let open = open(SOURCE, WORK, Role::Sender, 1);
    let (key, _) = bench.with(WORK, |task, now| task.on_open(now, &open)).expect("accepted");
    let watermarks = (0..1_000).map(|stage| (StageId(stage), 7)).collect();
    let items = Frame::Items(Items { watermarks, ..Items::default() });
    bench.with(WORK, |task, now| task.on_frame(now, key, open.conn, items)).expect("allowed");
    bench.wait(Duration::from_secs(1));
    let passed_on = bench.sent(WORK, |frame| match frame {
        Frame::Items(items) => Some(items.watermarks.clone()),
        _ => None,
    });
    assert_eq!(passed_on.concat(), [(StageId(0), 7)]);
}

#[test]
fn a_duplicate_waits_for_the_first_copy() {
    let mut bench = Bench::new(None);
    bench.start(&[OUT]);
    // Two tasks upstream, played by hand, send the same item.
    let mut copies = Vec::new();
    for (peer, conn) in [(WORK, 1), (OTHER, 1)] {
        bench.peers.insert(peer);
        bench.plan(OUT);
        let open = open(peer, OUT, Role::Sender, conn);
        let (key, _) = bench.with(OUT, |task, now| task.on_open(now, &open)).expect("accepted");
        let items = Frame::Items(Items { batch: vec![item(7).into()], ..Items::default() });
        bench.with(OUT, |task, now| task.on_frame(now, key, open.conn, items)).expect("granted");
        copies.push(key);
    }
    assert_eq!(bench.started(OUT), ["7"], "the consumer gets it once");
    bench.wait(LEASE / 2);
    assert_eq!(bench.acked(OUT), [], "nothing is safe yet");
    assert_eq!(bench.stats(OUT).duplicates, 1);

    bench.finish(OUT, Finished::Nothing);
    bench.wait(Duration::from_millis(50));
    let mut acked: Vec<LinkKey> = bench.acked(OUT);
    acked.sort();
    copies.sort();
    assert_eq!(acked, copies, "both copies are acked, with the first");
}

#[test]
fn a_link_that_is_down_for_a_lease_is_lost_and_its_items_go_to_the_other_task() {
    let mut bench = Bench::new(Some(4));
    bench.start(&[SOURCE, WORK, OTHER, OUT]);
    bench.make_roots(SOURCE, 2);
    assert_eq!((bench.started(WORK).len(), bench.started(OTHER).len()), (1, 1));
    let lost = bench.started(WORK);

    bench.sever(SOURCE, WORK);
    bench.wait(LEASE - Duration::from_millis(100));
    assert_eq!(bench.stats(SOURCE).resent, 0, "it may be back");
    bench.wait(Duration::from_millis(200));
    assert_eq!(bench.stats(SOURCE).resent, 1);
    bench.finish(OTHER, value());
    assert_eq!(bench.started(OTHER), lost);
    bench.finish(OTHER, value());

    // The first task lives, cut off from the source only: what it makes is a duplicate.
    bench.finish(WORK, value());
    while !bench.started(OUT).is_empty() {
        bench.finish(OUT, Finished::Nothing);
    }
    bench.wait(Duration::from_millis(50));
    assert_eq!((bench.watermark(SOURCE), bench.stats(OUT).duplicates), (2, 1));
    assert_eq!(bench.stats(OUT).sent, 2);
}

#[test]
fn a_link_that_is_back_in_time_settles_what_is_held_without_sending_it_again() {
    let mut bench = Bench::new(Some(4));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 4);
    bench.finish(WORK, value());
    bench.sever(SOURCE, WORK);
    // An ack is lost with the connection.
    bench.finish(OUT, Finished::Nothing);
    bench.wait(LEASE / 2);
    assert_eq!(bench.watermark(SOURCE), 0);
    bench.severed.clear();
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.watermark(SOURCE), 1, "the handshake told of it");
    for _ in 1..4 {
        bench.finish(WORK, value());
        bench.finish(OUT, Finished::Nothing);
    }
    bench.wait(Duration::from_millis(50));
    assert_eq!((bench.watermark(SOURCE), bench.stats(SOURCE).resent), (4, 0));
    assert_eq!(bench.stats(WORK).received, 4);
}

#[test]
fn a_dial_whose_link_is_lost_meanwhile_is_abandoned() {
    let mut bench = Bench::new(Some(4));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    // The other end stands still: it neither answers nor hangs up.
    bench.frozen.insert(WORK);
    bench.sever(SOURCE, WORK);
    bench.severed.clear();
    bench.wait(LEASE * 2);
    let dialled: Vec<_> = bench.dials.iter().filter(|open| open.link.to == WORK).collect();
    let conn = dialled[dialled.len() - 2].conn;
    assert!(dialled[dialled.len() - 2].resume.is_some(), "it offered to resume");
    assert_eq!(dialled[dialled.len() - 1].resume, None, "what it had is given up");

    let summary = Summary {
        conn: ConnId { dialler: SOURCE.epoch, number: 1 },
        acked: Settled::new(),
        held: std::iter::once(0..1).collect(),
    };
    let policy = Some(bench.tasks[&WORK].policy());
    let late = Frame::Accept(Accept { version: 1, resume: None, summary: Some(summary), policy });
    let key = LinkKey { channel: ChannelId(0), peer: WORK };
    bench.with(SOURCE, |task, now| task.on_frame(now, key, conn, late)).expect("it is only late");
}

#[test]
fn who_reaches_nobody_ends_only_while_the_coordinator_is_heard() {
    let mut bench = Bench::new(Some(4));
    bench.severed.insert((WORK, OUT));
    bench.start(&[SOURCE, WORK, OUT]);
    let heard = |bench: &mut Bench| bench.with(WORK, |task, now| task.heard(now));
    heard(&mut bench);
    bench.wait(LEASE * 3);
    assert_eq!(bench.ends, [], "the coordinator is silent: nobody can know who is dead");
    heard(&mut bench);
    assert_eq!(bench.ends, [], "it is only just back");
    for _ in 0..7 {
        bench.wait(LEASE / 4);
        heard(&mut bench);
    }
    assert_eq!(bench.ends, [], "it may still have to notice who is dead");
    bench.wait(LEASE / 4);
    heard(&mut bench);
    assert_eq!(bench.ends, [(WORK, TaskEnd::LostLinks)]);
}

/// Nobody could take its place.
#[test]
fn a_source_that_reaches_nobody_says_so_and_goes_on_dialling() {
    let mut bench = Bench::new(Some(4));
    bench.severed.insert((SOURCE, WORK));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 1);
    let cut_off = |bench: &Bench| bench.report(SOURCE).unreached == [ChannelId(0)];
    for _ in 0..20 {
        bench.wait(LEASE / 4);
        bench.with(SOURCE, |task, now| task.heard(now));
    }
    assert!(cut_off(&bench) && bench.ends.is_empty());
    bench.severed.clear();
    bench.wait(LEASE / 4);
    bench.with(SOURCE, |task, now| task.heard(now));
    assert!(!cut_off(&bench), "the network is whole again");
    assert_eq!(bench.started(WORK), ["0"]);
}

/// What it did not reach has been moved: it has a new neighbour, and knows nothing ill of that.
#[test]
fn a_source_that_is_told_of_other_neighbours_counts_anew() {
    let mut bench = Bench::new(Some(4));
    bench.severed.insert((SOURCE, WORK));
    bench.start(&[SOURCE, WORK, OUT]);
    for _ in 0..20 {
        bench.wait(LEASE / 4);
        bench.with(SOURCE, |task, now| task.heard(now));
    }
    assert_eq!(bench.report(SOURCE).unreached, [ChannelId(0)]);
    bench.remove(WORK);
    bench.add(OTHER);
    bench.plan_all();
    assert_eq!(bench.report(SOURCE).unreached, []);
}

/// Copies of what is finished: one that comes, one that waits for a slot, and one to be sent again.
#[test]
fn what_is_below_the_watermark_is_neither_started_nor_sent_again() {
    let mut bench = Bench::new(Some(4));
    bench.start(&[SOURCE, WORK, OUT]);
    bench.make_roots(SOURCE, 3);
    assert_eq!(bench.started(WORK), ["0"], "there is one slot");
    // What another worker did: its copies of roots 0 to 2 are acked.
    bench.with(WORK, |task, now| task.raise_watermark(now, StageId(0), 2));
    bench.finish(WORK, value());
    assert_eq!(bench.started(WORK), ["2"], "1 waited for the slot, and is finished");
    bench.with(WORK, |task, now| task.raise_watermark(now, StageId(0), 3));
    let sent = |bench: &Bench| bench.stats(WORK).sent;
    assert_eq!(sent(&bench), 0, "nor is what came of a copy sent on");
    let items = vec![item(1).into(), item(3).into()];
    let key = LinkKey { channel: ChannelId(0), peer: SOURCE };
    bench.with(WORK, |task, now| task.receive(now, key, 7, items));
    assert_eq!(bench.stats(WORK).duplicates, 2);
}

const fn task(stage: u32, epoch: u64) -> TaskId {
    TaskId { stage: StageId(stage), epoch: Epoch(epoch) }
}

fn value() -> Finished {
    Finished::One(Encoding::Raw, Bytes::from_static(b"x"))
}

fn item(root: u64) -> Item {
    let lineage = Lineage::root(StageId(0), root);
    Item::new(lineage, Body::Value(Encoding::Raw, Bytes::from_static(b"x")))
}

fn open(dialler: TaskId, acceptor: TaskId, role: Role, number: u64) -> Open {
    let (from, to) = match role {
        Role::Sender => (dialler, acceptor),
        Role::Receiver => (acceptor, dialler),
    };
    Open {
        versions: VERSIONS,
        link: LinkId { job: JobId(1), channel: ChannelId(from.stage.0), from, to },
        role,
        conn: ConnId { dialler: dialler.epoch, number },
        resume: None,
        summaries: Vec::new(),
        policy: None,
    }
}
