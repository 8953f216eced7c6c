//! What a task says of itself.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::control::{TaskEnd, TaskReport, TaskStats};

use super::Task;

impl Task {
    /// The task as a level: its counters, its gauges, and what the coordinator acts on.
    #[must_use]
    pub fn report(&self, ended: Option<TaskEnd>) -> TaskReport {
        let stats = self.stats();
        TaskReport {
            id: self.id,
            ended,
            over_budget: stats.retained_bytes > self.limits.budget,
            stats,
            source: self.source_report(),
            cut: self.cut.iter().copied().collect(),
            oldest: self.oldest_roots().into_iter().collect(),
            marked: self.marks.reported(),
            reached: self.reached,
            unreached: self.unreached.iter().copied().collect(),
        }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> TaskStats {
        let senders = || self.out_ports.iter().flat_map(|p| p.links.values().map(|l| &l.sender));
        let (queued_out, queued_bytes) = self.queued();
        let (busy, queued) = self.occupancy();
        TaskStats {
            busy,
            queued,
            waiting_for_credit: queued_out,
            unacked: senders().map(|s| s.unacked()).sum(),
            retained_bytes: queued_bytes + senders().map(|s| s.retained_bytes()).sum::<u64>(),
            links: self.links().0,
            ..self.stats.clone()
        }
    }

    /// Links that are up, and links in all.
    #[must_use]
    pub fn links(&self) -> (u64, u64) {
        let outputs = self.out_ports.iter().flat_map(|p| p.links.values().map(|l| &l.wire));
        self.in_links
            .values()
            .map(|l| &l.wire)
            .chain(outputs)
            .fold((0, 0), |(up, all), wire| (up + u64::from(wire.is_up()), all + 1))
    }

    /// Roots admitted by this source; none for another task.
    #[must_use]
    pub fn admitted(&self) -> Option<u64> {
        self.window.as_ref().map(crate::window::Window::admitted)
    }

    /// A hash of all that decides what the task will do. Two tasks with the same one behave alike; their
    /// counters may differ.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Checks what must hold after every step; answers the first thing that does not.
    ///
    /// # Errors
    /// The invariant that is broken, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        for port in &self.out_ports {
            for (key, link) in &port.links {
                let (sent, granted) = link.sender.sent_and_granted();
                if sent > granted {
                    return Err(format!(
                        "{} to {}: sent {sent} > granted {granted}",
                        self.id, key.peer
                    ));
                }
            }
        }
        for (key, link) in &self.in_links {
            if link.wire.is_up() && link.receiver.untaken() > link.receiver.outstanding() {
                return Err(format!("{} from {}: received − taken > window", self.id, key.peer));
            }
        }
        #[cfg(any(test, feature = "planted-bugs"))]
        if let Some(lineage) = &self.began_finished {
            return Err(format!("{}: started {lineage}, which is finished", self.id));
        }
        if self.busy > 0 && self.ledger.is_empty() {
            return Err(format!("{}: a slot is in use by nobody", self.id));
        }
        Ok(())
    }
}
