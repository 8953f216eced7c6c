//! The command line with the stage functions of the tests: every process of a test's cluster.

fn main() -> std::process::ExitCode {
    stageline::main(stageline_tests::functions::registry())
}
