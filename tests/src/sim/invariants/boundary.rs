//! The boundary: nothing comes twice, nothing that was not expected, nothing with another content; and
//! at the end each root has ended in all its values, or in an error that was told.

use std::collections::{BTreeMap, BTreeSet};

use stageline_protocol::pipeline::Op;
use stageline_protocol::{Body, ErrorKind, ItemError, Lineage, StageId, Step};

use crate::sim::functions::{Outcome, SOURCE, Work, decode};

/// What may be delivered, and what has been.
#[derive(Debug)]
pub(in crate::sim) struct Boundary {
    work: Work,
    roots: u64,
    expected: u64,
    delivered: BTreeSet<Lineage>,
    /// What a user's sink has taken: at least once.
    sunk: BTreeSet<Lineage>,
    /// The errors that were told as ends of expansions: their counts.
    told: BTreeMap<Lineage, BTreeSet<u64>>,
    /// Expansions that went well with fewer outputs than they should have made.
    short: BTreeMap<Lineage, BTreeSet<u64>>,
    /// The consumer wants so many.
    wanted: Option<u64>,
}

impl Boundary {
    pub(in crate::sim) fn new(work: Work, roots: u64) -> Self {
        let mut boundary = Self {
            work,
            roots,
            expected: 0,
            delivered: BTreeSet::new(),
            sunk: BTreeSet::new(),
            told: BTreeMap::new(),
            short: BTreeMap::new(),
            wanted: None,
        };
        boundary.expected = (0..roots).map(|number| boundary.count_root(number)).sum();
        boundary
    }

    /// What comes of a root if every call goes as its input says.
    fn count_root(&self, number: u64) -> u64 {
        if self.work.root_fails(number) { 1 } else { self.count(1, self.work.root(number)) }
    }

    fn count(&self, place: usize, value: u64) -> u64 {
        match self.work.run(place, value) {
            Outcome::Value(next) => self.count(place + 1, next),
            Outcome::Keep => self.count(place + 1, value),
            Outcome::Drop => 0,
            Outcome::Expand(outputs, fails) => {
                let counts = outputs.into_iter().map(|output| self.count(place + 1, output));
                counts.sum::<u64>() + u64::from(fails)
            }
            Outcome::Taken | Outcome::Fail | Outcome::Kill => 1,
        }
    }

    pub(in crate::sim) const fn expected(&self) -> u64 {
        self.expected
    }

    pub(in crate::sim) fn delivered(&self) -> u64 {
        (self.delivered.len() + self.sunk.len()) as u64
    }

    /// The consumer will want no more than so many.
    pub(in crate::sim) fn want(&mut self, most: u64) {
        self.wanted = Some(most);
    }

