//! Compares what came out of a job with what had to: count and content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::client::{Entry, Figures};
use super::work::{FLAKY_OUTPUTS, Shape, kept, parse_by_chance};
use crate::functions::read_trace;

/// What came out of one job, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Jobs that completed.
    pub completed: u64,
    /// Jobs whose client was killed.
    pub abandoned: u64,
    /// What came out, copies not counted.
    pub results: u64,
    /// Due results that did not come.
    pub lost: u64,
    /// Results that came more than once where once is promised.
    pub twice: u64,
    /// Results that were not due at all, and sink calls whose key was another than before.
    pub wrong: u64,
    /// Items that came out as errors, and should not.
    pub convicted: u64,
    /// Expansions that failed by chance, and were told.
    pub told: u64,
    /// What went wrong beside that.
    pub faults: Vec<String>,
    /// Figures of the jobs, summed; the longest pause of all.
    pub figures: Figures,
    /// When the number of items sent again grew (milliseconds since 1970).
    pub resends: Vec<u64>,
}

impl Verdict {
    /// Whether everything came out, once.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        (self.lost, self.twice, self.wrong, self.convicted) == (0, 0, 0, 0)
            && self.faults.is_empty()
    }

    /// Prints all of it; answers whether it is clean, and proves something.
    #[must_use]
    pub fn print(&self) -> bool {
        let figures = &self.figures;
        println!(
            "jobs completed {}, ended with their client {}, results {}\n\
             resends {}, raw duplicates {}, refused as stale {}, divergent {}\n\
             lost {}, delivered twice {}, wrong {}, innocent convicted {}, failed by chance and told {}\n\
             longest pause between two results {} ms",
            self.completed,
            self.abandoned,
            self.results,
            figures.resent,
            figures.duplicates,
            figures.stale,
            figures.divergent,
            self.lost,
            self.twice,
            self.wrong,
            self.convicted,
            self.told,
            figures.pause,
        );
        for fault in self.faults.iter().take(20) {
            println!("BROKEN: {fault}");
        }
        let vacuous = figures.resent == 0 || figures.duplicates == 0;
        if vacuous {
            println!("VACUOUS: nothing was sent again, or nothing came twice");
        }
        self.is_clean() && !vacuous
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.completed += other.completed;
        self.abandoned += other.abandoned;
        self.results += other.results;
        self.lost += other.lost;
        self.twice += other.twice;
        self.wrong += other.wrong;
        self.convicted += other.convicted;
        self.told += other.told;
        self.faults.extend(other.faults);
        self.resends.extend(other.resends);
        self.figures.resent += other.figures.resent;
        self.figures.duplicates += other.figures.duplicates;
        self.figures.divergent += other.figures.divergent;
        self.figures.stale += other.figures.stale;
        self.figures.pause = self.figures.pause.max(other.figures.pause);
    }
}

/// Judges a job by the files that its client left. `abandoned`: the client was killed, so results may
/// be missing, and nothing else may be wrong.
#[must_use]
pub fn judge(dir: &Path, to: &Path, shape: Shape, items: u64, abandoned: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let journal = std::fs::read_to_string(to.with_extension("journal")).unwrap_or_default();
    let (mut completed, mut told) = (None, BTreeMap::new());
    for line in journal.lines() {
        match serde_json::from_str(line) {
            Ok(Entry::Resent(at, _)) => verdict.resends.push(at),
            Ok(Entry::Error(error))
                if shape == Shape::Flaky && parse_by_chance(&error).is_some() =>
            {
                let (n, made) = parse_by_chance(&error).unwrap_or_default();
                if told.insert((n, made), error).is_some() {
                    verdict.twice += 1;
                }
                verdict.told += 1;
            }
            Ok(Entry::Error(error)) => {
                verdict.convicted += 1;
                verdict.faults.push(error);
            }
            Ok(Entry::Completed(figures)) => completed = Some(figures),
            Ok(Entry::Failed(why)) => verdict.faults.push(format!("the job failed: {why}")),
            // A client that was killed leaves half a line at the most.
            Err(_) if abandoned => {}
            Err(error) => verdict.faults.push(format!("the journal has {line:?}: {error}")),
        }
    }
    if completed.is_none() && !abandoned {
        verdict.faults.push("the client ended without a word on its job".to_owned());
    }
    verdict.completed = u64::from(completed.is_some());
    verdict.abandoned = u64::from(abandoned && completed.is_none());
    verdict.figures = completed.unwrap_or_default();
    let whole = verdict.completed == 1;
    match shape {
        Shape::Plain | Shape::Spread => {
            let text = std::fs::read_to_string(to.with_extension("results")).unwrap_or_default();
            delivered(&mut verdict, &text, shape.expected(items), whole);
        }
        Shape::Flaky => {
            let text = std::fs::read_to_string(to.with_extension("results")).unwrap_or_default();
            let due = shape.expected(items);
            let seen = delivered(&mut verdict, &text, due.clone(), whole);
            let counts = told.into_keys().map(|(n, made)| (n - ADDED_BY_ONE, made));
            if whole {
                // What comes after a failure that was told is due no more.
                verdict.lost = lost_of_expansions(&seen, due, counts.collect());
            }
        }
        Shape::Sink if whole => {
            let lines = read_trace(dir, &kept(&verdict.figures.job));
            kept_with_one_key(&mut verdict, &lines, shape.expected(items));
        }
        Shape::Sink => {}
    }
    verdict
}

