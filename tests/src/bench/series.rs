//! All systems in turn: each is run several times, so that a machine that is busy for a while slows
//! all of them down, and medians are compared.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::cli::Settings;
use super::outcome::Outcome;
use super::plan::{Plan, System, Wait, Workload};
use super::table;
use crate::cluster::this_program;

/// How long a run should take unless a number of items is given, in seconds.
const TARGET: f64 = 1.2;
/// A trial that was shorter says too little about the rate, in seconds.
const TRIAL: f64 = 0.1;

/// One row of a table: who runs what, and what it came to.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the table.
    pub label: String,
    /// What carries the items.
    pub system: System,
    /// What is run.
    pub plan: Plan,
    /// What each run came to.
    pub outcomes: Vec<Outcome>,
}

/// Runs all systems in turn, and prints a table for each payload. False if a result was wrong.
///
/// # Errors
/// When a run fails.
pub fn run(workload: Workload, settings: &Settings) -> Result<bool> {
    let mut well = true;
    for plan in settings.plans(workload) {
        let mut rows = rows(plan, &settings.among);
        for row in &mut rows {
            if settings.items.is_none() && has_own_count(row.plan.workload) {
                row.plan.items = enough(row)?;
            }
        }
        let count = rows.len().max(1);
        for run in 0..settings.runs {
            // Each is once the first, so that none always follows the same.
            for place in 0..count {
                let row = &mut rows[(run + place) % count];
                let outcome = once(row.system, &row.plan)?;
                eprintln!(
                    "{} of {}: {} {:.0} items/s{}",
                    run + 1,
                    settings.runs,
                    row.label,
                    outcome.items_per_s,
                    if outcome.ok { "" } else { ", AND A WRONG RESULT" },
                );
                well &= outcome.ok;
                row.outcomes.push(outcome);
            }
        }
        println!("{}", table::render(&plan, &rows));
    }
    Ok(well)
}

/// The systems, and beside Stageline what it is to be compared with.
fn rows(plan: Plan, among: &[System]) -> Vec<Row> {
    let row = |label: &str, system, plan| Row {
        label: label.to_owned(),
        system,
        plan,
        outcomes: Vec::new(),
    };
    let systems = System::ALL.into_iter().filter(|s| among.is_empty() || among.contains(s));
    let mut rows: Vec<Row> = systems.map(|system| row(system.name(), system, plan)).collect();
    let ours = System::Stageline;
    if rows.iter().any(|row| row.system == ours) {
        match plan.workload {
            Workload::Embedded => {
                rows.push(row("  as stages", ours, Plan { workload: Workload::Stages, ..plan }));
            }
            Workload::Fanout if plan.wait == Wait::Both => {
                rows.push(row("  one waits", ours, Plan { wait: Wait::First, ..plan }));
            }
            _ => {}
        }
    }
    rows
}

/// Whether each system gets as many items as it does in a second or so.
const fn has_own_count(workload: Workload) -> bool {
    !matches!(workload, Workload::Fanout | Workload::Latency)
}

/// As many items as take about [`TARGET`]: found by short runs.
fn enough(row: &Row) -> Result<u64> {
    let mut items = (row.plan.items / 400).max(1);
    loop {
        let outcome = once(row.system, &Plan { items, ..row.plan })?;
        if outcome.seconds >= TRIAL || items >= row.plan.items {
            return Ok(((outcome.items_per_s * TARGET) as u64).max(1));
        }
        items *= 8;
    }
}

/// One run, in a process of its own.
fn once(system: System, plan: &Plan) -> Result<Outcome> {
    let mut command = Command::new(this_program());
    command.arg(plan.workload.name()).args(["--system", system.name()]);
    let numbers = [
        ("--payload", plan.payload as u64),
        ("--items", plan.items),
        ("--rate", plan.rate),
        ("--workers", plan.workers as u64),
    ];
    for (name, number) in numbers {
        command.args([name, &number.to_string()]);
    }
    if plan.wait == Wait::Both {
        command.args(["--wait", "both"]);
    }
    let ran = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let line = String::from_utf8_lossy(&ran.stdout);
    let what = || format!("{} of {}: {}", plan.workload.name(), system.name(), ran.status);
    ensure!(!line.is_empty(), "{} and no outcome", what());
    serde_json::from_str(&line).with_context(what)
}