    /// Whether the consumer has all that it wants.
    pub(in crate::sim) fn is_satisfied(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.delivered() >= wanted)
    }

    /// An expansion ended well, and made only so many outputs.
    pub(in crate::sim) fn ended_short(&mut self, expanded: &Lineage, count: u64) {
        self.short.entry(expanded.clone()).or_default().insert(count);
    }

    /// A user's sink has taken an item.
    pub(in crate::sim) fn sink(&mut self, lineage: &Lineage, value: u64) -> Result<(), String> {
        let place = self.work.stages.len() - 2;
        if self.work.value_at(lineage, place) != Some(value) {
            return Err(format!("the sink got {lineage} as {value}, which it is not"));
        }
        self.sunk.insert(lineage.clone());
        Ok(())
    }

    /// The consumer has taken an item.
    pub(in crate::sim) fn deliver(&mut self, lineage: &Lineage, body: &Body) -> Result<(), String> {
        let terminal = self.work.stages.len() - 1;
        let fits = match body {
            Body::Error(error) => self.may_fail(lineage, error),
            body => {
                let value = decode(body);
                value.is_some() && self.work.value_at(lineage, terminal) == value
            }
        };
        if !fits {
            return Err(format!("delivered what nobody expected: {lineage} {body:?}"));
        }
        if !self.delivered.insert(lineage.clone()) {
            return Err(format!("duplicate: {lineage} was delivered twice"));
        }
        if let Some((Step::End(count), expanded)) = lineage.steps.split_last() {
            let expanded = Lineage { steps: expanded.to_vec(), ..*lineage };
            self.told.entry(expanded).or_default().insert(*count);
        }
        Ok(())
    }

    /// Whether a stage may have made this error of the item that it was made of.
    fn may_fail(&self, lineage: &Lineage, error: &ItemError) -> bool {
        let Some(stage) = self.work.by_name(&error.stage) else { return false };
        let place = stage.0 as usize;
        let (item, end) = match lineage.steps.split_last() {
            Some((Step::End(count), item)) => {
                (Lineage { steps: item.to_vec(), ..*lineage }, Some(*count))
            }
            _ => (lineage.clone(), None),
        };
        let expands = self.work.expands_from(place.max(1));
        if expands != end.is_some() {
            return false;
        }
        if stage == SOURCE {
            return self.work.root_fails(item.root) && item.steps.is_empty();
        }
        let Some(value) = self.work.value_at(&item, place) else { return false };
        let outcome = self.work.run(place, value);
        // How many outputs may have been before it.
        let (outputs, whole) = match &outcome {
            Outcome::Expand(outputs, fails) => (outputs.len() as u64, *fails),
            _ => (0, outcome == Outcome::Fail),
        };
        let count = end.unwrap_or(0);
        let manners = self.work.manners;
        match error.kind {
            ErrorKind::Failed => whole && count == outputs && error.message == value.to_string(),
            ErrorKind::Timeout => {
                manners.failing.is_some() && count <= outputs && error.message == value.to_string()
            }
            ErrorKind::Crashed => outcome == Outcome::Kill,
            ErrorKind::Divergent => {
                self.short.get(&item).is_some_and(|counts| counts.contains(&count))
            }
            _ => false,
        }
    }

    /// Whether everything that comes of an item in front of a stage is safe; if not, the first that is not.
    /// Nothing more is wanted of a root that has ended otherwise: another run may have gone better.
    pub(in crate::sim) fn check_safe(
        &self,
        stage: StageId,
        item: &Lineage,
        is_error: bool,
    ) -> Result<(), Lineage> {
        let safe = self.check_item(stage, item, is_error);
        if safe.is_err() && self.check_root(item.root).is_ok() { Ok(()) } else { safe }
    }

    fn check_item(&self, stage: StageId, item: &Lineage, is_error: bool) -> Result<(), Lineage> {
        if self.is_satisfied() || self.is_beyond(item) {
            return Ok(());
        }
        let place = stage.0 as usize;
        match item.steps.split_last() {
            Some((Step::End(count), expanded)) => {
                let expanded = Lineage { steps: expanded.to_vec(), ..*item };
                if !is_error || self.told.contains_key(&expanded) {
                    return Ok(());
                }
                // It told nothing, so it must have hidden nothing.
                let last = self.work.stages.iter().enumerate().filter(|(_, k)| k.op == Op::FlatMap);
                let depth = expanded.steps.len();
                let Some((place, _)) = last.clone().nth(depth) else { return Err(item.clone()) };
                let Some(value) = self.work.value_at(&expanded, place) else {
                    return Err(item.clone());
                };
                let Outcome::Expand(outputs, fails) = self.work.run(place, value) else {
                    return Err(item.clone());
                };
                let all = (!fails).then_some(outputs.len() as u64);
                let hidden = |end: u64| {
                    let outputs = outputs.iter().copied().enumerate().take(end as usize);
                    self.check_outputs(&expanded, place + 1, outputs.skip(*count as usize))
                };
                let ends = self.short.get(&expanded).into_iter().flatten().copied();
                let mut missing = Err(item.clone());
                for end in ends.chain(all) {
                    match hidden(end) {
                        Ok(()) => return Ok(()),
                        is_missing => missing = is_missing,
                    }
                }
                missing
            }
            _ if is_error => self.check_error(place, item),
            _ => match self.work.value_at(item, place) {
                Some(value) => self.check(place, item, value),
                None => Err(item.clone()),
            },
        }
    }

    /// Whether an expansion on its way ended before it, with an error that was told or because that is all
    /// it made when it ran again.
    fn is_beyond(&self, item: &Lineage) -> bool {
        item.steps.iter().enumerate().any(|(at, step)| {
            let Step::Output(place) = step else { return false };
            let expanded = Lineage { steps: item.steps[..at].to_vec(), ..*item };
            let ends = [self.told.get(&expanded), self.short.get(&expanded)];
            ends.into_iter().flatten().flatten().any(|count| count <= place)
        })
    }

    /// Of an error on its way: it is told, or something else is in its place.
    fn check_error(&self, place: usize, item: &Lineage) -> Result<(), Lineage> {
        if self.is_told(place, item) {
            return Ok(());
        }
        match self.work.value_at(item, place) {
            Some(value) => self.check(place, item, value),
            None => Err(item.clone()),
        }
    }

    /// Whether an error, or the item itself, is told of an item in front of a stage.
    fn is_told(&self, place: usize, item: &Lineage) -> bool {
        if self.work.expands_from(place) {
            self.told.get(item).is_some_and(|counts| counts.contains(&0))
        } else {
            self.delivered.contains(item) || self.sunk.contains(item)
        }
    }

    fn check(&self, place: usize, item: &Lineage, value: u64) -> Result<(), Lineage> {
        if self.is_told(place, item) {
            return Ok(());
        }
        match self.work.run(place, value) {
            Outcome::Value(next) => self.check(place + 1, item, next),
            Outcome::Keep => self.check(place + 1, item, value),
            Outcome::Drop => Ok(()),
            Outcome::Expand(outputs, fails) => self.check_expansion(place, item, outputs, fails),
            Outcome::Taken | Outcome::Fail | Outcome::Kill => Err(item.clone()),
        }
    }

    /// Whether anything has come out that came of this item.
    fn has_come(&self, item: &Lineage) -> bool {
        let of_item = |found: &Lineage| {
            (found.source, found.root) == (item.source, item.root)
                && found.steps.starts_with(&item.steps)
        };
        let among = |set: &BTreeSet<Lineage>| set.range(item.clone()..).next().is_some_and(of_item);
        among(&self.delivered) || among(&self.sunk)
    }

    /// All outputs are there, or those before an error that is told.
    fn check_expansion(
        &self,
        place: usize,
        item: &Lineage,
        mut outputs: Vec<u64>,
        fails: bool,
    ) -> Result<(), Lineage> {
        let told = self.told.get(item).and_then(|counts| counts.first().copied());
        if let Some(count) = told {
            outputs.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        }
        let first = |count: u64| {
            let outputs = outputs.iter().copied().enumerate().take(count as usize);
            self.check_outputs(item, place + 1, outputs)
        };
        // With fewer, if none behind them has come out beyond one that has not: a gap is told, but by a
        // user's sink, which sees no ends.
        let sinks = self.work.stages.iter().any(|kind| kind.op == Op::Sink);
        let last =
            (0..outputs.len() as u64).rev().find(|n| self.has_come(&item.with(Step::Output(*n))));
        let whole = |count: u64| {
            first(count.max(last.filter(|_| !sinks).map_or(0, |last| last + 1))).is_ok()
        };
        let mut short = self.short.get(item).into_iter().flatten();
        if short.any(|count| whole(*count)) {
            return Ok(());
        }
        first(u64::MAX)?;
        let end = item.with(Step::End(outputs.len() as u64));
        if told.is_none() && fails { Err(end) } else { Ok(()) }
    }

    fn check_outputs(
        &self,
        expanded: &Lineage,
        place: usize,
        outputs: impl Iterator<Item = (usize, u64)>,
    ) -> Result<(), Lineage> {
        for (n, output) in outputs {
            self.check(place, &expanded.with(Step::Output(n as u64)), output)?;
        }
        Ok(())
    }

    /// Whether a root has ended in all its values, or in an error that was told.
    fn check_root(&self, number: u64) -> Result<(), Lineage> {
        let root = Lineage::root(SOURCE, number);
        if self.work.root_fails(number) {
            return if self.is_told(1, &root) { Ok(()) } else { Err(root) };
        }
        self.check(1, &root, self.work.root(number))
    }

    /// Nothing is missing at the end.
    pub(in crate::sim) fn check_complete(&self) -> Result<(), String> {
        if let Some(wanted) = self.wanted {
            let delivered = self.delivered();
            return (delivered == wanted)
                .then_some(())
                .ok_or_else(|| format!("{delivered} delivered, {wanted} wanted"));
        }
        let lost = (0..self.roots).filter_map(|number| self.check_root(number).err());
        let lost: Vec<String> = lost.map(|lineage| lineage.to_string()).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("lost: {}", lost.join(", "))) }
    }
}
