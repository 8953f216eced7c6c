//! What calls cost: whether they are for the task's own thread.

use std::time::Duration;

/// How long a burst should take: about what it costs to have another thread do it, and some.
const AIM: Duration = Duration::from_micros(32);
/// A call that costs less is not worth another thread, however many there are.
const LITTLE: Duration = Duration::from_micros(1);
/// How long a burst of such calls should take: as long as what came together may stay together.
const LONG: Duration = Duration::from_micros(128);
/// Over about so many calls the cost is averaged.
const MEMORY: u64 = 64;

/// What the first poll of a call has cost lately.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// In nanoseconds, averaged. None if nothing is known.
    average: Option<u64>,
    /// What the last burst said.
    last: Option<u64>,
}

impl Cost {
    /// So many calls took so long together.
    pub(super) fn learn(&mut self, took: Duration, calls: u64) {
        let said = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / calls.max(1);
        // A burst that the system interrupted says too much: one alone is not believed.
        let said = said.min(self.last.replace(said).unwrap_or(u64::MAX));
        self.average = Some(match self.average {
            None => said,
            Some(average) => {
                let sum =
                    u128::from(average) * u128::from(MEMORY) + u128::from(said) * u128::from(calls);
                // No more than the larger of the two.
                (sum / u128::from(MEMORY + calls)) as u64
            }
        });
    }

    /// How many calls should fit a burst; none if nothing is known.
    pub(super) fn fitting(&self) -> u64 {
        let Some(average) = self.average else { return 0 };
        let is_little = u128::from(average) < LITTLE.as_nanos();
        let aim = if is_little { LONG } else { AIM };
        aim.as_nanos() as u64 / average.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_that_was_interrupted_is_not_believed() {
        let (quick, slow) = (Duration::from_micros(6), Duration::from_millis(64));
        let mut cost = Cost::default();
        assert_eq!(cost.fitting(), 0);
        cost.learn(quick, 64);
        assert_eq!(cost.fitting(), 1_376);
        cost.learn(slow, 64);
        assert_eq!(cost.fitting(), 1_376);
        cost.learn(quick, 64);
        cost.learn(slow, 64);
        assert_eq!(cost.fitting(), 1_376);
        cost.learn(slow, 64);
        assert_eq!(cost.fitting(), 0);
    }
}
