//! How long a link takes from a grant to the items that use it.

use std::time::Duration;

use crate::time::Time;

/// The round trip of a link, as its receiver sees it: only a sender that waits for credit answers a grant at
/// once. Smoothed as TCP does it (RFC 6298, section 2, with alpha = 1/8).
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct RoundTrip {
    began: Option<Time>,
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// A grant goes to a sender that waits for it.
    pub(super) fn begins(&mut self, now: Time) {
        self.began.get_or_insert(now);
    }

    /// Items have come.
    pub(super) fn ends(&mut self, now: Time) {
        let Some(began) = self.began.take() else { return };
        let sample = now.since(began);
        self.smoothed = Some(self.smoothed.map_or(sample, |mean| mean - mean / 8 + sample / 8));
    }

    /// The sender has no reason to answer any more.
    pub(super) const fn breaks_off(&mut self) {
        self.began = None;
    }

    /// What holds of the next connection, too.
    pub(super) const fn anew(&self) -> Self {
        Self { began: None, smoothed: self.smoothed }
    }

    pub(super) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}
