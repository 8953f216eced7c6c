//! Connections between processes: each direction keeps its order, delays every frame at random, and
//! may break at any moment; its two ends then learn of it at different times.

use std::collections::{BTreeMap, BTreeSet};

use stageline_protocol::frame::Open;
use stageline_protocol::task::LinkKey;
use stageline_protocol::{ConnId, LinkId, TaskId, Time};

/// A process, by its place in the list of all that ever were.
pub(super) type Pid = usize;

/// One end of a connection, as its number in [`Conn::ends`].
pub(super) const DIALLER: usize = 0;
/// The other one.
pub(super) const ACCEPTOR: usize = 1;

/// A connection, from its dial on.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) link: LinkId,
    /// Within one process: never delayed by much, and never broken.
    pub(super) local: bool,
    pub(super) open: Option<Box<Open>>,
    /// Accepted by the other end.
    pub(super) established: bool,
    pub(super) ends: [ConnEnd; 2],
}

/// One of its ends.
#[derive(Debug)]
pub(super) struct ConnEnd {
    pub(super) pid: Pid,
    pub(super) task: TaskId,
    pub(super) key: LinkKey,
    /// Whether frames may still arrive here.
    pub(super) open: bool,
    /// When the last frame that is under way arrives here.
    pub(super) last: Time,
    /// What would arrive later than this is lost.
    pub(super) lost_after: Option<Time>,
    /// Closed, but until then its shell still hands on what it had read.
    pub(super) lingers_until: Time,
}

impl ConnEnd {
    pub(super) const fn new(pid: Pid, task: TaskId, key: LinkKey) -> Self {
        Self {
            pid,
            task,
            key,
            open: true,
            last: Time::ZERO,
            lost_after: None,
            lingers_until: Time::ZERO,
        }
    }

    /// The moment at which something with this delay arrives: never before what was sent earlier.
    pub(super) fn arrival(&mut self, at: Time) -> Time {
        self.last = self.last.max(at);
        self.last
    }

    /// Whether what arrives now reaches the task.
    pub(super) fn hears(&self, now: Time) -> bool {
        (self.open || now <= self.lingers_until) && !self.loses(now)
    }

    pub(super) fn loses(&self, now: Time) -> bool {
        self.lost_after.is_some_and(|lost| now > lost)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Network {
    conns: Vec<Conn>,
    /// By task at an end, key and connection: where a frame of that task goes.
    by_end: BTreeMap<(Pid, TaskId, LinkKey, ConnId), (usize, usize)>,
    living: BTreeSet<usize>,
    /// Processes that cannot reach each other until then.
    cuts: Vec<(Pid, Pid, Time)>,
}

impl Network {
    /// Two processes cannot reach each other until then. Answers the connections between them.
    pub(super) fn cut(&mut self, a: Pid, b: Pid, until: Time) -> Vec<usize> {
        self.cuts.push((a, b, until));
        let between = |index: &usize| {
            let pids = self.conns[*index].ends.each_ref().map(|end| end.pid);
            pids == [a, b] || pids == [b, a]
        };
        self.breakable().into_iter().filter(between).collect()
    }

    /// Until when two processes cannot reach each other, if they cannot.
    pub(super) fn cut_until(&self, a: Pid, b: Pid, now: Time) -> Option<Time> {
        let these = |cut: &&(Pid, Pid, Time)| (cut.0, cut.1) == (a, b) || (cut.0, cut.1) == (b, a);
        self.cuts.iter().filter(these).map(|cut| cut.2).filter(|until| *until > now).max()
    }

    pub(super) fn add(&mut self, conn: Conn) -> usize {
        let index = self.conns.len();
        for (side, end) in conn.ends.iter().enumerate() {
            self.by_end.insert((end.pid, end.task, end.key, conn.id), (index, side));
        }
        self.conns.push(conn);
        self.living.insert(index);
        index
    }

    pub(super) fn get(&mut self, index: usize) -> &mut Conn {
        &mut self.conns[index]
    }

    /// The connection and the side of it that a task means.
    pub(super) fn find(
        &self,
        pid: Pid,
        task: TaskId,
        key: LinkKey,
        conn: ConnId,
    ) -> Option<(usize, usize)> {
        self.by_end.get(&(pid, task, key, conn)).copied()
    }

    /// No frame arrives at this end any more.
    pub(super) fn close(&mut self, index: usize, side: usize) {
        let conn = &mut self.conns[index];
        conn.ends[side].open = false;
        if conn.ends.iter().all(|end| !end.open) {
            self.living.remove(&index);
            for end in &conn.ends {
                self.by_end.remove(&(end.pid, end.task, end.key, conn.id));
            }
        }
    }

    /// The open ends that belong to a process, or to one task of it.
    pub(super) fn ends_of(&self, pid: Pid, task: Option<TaskId>) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for &index in &self.living {
            for (side, end) in self.conns[index].ends.iter().enumerate() {
                if end.open && end.pid == pid && task.is_none_or(|task| task == end.task) {
                    found.push((index, side));
                }
            }
        }
        found
    }

    /// The processes that a process has connections with.
    pub(super) fn linked(&self, pid: Pid) -> Vec<Pid> {
        let ends = self.breakable().into_iter().map(|index| &self.conns[index].ends);
        let pids = ends.map(|ends| ends.each_ref().map(|end| end.pid));
        let others = pids.filter_map(|[a, b]| (a == pid).then_some(b).or((b == pid).then_some(a)));
        let others: BTreeSet<Pid> = others.collect();
        others.into_iter().collect()
    }

    /// The connections between processes that both ends hold for open.
    pub(super) fn breakable(&self) -> Vec<usize> {
        let whole = |index: &usize| {
            let conn = &self.conns[*index];
            let sound = |end: &ConnEnd| end.open && end.lost_after.is_none();
            conn.established && !conn.local && conn.ends.iter().all(sound)
        };
        self.living.iter().copied().filter(whole).collect()
    }
}
