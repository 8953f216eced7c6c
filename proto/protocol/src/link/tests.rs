//! Two ends of a link, over a wire that breaks at any moment.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, LinkPolicy, Role, Summary};
use crate::ids::{ConnId, Epoch, StageId};
use crate::item::{Body, Encoding, Item};
use crate::lineage::Lineage;
use crate::run::{Content, Packed, Run};
use crate::time::Time;

const POLICY: LinkPolicy = LinkPolicy { window_bytes: 200, max_payload: 10_000 };

fn item(root: u64, size: usize) -> Item {
    let body = Body::Value(Encoding::Raw, Bytes::from(vec![0; size]));
    Item::new(Lineage::root(StageId(0), root), body)
}

/// Roots of these sizes, in one run.
fn run(roots: Range<u64>, size: impl Fn(u64) -> usize) -> Run {
    let sizes = roots.clone().map(size);
    let ends: Vec<u32> = sizes
        .scan(0, |end, size| {
            *end += size as u32;
            Some(*end)
        })
        .collect();
    let blob = Bytes::from(vec![0; ends.last().map_or(0, |end| *end as usize)]);
    let values = Packed::cut(blob, ends).unwrap();
    Run::new(Lineage::root(StageId(0), roots.start), Content::Values(Encoding::Raw, values))
}

/// Some roots in runs of 1 to 4.
fn runs(roots: u64) -> VecDeque<(Run, Inputs)> {
    let (mut runs, mut next) = (VecDeque::new(), 0);
    while next < roots {
        let end = roots.min(next + 1 + next % 4);
        runs.push_back((run(next..end, |n| (n as usize * 37) % 300), Inputs::Each(next)));
        next = end;
    }
    runs
}

/// The handshake's messages, in both directions of dialling, and everything else.
#[derive(Debug)]
enum Wire {
    OpenFromSender(ConnId, Option<ConnId>),
    OpenFromReceiver(ConnId, Vec<Summary>),
    AcceptFromReceiver(ConnId, Option<Summary>),
    AcceptFromSender(ConnId, Option<ConnId>),
    Frame(Frame),
}

struct Pair {
    dialler: Role,
    sender: Sender,
    receiver: Receiver,
    down: VecDeque<Wire>,
    up: VecDeque<Wire>,
    dials: u64,
    queue: VecDeque<(Run, Inputs)>,
    /// Input at the receiver → (number, root); roots received, in order.
    inputs: Vec<Option<(u64, u64)>>,
    received: Vec<u64>,
    acked: Vec<u64>,
    resent: usize,
}

impl Pair {
    fn new(dialler: Role, roots: u64) -> Self {
        Self {
            dialler,
            sender: Sender::new(),
            receiver: Receiver::new(POLICY),
            down: VecDeque::new(),
            up: VecDeque::new(),
            dials: 0,
            queue: runs(roots),
            inputs: Vec::new(),
            received: Vec::new(),
            acked: Vec::new(),
            resent: 0,
        }
    }

    fn dial(&mut self) {
        self.down.clear();
        self.up.clear();
        self.sender.disconnect();
        self.dials += 1;
        let conn = ConnId { dialler: Epoch(1), number: self.dials };
        match self.dialler {
            Role::Sender => self.down.push_back(Wire::OpenFromSender(conn, self.sender.resume())),
            Role::Receiver => {
                let summaries = self.receiver.dial();
                self.up.push_back(Wire::OpenFromReceiver(conn, summaries));
            }
        }
    }

    fn resumed(&mut self, resumed: Resumed) {
        assert_eq!(resumed.orphans, [], "nothing is lost while both ends live");
        for (inputs, first) in resumed.renumbered {
            for (input, number) in inputs.zip(first..) {
                self.inputs[input as usize].as_mut().unwrap().0 = number;
            }
        }
    }

    fn freed(&mut self, freed: Freed) {
        for (items, inputs) in freed.acked {
            let (inputs, each) = inputs.of(items);
            assert_eq!((inputs.end - inputs.start, each), (items, 1));
            self.acked.extend(inputs);
        }
        self.resent += freed.resend.iter().map(|(run, _)| run.len() as usize).sum::<usize>();
        for entry in freed.resend.into_iter().chain(freed.returned).rev() {
            self.queue.push_front(entry);
        }
    }

