//! Real processes under seeded faults: the long runs. See `--help`, and [`stageline_tests::chaos`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use stageline_tests::chaos::client::{self, Order};
use stageline_tests::chaos::work::Shape;
use stageline_tests::chaos::{Outcome, kills, partitions, small, stall, zombies};
use stageline_tests::cluster::as_process;

/// Real processes under seeded faults, and an oracle that knows every result.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:
  chaos kills --kills 100 --items 100000 --seed 1     kills over all kinds of process
  chaos zombies --count 10                            workers stopped for longer than a lease
  chaos partitions --cycles 5                         networks cut one way and both; takes root
  chaos stall --seconds 60                            memory behind a sink that stalls
  chaos small --items 1000000                         small items past a consumer that stalls

Exit codes: 0 what is promised held, 1 it did not, or the run proved nothing, 77 skipped."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill, stop and end processes of all kinds, at moments drawn from a seed.
    Kills {
        /// How many kills.
        #[arg(long, default_value_t = 100)]
        kills: u64,
        /// How many results each job has; an even number.
        #[arg(long, default_value_t = 100_000)]
        items: u64,
        /// Draws the faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Spare the coordinator from kills.
        #[arg(long)]
        spare_coordinator: bool,
    },
    /// Stop workers for longer than their lease, and let them go on.
    Zombies {
        /// How many.
        #[arg(long, default_value_t = 10)]
        count: u64,
        /// How many results each job has; an even number. A job must outlive its zombies.
        #[arg(long, default_value_t = 400_000)]
        items: u64,
        /// For how many seconds; the lease is 10.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Draws the faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Cut networks one way and both, for less than a lease and for more.
    Partitions {
        /// How many cuts.
        #[arg(long, default_value_t = 5)]
        cycles: u64,
        /// How many results each job has; an even number.
        #[arg(long, default_value_t = 100_000)]
        items: u64,
        /// Draws the faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Let a sink stall behind an endless source, and watch the memory.
    Stall {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Send small items past a consumer that stalls, and count connections that break.
    Small {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        items: u64,
        /// How often it stalls.
        #[arg(long, default_value_t = 3)]
        stalls: u64,
        /// For how long each time.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Be the client of a run: submit one job, and write down what comes of it.
    #[command(hide = true)]
    Client {
        #[arg(long)]
        coordinator: String,
        #[arg(long)]
        shape: Shape,
        #[arg(long)]
        items: u64,
        #[arg(long)]
        to: PathBuf,
        #[arg(long, env = "STAGELINE_LOG", default_value = "info")]
        log: String,
    },
}

fn main() -> ExitCode {
    // The processes of a run are this program, too.
    if let Some(code) = as_process() {
        return code;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let outcome = runtime.block_on(run(Cli::parse().command));
    match outcome {
        Outcome::Held => ExitCode::SUCCESS,
        Outcome::Broken => ExitCode::FAILURE,
        Outcome::Skipped => ExitCode::from(77),
    }
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Kills { kills, items, seed, spare_coordinator } => {
            let items = items.next_multiple_of(2);
            let plan = kills::Plan { kills, items, seed, coordinator: !spare_coordinator };
            kills::run(&plan).await
        }
        Command::Zombies { count, items, seconds, seed } => {
            let stop = Duration::from_secs(seconds);
            zombies::run(count, items.next_multiple_of(2), stop, seed).await
        }
        Command::Partitions { cycles, items, seed } => {
            partitions::run(cycles, items.next_multiple_of(2), seed).await
        }
        Command::Stall { seconds } => stall::run(Duration::from_secs(seconds)).await,
        Command::Small { items, stalls, seconds } => {
            small::run(items, stalls, Duration::from_secs(seconds)).await
        }
        Command::Client { coordinator, shape, items, to, log } => {
            tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).init();
            let order = Order { coordinator, shape, items, to };
            match client::run(order).await {
                Ok(()) => Outcome::Held,
                Err(error) => {
                    tracing::error!(%error, "the client cannot write");
                    Outcome::Broken
                }
            }
        }
    }
}
