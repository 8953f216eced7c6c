//! Marked inputs: each asks the coordinator before it starts. See [`crate::suspect`].
//!
//! A marked input that gets a slot asks instead of starting, and keeps the slot meanwhile. Told to
//! run alone, it has the shell empty the process ([`Effect::Isolate`]) and asks again; the process is
//! its own from [`Task::isolated`] to [`Effect::Rejoin`], which comes only when the coordinator has
//! noted that the input is no longer in process. While it waits for room or between two attempts it
//! gives the process up, and asks anew to go on: what it waits for may need the process.
//!
//! Inputs without a mark never come here.

use std::collections::{BTreeMap, VecDeque};

use crate::item::{ErrorKind, ItemError};
use crate::lineage::Lineage;
use crate::suspect::{Death, MarkState, MarkedItem, Verdict, history};
use crate::time::Time;

use super::inputs::State;
use super::{Effect, Finished, Task};

/// So many are in process, or ask, at a time: a bound of what a report lists.
const MOST: usize = 1_024;

/// The marked inputs of a task that are, or want to be, in process.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Marks {
    inputs: BTreeMap<u64, Mark>,
    /// Expansions that ran alone and wait for room.
    parked: VecDeque<u64>,
    /// There is something that the coordinator is to hear now.
    urgent: bool,
}

#[derive(Clone, Debug, Hash)]
struct Mark {
    lineage: Lineage,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Asking,
    /// Told to run alone: the shell empties the process.
    Isolating,
    /// The process is its own; or would be, but for abandoned calls.
    Holding {
        crowded: bool,
    },
    Running,
    /// The process is its own, as far as it was when it held it.
    Alone {
        crowded: bool,
    },
    /// It waits, and gives the process up when that has been heard; `back` if it wants to go on.
    Leaving {
        back: bool,
    },
    /// It waits, and does not have the process.
    Away,
    /// It is done, and gives the process up when that has been heard.
    Done,
}

impl Phase {
    const fn reported(self) -> Option<MarkState> {
        Some(match self {
            Self::Asking | Self::Isolating => MarkState::Asking,
            Self::Holding { crowded: false } => MarkState::Holding,
            Self::Holding { crowded: true } => MarkState::Crowded,
            Self::Running | Self::Alone { crowded: true } => MarkState::Running,
            Self::Alone { crowded: false } => MarkState::Alone,
            Self::Leaving { .. } => MarkState::Away,
            Self::Away => return None,
            Self::Done => MarkState::Done,
        })
    }

    /// Whether the shell was told to empty the process for it.
    const fn has_process(self) -> bool {
        !matches!(self, Self::Asking | Self::Running | Self::Away)
    }
}

impl Marks {
    pub(super) fn reported(&self) -> Vec<MarkedItem> {
        let item = |mark: &Mark| {
            let state = mark.phase.reported()?;
            Some(MarkedItem { lineage: mark.lineage.clone(), state })
        };
        self.inputs.values().filter_map(item).collect()
    }

    /// Whether no other marked input can ask for now.
    pub(super) fn are_full(&self) -> bool {
        self.inputs.len() >= MOST
    }

    fn phase(&mut self, input: u64) -> Option<&mut Phase> {
        self.inputs.get_mut(&input).map(|mark| &mut mark.phase)
    }
}

impl Task {
    /// A marked input has a slot: it asks whether it may start.
    pub(super) fn ask(&mut self, input: u64, lineage: Lineage) {
        self.marks.inputs.insert(input, Mark { lineage, phase: Phase::Asking });
        self.marks.urgent = true;
    }

    /// An input that waited may go on. False if it has to ask first.
    pub(super) fn may_go_on(&mut self, input: u64) -> bool {
        match self.marks.phase(input) {
            Some(phase @ Phase::Away) => *phase = Phase::Asking,
            Some(Phase::Leaving { back }) => *back = true,
            _ => return true,
        }
        self.marks.urgent = true;
        false
    }

    /// An input that runs alone waits: the process is for others meanwhile.
    pub(super) fn step_aside(&mut self, input: u64) {
        if let Some(phase @ Phase::Alone { .. }) = self.marks.phase(input) {
            *phase = Phase::Leaving { back: false };
            self.marks.urgent = true;
        }
    }

    /// The function of a marked input is done.
    pub(super) fn unmark(&mut self, input: u64) {
        match self.marks.phase(input) {
            Some(phase @ (Phase::Alone { .. } | Phase::Leaving { .. })) => {
                *phase = Phase::Done;
                self.marks.urgent = true;
            }
            _ => self.drop_mark(input),
        }
    }

    /// A marked input is no longer here, and has not started.
    pub(super) fn drop_mark(&mut self, input: u64) {
        if let Some(mark) = self.marks.inputs.remove(&input)
            && mark.phase.has_process()
        {
            self.effects.push_back(Effect::Rejoin { input });
        }
    }

    /// All calls are dropped.
    pub(super) fn drop_marks(&mut self) {
        let inputs: Vec<u64> = self.marks.inputs.keys().copied().collect();
        inputs.into_iter().for_each(|input| self.drop_mark(input));
        self.marks.parked.clear();
    }

    /// Inputs that have a slot and have not started.
    pub(super) fn asking(&self) -> Vec<u64> {
        let asks =
            |input: &u64| self.ledger.get(*input).is_some_and(|(_, e)| e.state == State::Asking);
        self.marks.inputs.keys().copied().filter(asks).collect()
    }

