//! Who is in process on a worker: calls beside each other, or one suspect alone. The same rules as the
//! real shell's, over simulated time.

use std::collections::{BTreeSet, VecDeque};

use stageline_protocol::TaskId;

use super::shell::Call;

/// A call: the task's, and its input's number.
pub(super) type Caller = (TaskId, u64);

/// The gate of one process.
#[derive(Debug, Default)]
pub(super) struct Gate {
    inside: BTreeSet<Caller>,
    /// Who is, or wants to be, alone: the first has its turn.
    suspects: VecDeque<Caller>,
    /// Whether the first has been told that it is alone.
    is_empty: bool,
    waiting: VecDeque<(Caller, Call)>,
}

impl Gate {
    fn is_closed(&self) -> bool {
        !self.suspects.is_empty()
    }

    fn is_alone(&self, caller: Caller) -> bool {
        self.is_empty && self.suspects.front() == Some(&caller)
    }

    /// Whether a call is in process.
    pub(super) fn has(&self, caller: Caller) -> bool {
        self.inside.contains(&caller) || self.is_alone(caller)
    }

    /// Goes in now; or waits until nobody is, or wants to be, alone.
    pub(super) fn enter(&mut self, caller: Caller, call: Call) -> Option<Call> {
        if self.is_alone(caller) {
            return Some(call);
        }
        if self.is_closed() {
            self.waiting.push_back((caller, call));
            return None;
        }
        self.inside.insert(caller);
        Some(call)
    }

    /// Whether calls can be made on the spot.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed()
    }

    pub(super) fn leave(&mut self, caller: Caller) {
        self.inside.remove(&caller);
    }

    /// A suspect wants to be alone.
    pub(super) fn isolate(&mut self, caller: Caller) {
        self.suspects.push_back(caller);
    }

    /// A suspect does not, or no longer.
    pub(super) fn rejoin(&mut self, caller: Caller) {
        if self.suspects.front() == Some(&caller) {
            self.is_empty = false;
        }
        self.suspects.retain(|suspect| *suspect != caller);
    }

    /// A task's calls are dropped; its suspects say so for themselves, unless the task is over.
    pub(super) fn abort(&mut self, task: TaskId, over: bool) {
        self.inside.retain(|(of, _)| *of != task);
        self.waiting.retain(|((of, _), _)| *of != task);
        let suspects: Vec<Caller> =
            self.suspects.iter().filter(|(of, _)| over && *of == task).copied().collect();
        suspects.into_iter().for_each(|caller| self.rejoin(caller));
    }

    /// What follows: who is alone from now on, and who goes in.
    pub(super) fn turn(&mut self) -> (Option<Caller>, Vec<(Caller, Call)>) {
        if !self.is_closed() {
            let admitted: Vec<(Caller, Call)> = self.waiting.drain(..).collect();
            self.inside.extend(admitted.iter().map(|(caller, _)| *caller));
            return (None, admitted);
        }
        if self.is_empty || !self.inside.is_empty() {
            return (None, Vec::new());
        }
        self.is_empty = true;
        (self.suspects.front().copied(), Vec::new())
    }
}
