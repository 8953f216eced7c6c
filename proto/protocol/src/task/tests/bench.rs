//! Some tasks of one job, and shells around them that do everything at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::control::{TaskEnd, TaskReport, TaskStats};
use crate::frame::{Frame, Open};
use crate::ids::{ChannelId, ConnId, Epoch, JobId, StageId, TaskId};
use crate::item::Encoding;
use crate::lineage::Lineage;
use crate::link::Violation;
use crate::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use crate::run::{Content, Packed};
use crate::task::{Dials, Effect, Finished, Limits, LinkKey, Plan, Task};
use crate::time::Time;

pub(super) const LEASE: Duration = Duration::from_secs(10);

/// Some tasks of source → work → out, and what their shells have seen.
pub(super) struct Bench {
    pub(super) now: Time,
    pub(super) pipeline: Pipeline,
    pub(super) slots: u32,
    pub(super) window: u64,
    pub(super) position: Option<u64>,
    pub(super) again: bool,
    pub(super) cut: BTreeSet<ChannelId>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// All that the plans name, tasks played by hand included.
    pub(super) peers: BTreeSet<TaskId>,
    /// Between these, upstream first, nothing gets through.
    pub(super) severed: BTreeSet<(TaskId, TaskId)>,
    /// These answer nothing.
    pub(super) frozen: BTreeSet<TaskId>,
    pub(super) runs: BTreeMap<TaskId, VecDeque<Run>>,
    pub(super) pulled: BTreeMap<TaskId, usize>,
    pub(super) resumed: Vec<u64>,
    /// What was asked of the process, in words.
    pub(super) process: Vec<String>,
    pub(super) aborted: Vec<TaskId>,
    pub(super) reports: usize,
    pub(super) ends: Vec<(TaskId, TaskEnd)>,
    pub(super) violations: Vec<Violation>,
    pub(super) dials: Vec<Open>,
    pub(super) frames: Vec<(TaskId, LinkKey, Frame)>,
}

/// An input that a function has.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) input: u64,
    pub(super) lineage: Lineage,
}

