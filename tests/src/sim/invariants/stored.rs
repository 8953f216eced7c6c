//! The coordinator announces nothing that it has not stored: no epoch, no task, no position, no end; and
//! its term never falls.

use std::collections::BTreeSet;

use stageline_coordinator::store::Record;
use stageline_protocol::control::{Down, JobPhase};
use stageline_protocol::{Epoch, TaskId, Term};

/// What the store has.
#[derive(Debug, Default)]
pub(in crate::sim) struct Stored {
    /// The highest epoch.
    epoch: Epoch,
    /// Of a named source.
    pub(in crate::sim) position: u64,
    ended: bool,
    /// Every task that ever was.
    tasks: BTreeSet<TaskId>,
    term: Term,
}

impl Stored {
    /// A record is safe.
    pub(in crate::sim) fn put(&mut self, record: &Record) {
        match record {
            Record::Epochs { highest, .. } => self.epoch = *highest,
            Record::Position { position, .. } => self.position = *position,
            Record::Task { task, .. } => {
                self.tasks.insert(task.id);
            }
            Record::Ended { .. } => self.ended = true,
            _ => {}
        }
    }

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
                if let Some(peer) = view.peers.iter().find(|peer| !self.tasks.contains(&peer.id)) {
                    return Err(format!("announced task {}, not stored", peer.id));
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
