//! A seed says everything: two fresh processes write the same log, byte for byte, at the level that shows
//! each frame and each step of our own code.
//!
//! Two things in it are real, and left out: hyper puts the time of day into the header of each answer, and h2
//! forgets a stream that it has reset a second later by the machine's clock. The first is masked; turmoil's
//! dumps of segments, which show it too, and h2's inner life are not logged. h2 shows its frames all the same.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What each process logs.
const LEVELS: &str = "trace,h2=debug,turmoil=debug";
/// Where the time of day stands in it.
const DATE: &str = "\"date\": \"";

/// Runs that many seeds twice each.
///
/// # Errors
/// The first seed whose logs differ, and where.
pub(crate) fn check(first: u64, seeds: u64) -> Result<(), String> {
    let mut lines = 0;
    for seed in first..first.saturating_add(seeds) {
        lines += compare(seed).map_err(|why| format!("seed {seed}: {why}"))?;
    }
    println!("{seeds} seeds, twice each: {lines} lines of log are the same");
    Ok(())
}

/// Runs both at the same time, and answers how many lines are the same.
fn compare(seed: u64) -> Result<u64, String> {
    let (mut one, mut other) = (Run::start(seed)?, Run::start(seed)?);
    let mut lines = 0;
    let same = loop {
        match (one.line()?, other.line()?) {
            (None, None) => break Ok(lines),
            (left, right) if left == right => lines += 1,
            (left, right) => {
                let [left, right] =
                    [left, right].map(|line| line.unwrap_or_else(|| "the end".to_owned()));
                break Err(format!("line {} differs:\n{left}\n{right}", lines + 1));
            }
        }
    };
    // One that is not read to its end would wait for ever.
    let [one, other] = [one.end()?, other.end()?];
    let lines = same?;
    if !one || !other {
        return Err("it fails; run it alone to see why".to_owned());
    }
    if lines < 1_000 {
        return Err(format!("{lines} lines are too few to show anything"));
    }
    Ok(lines)
}

struct Run {
    child: Child,
    log: BufReader<ChildStdout>,
}

impl Run {
    fn start(seed: u64) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["--seed", &seed.to_string(), "--trace", LEVELS])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let log = child.stdout.take().ok_or("a process without an output")?;
        Ok(Self { child, log: BufReader::with_capacity(1 << 20, log) })
    }

    /// The next line; none at the end.
    fn line(&mut self) -> Result<Option<String>, String> {
        let mut line = String::new();
        let read = self.log.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok((read > 0).then(|| masked(line)))
    }

    /// Whether it did well.
    fn end(mut self) -> Result<bool, String> {
        drop(self.log);
        self.child.wait().map(|status| status.success()).map_err(|error| error.to_string())
    }
}

/// The line without the wall clock's time.
fn masked(mut line: String) -> String {
    if let Some(start) = line.find(DATE).map(|place| place + DATE.len())
        && let Some(length) = line[start..].find('"')
    {
        line.replace_range(start..start + length, "");
    }
    line
}
