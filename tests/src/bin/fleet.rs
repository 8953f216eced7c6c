//! The command line with the stage functions of the tests: every process of a test's cluster.

fn main() -> std::process::ExitCode {
    stageline_tests::cluster::as_process()
        .unwrap_or_else(|| stageline::main(stageline_tests::functions::registry()))
}
