//! The coordinator announces nothing that it has not stored: no epoch, no position, no end.

use stageline_protocol::control::{Down, JobPhase};
use stageline_protocol::{Epoch, Term};

/// What the store has.
#[derive(Debug, Default)]
pub(in crate::sim) struct Stored {
    /// The highest epoch.
    pub(in crate::sim) epoch: Epoch,
    /// Of a named source.
    pub(in crate::sim) position: u64,
    pub(in crate::sim) ended: bool,
    term: Term,
}

impl Stored {
    /// The coordinator says something.
    pub(in crate::sim) fn announced(&mut self, message: &Down) -> Result<(), String> {
        match message {
            Down::View(view) => {
                if view.highest_epoch > self.epoch {
                    let (said, stored) = (view.highest_epoch, self.epoch);
                    return Err(format!("announced {said}, stored only {stored}"));
                }
                if view.positions.values().any(|at| *at > self.position) {
                    return Err(format!("announced {:?}, not stored", view.positions));
                }
                self.said(view.term)?;
                self.over(&view.phase)
            }
            Down::Welcome(welcome) => self.said(welcome.term),
            Down::Status(status) => self.over(&status.phase),
            _ => Ok(()),
        }
    }

    fn over(&self, phase: &JobPhase) -> Result<(), String> {
        let over = matches!(phase, JobPhase::Ending(_) | JobPhase::Ended(_));
        if over && !self.ended { Err("announced an end, not stored".to_owned()) } else { Ok(()) }
    }

    fn said(&mut self, term: Term) -> Result<(), String> {
        if term < self.term {
            return Err(format!("spoke in term {term} after {}", self.term));
        }
        self.term = term;
        Ok(())
    }
}
