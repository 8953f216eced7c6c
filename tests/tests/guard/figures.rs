//! Figures per item, and how they compare with the recorded ones.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Records the figures, from the top of the checkout. The whole workspace is named because the features
/// of dependencies are chosen for that, as in CI.
pub(crate) const COMMAND: &str = "GUARD=record cargo test --workspace --test guard";

/// A figure may be so much above the recorded one, as a share of it. As far below, it is time to record.
const TOLERANCE: f64 = 0.10;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guard/recorded.json");

/// What one item of the workload costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// Calls of the allocator, to enlarge what is there among them.
    pub(crate) allocations_per_item: f64,
    /// Frames with items in them, over the three links that an item passes.
    pub(crate) frames_per_item: f64,
    /// Instructions of all processes; none where they were not counted.
    pub(crate) instructions: Option<Instructions>,
}

/// Instructions are of one kind of processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instructions {
    /// As [`std::env::consts::ARCH`] has it.
    pub(crate) arch: String,
    pub(crate) per_item: f64,
}

/// What came of a comparison, in words.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Figures that have grown too much.
    pub(crate) grown: Vec<String>,
    /// Figures that have fallen by so much that the record would let them grow back.
    pub(crate) fallen: Vec<String>,
    /// The others.
    pub(crate) alike: Vec<String>,
}

impl Figures {
    /// The recorded ones.
    pub(crate) fn recorded() -> Result<Self> {
        let text = fs::read_to_string(FILE).with_context(|| unreadable("cannot be read"))?;
        serde_json::from_str(&text).with_context(|| unreadable("is not a record of figures"))
    }

    /// Records these. Instructions that were not counted stay as they were recorded.
    pub(crate) fn record(&self) -> Result<()> {
        let instructions =
            self.instructions.clone().or_else(|| Self::recorded().ok()?.instructions);
        let mut text = serde_json::to_string_pretty(&Self { instructions, ..self.clone() })?;
        text.push('\n');
        fs::write(Path::new(FILE), text).with_context(|| format!("{FILE} cannot be written"))
    }

    /// Compares these with recorded ones.
    pub(crate) fn compare(&self, recorded: &Self) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.add("allocations", recorded.allocations_per_item, self.allocations_per_item);
        verdict.add("frames", recorded.frames_per_item, self.frames_per_item);
        match (&recorded.instructions, &self.instructions) {
            (Some(then), Some(now)) if then.arch == now.arch => {
                verdict.add("instructions", then.per_item, now.per_item);
            }
            (Some(then), Some(now)) => verdict.alike.push(format!(
                "instructions per item: {:.4} on {}, and recorded for {} only: not compared",
                now.per_item, now.arch, then.arch
            )),
            (None, Some(_)) => verdict.grown.push("instructions are not recorded".to_owned()),
            (_, None) => {}
        }
        verdict
    }
}

impl Verdict {
    fn add(&mut self, what: &str, then: f64, now: f64) {
        let change = now / then - 1.0;
        let words = format!(
            "{what} per item: {then:.4} recorded, {now:.4} now ({:+.1} %; {:.0} % more is too much)",
            change * 100.0,
            TOLERANCE * 100.0
        );
        // Not a number, if nothing was recorded: that is no pass.
        if change.is_nan() || change > TOLERANCE {
            self.grown.push(words);
        } else if change < -TOLERANCE {
            self.fallen.push(words);
        } else {
            self.alike.push(words);
        }
    }
}

fn unreadable(why: &str) -> String {
    format!("{FILE} {why}; write it anew: {COMMAND}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(allocations: f64, frames: f64, instructions: Option<(&str, f64)>) -> Figures {
        Figures {
            allocations_per_item: allocations,
            frames_per_item: frames,
            instructions: instructions
                .map(|(arch, per_item)| Instructions { arch: arch.to_owned(), per_item }),
        }
    }

    fn verdict(then: &Figures, now: &Figures) -> [Vec<String>; 3] {
        let Verdict { grown, fallen, alike } = now.compare(then);
        let names = |words: Vec<String>| -> Vec<String> {
            words.iter().filter_map(|w| Some(w.split_once(' ')?.0.to_owned())).collect()
        };
        [names(grown), names(fallen), names(alike)]
    }

    #[test]
    fn a_tenth_more_passes_and_what_is_beyond_does_not() {
        let then = figures(2.0, 0.01, Some(("a", 1000.0)));
        let now = figures(2.19, 0.0112, Some(("a", 880.0)));
        assert_eq!(verdict(&then, &now), [["frames"], ["instructions"], ["allocations"]]);
        let words = &now.compare(&then).grown[0];
        assert!(words.contains("0.0100 recorded, 0.0112 now (+12.0 %"), "{words}");
    }

    #[test]
    fn instructions_of_another_processor_say_nothing() {
        let then = figures(2.0, 0.01, Some(("a", 1000.0)));
        let other = figures(2.0, 0.01, Some(("b", 5000.0)));
        assert_eq!(other.compare(&then).grown, [] as [String; 0]);
        let uncounted = figures(2.0, 0.01, None);
        assert_eq!(uncounted.compare(&then).grown, [] as [String; 0]);
        assert_eq!(then.compare(&uncounted).grown, ["instructions are not recorded"]);
    }

    #[test]
    fn a_record_of_nothing_lets_nothing_pass() {
        let [grown, ..] = verdict(&figures(0.0, f64::NAN, None), &figures(1.0, 1.0, None));
        assert_eq!(grown, ["allocations", "frames"]);
    }
}