    fn deliver_down(&mut self) {
        match self.down.pop_front() {
            Some(Wire::OpenFromSender(conn, resume)) => {
                let (summary, resumed) = self.receiver.accept(conn, resume);
                self.resumed(resumed);
                self.up.push_back(Wire::AcceptFromReceiver(conn, summary));
            }
            Some(Wire::AcceptFromSender(conn, resume)) => {
                let resumed = self.receiver.accepted(conn, resume).unwrap();
                self.resumed(resumed);
            }
            Some(Wire::Frame(Frame::Items(items))) => {
                let first_input = self.inputs.len() as u64;
                let first = self.receiver.on_items(Time::ZERO, &items, first_input).unwrap();
                for (number, item) in (first..).zip(items.batch.iter().flat_map(Run::items)) {
                    self.inputs.push(Some((number, item.lineage.root)));
                    self.received.push(item.lineage.root);
                }
            }
            other => assert!(other.is_none(), "{other:?}"),
        }
    }

    fn deliver_up(&mut self) {
        match self.up.pop_front() {
            Some(Wire::OpenFromReceiver(conn, summaries)) => {
                let resume = self.sender.resume();
                let summary = summaries.into_iter().find(|s| Some(s.conn) == resume);
                assert_eq!(summary.is_some(), resume.is_some(), "its connection was summarised");
                self.sender.connect(conn, summary, POLICY);
                self.down.push_back(Wire::AcceptFromSender(conn, resume));
            }
            Some(Wire::AcceptFromReceiver(conn, summary)) => {
                self.sender.connect(conn, summary, POLICY);
            }
            Some(Wire::Frame(frame)) => {
                let freed = match frame {
                    Frame::Grant(grant) => self.sender.on_grant(Time::ZERO, grant),
                    Frame::Ack(ack) => self.sender.on_ack(&ack.settled),
                    Frame::Return(returned) => self.sender.on_return(&returned),
                    other => panic!("{other:?}"),
                };
                self.freed(freed.unwrap());
            }
            None => {}
            Some(other) => panic!("{other:?}"),
        }
    }

    fn send(&mut self) {
        while let Some((mut run, inputs)) = self.queue.pop_front() {
            let admitted = self.sender.admits(&run);
            if admitted < run.len() {
                let rest = if admitted == 0 { run.clone() } else { run.split_off(admitted) };
                self.queue.push_front((rest, inputs.after(admitted)));
            }
            if admitted == 0 {
                break;
            }
            self.sender.send(Time::ZERO, run, inputs);
        }
        let backlog = self.queue.iter().map(|(run, _)| run.len()).sum();
        if let Some(items) = self.sender.poll_items((3, 150), backlog, &[], Flush::Watermarks) {
            self.down.push_back(Wire::Frame(Frame::Items(items)));
        }
    }

    /// The receiver may speak once it has moved to the connection that the sender knows of.
    fn speak(&mut self, pool: u64) {
        if self.receiver.outstanding() < pool {
            self.receiver.grant(pool - self.receiver.outstanding());
        }
        let opening = self.down.iter().chain(&self.up).any(|w| !matches!(w, Wire::Frame(_)))
            && self.dialler == Role::Receiver;
        if self.dials == 0 || opening || self.down.iter().any(|w| !matches!(w, Wire::Frame(_))) {
            return;
        }
        for frame in [
            self.receiver.poll_return().map(Frame::Return),
            self.receiver.poll_ack().map(Frame::Ack),
            self.receiver.poll_grant(Time::ZERO).map(Frame::Grant),
        ]
        .into_iter()
        .flatten()
        {
            // An ack may go before the first grant; it would then be of the new connection, which
            // the sender has not moved to: the task sends the grant first.
            match frame {
                Frame::Grant(_) => self.up.push_front_after_handshake(Wire::Frame(frame)),
                frame => self.up.push_back(Wire::Frame(frame)),
            }
        }
    }

    fn check(&self) {
        let (sent, granted) = self.sender.sent_and_granted();
        assert!(sent <= granted, "sent {sent} with leave for {granted}");
        assert!(self.receiver.untaken() <= self.receiver.outstanding());
    }
}

trait AfterHandshake {
    fn push_front_after_handshake(&mut self, wire: Wire);
}