/// What [`super::work::ONE`] adds.
const ADDED_BY_ONE: u64 = 1_000_000;

/// Results that are missing before the first failure of their expansion that was told.
fn lost_of_expansions(
    seen: &BTreeMap<u64, u64>,
    due: std::ops::Range<u64>,
    told: BTreeSet<(u64, u64)>,
) -> u64 {
    let is_due = |result: &u64| {
        let (root, place) =
            ((result - due.start) / FLAKY_OUTPUTS, (result - due.start) % FLAKY_OUTPUTS);
        told.range((root, 0)..=(root, place)).next().is_none()
    };
    due.clone().filter(is_due).filter(|result| !seen.contains_key(result)).count() as u64
}

/// Each due result once. Answers how often each came.
fn delivered(
    verdict: &mut Verdict,
    text: &str,
    due: std::ops::Range<u64>,
    whole: bool,
) -> BTreeMap<u64, u64> {
    // The last line of a killed client may be torn.
    let text = if whole { text } else { text.rsplit_once('\n').map_or("", |(lines, _)| lines) };
    let mut seen = BTreeMap::<u64, u64>::new();
    for line in text.lines() {
        match line.parse() {
            Ok(value) if due.contains(&value) => *seen.entry(value).or_default() += 1,
            _ => verdict.wrong += 1,
        }
    }
    verdict.results += seen.len() as u64;
    verdict.twice += seen.values().filter(|count| **count > 1).count() as u64;
    if whole {
        verdict.lost += due.end - due.start - seen.len() as u64;
    }
    seen
}

/// Each due item at least once, and with the same key each time, which no other item has.
fn kept_with_one_key(verdict: &mut Verdict, lines: &[String], due: std::ops::Range<u64>) {
    let mut keys = BTreeMap::<u64, &str>::new();
    let mut owners = BTreeMap::<&str, u64>::new();
    for line in lines {
        let Some((Ok(value), key)) = line.split_once(' ').map(|(v, key)| (v.parse(), key)) else {
            verdict.wrong += 1;
            continue;
        };
        let first = *keys.entry(value).or_insert(key);
        let owner = *owners.entry(key).or_insert(value);
        if first != key || owner != value || !due.contains(&value) {
            verdict.wrong += 1;
        }
    }
    verdict.results += keys.len() as u64;
    verdict.lost += (due.end - due.start).saturating_sub(keys.len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(results: &str, journal: &[Entry], abandoned: bool) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("job");
        std::fs::write(to.with_extension("results"), results).unwrap();
        let lines: Vec<String> =
            journal.iter().map(|e| serde_json::to_string(e).unwrap()).collect();
        std::fs::write(to.with_extension("journal"), lines.join("\n")).unwrap();
        judge(dir.path(), &to, Shape::Plain, 3, abandoned)
    }

    const COMPLETED: fn() -> Entry = || Entry::Completed(Figures::default());

    #[test]
    fn what_came_once_and_whole_is_clean() {
        let verdict = judged("111000001\n111000000\n111000002\n", &[COMPLETED()], false);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.completed, verdict.results), (1, 3));
    }

    #[test]
    fn losses_copies_strangers_errors_and_silence_are_seen() {
        let verdict = judged("111000000\n111000000\n5\n", &[COMPLETED()], false);
        assert_eq!((verdict.lost, verdict.twice, verdict.wrong), (2, 1, 1));
        let all = "111000000\n111000001\n111000002\n";
        assert!(!judged(all, &[], false).is_clean());
        assert!(!judged(all, &[Entry::Failed("it did".to_owned())], false).is_clean());
        let convicted = [Entry::Error("it crashed".to_owned()), COMPLETED()];
        assert_eq!(judged(all, &convicted, false).convicted, 1);
    }

    #[test]
    fn a_killed_client_may_miss_results_and_see_none_twice() {
        let verdict = judged("111000000\n1110", &[], true);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.abandoned, verdict.results), (1, 1));
        assert_eq!(judged("111000000\n111000000\n", &[], true).twice, 1);
    }

    #[test]
    fn an_expansion_that_told_its_failure_owes_nothing_behind_it() {
        let seen = [100, 104, 105].map(|result| (result, 1)).into();
        let lost = |told: &[(u64, u64)]| {
            lost_of_expansions(&seen, 100..108, told.iter().copied().collect())
        };
        assert_eq!(lost(&[]), 5);
        assert_eq!(lost(&[(0, 1), (1, 2)]), 0);
        assert_eq!(lost(&[(0, 2), (1, 2)]), 1, "the second output is before the failure");
        assert_eq!(parse_by_chance("stage \"x\": failed: by chance: 7 after 2"), Some((7, 2)));
    }

    #[test]
    fn a_sink_is_called_with_one_key_for_each_item() {
        let lines = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let mut verdict = Verdict::default();
        kept_with_one_key(&mut verdict, &lines(&["7 a", "8 b", "7 a"]), 7..9);
        assert_eq!((verdict.results, verdict.lost, verdict.wrong), (2, 0, 0));
        kept_with_one_key(&mut verdict, &lines(&["7 a", "7 b", "8 b"]), 7..10);
        assert_eq!((verdict.lost, verdict.wrong), (1, 2));
    }
}
