//! The shell around a task: it runs functions and sets timers over simulated time, hands what goes out
//! to [`super::carrier`], and checks the task after every call.

use std::collections::BTreeMap;

use stageline_protocol::control::{ProcessKind, TaskEnd};
use stageline_protocol::pipeline::Op;
use stageline_protocol::run::Packer;
use stageline_protocol::task::{Effect, Finished, Task};
use stageline_protocol::{Body, Encoding, Lineage, Run, StageId, TaskId, Time};

use super::Shape;
use super::cluster::{Cluster, Event};
use super::functions::{self, Outcome};
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
    /// It waits for room, after so many outputs.
    Room(u64, usize),
    /// The consumer takes it.
    Deliver(Lineage, Body),
}

/// What becomes of a run that has started.
enum Within {
    /// These are called, each in its slot.
    Slots(Run),
    /// All are called, at once and here.
    Spot,
    /// All are postponed.
    Nothing,
}

impl Cluster {
    pub(super) fn begin_task(&mut self, pid: Pid, id: TaskId) -> Result<(), String> {
        let node = &self.nodes[pid];
        let position = node.view.as_ref().and_then(|view| view.positions.get(&id.stage).copied());
        let position = position.unwrap_or(0);
        let (pipeline, limits) = (&self.schedule.pipeline, self.schedule.limits);
        let task = Task::new(self.job, id, pipeline, position, limits);
        let mut task = task.ok_or_else(|| format!("a view with a task of no stage: {id}"))?;
        if self.runs_in_bursts(id.stage) {
            task.set_burst(self.rng.u64(..12));
        }
        let running = Running {
            task,
            next_root: position,
            timer: None,
            asked: false,
            backoff: BTreeMap::new(),
            lineages: BTreeMap::new(),
        };
        self.nodes[pid].tasks.insert(id, running);
        Ok(())
    }

    fn op(&self, stage: StageId) -> Op {
        self.schedule.work.kind(stage).op
    }

    fn runs_in_bursts(&self, stage: StageId) -> bool {
        matches!(self.op(stage), Op::Map | Op::Filter)
    }

