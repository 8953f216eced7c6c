//! The `stageline` command line, with the stock stage functions.

fn main() -> std::process::ExitCode {
    stageline::main(stageline::Registry::new())
}