    /// Whether this input runs alone, so that it has to step aside while it waits.
    #[must_use]
    pub fn is_alone(&self, input: u64) -> bool {
        self.marks.inputs.get(&input).is_some_and(|mark| matches!(mark.phase, Phase::Alone { .. }))
    }

    /// An expansion that [runs alone](Task::is_alone) waits for room. [`Effect::Resume`] says when it
    /// may go on.
    pub fn park(&mut self, now: Time, input: u64) {
        self.step_aside(input);
        self.marks.parked.push_back(input);
        self.settle_down(now);
    }

    /// What follows from any change.
    pub(super) fn settle_marks(&mut self) {
        while !self.marks.parked.is_empty() && self.can_emit() {
            let Some(input) = self.marks.parked.pop_front() else { break };
            if self.may_go_on(input) {
                self.effects.push_back(Effect::Resume { input });
            }
        }
        if std::mem::take(&mut self.marks.urgent) {
            self.effects.push_back(Effect::Report);
        }
    }

    /// The coordinator's answers. One that nobody waits for changes nothing.
    pub fn verdict(&mut self, now: Time, lineage: &Lineage, verdict: &Verdict) {
        let same = self.marks.inputs.iter().filter(|(_, mark)| mark.lineage == *lineage);
        let inputs: Vec<u64> = same.map(|(input, _)| *input).collect();
        for input in inputs {
            self.obey(now, input, lineage, verdict);
        }
        self.settle_down(now);
    }

    fn obey(&mut self, now: Time, input: u64, lineage: &Lineage, verdict: &Verdict) {
        let begun = self.ledger.get(input).is_some_and(|(_, entry)| entry.state != State::Asking);
        let Some(phase) = self.marks.phase(input) else { return };
        match (&*phase, verdict) {
            // One that ran alone before is a call outside the gate: it goes on alone.
            (Phase::Asking, Verdict::Run) if begun => {
                *phase = Phase::Isolating;
                let lineage = lineage.clone();
                self.effects.push_back(Effect::Isolate { input, lineage });
            }
            (Phase::Asking, Verdict::Run) => {
                *phase = Phase::Running;
                self.begin_or_resume(now, input);
            }
            (Phase::Asking, Verdict::Alone) => {
                *phase = Phase::Isolating;
                let lineage = lineage.clone();
                self.effects.push_back(Effect::Isolate { input, lineage });
            }
            (Phase::Holding { crowded }, Verdict::Start) => {
                *phase = Phase::Alone { crowded: *crowded };
                self.begin_or_resume(now, input);
            }
            (Phase::Asking | Phase::Isolating | Phase::Holding { .. }, Verdict::Convicted(d)) => {
                self.convict(now, input, d);
            }
            (Phase::Asking | Phase::Isolating | Phase::Holding { .. }, Verdict::Finished) => {
                self.excuse(now, input);
            }
            (Phase::Leaving { back }, Verdict::Left) => {
                *phase = if *back { Phase::Asking } else { Phase::Away };
                self.effects.push_back(Effect::Rejoin { input });
                self.marks.urgent = true;
            }
            (Phase::Done, Verdict::Left) => self.drop_mark(input),
            _ => {}
        }
    }

    /// The shell has emptied the process for this input: the answer to [`Effect::Isolate`].
    /// `crowded` if calls that were abandoned still run there.
    pub fn isolated(&mut self, now: Time, input: u64, crowded: bool) {
        if let Some(phase @ Phase::Isolating) = self.marks.phase(input) {
            *phase = Phase::Holding { crowded };
            self.marks.urgent = true;
            self.settle_down(now);
        }
    }

    fn begin_or_resume(&mut self, now: Time, input: u64) {
        let entry = self.ledger.get(input).map(|(_, entry)| entry);
        let lineage = entry.filter(|entry| entry.state == State::Asking).map(|e| &e.lineage);
        // It may have been finished since it asked.
        if lineage.is_some_and(|lineage| self.finished(lineage, 1) > 0) {
            return self.excuse(now, input);
        }
        match self.ledger.one(input) {
            Some(entry) if entry.state == State::Asking => {
                entry.state = State::Running;
                self.begin(input..input + 1);
            }
            Some(_) => self.effects.push_back(Effect::Resume { input }),
            None => self.drop_mark(input),
        }
    }

    /// The input is a copy of something that is finished: it needs nothing more.
    fn excuse(&mut self, now: Time, input: u64) {
        // One that was noted as running alone gives the process up only when that has been heard.
        self.unmark(input);
        if self.ledger.get(input).is_some_and(|(_, entry)| entry.state != State::Asking) {
            // One that had started and waited has a call, which is dropped with its answer.
            self.effects.push_back(Effect::Drop { input });
        }
        self.release_bytes(input..input + 1);
        self.drop_finished(now, input..input + 1, true);
    }

    /// The input becomes an error item without being tried again.
    fn convict(&mut self, now: Time, input: u64, deaths: &[Death]) {
        self.drop_mark(input);
        match self.ledger.one(input) {
            Some(entry) if entry.state == State::Asking => entry.state = State::Running,
            // One that had started and waited has a call, which is dropped with its answer.
            Some(_) => self.effects.push_back(Effect::Drop { input }),
            None => return,
        }
        self.release_bytes(input..input + 1);
        let error = ItemError {
            stage: self.stage.clone(),
            kind: ErrorKind::Crashed,
            message: history(deaths),
            attempts: u32::try_from(deaths.len()).unwrap_or(u32::MAX),
            worker: deaths.last().map_or_else(String::new, |death| death.worker.clone()),
        };
        self.finish(now, input, Finished::Failed(Box::new(error)));
    }
}
