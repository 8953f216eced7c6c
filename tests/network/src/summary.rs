//! What came of one seed, or of many: `name=number` on one line, so that sums can be made of lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::faults::Kind;

/// What came of one seed.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    /// Delivered, and so acked, before the network healed.
    pub(crate) in_trouble: u64,
    /// How often no worker was killed because of a suspect.
    pub(crate) spared: u64,
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) resent: u64,
    pub(crate) duplicates: u64,
    pub(crate) stale: u64,
    pub(crate) lost: u64,
    pub(crate) first_lost: Option<String>,
    pub(crate) wrong: Vec<String>,
    pub(crate) violations: u64,
    pub(crate) failure: Option<String>,
    pub(crate) unfinished: bool,
    pub(crate) simulated: Duration,
    /// From the last fault's end to the job's.
    pub(crate) peace: Duration,
}

impl Summary {
    /// What should not be, if anything.
    pub(crate) fn complaint(&self) -> Option<String> {
        let mut complaints = Vec::new();
        if let Some(failure) = &self.failure {
            complaints.push(format!("the job failed: {failure}"));
        }
        if self.unfinished {
            complaints.push(format!("not done {:?} after the last fault", self.peace));
        }
        if let Some(first) = &self.first_lost {
            complaints.push(format!("{} lost, among them {first}", self.lost));
        }
        if let Some(first) = self.wrong.first() {
            complaints.push(format!("{} results wrong, among them: {first}", self.wrong.len()));
        }
        if self.violations > 0 {
            complaints.push(format!("{} violations of the protocol", self.violations));
        }
        (!complaints.is_empty()).then(|| complaints.join("; "))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_millis();
        write!(
            f,
            "seed={} results={} delivered={} in-trouble={} lost={} wrong={} violations={} resent={} \
             duplicates={} stale={} spared={} simulated-ms={} peace-ms={} faults={}",
            self.seed,
            self.expected,
            self.delivered,
            self.in_trouble,
            self.lost,
            self.wrong.len(),
            self.violations,
            self.resent,
            self.duplicates,
            self.stale,
            self.spared,
            millis(self.simulated),
            millis(self.peace),
            self.faults.values().sum::<u64>(),
        )?;
        self.faults.iter().try_for_each(|(kind, count)| write!(f, " {kind:?}={count}"))
    }
}
