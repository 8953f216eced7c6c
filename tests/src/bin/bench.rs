//! The benchmark. See `--help`, and [`stageline_tests::bench`].

use std::process::ExitCode;

use stageline_tests::bench::cli;
use stageline_tests::cluster::as_process;

fn main() -> ExitCode {
    // The processes of a run are this program, too.
    as_process().unwrap_or_else(cli::main)
}
