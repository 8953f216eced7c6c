//! Compiles the services of the benchmark's gRPC baselines, as the project's own are compiled.

use std::error::Error;

const FILE: &str = "src/bench/baseline.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["."])?;
    tonic_prost_build::configure()
        // As Stageline has it: payloads are slices of the received message, not copies of it.
        .bytes(".")
        // Stageline takes the same record as any type that serde knows.
        .type_attribute("baseline.Record", "#[derive(serde::Serialize, serde::Deserialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
