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
    /// So many were under way when it was last measured.
    begun: u64,
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
        self.measure_if_due(now, now.since(Time::ZERO), count, 0, span);
        self.pace
    }

    /// The same of a count that grows only at times: of them, so much has been `spent` till now. `begun` will be
    /// counted soon.
    ///
    /// What is fast should not begin as if it were slow. So a pace that turns out too low is raised in between:
    /// when more than it has come already, it is what that promises, but never more than twice what came. What had
    /// begun when it was last measured promises nothing: 64 slow calls may end together.
    pub(super) fn measure_early(
        &mut self,
        now: Time,
        spent: Duration,
        count: u64,
        begun: u64,
        span: Duration,
    ) -> u64 {
        if !self.measure_if_due(now, spent, count, begun, span) {
            let came = count.saturating_sub(self.count).saturating_sub(self.begun);
            let within = spent.saturating_sub(self.spent);
            if came > self.pace && within >= LEAST_SPENT {
                self.pace = self.pace.max(in_span(came, within, span).min(came * 2));
            }
        }
        self.pace
    }

    fn measure_if_due(
        &mut self,
        now: Time,
        spent: Duration,
        count: u64,
        begun: u64,
        span: Duration,
    ) -> bool {
        let grown = count.saturating_sub(self.count);
        let within = spent.saturating_sub(self.spent);
        let is_due = now.since(self.measured_at) >= MEASURE_EVERY
            && (within >= LEAST_SPENT || grown >= MANY);
        if is_due {
            self.pace = in_span(grown, within, span).max(self.pace / 2);
            (self.measured_at, self.spent) = (now, spent);
            (self.count, self.begun) = (count, begun);
        }
        is_due
    }
}

/// What comes in `span` if so much came `within` that time.
fn in_span(came: u64, within: Duration, span: Duration) -> u64 {
    let within = within.max(LEAST_SPENT).as_micros();
    let pace = u128::from(came) * span.as_micros() / within;
    u64::try_from(pace).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    /// One that has been at it all the time.
    fn busy(pace: &mut Pace, micros: u64, count: u64, begun: u64) -> u64 {
        let spent = Duration::from_micros(micros);
        pace.measure_early(Time::from_micros(micros), spent, count, begun, SPAN)
    }

    #[test]
    fn a_pace_that_is_too_low_is_raised_at_once_and_becomes_the_true_one() {
        let mut pace = Pace::default();
        // Two, and after two milliseconds ten in each.
        let counts = (0..500).map(|ms| (ms, 2 + 10 * u64::saturating_sub(ms, 2)));
        let paces: Vec<u64> = counts.map(|(ms, n)| busy(&mut pace, ms * 1_000, n, 1)).collect();
        assert_eq!(paces[..10], [0, 4, 4, 24, 24, 64, 64, 64, 64, 144]);
        assert!(paces[10..].iter().all(|pace| (144..=200).contains(pace)), "{paces:?}");
        assert!(paces[150..].iter().all(|pace| *pace == 200), "{paces:?}");
    }

    #[test]
    fn a_pace_that_is_too_high_becomes_the_true_one() {
        let mut pace = Pace::default();
        // A hundred a millisecond, and then half of that.
        let count = |ms| if ms < 100 { ms * 100 } else { 5_000 + ms * 50 };
        let paces: Vec<u64> =
            (0..1_000).map(|ms| busy(&mut pace, ms * 1_000, count(ms), 1)).collect();
        assert_eq!((paces[100], paces[999]), (2_000, 1_000));
    }

    #[test]
    fn a_few_that_are_fast_promise_no_more_than_as_many_again() {
        let mut pace = Pace::default();
        assert_eq!(busy(&mut pace, 100_000, 5, 0), 1);
        // Four that were at hand, after one that took long.
        let paces = (1..=4).map(|n| busy(&mut pace, 100_000 + 30 * n, 5 + n, 0));
        assert_eq!(paces.collect::<Vec<_>>(), [1, 1, 1, 8]);
    }

    #[test]
    fn what_had_begun_before_promises_nothing() {
        let mut pace = Pace::default();
        // Each second 64 end within a millisecond.
        for second in 1..5 {
            for n in 0..64 {
                let micros = second * 1_000_000 + n * 16;
                let came = busy(&mut pace, micros, (second - 1) * 64 + n + 1, 63);
                assert!(came <= 1, "{came} after {micros} µs");
            }
        }
    }

    #[test]
    fn what_has_waited_for_long_is_measured_early_all_the_same() {
        let mut pace = Pace::default();
        assert_eq!([0, 1_000, 1_060].map(|ms| busy(&mut pace, ms * 1_000, 0, 0)), [0; 3]);
        assert_eq!([1_061, 1_063].map(|ms| busy(&mut pace, ms * 1_000, 30, 0)), [60; 2]);
        assert_eq!([1_065, 1_067].map(|ms| busy(&mut pace, ms * 1_000, 430, 0)), [860; 2]);
    }

    #[test]
    fn a_lull_halves_the_pace_each_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.measure(at(1_000), 50_000, SPAN), 1_000);
        assert_eq!(pace.measure(at(1_049), 90_000, SPAN), 1_000);
        assert_eq!(pace.measure(at(1_050), 90_000, SPAN), 16_000);
        assert_eq!(pace.measure(at(2_050), 90_000, SPAN), 8_000);
        assert_eq!(pace.measure(at(9_999), 90_000, SPAN), 4_000);
    }

    #[test]
    fn only_the_time_that_was_spent_counts() {
        let mut pace = Pace::default();
        let spent = Duration::from_millis(50);
        let mut measure = |ms, spent, count| pace.measure_early(at(ms), spent, count, 0, SPAN);
        assert_eq!(measure(1_000, spent, 2_500), 1_000);
        assert_eq!(measure(2_000, spent, 2_500), 1_000, "nothing was spent");
        assert_eq!(measure(3_000, spent, 2_503), 1_000, "three latecomers");
        assert_eq!(measure(4_000, spent * 2, 2_503), 500, "and for nothing");
    }
}
