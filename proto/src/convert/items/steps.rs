//! The steps of lineages, each as two numbers.

use std::ops::Range;

use stageline_protocol::{Run, Step};

use super::columns::{ColumnWriter, expect, limit};
use crate::MAX_STEPS;
use crate::convert::{DecodeError, Problem};

const STEP_OUTPUT: u64 = 0;
const STEP_BRANCH: u64 = 1;
const STEP_END: u64 = 2;

/// The steps of one lineage.
pub(in crate::convert) fn encode_steps(steps: &[Step]) -> impl Iterator<Item = u64> {
    steps.iter().copied().flat_map(encode_step)
}

/// The steps of one lineage.
pub(in crate::convert) fn decode_steps(steps: &[u64]) -> Result<Vec<Step>, DecodeError> {
    let steps = Steps::decode(steps.to_vec(), Vec::new(), 1)?;
    steps.get(steps.first())
}

const fn encode_step(step: Step) -> [u64; 2] {
    match step {
        Step::Output(n) => [STEP_OUTPUT, n],
        Step::Branch(n) => [STEP_BRANCH, n as u64],
        Step::End(n) => [STEP_END, n],
    }
}

/// The steps of all items of these runs, and how many each has, unless all have the same number.
pub(super) fn steps(batch: &[Run], items: usize) -> (Vec<u64>, Vec<u32>) {
    let size = |run: &Run| 2 * run.lineage.steps.len() * run.len() as usize;
    let mut numbers = Vec::with_capacity(batch.iter().map(size).sum());
    let mut counts = ColumnWriter::new(items);
    for run in batch {
        let steps = &run.lineage.steps[..];
        counts.push(u32::try_from(steps.len()).unwrap_or(u32::MAX), run.len() as usize);
        if steps.is_empty() {
            continue;
        }
        numbers.extend(encode_steps(steps));
        // The items of a run differ in one number, if not in their roots.
        let counted = steps.iter().rposition(|step| !matches!(step, Step::Branch(_)));
        let counted = counted.filter(|&place| matches!(steps[place], Step::Output(_)));
        for _ in 1..run.len() {
            numbers.extend_from_within(numbers.len() - 2 * steps.len()..);
            if let Some(place) = counted {
                let number = numbers.len() - 2 * (steps.len() - place) + 1;
                numbers[number] = numbers[number].wrapping_add(1);
            }
        }
    }
    (numbers, counts.finish().1)
}

/// The steps of a batch's items, as they were received.
pub(super) struct Steps {
    /// Of all items, behind each other.
    numbers: Vec<u64>,
    /// How many each item has, unless `each` says it.
    all: usize,
    each: Vec<u32>,
}

impl Steps {
    pub(super) fn decode(
        numbers: Vec<u64>,
        each: Vec<u32>,
        items: usize,
    ) -> Result<Self, DecodeError> {
        let (steps, odd) = numbers.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(DecodeError::invalid("steps", "has a kind without an index"));
        }
        let mut all = 0;
        if each.is_empty() {
            all = steps.len().checked_div(items).unwrap_or(0);
            if all * items != steps.len() {
                return Err(DecodeError::invalid("steps", "does not divide by the items"));
            }
            if all > MAX_STEPS {
                return Err(limit("steps", MAX_STEPS, all));
            }
        } else {
            expect("step_counts", items, each.len())?;
            let mut sum = 0_usize;
            for &n in &each {
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                if n > MAX_STEPS {
                    return Err(limit("step_counts", MAX_STEPS, n));
                }
                sum += n;
            }
            if sum != steps.len() {
                return Err(DecodeError::invalid("step_counts", "do not add up to the steps"));
            }
        }
        Ok(Self { numbers, all, each })
    }

    /// Whether no item has any.
    pub(super) const fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Where those of the first item are.
    pub(super) fn first(&self) -> Range<usize> {
        0..self.count(0)
    }

    /// Where those of an item are, which come behind those of the item before.
    pub(super) fn next(&self, item: usize, before: &Range<usize>) -> Range<usize> {
        before.end..before.end + self.count(item)
    }

    fn count(&self, item: usize) -> usize {
        self.each.get(item).map_or(self.all, |&n| n as usize)
    }

    fn raw(&self, at: &Range<usize>) -> &[[u64; 2]] {
        // The counts add up to the steps, so they are always there.
        self.numbers.as_chunks::<2>().0.get(at.clone()).unwrap_or_default()
    }

    pub(super) fn get(&self, at: Range<usize>) -> Result<Vec<Step>, DecodeError> {
        let numbered = at.clone().zip(self.raw(&at));
        numbered
            .map(|(place, &[kind, n])| {
                step(kind, n)
                    .map_err(|problem| DecodeError::new("", problem).at_index("steps", 2 * place))
            })
            .collect()
    }

    /// Whether the lineage of an item with this root and steps comes right after that of another, of the
    /// same source and with steps that [are](Self::get) some. If so, its steps are some, too.
    pub(super) fn follow(
        &self,
        (root, steps): (u64, &Range<usize>),
        (next_root, next_steps): (u64, &Range<usize>),
    ) -> bool {
        let (steps, next) = (self.raw(steps), self.raw(next_steps));
        let Some(counted) = steps.iter().rposition(|step| step[0] != STEP_BRANCH) else {
            return steps == next && root.checked_add(1) == Some(next_root);
        };
        let [kind, number] = steps[counted];
        kind == STEP_OUTPUT
            && root == next_root
            && steps.len() == next.len()
            && next[counted][0] == STEP_OUTPUT
            && number.checked_add(1) == Some(next[counted][1])
            && steps[..counted] == next[..counted]
            && steps[counted + 1..] == next[counted + 1..]
    }
}

fn step(kind: u64, n: u64) -> Result<Step, Problem> {
    match kind {
        STEP_OUTPUT => Ok(Step::Output(n)),
        STEP_BRANCH => u32::try_from(n)
            .map(Step::Branch)
            .map_err(|_| Problem::Invalid("is a branch with an index above the largest")),
        STEP_END => Ok(Step::End(n)),
        other => Err(Problem::Unknown(i64::try_from(other).unwrap_or(i64::MAX))),
    }
}
