//! How much a task does in a while, as last measured: what sizes follow that nobody has set.

use std::time::Duration;

use crate::time::Time;

const MEASURE_EVERY: Duration = Duration::from_millis(50);
/// The pace of a short span is first measured after this part of it, and each time after twice as long: what is
/// fast should not begin as if it were slow. For a long span that would be too small a sample.
const FIRST_PART: u32 = 10;
/// In less time than that, only a count of many says something: a few may be those that came late for the
/// last measurement.
const LEAST_SPENT: Duration = Duration::from_micros(100);
const MANY: u64 = 1_000;
/// No pace is higher: what was done in no time at all is to be forgotten soon.
const MOST: u64 = 1 << 20;

/// The pace of a count that only grows.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Pace {
    measured_at: Time,
    /// How long it was measured the last time, if that was less than usual.
    short: Option<Duration>,
    spent: Duration,
    count: u64,
    pace: u64,
}

impl Pace {
    /// Of a count that begins there.
    pub(super) fn from(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// How much the count grows in `span`, given what it is now. Measured every 50 ms at the most, once
    /// something is known of a short span. A lull halves the pace and does not forget it: bursts would pay for that.
    pub(super) fn measure(&mut self, now: Time, count: u64, span: Duration) -> u64 {
        self.measure_spent(now, now.since(Time::ZERO), count, span)
    }

    /// The same of a count that grows only at times: of them, so much has been `spent` till now.
    pub(super) fn measure_spent(
        &mut self,
        now: Time,
        spent: Duration,
        count: u64,
        span: Duration,
    ) -> u64 {
        let elapsed = now.since(self.measured_at);
        let grown = count.saturating_sub(self.count);
        let within = spent.saturating_sub(self.spent);
        let usual = elapsed >= MEASURE_EVERY;
        let early = self.next_short(span).is_some_and(|short| elapsed >= short) && grown > 0;
        if (usual || early) && (within >= LEAST_SPENT || grown >= MANY) {
            let within = within.max(LEAST_SPENT).as_micros();
            let latest = u128::from(grown) * span.as_micros() / within;
            let latest = u64::try_from(latest).unwrap_or(MOST).min(MOST);
            self.pace = latest.max(if usual { self.pace / 2 } else { self.pace });
            if self.pace > 0 {
                // The first time, it may have waited for long to have something to count.
                self.short = Some(self.short.map_or(span / FIRST_PART, |_| elapsed));
            }
            (self.measured_at, self.spent, self.count) = (now, spent, count);
        }
        self.pace
    }

    /// After how long it is measured earlier than usual.
    fn next_short(&self, span: Duration) -> Option<Duration> {
        let next = self.short.map_or(span / FIRST_PART, |short| short * 2);
        (span < MEASURE_EVERY && next < MEASURE_EVERY).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn a_short_span_is_measured_early_and_then_ever_later() {
        let mut pace = Pace::default();
        // Slow for the first two milliseconds, and then ten items each.
        let counts = (0..200).map(|ms| (ms, 2 + 10 * u64::saturating_sub(ms, 2)));
        let paces: Vec<u64> = counts.map(|(ms, n)| pace.measure(at(ms), n, SPAN)).collect();
        assert_eq!(paces[..8], [0, 0, 20, 20, 20, 20, 200, 200]);
        assert!(paces[6..].iter().all(|&pace| pace == 200), "{paces:?}");
    }

    #[test]
    fn what_has_waited_for_long_is_measured_early_all_the_same() {
        let mut pace = Pace::default();
        assert_eq!([0, 1_000, 1_060].map(|ms| pace.measure(at(ms), 0, SPAN)), [0; 3]);
        assert_eq!([1_061, 1_063].map(|ms| pace.measure(at(ms), 30, SPAN)), [0, 200]);
        assert_eq!([1_065, 1_067].map(|ms| pace.measure(at(ms), 430, SPAN)), [200, 2_000]);
    }

    #[test]
    fn a_lull_halves_the_pace_each_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.measure(at(1_000), 50_000, SPAN), 1_000);
        assert_eq!(pace.measure(at(1_049), 50_000, SPAN), 1_000);
        assert_eq!(pace.measure(at(1_050), 50_000, SPAN), 500);
        assert_eq!(pace.measure(at(9_999), 50_000, SPAN), 250);
    }

    #[test]
    fn only_the_time_that_was_spent_counts() {
        let mut pace = Pace::default();
        let spent = Duration::from_millis(10);
        assert_eq!(pace.measure_spent(at(1_000), spent, 500, SPAN), 1_000);
        assert_eq!(pace.measure_spent(at(2_000), spent, 500, SPAN), 1_000, "nothing was spent");
        assert_eq!(pace.measure_spent(at(3_000), spent, 503, SPAN), 1_000, "three latecomers");
        assert_eq!(pace.measure_spent(at(4_000), spent * 2, 503, SPAN), 500, "and for nothing");
    }
}
