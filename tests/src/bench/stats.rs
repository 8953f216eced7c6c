//! Medians, spreads and percentiles.

/// The middle of some figures; of an even number, the mean of the two in the middle. None of none.
#[must_use]
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(middle - 1)?, upper))
}

/// How far the largest and the smallest figure are apart, as a share of the median.
#[must_use]
pub fn spread(figures: &[f64]) -> Option<f64> {
    let largest = figures.iter().copied().max_by(f64::total_cmp)?;
    let smallest = figures.iter().copied().min_by(f64::total_cmp)?;
    Some((largest - smallest) / median(figures)?)
}

/// The smallest figure that at least such a share of all does not exceed. The figures are sorted.
#[must_use]
pub fn percentile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]), Some(0.0));
        assert_eq!(spread(&[8.0, 10.0, 13.0]), Some(0.5));
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let figures: Vec<u64> = (1..=1000).collect();
        assert_eq!(percentile(&figures, 0.5), Some(500));
        assert_eq!(percentile(&figures, 0.99), Some(990));
        assert_eq!(percentile(&figures, 0.999), Some(999));
        assert_eq!(percentile(&[7], 0.001), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
