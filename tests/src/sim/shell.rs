//! The shell around a task: it runs functions and sets timers over simulated time, hands what goes out
//! to [`super::carrier`], and checks the task after every call.

use std::collections::BTreeMap;

use stageline_protocol::control::{ProcessKind, TaskEnd};
use stageline_protocol::run::Packer;
use stageline_protocol::task::{Effect, Finished, Task};
use stageline_protocol::{Body, Encoding, Lineage, Run, TaskId, Time};

use super::Shape;
use super::cluster::{Cluster, Event};
use super::functions::{self, EXPAND};
use super::invariants::{own, window};
use super::network::Pid;
use super::node::Running;

/// How far a function is with its input.
#[derive(Debug)]
pub(super) enum Call {
    /// It begins with this value.
    Begin(u64),
    /// It and those that follow began together with these values, and are done together.
    Burst(Vec<u64>),
    /// It has waited after its first attempt.
    Again,
    /// It goes on: so many outputs are made.
    Made(u64, usize),
    /// The consumer takes it.
    Deliver(Lineage, Body),
}

impl Cluster {
    pub(super) fn begin_task(&mut self, pid: Pid, id: TaskId) -> Result<(), String> {
        let node = &self.nodes[pid];
        let position = node.view.as_ref().and_then(|view| view.positions.get(&id.stage).copied());
        let position = position.unwrap_or(0);
        let (pipeline, limits) = (&self.schedule.pipeline, self.schedule.limits);
        let task = Task::new(self.job, id, pipeline, position, limits);
        let mut task = task.ok_or_else(|| format!("a view with a task of no stage: {id}"))?;
        if id.stage != functions::TERMINAL && id.stage != EXPAND {
            task.set_burst(self.rng.u64(..12));
        }
        let running = Running {
            task,
            next_root: position,
            timer: None,
            asked: false,
            backoff: BTreeMap::new(),
        };
        self.nodes[pid].tasks.insert(id, running);
        Ok(())
    }

    /// A task is over: its connections close behind what it has sent.
    pub(super) fn end_task(&mut self, pid: Pid, id: TaskId, why: TaskEnd) {
        let Some(running) = self.nodes[pid].tasks.remove(&id) else { return };
        self.log.note(self.now, format_args!("{id} ends: {why:?}"));
        self.figures.take(&running.task.stats());
        if why != TaskEnd::Stopped || self.nodes[pid].leaving {
            let report = running.task.report(Some(why));
            self.nodes[pid].ended.insert(id, report);
        }
        for (conn, side) in self.network.ends_of(pid, Some(id)) {
            self.hang_up(conn, side);
        }
    }

    /// Does all that a task wants done, now or in a moment, and checks it. A shell that has much to
    /// do tells its task several things before it asks what follows.
    pub(super) fn drive(&mut self, pid: Pid, id: TaskId) -> Result<(), String> {
        let busy = self.chance(self.schedule.pace.busy_shells);
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        own::check(&running.task)?;
        if running.asked {
            return Ok(());
        }
        if busy {
            running.asked = true;
            self.after(0, 3_000, Event::Ask(pid, id));
            return Ok(());
        }
        self.ask(pid, id)
    }

    /// Asks a task for all that it wants done.
    pub(super) fn ask(&mut self, pid: Pid, id: TaskId) -> Result<(), String> {
        let mut report = false;
        loop {
            let now = self.now;
            let frames_first = self.schedule.pace.frames_first;
            let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
            running.asked = false;
            let mut frame = if frames_first { running.task.poll_frame(now) } else { None };
            let effect = if frame.is_none() { running.task.poll_effect() } else { None };
            if frame.is_none() && effect.is_none() && !frames_first {
                frame = running.task.poll_frame(now);
            }
            match (frame, effect) {
                (Some((key, conn, frame)), _) => self.send(pid, id, key, conn, frame)?,
                (None, Some(Effect::Report)) => report = true,
                (None, Some(Effect::End(why))) => {
                    self.end_task(pid, id, why);
                    self.report(pid);
                    return self.leave_if_done(pid);
                }
                (None, Some(effect)) => self.carry_out(pid, id, effect)?,
                (None, None) => break,
            }
        }
        if report {
            self.report(pid);
        }
        self.set_timer(pid, id);
        match self.nodes[pid].tasks.get(&id) {
            Some(running) => own::check(&running.task),
            None => Ok(()),
        }
    }

