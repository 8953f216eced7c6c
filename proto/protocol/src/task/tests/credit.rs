//! How large an automatic buffer becomes. The source is played by hand, over a wire that takes its time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::bench::Bench;
use super::{OUT, SOURCE, WORK, open, value};
use crate::frame::{Frame, Items, Role};
use crate::ids::{ConnId, StageId};
use crate::item::Encoding;
use crate::lineage::Lineage;
use crate::run::{Content, Packed, Run};
use crate::task::{Finished, LinkKey};
use crate::time::Time;

const STEP: Duration = Duration::from_millis(1);

/// A source that has always more than it has credit for, or so many items a step, at the other end of a
/// slow wire; and the function of the stage, which takes its time for each item.
struct Slow {
    bench: Bench,
    key: LinkKey,
    conn: ConnId,
    way: Duration,
    call: Duration,
    most: u64,
    grants: VecDeque<(Time, u64)>,
    items: VecDeque<(Time, u64, u64)>,
    calls: VecDeque<(Time, u64)>,
    heard: usize,
    granted: u64,
    sent: u64,
    done: u64,
}

impl Slow {
    fn new(slots: u32, way: Duration, call: Duration, most: u64) -> Self {
        let mut bench = Bench::new(None);
        bench.slots = slots;
        bench.start(&[WORK, OUT]);
        bench.peers.insert(SOURCE);
        bench.plan(WORK);
        let open = open(SOURCE, WORK, Role::Sender, 1);
        let (key, _) = bench.with(WORK, |task, now| task.on_open(now, &open)).expect("accepted");
        Self {
            bench,
            key,
            conn: open.conn,
            way,
            call,
            most,
            grants: VecDeque::new(),
            items: VecDeque::new(),
            calls: VecDeque::new(),
            heard: 0,
            granted: 0,
            sent: 0,
            done: 0,
        }
    }

    fn step(&mut self) {
        self.bench.wait(STEP);
        let now = self.bench.now;
        for (from, key, frame) in &self.bench.frames[self.heard..] {
            if let (WORK, Frame::Grant(grant)) = (*from, frame)
                && *key == self.key
            {
                self.grants.push_back((now + self.way, grant.items));
            }
        }
        self.heard = self.bench.frames.len();
        while let Some((_, granted)) = self.grants.pop_front_if(|(at, _)| *at <= now) {
            self.granted = granted;
        }
        let count = (self.granted - self.sent).min(self.most);
        if count > 0 {
            self.items.push_back((now + self.way, self.sent, count));
            self.sent += count;
        }
        while let Some((_, first, count)) = self.items.pop_front_if(|(at, ..)| *at <= now) {
            self.arrive(first, count);
        }
        self.work();
    }

    fn arrive(&mut self, first: u64, count: u64) {
        let values = Packed::alike(Bytes::from(vec![b'x'; count as usize]), 1, count).unwrap();
        let run = Run {
            lineage: Lineage::root(StageId(0), first),
            content: Content::Values(Encoding::Raw, values),
            marked: false,
        };
        let backlog = if self.most == u64::MAX { 1_000_000 } else { 0 };
        let items = Frame::Items(Items { batch: vec![run], backlog, ..Items::default() });
        let (key, conn) = (self.key, self.conn);
        self.bench.with(WORK, |task, now| task.on_frame(now, key, conn, items)).expect("allowed");
    }

    fn work(&mut self) {
        loop {
            let now = self.bench.now;
            while let Some(run) = self.bench.try_take_started(WORK) {
                self.calls.push_back((now + self.call, run.input));
            }
            let Some((at, input)) = self.calls.pop_front_if(|(at, _)| *at < now + STEP) else {
                break;
            };
            self.bench.now = at.max(now);
            self.bench.with(WORK, |task, now| task.finish(now, input, value()));
            self.done += 1;
            while self.bench.try_take_started(OUT).is_some_and(|run| {
                self.bench.with(OUT, |task, now| task.finish(now, run.input, Finished::Nothing));
                true
            }) {}
        }
    }

    fn run(&mut self, time: Duration) -> u64 {
        let before = self.done;
        let until = self.bench.now + time;
        while self.bench.now < until {
            self.step();
        }
        self.done - before
    }
}

#[test]
fn a_stage_is_busy_however_far_its_sender_is() {
    for way in [0, 5, 50, 250].map(Duration::from_millis) {
        let mut slow = Slow::new(4, way, Duration::from_millis(5), u64::MAX);
        slow.run(Duration::from_secs(5));
        // Four slots of 5 ms each: 800 a second.
        let done = slow.run(Duration::from_secs(5));
        assert!((3_900..=4_000).contains(&done), "{way:?} each way: {done} items in 5 s");
        let queued = slow.granted - slow.done;
        let needed = 16 + 800 * 2 * way.as_millis() as u64 / 1_000;
        assert!(queued <= 2 * needed + 32, "{way:?} each way: {queued} granted, {needed} needed");
    }
}

#[test]
fn a_stage_that_gets_few_items_has_credit_for_as_many_as_it_could_take() {
    let mut slow = Slow::new(1, Duration::ZERO, Duration::from_micros(10), 5);
    slow.run(Duration::from_secs(1));
    let unused = slow.granted - slow.sent;
    assert!((1_000..=2_100).contains(&unused), "2,000 in 20 ms: {unused}");
}
