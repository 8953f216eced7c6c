//! How long a link takes from a grant to the items that use it.

use std::time::Duration;

use crate::time::Time;

/// The round trip of a link, as its receiver sees it: only a sender that waits for credit answers a grant at
/// once. Smoothed as TCP does it (RFC 6298, section 2, with alpha = 1/8).
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct RoundTrip {
    began: Option<Time>,
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// A grant goes to a sender that waits for it.
    pub(crate) fn begins(&mut self, now: Time) {
        self.began.get_or_insert(now);
    }

    /// Items have come.
    pub(crate) fn ends(&mut self, now: Time) {
        let Some(began) = self.began.take() else { return };
        let sample = now.since(began);
        self.smoothed = Some(self.smoothed.map_or(sample, |mean| mean - mean / 8 + sample / 8));
    }

    /// The sender has no reason to answer any more.
    pub(crate) const fn breaks_off(&mut self) {
        self.began = None;
    }

    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}