impl AfterHandshake for VecDeque<Wire> {
    fn push_front_after_handshake(&mut self, wire: Wire) {
        let at = self
            .iter()
            .take_while(|w| !matches!(w, Wire::Frame(Frame::Ack(_) | Frame::Return(_))))
            .count();
        self.insert(at, wire);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever breaks and whenever, while both tasks live each item is received exactly once, acked
    /// exactly once, and nothing is sent without leave.
    #[test]
    fn each_item_arrives_once_over_any_number_of_connections(
        sender_dials in any::<bool>(),
        pool in 1u64..6,
        steps in prop::collection::vec((0u8..12, any::<prop::sample::Index>()), 0..200),
    ) {
        let roots = 20;
        let mut pair = Pair::new(if sender_dials { Role::Sender } else { Role::Receiver }, roots);
        for (step, index) in steps {
            match step {
                0 => pair.dial(),
                1..=3 => pair.deliver_down(),
                4..=6 => pair.deliver_up(),
                7 | 8 => pair.send(),
                9 => pair.speak(pool),
                _ => settle_one(&mut pair, |n| index.index(n)),
            }
            pair.check();
        }
        pair.dial();
        for _ in 0..2_000 {
            pair.send();
            pair.deliver_down();
            pair.speak(pool);
            pair.deliver_up();
            settle_one(&mut pair, |_| 0);
            pair.check();
        }
        let mut received = pair.received.clone();
        received.sort_unstable();
        prop_assert_eq!(received, (0..roots).collect::<Vec<_>>());
        pair.acked.sort_unstable();
        prop_assert_eq!(&pair.acked, &(0..roots).collect::<Vec<_>>());
        prop_assert_eq!(pair.sender.unacked(), 0);
        prop_assert_eq!(pair.sender.retained_bytes(), 0);
    }
}

fn settle_one(pair: &mut Pair, pick: impl Fn(usize) -> usize) {
    let open: Vec<usize> = (0..pair.inputs.len()).filter(|&i| pair.inputs[i].is_some()).collect();
    if !open.is_empty() {
        let input = open[pick(open.len())];
        let (first, _) = pair.inputs[input].take().unwrap();
        // With those that come next, if they are still open.
        let mut end = first + 1;
        let next = pair.inputs[input + 1..].iter_mut().take(pick(4));
        for entry in next {
            if entry.is_none_or(|(number, _)| number != end) {
                break;
            }
            (*entry, end) = (None, end + 1);
        }
        pair.receiver.settle(first..end);
    }
}

fn connected(roots: u64, pool: u64) -> Pair {
    let mut pair = Pair::new(Role::Sender, roots);
    pair.dial();
    pair.deliver_down();
    pair.deliver_up();
    pair.speak(pool);
    pair.deliver_up();
    pair
}

#[test]
fn an_item_above_the_byte_window_goes_alone() {
    let mut pair = connected(0, 4);
    pair.queue = [(run(0..2, |_| 1_000), Inputs::Each(0))].into();
    pair.send();
    pair.deliver_down();
    assert_eq!(pair.received, [0], "the second waits for the first");
    pair.receiver.release(0..1);
    pair.speak(4);
    pair.deliver_up();
    pair.send();
    pair.deliver_down();
    assert_eq!(pair.received, [0, 1]);
}

#[test]
fn a_return_gives_items_back_and_ends_the_credit() {
    let mut pair = connected(3, 2);
    pair.send();
    pair.deliver_down();
    pair.receiver.settle(0..1);
    pair.receiver.give_back(1..2);
    pair.speak(0);
    while !pair.up.is_empty() {
        pair.deliver_up();
    }
    assert_eq!(pair.acked, [0]);
    let queued = pair.queue.iter().flat_map(|(run, inputs)| inputs.of(run.len()).0);
    assert_eq!(queued.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(pair.sender.unused(), 0, "a withdrawn link has no credit");
}

#[test]
fn credit_that_is_forfeited_is_nobody_s_until_it_is_granted_anew() {
    let mut pair = connected(0, 8);
    assert_eq!(pair.sender.unused(), 8);
    pair.sender.forfeit();
    assert_eq!(pair.sender.unused(), 1);
    pair.send();
    pair.deliver_down();
    assert_eq!(pair.receiver.outstanding(), 1);
    assert!(!pair.receiver.is_active());
}

#[test]
fn what_a_peer_may_not_do_is_a_typed_violation() {
    let mut pair = connected(2, 2);
    pair.send();
    pair.deliver_down();
    let ahead = crate::ranges::Settled::from_parts(3, []);
    assert_eq!(pair.sender.on_ack(&ahead), Err(Violation::SettledUnsent { number: 3, sent: 2 }));
    let more = crate::frame::Items { batch: vec![item(9, 0).into()], ..Default::default() };
    assert_eq!(
        pair.receiver.on_items(Time::ZERO, &more, 9),
        Err(Violation::ItemCredit { sent: 3, limit: 2 })
    );
    pair.receiver.grant(5);
    let large = crate::frame::Items { batch: vec![item(9, 10_001).into()], ..Default::default() };
    let max = POLICY.max_payload;
    assert_eq!(
        pair.receiver.on_items(Time::ZERO, &large, 9),
        Err(Violation::PayloadTooLarge { size: 10_001, max })
    );
    let two = crate::frame::Items {
        batch: vec![item(9, 150).into(), item(10, 150).into()],
        ..Default::default()
    };
    assert!(matches!(
        pair.receiver.on_items(Time::ZERO, &two, 9),
        Err(Violation::ByteCredit { .. })
    ));
}
