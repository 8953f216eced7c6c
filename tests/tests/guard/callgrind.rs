//! Instructions of the workload, as callgrind counts them: this program runs itself under it.

use std::env;
use std::io;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// In the environment of the program under callgrind: of how many items its job is.
const ITEMS: &str = "GUARD_ITEMS";

/// Of how many items the job is to be; none in a program that nobody runs under callgrind.
pub(crate) fn items() -> Option<u64> {
    env::var(ITEMS).ok()?.parse().ok()
}

/// A run that has begun.
#[derive(Debug)]
pub(crate) struct Count {
    child: Child,
}

impl Count {
    /// Begins a run of the test of that name, with a job of so many items; none where there is no
    /// callgrind.
    pub(crate) fn start(test: &str, items: u64) -> Result<Option<Self>> {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe()?)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ITEMS, items.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Ok(Some(Self { child })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("valgrind does not start"),
        }
    }

    /// Waits for its end, and answers how many instructions there were.
    pub(crate) fn finish(self) -> Result<u64> {
        let output = self.child.wait_with_output()?;
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        // A test that is not found passes, too.
        let ran = output.status.success() && text.contains("1 passed");
        ensure!(ran, "the run under callgrind went wrong, {}:\n{text}", output.status);
        collected(&text).with_context(|| format!("callgrind did not say what it counted:\n{text}"))
    }
}

/// The total in what callgrind prints.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}
