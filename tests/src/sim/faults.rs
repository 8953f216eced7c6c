//! Faults, each injected while items are unacked, and what repairs them.

use std::time::Duration;

use stageline_protocol::TaskId;
use stageline_protocol::Time;
use stageline_protocol::control::{ProcessKind, TaskEnd, Up};
use stageline_protocol::pipeline::Op;

use super::cluster::{Cluster, Event};
use super::gate::Gate;
use super::network::{ACCEPTOR, DIALLER, Pid};
use super::schedule::{Fault, LEASE, joining, one_of};

/// The first process is the client.
const CLIENT: Pid = 0;

impl Cluster {
    /// Injects the next fault, if its time has come and there is something to hit.
    pub(super) fn inject_faults(&mut self) {
        if self.calm > 0 {
            self.calm -= 1;
            return;
        }
        if self.schedule.faults.is_empty() || (!self.boundary.is_satisfied() && self.unacked() == 0)
        {
            return;
        }
        // Never so late that all is delivered.
        let delivered = self.boundary.delivered();
        // Failures by chance leave less to deliver.
        let failing = self.schedule.work.manners.failing.is_some();
        let latest = self.boundary.expected() / if failing { 6 } else { 2 };
        let satisfied = self.boundary.is_satisfied();
        // The first that finds something to hit.
        for place in 0..self.schedule.faults.len() {
            let (at, fault) = self.schedule.faults[place];
            if !satisfied && delivered < at.min(latest) {
                return;
            }
            if self.inject(fault) {
                self.schedule.faults.remove(place);
                self.count_fault(fault);
                self.healed = self.healed.max(self.now);
                self.calm = one_of(&mut self.rng, &[0, 3, 20, 60, 200]);
                return;
            }
        }
    }

    fn unacked(&self) -> u64 {
        let nodes = self.nodes.iter().filter(|node| node.alive);
        let tasks = nodes.flat_map(|node| node.tasks.values());
        tasks.map(|running| running.task.stats().unacked).sum()
    }

    fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Kill => self.pick_worker().map(|pid| {
                self.kill(pid, true);
                let again = self.rng.u8(..4) > 0;
                self.replace(pid, again);
            }),
            Fault::Break => {
                let breakable = self.network.breakable();
                (!breakable.is_empty()).then(|| {
                    let conn = one_of(&mut self.rng, &breakable);
                    self.break_conn(conn);
                })
            }
            Fault::Reset => {
                let pid = self.rng.usize(..self.nodes.len());
                let node = &self.nodes[pid];
                let well = match pid {
                    CLIENT => self.client_is_well(),
                    _ => !node.has_suspect(),
                };
                (node.alive && node.session.is_some() && well).then(|| {
                    self.log.note(self.now, format_args!("RESET {}", self.nodes[pid].name));
                    self.break_session(pid);
                    if pid == CLIENT {
                        self.client_well_from = self.now + LEASE / 2;
                    }
                })
            }
            Fault::Isolate => self.pick_worker().map(|pid| {
                self.log.note(self.now, format_args!("ISOLATE {}", self.nodes[pid].name));
                let until = self.later(1_200_000, 6_000_000);
                self.nodes[pid].isolated_until = until;
                self.healed = self.healed.max(until);
                self.break_session(pid);
            }),
            Fault::Partition => self.partition(),
            Fault::LongPartition => self.long_partition(),
            Fault::CutOff => self.pick_worker().map(|pid| {
                let until = self.later(50_000, 6_000_000);
                self.cut_off(pid, until);
            }),
            Fault::ClientCutOff => self.client_is_well().then(|| {
                let until = self.later(50_000, 1_800_000);
                self.cut_off(CLIENT, until);
                self.client_well_from = until + LEASE;
            }),
            Fault::Freeze if self.chance(3) => self.client_is_well().then(|| {
                self.log.note(self.now, format_args!("FREEZE client"));
                let until = self.later(50_000, 1_500_000);
                self.nodes[CLIENT].frozen_until = until;
                self.client_well_from = until + LEASE;
                self.healed = self.healed.max(until);
            }),
            Fault::Freeze => self.pick_worker().map(|pid| {
                self.log.note(self.now, format_args!("FREEZE {}", self.nodes[pid].name));
                let until = self.later(50_000, 7_000_000);
                self.nodes[pid].frozen_until = until;
                self.healed = self.healed.max(until);
            }),
            Fault::KillClient => {
                let hard = self.rng.u8(..4) > 0;
                self.kill(CLIENT, hard);
                Some(())
            }
            Fault::Stall => {
                self.log.note(self.now, format_args!("STALL"));
                self.engine_frozen_until = self.later(100_000, 6_000_000);
                self.healed = self.healed.max(self.engine_frozen_until);
                Some(())
            }
            Fault::Crash => (!self.engine_is_down && self.dies_after.is_none()).then(|| {
                self.log.note(self.now, format_args!("CRASH"));
                self.dies_after = Some(self.rng.u32(..12));
            }),
            Fault::Leave => self.pick_worker().map(|pid| self.leave(pid)),
            Fault::Join => {
                let functions = joining(&mut self.rng, &self.schedule.work);
                let name = self.new_name();
                self.log.note(self.now, format_args!("JOIN {name}"));
                self.after(0, 1_000, Event::Start(name, functions));
                Some(())
            }
        }
        .is_some()
    }

    /// Whether the client has had no trouble for long enough to stand some more within its lease.
    fn client_is_well(&self) -> bool {
        let client = &self.nodes[CLIENT];
        client.alive && client.session.is_some() && self.now >= self.client_well_from
    }

    /// Two processes, one of them a worker, cannot reach each other for a while.
    fn partition(&mut self) -> Option<()> {
        let a = self.pick_worker()?;
        let others: Vec<Pid> =
            (0..self.nodes.len()).filter(|b| *b != a && self.nodes[*b].alive).collect();
        let b = one_of(&mut self.rng, &others);
        let (one, other) = (&self.nodes[a].name, &self.nodes[b].name);
        self.log.note(self.now, format_args!("PARTITION {one} from {other}"));
        let until = self.later(50_000, 6_000_000);
        self.cut_between(a, b, until);
        Some(())
    }

    /// A worker that has a link with the client cannot reach it for so long that tasks give up.
    fn long_partition(&mut self) -> Option<()> {
        let next_to: Vec<Pid> = self.network.linked(CLIENT);
        let well = |pid: &Pid| self.nodes[*pid].alive && !self.nodes[*pid].leaving;
        let workers: Vec<Pid> = next_to.into_iter().filter(|p| *p != CLIENT).filter(well).collect();
        // What has never reached anybody is taken for a mistake, and fails its job.
        let has_reached = |pid: &Pid| {
            let tasks = self.nodes[*pid].tasks.values().map(|running| &running.task);
            let mut tasks = tasks.filter(|task| task.op() != Op::Terminal);
            tasks.all(|task| task.report(None).reached)
        };
        let workers: Vec<Pid> = workers.into_iter().filter(has_reached).collect();
        if workers.is_empty() || !has_reached(&CLIENT) {
            return None;
        }
        let worker = one_of(&mut self.rng, &workers);
        let name = &self.nodes[worker].name;
        self.log.note(self.now, format_args!("LONG PARTITION of {name} from the client"));
        let until = self.later(6_000_000, 40_000_000);
        self.cut_between(worker, CLIENT, until);
        Some(())
    }

    fn cut_between(&mut self, a: Pid, b: Pid, until: Time) {
        self.healed = self.healed.max(until);
        for conn in self.network.cut(a, b, until) {
            // One way may live on a while, and the ends learn of it in their own time.
            let first = self.rng.usize(..2);
            self.lose_frames(conn, first);
            let longer = one_of(&mut self.rng, &[0, 100_000, 1_000_000]);
            let lost = self.later(0, longer);
            self.lose_frames_after(conn, 1 - first, lost);
        }
    }

    /// A process can reach nobody.
    fn cut_off(&mut self, pid: Pid, until: Time) {
        self.log.note(self.now, format_args!("CUT OFF {}", self.nodes[pid].name));
        self.nodes[pid].isolated_until = until;
        for other in (0..self.nodes.len()).filter(|other| *other != pid) {
            self.cut_between(pid, other, until);
        }
        self.break_session(pid);
    }

    /// A worker that runs something, and is well. One that runs a suspect is spared: its end would
    /// convict an innocent.
    fn pick_worker(&mut self) -> Option<Pid> {
        let well = |pid: &Pid| {
            let node = &self.nodes[*pid];
            node.alive
                && node.kind == ProcessKind::Worker
                && !node.leaving
                && node.frozen_until <= self.now
                && !node.tasks.is_empty()
                && !node.has_suspect()
        };
        let pids: Vec<Pid> = (0..self.nodes.len()).filter(well).collect();
        (!pids.is_empty()).then(|| one_of(&mut self.rng, &pids))
    }

    /// A process is gone at once. Its peers hear of it; unless it closes in good order, they may lose
    /// what was under way, and the coordinator may hear nothing.
    pub(super) fn kill(&mut self, pid: Pid, hard: bool) {
        self.log.note(self.now, format_args!("KILL {}", self.nodes[pid].name));
        let tasks: Vec<TaskId> = self.nodes[pid].tasks.keys().copied().collect();
        for task in &tasks {
            if let Some(running) = self.nodes[pid].tasks.remove(task) {
                self.figures.take(&running.task.stats());
            }
        }
        self.nodes[pid].alive = false;
        self.nodes[pid].gate = Gate::default();
        for (conn, side) in self.network.ends_of(pid, None) {
            if hard {
                self.lose_frames(conn, 1 - side);
                self.network.close(conn, side);
            } else {
                self.hang_up(conn, side);
            }
        }
        if !hard {
            self.close_session(pid);
        } else if self.rng.bool() {
            self.break_session(pid);
        }
        // Else the coordinator sees only that nothing comes: the lease decides.
        self.nodes[pid].session = None;
    }

    /// What is under way to this end may be lost, and it learns only then that nothing comes.
    fn lose_frames(&mut self, conn: usize, side: usize) {
        let lost = self.later(0, 20_000);
        self.lose_frames_after(conn, side, lost);
    }

    fn lose_frames_after(&mut self, conn: usize, side: usize, lost: Time) {
        self.network.get(conn).ends[side].lost_after = Some(lost);
        let longest = one_of(&mut self.rng, &[20_000, 200_000, 2_000_000]);
        let down = lost + Duration::from_micros(self.rng.u64(..longest));
        self.at(down, Event::Down(conn, side));
    }

    fn break_conn(&mut self, conn: usize) {
        let (link, id) = (self.network.get(conn).link, self.network.get(conn).id);
        self.log.note(self.now, format_args!("BREAK {link} {id}"));
        // The way to the acceptor may only be slow: it hears of a newer connection first, and of what
        // was said on this one later.
        if self.chance(2) {
            let lost = self.later(0, 20_000);
            self.network.get(conn).ends[DIALLER].lost_after = Some(lost);
            self.at(lost, Event::Down(conn, DIALLER));
            let (slow, lost) = (self.later(0, 200_000), self.later(200_000, 600_000));
            self.network.get(conn).ends[ACCEPTOR].arrival(slow);
            self.lose_frames_after(conn, ACCEPTOR, lost);
        } else {
            self.lose_frames(conn, 0);
            self.lose_frames(conn, 1);
        }
    }

    /// The same worker again, or another in its place.
    pub(super) fn replace(&mut self, pid: Pid, again: bool) {
        let functions = self.nodes[pid].functions.clone();
        let name = if again { self.nodes[pid].name.clone() } else { self.new_name() };
        let at = self.later(10_000, 2_500_000);
        self.healed = self.healed.max(at);
        self.at(at, Event::Start(name, functions));
    }

    /// A worker is asked to leave: it drains, for a while.
    fn leave(&mut self, pid: Pid) {
        self.log.note(self.now, format_args!("LEAVE {}", self.nodes[pid].name));
        self.nodes[pid].leaving = true;
        self.say(pid, Up::Leaving);
        self.replace(pid, false);
        let now = self.now;
        for running in self.nodes[pid].tasks.values_mut() {
            running.task.drain(now);
            // Its shell does at once what follows.
            let soon = now + Duration::from_micros(1);
            running.timer = Some(soon);
        }
        let tasks: Vec<TaskId> = self.nodes[pid].tasks.keys().copied().collect();
        for task in tasks {
            let soon: Time = now + Duration::from_micros(1);
            self.at(soon, Event::Timer(pid, task, soon));
        }
        self.after(3_000_000, 5_000_000, Event::GraceOver(pid));
    }

    /// Who leaves is through, or its time is over.
    pub(super) fn leave_now(&mut self, pid: Pid) -> Result<(), String> {
        if self.nodes[pid].alive {
            let tasks: Vec<TaskId> = self.nodes[pid].tasks.keys().copied().collect();
            for task in tasks {
                self.end_task(pid, task, TaskEnd::Stopped);
            }
            self.say(pid, Up::Goodbye);
            self.kill(pid, false);
        }
        Ok(())
    }
}
