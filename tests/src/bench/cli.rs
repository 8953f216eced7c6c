//! The command line.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser};

use super::plan::{Plan, System, Wait, Workload};
use super::process::{self, Part};
use super::{run, series};

/// What it costs to carry items from stage to stage: Stageline and three baselines.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Examples:
  bench link                                      all payloads, all systems in turn, five times
  bench stages --payload 128 --runs 9             one payload, nine times
  bench stages --system stageline --payload 16    one run, as a line of JSON
  bench stages --system stageline --payload 128 --items 400000 --workers 4
  bench fanout --wait both --among stageline      both maps wait 2 ms for each item
  bench latency --rate 5000                       5,000 items a second

A run without --items gets as many as take a second or so: with --system a fixed number, otherwise
what a trial finds for each system. `MB` is a million bytes of payload as the source makes it;
`cpu` counts all processes while the job runs; `peak` is that of the largest process, since its start.

Exit codes: 0 all results were right, 1 one was not, or a run failed."
)]
pub struct Cli {
    /// What is done with the items.
    #[arg(value_enum)]
    pub workload: Workload,
    /// Run only this system, once, and print a line of JSON.
    #[arg(long, value_enum)]
    pub system: Option<System>,
    /// Sizes, and the rest.
    #[command(flatten)]
    pub settings: Settings,
}

/// What a run can be told.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Bytes that the source makes of each item; several, with commas between, are run one after the
    /// other. Default: what suits the workload.
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    pub payload: Vec<usize>,
    /// How many items. Default: as many as take a second or two.
    #[arg(long, value_name = "N")]
    pub items: Option<u64>,
    /// Of `latency`: items a second.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Worker processes for each map and for the sink, of Stageline only.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Of `fanout`: which maps wait.
    #[arg(long, value_enum, default_value_t = Wait::First)]
    pub wait: Wait,
    /// Without --system: only these, with commas between.
    #[arg(long, value_enum, value_name = "SYSTEMS", value_delimiter = ',')]
    pub among: Vec<System>,
    /// Without --system: how often each is run.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("STAGELINE_LOG").unwrap_or_else(|_| "warn".to_owned()))
        .with_writer(std::io::stderr)
        .init();
    let done = match be_a_part() {
        Some(done) => done.map(|()| true),
        None => {
            let cli = Cli::parse();
            match cli.system {
                Some(system) => one(system, &cli),
                None => series::run(cli.workload, &cli.settings),
            }
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A process of a run is this program, too.
fn be_a_part() -> Option<Result<()>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != process::COMMAND {
        return None;
    }
    let part = arguments.next().unwrap_or_default();
    let part = serde_json::from_str::<Part>(&part).context("this is no part of a run");
    Some(part.and_then(process::be))
}

/// Runs one system, once for each payload; whether all was well.
fn one(system: System, cli: &Cli) -> Result<bool> {
    let mut well = true;
    for plan in cli.settings.plans(cli.workload) {
        let outcome = run::run(system, &plan)?;
        well &= outcome.ok;
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(well)
}

impl Settings {
    /// The runs that are asked for.
    #[must_use]
    pub fn plans(&self, workload: Workload) -> Vec<Plan> {
        let payloads = if self.payload.is_empty() { payloads(workload) } else { &self.payload };
        let plan = |&payload: &usize| Plan {
            workload,
            payload,
            items: self.items.unwrap_or_else(|| items(workload, payload, self.rate)),
            rate: self.rate,
            workers: self.workers.max(1),
            wait: self.wait,
        };
        payloads.iter().map(plan).collect()
    }
}

const fn payloads(workload: Workload) -> &'static [usize] {
    match workload {
        Workload::Link | Workload::Stages => &[16, 128, 1024, 65_536],
        Workload::Embedded => &[16, 128, 1024],
        Workload::Fanout | Workload::Latency | Workload::Typed => &[128],
    }
}

/// As many items as take good systems a second or two on a small machine.
const fn items(workload: Workload, payload: usize, rate: u64) -> u64 {
    match workload {
        Workload::Fanout => 40_000,
        Workload::Latency => 10 * rate,
        Workload::Typed => 500_000,
        Workload::Link => match payload {
            0..=64 => 16_000_000,
            65..=512 => 8_000_000,
            513..=8192 => 1_500_000,
            _ => 30_000,
        },
        Workload::Stages | Workload::Embedded => match payload {
            0..=64 => 5_000_000,
            65..=512 => 2_000_000,
            513..=8192 => 500_000,
            _ => 10_000,
        },
    }
}