    /// A task is over: its connections close behind what it has sent.
    pub(super) fn end_task(&mut self, pid: Pid, id: TaskId, why: TaskEnd) {
        let Some(running) = self.nodes[pid].tasks.remove(&id) else { return };
        self.nodes[pid].gate.abort(id, true);
        self.turn(pid);
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
                let waited = running.and_then(|running| running.backoff.remove(&input));
                let (value, made) =
                    waited.ok_or_else(|| format!("{id}: resumed {input}, never waiting"))?;
                self.enter(pid, id, input, Call::Made(value, made));
            }
            Effect::Pull { items, bytes } => {
                self.after(0, self.schedule.pace.call[0], Event::Pulled(pid, id, items, bytes));
            }
            Effect::Isolate { input, .. } => {
                self.nodes[pid].gate.isolate((id, input));
                self.turn(pid);
            }
            Effect::Rejoin { input } => {
                self.nodes[pid].gate.rejoin((id, input));
                self.turn(pid);
            }
            Effect::Drop { input } => {
                if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
                    running.backoff.remove(&input);
                }
            }
            Effect::Abort => {
                if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
                    running.backoff.clear();
                }
                self.nodes[pid].gate.abort(id, false);
                self.turn(pid);
            }
            Effect::Report | Effect::End(_) => {}
        }
        Ok(())
    }

    /// Items get functions, or a consumer: each for itself, or all at once.
    fn start(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Result<(), String> {
        let terminal = self.op(id.stage) == Op::Terminal;
        let run = &match self.within_slots(pid, id, first, run) {
            Within::Slots(within) => within,
            Within::Spot => return self.on_the_spot(pid, id, first, run),
            Within::Nothing => return Ok(()),
        };
        let open = self.nodes[pid].gate.is_open();
        let at_once = run.len() > 1 && open && self.runs_in_bursts(id.stage) && self.rng.bool();
        if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
            let lineages = run.items().map(|item| item.lineage);
            running.lineages.extend((first..).zip(lineages));
        }
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
            self.enter(pid, id, input, call);
        }
        if at_once {
            self.enter(pid, id, first, Call::Burst(values));
        }
        Ok(())
    }

    /// A call goes into the process, now or when the gate is open.
    fn enter(&mut self, pid: Pid, id: TaskId, input: u64, call: Call) {
        let gated = self.is_gated(pid);
        let call = if gated { self.nodes[pid].gate.enter((id, input), call) } else { Some(call) };
        if let Some(call) = call {
            self.call_later(pid, id, input, call);
        }
    }

    fn is_gated(&self, pid: Pid) -> bool {
        self.nodes[pid].kind == ProcessKind::Worker
    }

    /// A call is out of the process.
    fn leave_gate(&mut self, pid: Pid, id: TaskId, input: u64) {
        self.nodes[pid].gate.leave((id, input));
        self.turn(pid);
    }

    /// What follows from a change at the gate.
    fn turn(&mut self, pid: Pid) {
        let (alone, admitted) = self.nodes[pid].gate.turn();
        if let Some((id, input)) = alone {
            self.after(10, 1_000, Event::Isolated(pid, id, input));
        }
        for ((id, input), call) in admitted {
            self.call_later(pid, id, input, call);
        }
    }

    /// Of a run that has started beyond the slots, some are postponed; or it is called on the spot.
    fn within_slots(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Within {
        let all = || Within::Slots(run.clone());
        if run.marked || !self.runs_in_bursts(id.stage) {
            return all();
        }
        let (now, on_the_spot) = (self.now, self.rng.bool());
        let open = self.nodes[pid].gate.is_open();
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Within::Nothing };
        let excess = running.task.excess().min(run.len());
        if excess == 0 {
            return all();
        }
        if open && (on_the_spot || excess == run.len()) {
            return Within::Spot;
        }
        if !open {
            running.task.set_burst(0);
        }
        if excess == run.len() {
            running.task.postpone(now, first, run);
            return Within::Nothing;
        }
        let mut within = run.clone();
        let others = within.split_off(run.len() - excess);
        running.task.postpone(now, first + within.len(), &others);
        Within::Slots(within)
    }

    fn on_the_spot(&mut self, pid: Pid, id: TaskId, first: u64, run: &Run) -> Result<(), String> {
        let values = run.items().map(|item| functions::decode(&item.body));
        let values: Option<Vec<u64>> = values.collect();
        let values = values.ok_or_else(|| format!("{id}: started {run:?}, not all values"))?;
        if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
            let lineages = run.items().map(|item| item.lineage);
            running.lineages.extend((first..).zip(lineages));
        }
        self.burst(pid, id, first, &values)
    }

    /// A burst of calls is done: what went well is told together, as far as it stands together.
    fn burst(&mut self, pid: Pid, id: TaskId, first: u64, values: &[u64]) -> Result<(), String> {
        let now = self.now;
        let mut packer = (Packer::new(), first);
        for (input, value) in (first..).zip(values) {
            let outcome = self.schedule.work.run(id.stage.0 as usize, *value);
            if outcome == Outcome::Kill {
                return self.die_of(pid, id, input);
            }
            let finished = self.answer(pid, id, *value, outcome);
            let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
            running.lineages.remove(&input);
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
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        if let Some(outputs) = packer.0.take() {
            running.task.finish_each(now, packer.1, Encoding::Raw, &outputs);
        }
        Ok(())
    }

    /// What a call that has come to its end tells its task.
    fn answer(&mut self, pid: Pid, id: TaskId, value: u64, outcome: Outcome) -> Finished {
        let worker = self.nodes[pid].name.clone();
        if self.fails_now() {
            return self.schedule.work.fails_now(id.stage, value, &worker);
        }
        match outcome {
            Outcome::Value(next) => {
                Finished::One(Encoding::Raw, self.schedule.work.encode(next, &mut self.rng))
            }
            Outcome::Keep => Finished::Keep,
            Outcome::Expand(_, false) => Finished::Expanded,
            Outcome::Fail | Outcome::Expand(_, true) => {
                self.schedule.work.fails(id.stage, value, &worker)
            }
            Outcome::Drop | Outcome::Taken | Outcome::Kill => Finished::Nothing,
        }
    }

    /// Whether this step fails, whatever its input.
    fn fails_now(&mut self) -> bool {
        self.schedule.work.manners.failing.is_some_and(|one_in| self.chance(one_in))
    }

    /// An item kills its worker; or its process, with all that is in it.
    fn die_of(&mut self, pid: Pid, id: TaskId, input: u64) -> Result<(), String> {
        /// An item is convicted by its third death; a few more come of copies that are elsewhere then.
        const MOST_DEATHS: u32 = 12;
        let running = self.nodes[pid].tasks.get(&id);
        let lineage = running.and_then(|running| running.lineages.get(&input)).cloned();
        let lineage = lineage.ok_or_else(|| format!("{id}: {input} has no lineage"))?;
        self.log.note(self.now, format_args!("{lineage} kills {}", self.nodes[pid].name));
        self.figures.killers += 1;
        let deaths = self.deaths.entry((id.stage, lineage.clone())).or_default();
        *deaths += 1;
        if *deaths > MOST_DEATHS {
            return Err(format!("{lineage} has killed {deaths} workers in stage {}", id.stage));
        }
        // A process that crashes closes its connections; only a machine that is gone does not.
        self.break_session(pid);
        self.kill(pid, true);
        let again = self.rng.u8(..4) > 0;
        self.replace(pid, again);
        Ok(())
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
        let gated = self.is_gated(pid);
        let inside = matches!(call, Call::Begin(_) | Call::Burst(_) | Call::Made(..));
        if gated && inside && !self.nodes[pid].gate.has((id, input)) {
            // It was dropped.
            return Ok(());
        }
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        match call {
            Call::Begin(value) if second => {
                running.backoff.insert(input, (value, 0));
                running.task.release_slot(now, input);
                self.leave_gate(pid, id, input);
                self.call_later(pid, id, input, Call::Again);
            }
            Call::Again => running.task.want_slot(now, input),
            Call::Burst(values) => {
                self.leave_gate(pid, id, input);
                self.burst(pid, id, input, &values)?;
            }
            Call::Begin(value) => self.go_on(pid, id, input, value, 0)?,
            Call::Made(value, made) => self.go_on(pid, id, input, value, made)?,
            Call::Room(value, made) if running.task.can_emit() => {
                self.enter(pid, id, input, Call::Made(value, made));
            }
            Call::Room(value, made) => {
                self.after(1_000, 5_000, Event::Call(pid, id, input, Call::Room(value, made)));
            }
            // It wanted no more, and was told so: what was handed to it is dropped.
            Call::Deliver(..) if self.boundary.is_satisfied() => return Ok(()),
            Call::Deliver(lineage, body) => {
                running.task.finish(now, input, Finished::Nothing);
                running.lineages.remove(&input);
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

    fn go_on(
        &mut self,
        pid: Pid,
        id: TaskId,
        input: u64,
        value: u64,
        made: usize,
    ) -> Result<(), String> {
        let now = self.now;
        let outcome = self.schedule.work.run(id.stage.0 as usize, value);
        if outcome == Outcome::Kill {
            return self.die_of(pid, id, input);
        }
        if let Outcome::Expand(outputs, _) = &outcome
            && made < outputs.len()
            && !self.fails_now()
        {
            return self.make(pid, id, input, value, made, outputs);
        }
        let finished = match &outcome {
            // It has failed before its end.
            Outcome::Expand(outputs, _) if made < outputs.len() => {
                let worker = self.nodes[pid].name.clone();
                self.schedule.work.fails_now(id.stage, value, &worker)
            }
            _ => self.answer(pid, id, value, outcome),
        };
        self.leave_gate(pid, id, input);
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        let lineage = running.lineages.remove(&input);
        if self.schedule.work.kind(id.stage).op == Op::Sink
            && finished == Finished::Nothing
            && let Some(lineage) = lineage
        {
            self.boundary.sink(&lineage, value)?;
        }
        running.task.finish(now, input, finished);
        Ok(())
    }

    /// An expansion makes its next outputs, waits for room, or ends before it should.
    fn make(
        &mut self,
        pid: Pid,
        id: TaskId,
        input: u64,
        value: u64,
        mut made: usize,
        outputs: &[u64],
    ) -> Result<(), String> {
        let now = self.now;
        let ends = self.schedule.work.manners.short.is_some_and(|one_in| self.chance(one_in));
        let at_once = if outputs.len() > 16 { 64 } else { 1 };
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        if ends && let Some(lineage) = running.lineages.remove(&input) {
            self.boundary.ended_short(&lineage, made as u64);
            running.task.finish(now, input, Finished::Expanded);
            self.leave_gate(pid, id, input);
            return Ok(());
        }
        if !running.task.can_emit() {
            if running.task.is_alone(input) {
                running.backoff.insert(input, (value, made));
                running.task.park(now, input);
            } else {
                let room = Event::Call(pid, id, input, Call::Room(value, made));
                self.after(1_000, 5_000, room);
            }
            self.leave_gate(pid, id, input);
            return Ok(());
        }
        for output in &outputs[made..outputs.len().min(made + at_once)] {
            if running.task.can_emit() {
                let payload = self.schedule.work.encode(*output, &mut self.rng);
                running.task.emit(now, input, Encoding::Raw, payload);
                made += 1;
            }
        }
        self.call_later(pid, id, input, Call::Made(value, made));
        Ok(())
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
            let body = self.schedule.work.root_body(running.next_root, &mut self.rng);
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
