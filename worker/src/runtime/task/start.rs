//! How the inputs of a task start: by the burst where that can be, else one by one. A terminal's go to its
//! consumer.

use stageline_protocol::run::Run;
use stageline_protocol::task::Effect;

use super::{Sink, State};
use crate::runtime::burst::{Bursts, Done};

/// Items that start between two rounds of frames, at the least, if so many can: what comes of them at once
/// leaves in one frame.
const STARTS_PER_FRAME: u64 = 1_024;

impl State {
    /// Inputs start that had to wait while the loop turned to its events.
    pub(super) fn next_turn(&mut self) {
        for (input, run) in self.bursts.as_mut().map(Bursts::next_turn).unwrap_or_default() {
            self.start_run(input, run);
        }
    }

    /// Whether there are such inputs.
    pub(super) fn is_left(&self) -> bool {
        self.bursts.as_ref().is_some_and(Bursts::are_left)
    }

    pub(super) fn burst_done(&mut self, done: Done) {
        if let Some(bursts) = &mut self.bursts {
            bursts.done(&mut self.task, &mut self.running, done);
        }
    }

    /// Applies one effect, or some starts. False if there is none.
    pub(super) fn apply_next(&mut self) -> bool {
        let mut started = 0;
        while started < STARTS_PER_FRAME {
            match self.task.poll_effect() {
                Some(Effect::Start { input, run }) => {
                    started += run.len();
                    self.start_run(input, run);
                }
                Some(effect) => {
                    self.apply(effect);
                    return true;
                }
                None => return started > 0,
            }
        }
        true
    }

    pub(super) fn start_run(&mut self, input: u64, run: Run) {
        if let Sink::Terminal(terminal) = &mut self.sink {
            return terminal.hand(input, run);
        }
        let run = match &mut self.bursts {
            Some(bursts) => bursts.start(&mut self.task, &mut self.running, input, run),
            None => Some(run),
        };
        for (input, item) in run.iter().flat_map(|run| (input..).zip(run.items())) {
            self.start(input, item.lineage, item.body);
        }
    }
}
