//! Sets of numbers, as pairs of gap and length: small numbers however long a link has lived.

use stageline_protocol::ranges::{RangeSet, Settled};

use super::{DecodeError, Wire};
use crate::v1;

impl Wire for Settled {
    type Proto = v1::Settled;

    fn encode(&self) -> v1::Settled {
        v1::Settled { prefix: self.prefix(), above: pairs(self.above(), self.prefix()) }
    }

    fn decode(p: v1::Settled) -> Result<Self, DecodeError> {
        if p.above.first() == Some(&0) {
            return Err(DecodeError::invalid(
                "above",
                "starts at the prefix: it has a gap of zero",
            ));
        }
        let above = range_set(&p.above, p.prefix, "above")?;
        Ok(Self::from_parts(p.prefix, above.iter()))
    }
}

/// The ranges of a set whose numbers are all at least `from`.
pub(super) fn pairs(set: &RangeSet, from: u64) -> Vec<u64> {
    let mut pairs = Vec::with_capacity(2 * set.range_count());
    let mut at = from;
    for range in set.iter() {
        pairs.push(range.start.saturating_sub(at));
        pairs.push(range.end - range.start);
        at = range.end;
    }
    pairs
}

/// The set that pairs of gap and length stand for, counted from `from`. Only one list stands for a
/// set, so ranges that touch, or are empty, are refused.
pub(super) fn range_set(
    pairs: &[u64],
    from: u64,
    field: &'static str,
) -> Result<RangeSet, DecodeError> {
    let invalid = |why| DecodeError::invalid(field, why);
    let (ranges, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid("has a gap without a length"));
    }
    let mut set = RangeSet::new();
    let mut at = from;
    for (i, &[gap, length]) in ranges.iter().enumerate() {
        if length == 0 || (gap == 0 && i > 0) {
            return Err(invalid("has an empty range, or two that touch"));
        }
        let start = at.checked_add(gap);
        let end = start.and_then(|s| s.checked_add(length));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(invalid("has numbers above the largest"));
        };
        set.insert_range(start..end);
        at = end;
    }
    Ok(set)
}
