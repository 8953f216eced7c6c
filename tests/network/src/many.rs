//! Many seeds, each in a process of its own: sums, and what a run must show to count.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use stageline_protocol::task::Bug;

/// Runs that many seeds, prints the sums, and says which failed.
///
/// # Errors
/// Seeds that failed, or a run that shows nothing because too little went wrong in it.
pub(crate) fn run(first: u64, seeds: u64, jobs: u64) -> Result<(), String> {
    let (next, all) = (AtomicU64::new(first), Mutex::new(Sums::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) {
                        return;
                    }
                    let outcome = one(seed, None);
                    let mut all = all.lock().expect("no thread panics while it holds the sums");
                    all.add(seed, outcome);
                }
            });
        }
    });
    let sums = all.into_inner().expect("no thread panics while it holds the sums");
    sums.print(seeds);
    sums.judge()
}

/// The line of one seed, and whether it did well.
pub(crate) fn one(seed: u64, bug: Option<Bug>) -> Result<String, (String, String)> {
    let failed = |why: String| (String::new(), format!("seed {seed}: {why}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(bug.map(|bug| format!("--bug={bug:?}")))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(line);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err((line, format!("seed {seed} ({}): {}", output.status, said.trim())))
}

#[derive(Debug, Default)]
struct Sums {
    totals: BTreeMap<String, u64>,
    longest_peace: u64,
    failures: Vec<String>,
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: Result<String, (String, String)>) {
        let line = outcome.unwrap_or_else(|(line, why)| {
            eprintln!("{why}");
            self.failures.push(seed.to_string());
            line
        });
        for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            let value: u64 = value.parse().unwrap_or_default();
            *self.totals.entry(name.to_owned()).or_default() += value;
            if name == "peace-ms" {
                self.longest_peace = self.longest_peace.max(value);
            }
        }
    }

    fn total(&self, name: &str) -> u64 {
        self.totals.get(name).copied().unwrap_or_default()
    }

    fn print(&self, seeds: u64) {
        println!("{seeds} seeds, {} failed", self.failures.len());
        for name in ["results", "delivered", "lost", "wrong", "violations"] {
            println!("  {name:<24}{:>10}", self.total(name));
        }
        for name in ["in-trouble", "resent", "duplicates", "stale", "spared", "faults"] {
            println!("  {name:<24}{:>10}", self.total(name));
        }
        // Kinds of faults are the words with a capital letter.
        let kinds = self.totals.iter().filter(|(name, _)| name.starts_with(char::is_uppercase));
        kinds.for_each(|(name, count)| println!("    {name:<22}{count:>10}"));
        println!("  {:<24}{:>10} s", "simulated", self.total("simulated-ms") / 1_000);
        println!("  {:<24}{:>10} ms", "longest end after peace", self.longest_peace);
    }

    fn judge(&self) -> Result<(), String> {
        let mut complaints = Vec::new();
        if !self.failures.is_empty() {
            complaints.push(format!("seeds that failed: {}", self.failures.join(", ")));
        }
        for name in ["faults", "resent", "duplicates", "stale"] {
            if self.total(name) == 0 {
                complaints.push(format!("the run shows nothing: {name} is 0"));
            }
        }
        if self.total("in-trouble") * 2 < self.total("results") {
            complaints.push("the run shows little: most results came after the last fault".into());
        }
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
    }
}
