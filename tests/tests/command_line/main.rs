//! The command line, as its users meet it: real commands, their exit codes, and what they print.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is tests, helpers too")]

mod bad_input;
mod broken_links;
mod checker;
mod forged;
mod hostile;
#[path = "../../../client/examples/broken_links/html.rs"]
mod html;
mod names;
mod places;
#[path = "../../../client/examples/broken_links/stages.rs"]
mod stages;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use stageline_tests::cluster::{Cluster, guarded};

/// The whole command line, with the stage functions of the tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");

/// A command that has ended.
struct Ran {
    code: Option<i32>,
    results: String,
    told: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            results: String::from_utf8(output.stdout).unwrap(),
            told: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The command with these arguments, to be run in `dir`, with no setting of this process.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env("STAGELINE_TEST_DIR", dir);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("STAGELINE_") && name != "STAGELINE_TEST_DIR" {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command to its end.
async fn run(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output());
    guarded(output).await.unwrap().unwrap().into()
}

/// What `stageline jobs` with these arguments prints, as JSON.
async fn jobs(cluster: &Cluster, arguments: &[&str]) -> serde_json::Value {
    let arguments = [&["jobs", "--json", "--coordinator", &cluster.address], arguments].concat();
    let ran = run(command(cluster.dir.path(), &arguments)).await;
    assert_eq!(ran.code, Some(0), "{}", ran.told);
    serde_json::from_str(&ran.results).unwrap()
}
