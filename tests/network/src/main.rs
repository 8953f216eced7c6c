//! The real coordinator, workers and client, over real HTTP/2 and gRPC, on a simulated network, under faults
//! drawn from a seed. Nothing of them is replaced but the sockets and the clock.
//!
//! One seed is one process, because tokio numbers its tasks process-wide:
//!
//! ```sh
//! cargo run                                # seeds 0 to 199, a process each
//! cargo run -- --seeds 1000 --first 5000   # others
//! cargo run -- --seed 17 --trace debug     # one seed in this process, with its log
//! cargo run -- --determinism 20            # 20 seeds, twice each: the logs are the same, byte for byte
//! cargo run -- --bugs                      # planted bugs: which seed catches which
//! ```
//!
//! Run it in this folder: `.cargo/config.toml` has the flag that makes tokio's choices reproducible.

#[cfg(not(tokio_unstable))]
compile_error!("build this in tests/network, where .cargo/config.toml sets --cfg tokio_unstable");

mod bugs;
mod cluster;
mod determinism;
mod faults;
mod many;
mod net;
mod oracle;
mod run;
mod summary;
mod watch;
mod workload;

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::Parser;
use stageline_protocol::task::Bug;

/// Stageline's processes on a simulated network, under faults drawn from seeds.
#[derive(Debug, Parser)]
struct Args {
    /// Run this seed only, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: write the log at these levels to standard output ("debug", "trace", "stageline_worker=trace").
    #[arg(long, requires = "seed")]
    trace: Option<String>,
    /// With --seed: plant this bug (EarlyAck, NoDeduplication, ...).
    #[arg(long, requires = "seed", value_parser = bugs::parse)]
    bug: Option<Bug>,
    /// Plant one bug after the other, and run seeds until one of them catches it.
    #[arg(long, conflicts_with = "seed")]
    bugs: bool,
    /// Run so many seeds, each in a process of its own.
    #[arg(long, default_value = "200")]
    seeds: NonZeroU64,
    /// The first of them.
    #[arg(long, default_value = "0")]
    first: u64,
    /// So many processes at a time.
    #[arg(long, default_value = "2")]
    jobs: NonZeroU64,
    /// Run so many seeds twice each, and compare their logs byte for byte.
    #[arg(long)]
    determinism: Option<NonZeroU64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match (args.seed, args.determinism) {
        (Some(seed), _) => run::one(seed, args.bug, args.trace.as_deref()),
        (None, Some(seeds)) => determinism::check(args.first, seeds.get()),
        (None, None) if args.bugs => bugs::hunt(args.first, args.seeds.get()),
        (None, None) => many::run(args.first, args.seeds.get(), args.jobs.get()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
