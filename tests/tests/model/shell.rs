//! What is around the machines: it carries out an action, and at once all that follows from it within
//! the same task. Frames and hang-ups go onto the connections, where they wait for their own action.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stageline_protocol::Frame;
use stageline_protocol::frame::Open;
use stageline_protocol::ids::{Epoch, JobId, TaskId};
use stageline_protocol::item::{Encoding, ErrorKind, ItemError};
use stageline_protocol::lineage::{Lineage, Step};
use stageline_protocol::pipeline::Op;
use stageline_protocol::run::{Content, Packed};
use stageline_protocol::suspect::Verdict;
use stageline_protocol::task::{Effect, Finished, Limits, LinkKey, Plan, Task};
use stageline_protocol::time::Time;

use crate::setup::{Action, Fault, OUTPUTS, SOURCE, Setup};
use crate::world::{Conn, End, Message, Name, Run, Shared, World};

const NOW: Time = Time::ZERO;
/// Longer than anything that is waited for here.
const NEVER: Duration = Duration::from_secs(1_000_000);
const JOB: JobId = JobId(1);
const DIALLER: usize = 0;
const ACCEPTOR: usize = 1;

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let tasks = setup.tasks();
        let mut world = Self {
            tasks: BTreeMap::new(),
            conns: Vec::new(),
            runs: BTreeMap::new(),
            wanted: tasks.iter().copied().collect(),
            to_tell: tasks.iter().copied().collect(),
            left: setup.items,
            faults: setup.faults,
            given: BTreeMap::new(),
            taken: BTreeSet::new(),
            ended_well: BTreeSet::new(),
            broken: None,
        };
        // The order in which a job starts is not what is looked at.
        for id in tasks {
            world.act(setup, Action::Plan(id));
        }
        world
    }

    pub(crate) fn act(&mut self, setup: &Setup, action: Action) {
        match action {
            Action::Deliver(conn, to) => self.deliver(conn, to),
            Action::Timer(id) => {
                self.with(id, |task| {
                    let at = task.poll_timeout().unwrap_or(NOW);
                    task.handle_timeout(at);
                });
            }
            Action::Finish(id, input) => self.finish(setup, id, input),
            Action::Plan(id) => self.plan(setup, id),
            Action::Fault(fault) => {
                self.faults -= 1;
                self.fault(fault);
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Break(conn) => {
                for end in &mut self.conn(conn).ends {
                    end.inbox = VecDeque::from([Message::Gone]);
                }
            }
            Fault::HangUp(name, at) => {
                let conn = self.conn(name);
                let Some(end) = conn.end_at(at) else { return };
                // What was under way to this end is lost.
                conn.ends[end].inbox.clear();
                let key = conn.key(end);
                self.down(at, key, name);
            }
            Fault::Kill { lost } => self.kill(lost),
            Fault::Fail(id, input) => self.fail(id, input),
        }
    }

    fn kill(&mut self, lost: bool) {
        let Some(dead) = self.worker() else { return };
        self.tasks.remove(&dead);
        self.runs.remove(&dead);
        for conn in &mut self.conns {
            let Some(end) = conn.end_at(dead) else { continue };
            let conn = Arc::make_mut(conn);
            conn.ends[end].open = false;
            conn.ends[end].inbox.clear();
            let peer = &mut conn.ends[1 - end];
            if lost {
                peer.inbox.clear();
            }
            if peer.open {
                peer.inbox.push_back(Message::Gone);
            }
        }
        self.forget_closed();
        let epoch = self.wanted.iter().map(|id| id.epoch.0).max().unwrap_or(0) + 1;
        self.wanted.remove(&dead);
        self.wanted.insert(TaskId { epoch: Epoch(epoch), ..dead });
        self.to_tell = self.wanted.clone();
    }

    /// A task hears whom it works with; a new one begins.
    fn plan(&mut self, setup: &Setup, id: TaskId) {
        self.to_tell.remove(&id);
        let neighbours = self.wanted.iter().filter(|peer| peer.stage.0.abs_diff(id.stage.0) == 1);
        let plan = Plan {
            slots: setup.slots,
            peers: neighbours.map(|peer| (*peer, setup.dials(id, *peer))).collect(),
            highest_epoch: self.wanted.iter().map(|id| id.epoch).max().unwrap_or_default(),
            window: 1_000,
            pause: false,
            cut: [].into(),
            position: None,
            again: false,
        };
        if !self.tasks.contains_key(&id) {
            let limits = Limits {
                flush: Duration::ZERO,
                watermark: Duration::ZERO,
                forfeit: NEVER,
                lease: NEVER,
                bug: setup.bug,
                ..Limits::default()
            };
            let Some(task) = Task::new(JOB, id, &setup.pipeline(), 0, limits) else {
                return self.complain(format!("{id} is no stage"));
            };
            self.tasks.insert(id, Shared::new(task));
        }
        self.with(id, |task| task.set_plan(NOW, &plan));
    }

    /// A call takes its next step: an expansion makes an output, or ends; any other ends.
    fn finish(&mut self, setup: &Setup, id: TaskId, input: u64) {
        let x = || Bytes::from_static(b"x");
        let op = setup.pipeline().stages[id.stage.0 as usize].op;
        let runs = self.runs.entry(id).or_default();
        let Some(at) = runs.iter().position(|run| run.input == input) else { return };
        if op == Op::FlatMap && runs[at].made < OUTPUTS {
            runs[at].made += 1;
            self.with(id, |task| task.emit(NOW, input, Encoding::Raw, x()));
            return;
        }
        let run = runs.remove(at);
        let finished = match op {
            Op::Terminal => {
                self.taken.insert(run.lineage);
                Finished::Nothing
            }
            Op::FlatMap => Finished::Expanded,
            _ => Finished::One(Encoding::Raw, x()),
        };
        self.with(id, |task| task.finish(NOW, input, finished));
    }

    /// A call fails, whatever its input.
    fn fail(&mut self, id: TaskId, input: u64) {
        self.runs.entry(id).or_default().retain(|run| run.input != input);
        let error = ItemError {
            stage: "expand".to_owned(),
            kind: ErrorKind::Timeout,
            message: String::new(),
            attempts: 1,
            worker: String::new(),
        };
        let failed = Finished::Failed(Box::new(error));
        self.with(id, |task| task.finish(NOW, input, failed));
    }

    fn is_terminal(&self, id: TaskId) -> bool {
        self.wanted.iter().map(|task| task.stage).max() == Some(id.stage)
    }

    fn deliver(&mut self, name: Name, to: TaskId) {
        let conn = self.conn(name);
        let Some(end) = conn.end_at(to) else { return };
        let key = conn.key(end);
        match conn.ends[end].inbox.pop_front() {
            Some(Message::Open(open)) => self.open(name, to, &open),
            Some(Message::Frame(frame, _)) => {
                let frame = Arc::unwrap_or_clone(frame);
                if self.is_terminal(to) {
                    self.note_ends(&frame);
                }
                let told = self.with(to, |task| task.on_frame(NOW, key, name.id, frame));
                if let Some(Err(violation)) = told {
                    self.complain(format!("{to} from {}: {violation}", key.peer));
                }
            }
            Some(Message::Gone) => self.down(to, key, name),
            None => {}
        }
    }

    /// Notes which expansions are known at the terminal to have ended well, and as a whole.
    fn note_ends(&mut self, frame: &Frame) {
        let Frame::Items(items) = frame else { return };
        for run in items.batch.iter().filter(|run| run.content == Content::End) {
            let root = Lineage::root(SOURCE.stage, run.lineage.root);
            let failed = (0..=OUTPUTS).any(|n| self.given.contains_key(&root.with(Step::End(n))));
            if !failed {
                self.ended_well.insert(root);
            }
        }
    }

    fn open(&mut self, name: Name, to: TaskId, open: &Open) {
        let Some(shared) = self.tasks.get_mut(&to) else { return };
        match shared.open().on_open(NOW, open) {
            Ok((_, accept)) => self.put(name, DIALLER, Frame::Accept(accept).into()),
            Err(close) => {
                self.put(name, DIALLER, Frame::Close(close).into());
                self.close(name, ACCEPTOR);
            }
        }
        self.settle(to);
    }

    /// The task notices that the connection is gone.
    fn down(&mut self, task: TaskId, key: LinkKey, name: Name) {
        self.with(task, |task| task.on_down(NOW, key, name.id));
        self.close_at(name, task);
    }

    /// Tells a task something, and carries out all that follows from it there.
    fn with<T>(&mut self, id: TaskId, tell: impl FnOnce(&mut Task) -> T) -> Option<T> {
        let told = tell(self.tasks.get_mut(&id)?.open());
        self.settle(id);
        Some(told)
    }

    fn settle(&mut self, id: TaskId) {
        while let Some(shared) = self.tasks.get_mut(&id) {
            let task = shared.open();
            if let Some(effect) = task.poll_effect() {
                self.carry_out(id, effect);
            } else if let Some((key, conn, frame)) = task.poll_frame(NOW) {
                let name = Name::of(id, key.peer, conn);
                if let Some(end) = self.find(name).and_then(|conn| conn.end_at(id)) {
                    self.put(name, 1 - end, frame.into());
                }
            } else {
                shared.seal();
                if let Err(broken) = shared.get().check_invariants() {
                    self.complain(broken);
                }
                return;
            }
        }
    }

    fn carry_out(&mut self, id: TaskId, effect: Effect) {
        match effect {
            Effect::Dial(key, open) => self.dial(id, key, *open),
            Effect::HangUp(key, conn) => self.close_at(Name::of(id, key.peer, conn), id),
            Effect::Start { input, run } => {
                for (input, item) in (input..).zip(run.items()) {
                    if self.is_terminal(id) {
                        *self.given.entry(item.lineage.clone()).or_default() += 1;
                    }
                    let run = Run { input, lineage: item.lineage, made: 0 };
                    self.runs.entry(id).or_default().push(run);
                }
            }
            Effect::Pull { items, .. } => {
                let count = self.left.min(items);
                self.left -= count;
                let exhausted = self.left == 0;
                let roots = Packed::alike(Bytes::from(vec![b'x'; count as usize]), 1, count);
                let roots = roots.map(|roots| Content::Values(Encoding::Raw, roots));
                if let Some(source) = self.tasks.get_mut(&SOURCE) {
                    source.open().roots(NOW, roots.into_iter().collect(), exhausted);
                }
            }
            // Nothing dies of an item here: the coordinator lets everything start, at once.
            Effect::Report => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    let task = task.open();
                    for marked in task.report(None).marked {
                        task.verdict(NOW, &marked.lineage, &Verdict::Run);
                    }
                }
            }
            other => self.complain(format!("{id}: {other:?}")),
        }
    }

    fn dial(&mut self, id: TaskId, key: LinkKey, open: Open) {
        let end = |task| End { task, open: true, inbox: VecDeque::new() };
        let name = Name { acceptor: key.peer, id: open.conn };
        let mut conn = Conn { name, channel: key.channel, ends: [end(id), end(key.peer)] };
        if self.wanted.contains(&key.peer) {
            conn.ends[ACCEPTOR].inbox.push_back(Message::Open(Arc::new(open)));
        } else {
            // Nobody answers; the dialler will hear that this task has been replaced.
            conn.ends[ACCEPTOR].open = false;
        }
        if self.find(name).is_some() {
            self.complain(format!("{name:?} is dialled twice"));
        }
        self.conns.push(Arc::new(conn));
        self.conns.sort_by_key(|conn| conn.name);
    }

    fn put(&mut self, name: Name, end: usize, message: Message) {
        let end = &mut self.conn(name).ends[end];
        if end.open {
            end.inbox.push_back(message);
        }
    }

    fn close_at(&mut self, name: Name, task: TaskId) {
        if let Some(end) = self.find(name).and_then(|conn| conn.end_at(task)) {
            self.close(name, end);
        }
    }

    /// This end is closed. What was under way to it must have no effect any more. That is checked at
    /// once, for frames that linger in the process; it saves the states in which they wait.
    fn close(&mut self, name: Name, end: usize) {
        let conn = self.conn(name);
        if !std::mem::replace(&mut conn.ends[end].open, false) {
            return;
        }
        let (task, key) = (conn.ends[end].task, conn.key(end));
        let stale = std::mem::take(&mut conn.ends[end].inbox);
        self.put(name, 1 - end, Message::Gone);
        self.forget_closed();
        let Some(shared) = self.tasks.get(&task) else { return };
        let mut late = shared.clone();
        late.seal();
        let before = late.fingerprint();
        for message in stale {
            if let Message::Frame(frame, _) = message {
                let told = late.open().on_frame(NOW, key, name.id, Frame::clone(&frame));
                late.seal();
                if told.is_err() || late.fingerprint() != before {
                    self.complain(format!("{task}: late on {name:?}, with an effect: {frame:?}"));
                    return;
                }
            }
        }
    }

    fn forget_closed(&mut self) {
        self.conns.retain(|conn| conn.ends.iter().any(|end| end.open));
    }

    fn find(&self, name: Name) -> Option<&Conn> {
        self.conns.iter().find(|conn| conn.name == name).map(Arc::as_ref)
    }

    /// A connection that is there.
    fn conn(&mut self, name: Name) -> &mut Conn {
        let index = self.conns.iter().position(|conn| conn.name == name);
        let Some(index) = index else { panic!("there is no connection {name:?}") };
        Arc::make_mut(&mut self.conns[index])
    }

    fn complain(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}