    fn set_timer(&mut self, pid: Pid, id: TaskId) {
        let late = self.rng.u64(..300);
        let now = self.now;
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return };
        let Some(at) = running.task.poll_timeout() else { return };
        let at = at.max(now) + std::time::Duration::from_micros(late);
        if running.timer.is_none_or(|set| at < set) {
            running.timer = Some(at);
            self.at(at, Event::Timer(pid, id, at));
        }
    }

    pub(super) fn timer(&mut self, pid: Pid, id: TaskId, at: Time) -> Result<(), String> {
        let now = self.now;
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        if running.timer != Some(at) {
            return Ok(());
        }
        running.timer = None;
        running.task.handle_timeout(now);
        own::advances(&running.task, now)?;
        self.drive(pid, id)
    }

    fn carry_out(&mut self, pid: Pid, id: TaskId, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Dial(key, open) => self.dial(pid, id, key, open),
            Effect::HangUp(key, conn) => {
                if let Some((conn, side)) = self.network.find(pid, id, key, conn) {
                    self.hang_up(conn, side);
                }
            }
            Effect::Start { input, run } => return self.start(pid, id, input, &run),
            Effect::Resume { input } => {
                let running = self.nodes[pid].tasks.get_mut(&id);
                let value = running.and_then(|running| running.backoff.remove(&input));
                let value = value.ok_or_else(|| format!("{id}: resumed {input}, never waiting"))?;
                self.call_later(pid, id, input, Call::Made(value, 0));
            }
            Effect::Pull { items, bytes } => {
                self.after(0, self.schedule.pace.call[0], Event::Pulled(pid, id, items, bytes));
            }
            // Nobody is killed by an item here, so the process need not really be empty.
            Effect::Isolate { input, .. } => {
                self.after(10, 1_000, Event::Isolated(pid, id, input));
            }
            Effect::Drop { input } => {
                if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
                    running.backoff.remove(&input);
                }
            }
            Effect::Rejoin { .. } | Effect::Abort | Effect::Report | Effect::End(_) => {}
        }
        Ok(())
    }

    /// Items get functions, or a consumer: each for itself, or all at once.
    fn start(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Result<(), String> {
        let terminal = id.stage == functions::TERMINAL;
        let run = &match self.within_slots(pid, id, first, run) {
            Some(within) => within,
            None => return self.on_the_spot(pid, id, first, run),
        };
        let at_once = run.len() > 1 && !terminal && id.stage != EXPAND && self.rng.bool();
        let mut values = Vec::new();
        for (input, item) in (first..).zip(run.items()) {
            let call = match functions::decode(&item.body) {
                _ if terminal => Call::Deliver(item.lineage, item.body),
                Some(value) if at_once => {
                    values.push(value);
                    continue;
                }
                Some(value) => Call::Begin(value),
                None => return Err(format!("{id}: started {}, which is no value", item.lineage)),
            };
            self.call_later(pid, id, input, call);
        }
        if at_once {
            self.call_later(pid, id, first, Call::Burst(values));
        }
        Ok(())
    }

    /// Of a run that has started beyond the slots, some are postponed; or it is called on the spot: None.
    fn within_slots(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Option<Run> {
        if run.marked || id.stage == functions::TERMINAL || id.stage == EXPAND {
            return Some(run.clone());
        }
        let (now, on_the_spot) = (self.now, self.rng.bool());
        let task = &mut self.nodes[pid].tasks.get_mut(&id)?.task;
        let excess = task.excess().min(run.len());
        if excess == 0 {
            return Some(run.clone());
        }
        if on_the_spot || excess == run.len() {
            return None;
        }
        let mut within = run.clone();
        let others = within.split_off(run.len() - excess);
        task.postpone(now, first + within.len(), &others);
        Some(within)
    }

    fn on_the_spot(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Result<(), String> {
        let values = run.items().map(|item| functions::decode(&item.body));
        let values: Option<Vec<u64>> = values.collect();
        let values = values.ok_or_else(|| format!("{id}: started {run:?}, not all values"))?;
        let name = self.nodes[pid].name.clone();
        self.burst(pid, id, first, &values, &name);
        Ok(())
    }

    /// A burst of calls is done: what went well is told together, as far as it stands together.
    fn burst(&mut self, pid: Pid, id: TaskId, first: u64, values: &[u64], name: &str) {
        let now = self.now;
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return };
        let mut packer = (Packer::new(), first);
        for (input, value) in (first..).zip(values) {
            let finished = functions::call(id.stage, *value, name);
            if let Finished::One(Encoding::Raw, bytes) = &finished
                && packer.0.push(bytes)
            {
                continue;
            }
            if let Some(outputs) = packer.0.take() {
                running.task.finish_each(now, packer.1, Encoding::Raw, &outputs);
            }
            packer.1 = input + 1;
            match finished {
                Finished::Keep => running.task.finish_all(now, input..input + 1, true),
                Finished::Nothing => running.task.finish_all(now, input..input + 1, false),
                other => running.task.finish(now, input, other),
            }
        }
        if let Some(outputs) = packer.0.take() {
            running.task.finish_each(now, packer.1, Encoding::Raw, &outputs);
        }
    }

    /// The process is empty for a suspect.
    pub(super) fn isolated(&mut self, pid: Pid, id: TaskId, input: u64) -> Result<(), String> {
        let (now, crowded) = (self.now, self.chance(10));
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        running.task.isolated(now, input, crowded);
        self.drive(pid, id)
    }

    fn call_later(&mut self, pid: Pid, id: TaskId, input: u64, call: Call) {
        let longest = self.schedule.pace.call[id.stage.0 as usize];
        self.after(10, longest, Event::Call(pid, id, input, call));
    }

    pub(super) fn call(
        &mut self,
        pid: Pid,
        id: TaskId,
        input: u64,
        call: Call,
    ) -> Result<(), String> {
        let now = self.now;
        let second = self.rng.u64(..self.schedule.pace.second_attempts) == 0;
        let name = self.nodes[pid].name.clone();
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        match call {
            Call::Begin(value) if second => {
                running.backoff.insert(input, value);
                running.task.release_slot(now, input);
                self.call_later(pid, id, input, Call::Again);
            }
            Call::Again => running.task.want_slot(now, input),
            Call::Burst(values) => self.burst(pid, id, input, &values, &name),
            Call::Begin(value) => self.go_on(pid, id, input, value, 0, &name),
            Call::Made(value, made) => self.go_on(pid, id, input, value, made, &name),
            // It wanted no more, and was told so: what was handed to it is dropped.
            Call::Deliver(..) if self.boundary.is_satisfied() => return Ok(()),
            Call::Deliver(lineage, body) => {
                running.task.finish(now, input, Finished::Nothing);
                self.log.note(now, format_args!("delivered {lineage}"));
                self.boundary.deliver(&lineage, &body)?;
                if self.boundary.is_satisfied() {
                    self.log.note(now, format_args!("CUT"));
                    running.task.cut_inputs(now);
                }
            }
        }
        self.drive(pid, id)
    }

    fn go_on(&mut self, pid: Pid, id: TaskId, input: u64, value: u64, made: usize, name: &str) {
        let now = self.now;
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return };
        if id.stage == EXPAND
            && let Some(output) = functions::expansion(value).get(made)
        {
            if !running.task.can_emit() {
                let again = Event::Call(pid, id, input, Call::Made(value, made));
                return self.after(1_000, 5_000, again);
            }
            running.task.emit(now, input, Encoding::Raw, functions::encode(*output));
            return self.call_later(pid, id, input, Call::Made(value, made + 1));
        }
        let finished = functions::call(id.stage, value, name);
        running.task.finish(now, input, finished);
    }

    pub(super) fn pulled(
        &mut self,
        pid: Pid,
        id: TaskId,
        items: u64,
        bytes: u64,
    ) -> Result<(), String> {
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        let left = self.schedule.roots.saturating_sub(running.next_root);
        let most = items.min(left);
        let wanted = if most == 0 { 0 } else { self.rng.u64(1..=most) };
        let mut roots = functions::Roots::default();
        let mut size = 0;
        while roots.count() < wanted && size < bytes {
            let body = functions::root_body(self.seed, running.next_root);
            size += functions::size_of(&body);
            running.next_root += 1;
            roots.push(body);
        }
        // Sometimes a source learns only later that it has no more.
        let exhausted =
            running.next_root >= self.schedule.roots && (roots.count() == 0 || self.rng.bool());
        let (now, count) = (self.now, roots.count());
        self.log.note(now, format_args!("{count} roots, exhausted {exhausted}"));
        running.task.roots(now, roots.take(), exhausted);
        let source =
            running.task.report(None).source.ok_or("a source without a source's report")?;
        let admitted = running.task.admitted().unwrap_or(0);
        // A named source's window begins at what is stored, which its watermark may be ahead of.
        let watermark =
            if self.shape == Shape::NamedSource { self.stored.position } else { source.watermark };
        if let Some(most) = self.schedule.pipeline.max_in_flight
            && count > 0
        {
            window::check(id, admitted, watermark, most)?;
        }
        self.drive(pid, id)
    }

    /// Who leaves goes when all that it had is settled.
    fn leave_if_done(&mut self, pid: Pid) -> Result<(), String> {
        let node = &self.nodes[pid];
        if node.leaving && node.alive && node.tasks.is_empty() {
            debug_assert_eq!(node.kind, ProcessKind::Worker);
            return self.leave_now(pid);
        }
        Ok(())
    }
}
