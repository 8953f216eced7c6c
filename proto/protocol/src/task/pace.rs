//! How much a task does in a while, as last measured: what sizes follow that nobody has set.

use std::time::Duration;

use crate::time::Time;

const MEASURE_EVERY: Duration = Duration::from_millis(50);
/// The pace of a short span of which nothing is known is measured after this part of it: what is fast should
/// not begin as if it were slow. For a long one that would be too small a sample.
const FIRST_PART: u32 = 10;

/// The pace of a count that only grows.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Pace {
    measured_at: Time,
    count: u64,
    pace: u64,
}

impl Pace {
    /// How much the count grows in `span`, given what it is now. Measured every 50 ms at the most, once
    /// something is known of a short span. A lull halves the pace and does not forget it: bursts would pay for that.
    pub(super) fn measure(&mut self, now: Time, count: u64, span: Duration) -> u64 {
        let elapsed = now.since(self.measured_at);
        let is_first = self.pace == 0 && count > self.count && span < MEASURE_EVERY;
        if elapsed >= MEASURE_EVERY || is_first && elapsed >= span / FIRST_PART {
            let grown = u128::from(count.saturating_sub(self.count));
            let latest = grown * span.as_micros() / elapsed.as_micros().max(1);
            let latest = u64::try_from(latest).unwrap_or(u64::MAX);
            *self = Self { measured_at: now, count, pace: latest.max(self.pace / 2) };
        }
        self.pace
    }
}
