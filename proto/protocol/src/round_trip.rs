//! How long it takes until something comes back: the items for a grant, the ack of a root.

use std::time::Duration;

use crate::time::Time;

/// Measured one trip at a time, and smoothed as TCP does it (RFC 6298, section 2, with alpha = 1/8).
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct RoundTrip {
    began: Option<Time>,
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// What will be answered at once has gone out; nothing, if another trip is under way.
    pub(crate) fn begins(&mut self, now: Time) {
        self.began.get_or_insert(now);
    }

    /// The answer is there.
    pub(crate) fn ends(&mut self, now: Time) {
        let Some(began) = self.began.take() else { return };
        let sample = now.since(began);
        self.smoothed = Some(self.smoothed.map_or(sample, |mean| mean - mean / 8 + sample / 8));
    }

    /// There is no reason to answer any more.
    pub(crate) const fn breaks_off(&mut self) {
        self.began = None;
    }

    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}
