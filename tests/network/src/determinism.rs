//! A seed says everything: two fresh processes write the same log, byte for byte, at the level that shows
//! each frame and each step of our own code.
//!
//! Two things in it are real. hyper puts the time of day into the header of each answer: it is masked, and
//! turmoil's dumps of segments, which show it too, are not logged. And h2 forgets a stream of a server a
//! second after it reset it, by the machine's clock, which nothing can set: a process that the machine kept
//! waiting may differ by that alone. So seeds whose logs differ are tried anew, and counted; what a seed
//! does not determine differs again.

use std::process::{Command, Stdio};

/// What each process logs.
const LEVELS: &str = "trace,h2=debug,turmoil=debug";
/// Where the time of day stands in it.
const DATE: &str = "\"date\": \"";
/// How often a seed is tried.
const TRIES: u64 = 3;
/// Less shows nothing.
const FEWEST_LINES: usize = 1_000;

/// Runs that many seeds twice each.
///
/// # Errors
/// The first seed whose logs differ, and where.
pub(crate) fn check(first: u64, seeds: u64) -> Result<(), String> {
    let (mut lines, mut again) = (0, 0);
    for seed in first..first.saturating_add(seeds) {
        let mut tries = 1;
        lines += loop {
            match compare(seed) {
                Err(Trouble::Differs(_)) if tries < TRIES => tries += 1,
                Err(Trouble::Differs(why) | Trouble::Fails(why)) => {
                    return Err(format!("seed {seed}: {why}"));
                }
                Ok(same) => break same,
            }
        };
        again += tries - 1;
    }
    println!("{seeds} seeds, twice each: {lines} lines of log are the same ({again} tried anew)");
    Ok(())
}

enum Trouble {
    Differs(String),
    Fails(String),
}

/// Answers how many lines are the same.
fn compare(seed: u64) -> Result<usize, Trouble> {
    let [one, other] = [log(seed)?, log(seed)?];
    let (mut left, mut right) = (one.lines(), other.lines());
    let mut same = 0;
    loop {
        match (left.next().map(masked), right.next().map(masked)) {
            (None, None) if same < FEWEST_LINES => {
                return Err(Trouble::Fails(format!("{same} lines are too few to show anything")));
            }
            (None, None) => return Ok(same),
            (left, right) if left == right => same += 1,
            (left, right) => {
                let [left, right] =
                    [left, right].map(|l| l.unwrap_or_else(|| "the end".to_owned()));
                let place = same + 1;
                return Err(Trouble::Differs(format!("line {place} differs:\n{left}\n{right}")));
            }
        }
    }
}

/// What a fresh process logs.
fn log(seed: u64) -> Result<String, Trouble> {
    let output = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["--seed", &seed.to_string(), "--trace", LEVELS])
            .stdin(Stdio::null())
            .output()
    });
    let output = output.map_err(|error| Trouble::Fails(error.to_string()))?;
    if !output.status.success() {
        return Err(Trouble::Fails(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    String::from_utf8(output.stdout).map_err(|error| Trouble::Fails(error.to_string()))
}

/// The line without the time of day.
fn masked(line: &str) -> String {
    let mut line = line.to_owned();
    if let Some(start) = line.find(DATE).map(|place| place + DATE.len())
        && let Some(length) = line[start..].find('"')
    {
        line.replace_range(start..start + length, "");
    }
    line
}
