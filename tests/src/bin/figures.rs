//! Figures of a cluster of real processes on this machine:
//!
//! ```sh
//! cargo run --release -p stageline-tests --bin figures -- pause     # how long a kill stops the results
//! cargo run --release -p stageline-tests --bin figures -- memory    # what a stalled consumer costs
//! cargo run --release -p stageline-tests --bin figures -- overlap   # whether two stages overlap
//! ```

use std::process::ExitCode;

use stageline_tests::cluster::as_process;
use stageline_tests::figures::{memory, overlap, pause};

fn main() -> ExitCode {
    // The processes of the cluster are this program, too.
    if let Some(code) = as_process() {
        return code;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let well = runtime.block_on(async {
        match std::env::args().nth(1).as_deref() {
            Some("pause") => pause::measure().await,
            Some("memory") => return memory::measure().await,
            Some("overlap") => overlap::measure().await,
            _ => {
                eprintln!("say which figure: pause, memory or overlap");
                return false;
            }
        }
        true
    });
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
