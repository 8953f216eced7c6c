//! All systems in turn.

use anyhow::{Result, bail};

use super::cli::Settings;
use super::plan::Workload;

/// Runs all systems in turn.
///
/// # Errors
/// When a run fails.
pub fn run(_: Workload, _: &Settings) -> Result<bool> {
    bail!("say which system, with --system")
}
