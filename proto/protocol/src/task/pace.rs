//! How much a task does in a while, as last measured: what sizes follow that nobody has set.

use std::time::Duration;

use crate::time::Time;

const MEASURE_EVERY: Duration = Duration::from_millis(50);
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
    spent: Duration,
    count: u64,
    pace: u64,
}

impl Pace {
    /// Of a count that begins there.
    pub(super) fn from(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// How much the count grows in `span`, given what it is now. Measured every 50 ms at the most. A lull
    /// halves the pace and does not forget it: bursts would pay for that.
    pub(super) fn measure(&mut self, now: Time, count: u64, span: Duration) -> u64 {
        self.measure_spent(now, now.since(Time::ZERO), count, u64::MAX, span)
    }

    /// The same of a count that grows only at times: of them, so much has been `spent` till now.
    ///
    /// What is fast should not begin as if it were slow, nor go on so. When more has been counted than was
    /// thought to come in the span, it is measured at once: but for what had `begun` by the last time, that many
    /// at the most, which may have been about to be counted anyhow.
    pub(super) fn measure_spent(
        &mut self,
        now: Time,
        spent: Duration,
        count: u64,
        begun: u64,
        span: Duration,
    ) -> u64 {
        let grown = count.saturating_sub(self.count);
        let usual = now.since(self.measured_at) >= MEASURE_EVERY;
        let (sure, least) =
            if usual { (grown, self.pace / 2) } else { (grown.saturating_sub(begun), self.pace) };
        let within = spent.saturating_sub(self.spent);
        if (usual || sure > self.pace) && (within >= LEAST_SPENT || grown >= MANY) {
            let within = within.max(LEAST_SPENT).as_micros();
            let latest = u128::from(sure) * span.as_micros() / within;
            self.pace = u64::try_from(latest).unwrap_or(MOST).min(MOST).max(least);
            (self.measured_at, self.spent, self.count) = (now, spent, count);
        }
        self.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    /// One that has been at it all the time.
    fn busy(pace: &mut Pace, millis: u64, count: u64, begun: u64) -> u64 {
        pace.measure_spent(at(millis), Duration::from_millis(millis), count, begun, SPAN)
    }

    #[test]
    fn what_is_faster_than_thought_is_measured_at_once() {
        let mut pace = Pace::default();
        // Slow for the first two milliseconds, and then ten items each.
        let counts = (0..200).map(|ms| (ms, 2 + 10 * u64::saturating_sub(ms, 2)));
        let paces: Vec<u64> = counts.map(|(ms, n)| busy(&mut pace, ms, n, 0)).collect();
        assert_eq!(paces[..8], [0, 40, 40, 40, 40, 40, 40, 166]);
        assert!(paces[50..].iter().all(|&pace| (160..=200).contains(&pace)), "{paces:?}");
        assert_eq!(paces[199], 200);
    }

    #[test]
    fn what_had_begun_before_says_nothing_of_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(busy(&mut pace, 50, 16, 16), 6);
        assert_eq!([51, 52].map(|ms| busy(&mut pace, ms, 32, 16)), [6; 2], "all at once");
        assert_eq!(busy(&mut pace, 53, 46, 16), 93, "and then two rounds");
    }

    #[test]
    fn what_has_waited_for_long_is_measured_early_all_the_same() {
        let mut pace = Pace::default();
        assert_eq!([0, 1_000, 1_060].map(|ms| busy(&mut pace, ms, 0, 0)), [0; 3]);
        assert_eq!([1_061, 1_063].map(|ms| busy(&mut pace, ms, 30, 0)), [600, 600]);
        assert_eq!([1_065, 1_067].map(|ms| busy(&mut pace, ms, 4_030, 0)), [20_000, 20_000]);
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
        let mut measure = |ms, spent, count| pace.measure_spent(at(ms), spent, count, 0, SPAN);
        assert_eq!(measure(1_000, spent, 500), 1_000);
        assert_eq!(measure(2_000, spent, 500), 1_000, "nothing was spent");
        assert_eq!(measure(3_000, spent, 503), 1_000, "three latecomers");
        assert_eq!(measure(4_000, spent * 2, 503), 500, "and for nothing");
    }
}