impl Bench {
    pub(super) fn new(buffer: Option<u32>) -> Self {
        let stage = |name: &str, op, site| Stage::new(name, op, site);
        let channel = |from: u32, buffer| Channel {
            from: StageId(from),
            to: StageId(from + 1),
            carries: Carries::All,
            buffer,
        };
        let pipeline = Pipeline {
            stages: vec![
                stage("source", Op::Source, Site::Client),
                stage("work", Op::Map, Site::Fleet),
                stage("out", Op::Terminal, Site::Client),
            ],
            channels: vec![channel(0, buffer), channel(1, None)],
            ..Pipeline::default()
        };
        Self {
            now: Time::ZERO,
            pipeline,
            slots: 1,
            window: 1_000,
            position: None,
            again: false,
            cut: BTreeSet::new(),
            tasks: BTreeMap::new(),
            peers: BTreeSet::new(),
            severed: BTreeSet::new(),
            frozen: BTreeSet::new(),
            runs: BTreeMap::new(),
            pulled: BTreeMap::new(),
            resumed: Vec::new(),
            process: Vec::new(),
            aborted: Vec::new(),
            reports: 0,
            ends: Vec::new(),
            violations: Vec::new(),
            dials: Vec::new(),
            frames: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, id: TaskId) {
        let limits = Limits { lease: LEASE, ..Limits::default() };
        let task = Task::new(JobId(1), id, &self.pipeline, 0, limits).expect("a stage");
        self.tasks.insert(id, task);
        self.peers.insert(id);
    }

    pub(super) fn start(&mut self, ids: &[TaskId]) {
        ids.iter().for_each(|id| self.add(*id));
        self.plan_all();
    }

    pub(super) fn remove(&mut self, id: TaskId) {
        self.tasks.remove(&id);
        self.peers.remove(&id);
        self.plan_all();
    }

    pub(super) fn plan_all(&mut self) {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        ids.into_iter().for_each(|id| self.plan(id));
    }

    pub(super) fn plan(&mut self, id: TaskId) {
        let dials = |peer: &TaskId| if peer.stage > id.stage { Dials::We } else { Dials::They };
        let neighbours = self.peers.iter().filter(|peer| peer.stage.0.abs_diff(id.stage.0) == 1);
        let plan = Plan {
            slots: self.slots,
            peers: neighbours.map(|peer| (*peer, dials(peer))).collect(),
            highest_epoch: Epoch(10),
            window: self.window,
            pause: false,
            cut: self.cut.clone(),
            position: self.position.filter(|_| id.stage == StageId(0)),
            again: self.again,
        };
        self.with(id, |task, now| task.set_plan(now, &plan));
    }

    /// Tells a task something, and carries out all that follows.
    pub(super) fn with<T>(&mut self, id: TaskId, tell: impl FnOnce(&mut Task, Time) -> T) -> T {
        let told = tell(self.tasks.get_mut(&id).expect("a task of the bench"), self.now);
        self.settle();
        told
    }

    pub(super) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
            for id in ids {
                while let Some(task) = self.tasks.get_mut(&id) {
                    if let Some(effect) = task.poll_effect() {
                        self.carry_out(id, effect);
                    } else if let Some((key, conn, frame)) = task.poll_frame(self.now) {
                        self.frames.push((id, key, frame.clone()));
                        self.deliver(id, key, conn, frame);
                    } else {
                        break;
                    }
                    quiet = false;
                }
            }
            if quiet {
                break;
            }
        }
        for task in self.tasks.values() {
            task.check_invariants().expect("an invariant");
        }
    }

    pub(super) fn through(&self, from: TaskId, to: TaskId) -> bool {
        let pair = if from.stage < to.stage { (from, to) } else { (to, from) };
        !self.severed.contains(&pair) && !self.frozen.contains(&from) && !self.frozen.contains(&to)
    }

    pub(super) fn deliver(&mut self, from: TaskId, key: LinkKey, conn: ConnId, frame: Frame) {
        if !self.through(from, key.peer) {
            return;
        }
        let theirs = LinkKey { channel: key.channel, peer: from };
        if let Some(task) = self.tasks.get_mut(&key.peer)
            && let Err(violation) = task.on_frame(self.now, theirs, conn, frame)
        {
            self.violations.push(violation);
        }
    }

    pub(super) fn carry_out(&mut self, id: TaskId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Dial(key, open) => {
                let conn = open.conn;
                self.dials.push((*open).clone());
                if self.frozen.contains(&key.peer) {
                    return;
                }
                let peer = self.through(id, key.peer).then(|| self.tasks.get_mut(&key.peer));
                match peer.flatten().map(|task| task.on_open(now, &open)) {
                    Some(Ok((theirs, accept))) => {
                        self.deliver(key.peer, theirs, conn, Frame::Accept(accept));
                    }
                    Some(Err(close)) => {
                        let theirs = LinkKey { channel: key.channel, peer: id };
                        self.deliver(key.peer, theirs, conn, Frame::Close(close));
                    }
                    None => {
                        if let Some(task) = self.tasks.get_mut(&id) {
                            task.on_down(now, key, conn);
                        }
                    }
                }
            }
            Effect::HangUp(key, conn) => {
                let theirs = LinkKey { channel: key.channel, peer: id };
                if self.through(id, key.peer)
                    && let Some(peer) = self.tasks.get_mut(&key.peer)
                {
                    peer.on_down(now, theirs, conn);
                }
            }
            Effect::Start { input, run } => {
                let started = (input..).zip(run.items());
                let started = started.map(|(input, item)| Run { input, lineage: item.lineage });
                self.runs.entry(id).or_default().extend(started);
            }
            Effect::Resume { input } => self.resumed.push(input),
            Effect::Isolate { input, .. } => self.process.push(format!("isolate {input}")),
            Effect::Rejoin { input } => self.process.push(format!("rejoin {input}")),
            Effect::Drop { input } => self.process.push(format!("drop {input}")),
            Effect::Abort => {
                self.runs.remove(&id);
                self.aborted.push(id);
            }
            Effect::Pull { .. } => *self.pulled.entry(id).or_default() += 1,
            Effect::Report => self.reports += 1,
            Effect::End(end) => self.ends.push((id, end)),
        }
    }

    /// Breaks the connections between two tasks, upstream first, and lets none come up.
    pub(super) fn sever(&mut self, from: TaskId, to: TaskId) {
        self.severed.insert((from, to));
        for (own, peer) in [(from, to), (to, from)] {
            let key = LinkKey { channel: ChannelId(from.stage.0), peer };
            let now = self.now;
            if let Some(task) = self.tasks.get_mut(&own)
                && let Some(conn) = task.wire(key).and_then(|wire| wire.conn())
            {
                task.on_down(now, key, conn);
            }
        }
        self.settle();
    }

    /// Lets time pass; every timer fires when it is due.
    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = self.tasks.values().filter_map(Task::poll_timeout).min();
            let Some(at) = due.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
            for id in ids {
                self.with(id, |task, now| task.handle_timeout(now));
                let next = self.tasks[&id].poll_timeout();
                assert!(next.is_none_or(|next| next > self.now), "{id}: its timer stands still");
            }
        }
        self.now = until;
    }

    /// Answers a source's call for roots, if there is one.
    pub(super) fn make_roots(&mut self, id: TaskId, count: usize) {
        if let Some(pulls) = self.pulled.get_mut(&id).filter(|pulls| **pulls > 0) {
            *pulls -= 1;
            let roots = Packed::alike(Bytes::from(vec![b'x'; count]), 1, count as u64);
            let roots = roots.map(|roots| Content::Values(Encoding::Raw, roots));
            self.with(id, |task, now| task.roots(now, roots.into_iter().collect(), false));
        }
    }

    pub(super) fn pulls(&self, id: TaskId) -> usize {
        self.pulled.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn try_take_started(&mut self, id: TaskId) -> Option<Run> {
        self.runs.get_mut(&id)?.pop_front()
    }

    pub(super) fn take_started(&mut self, id: TaskId) -> Run {
        self.try_take_started(id).expect("an input that has started")
    }

    /// The function of a task is done with its oldest input.
    pub(super) fn finish(&mut self, id: TaskId, finished: Finished) {
        let run = self.take_started(id);
        self.with(id, |task, now| task.finish(now, run.input, finished));
    }

    /// What the functions of a task have.
    pub(super) fn started(&self, id: TaskId) -> Vec<String> {
        self.runs.get(&id).into_iter().flatten().map(|run| run.lineage.to_string()).collect()
    }

    pub(super) fn stats(&self, id: TaskId) -> TaskStats {
        self.tasks[&id].stats()
    }

    pub(super) fn report(&self, id: TaskId) -> TaskReport {
        self.tasks[&id].report(None)
    }

    pub(super) fn watermark(&self, id: TaskId) -> u64 {
        self.report(id).source.expect("a source").watermark
    }

    /// What a task has sent, as far as it is asked for.
    pub(super) fn sent<T>(&self, id: TaskId, pick: impl Fn(&Frame) -> Option<T>) -> Vec<T> {
        let own = self.frames.iter().filter(|(from, ..)| *from == id);
        own.filter_map(|(.., frame)| pick(frame)).collect()
    }

    /// The links over which a task has acked something.
    pub(super) fn acked(&self, id: TaskId) -> Vec<LinkKey> {
        let acks = self.frames.iter().filter(|(from, _, frame)| {
            *from == id && matches!(frame, Frame::Ack(ack) if ack.settled.end() > 0)
        });
        acks.map(|(_, key, _)| *key).collect()
    }
}
