//! Compiles the `.proto` files with a pure-Rust compiler: no `protoc` has to be installed.

use std::error::Error;

const FILES: [&str; 5] = [
    "stageline/v1/common.proto",
    "stageline/v1/link.proto",
    "stageline/v1/pipeline.proto",
    "stageline/v1/control.proto",
    "stageline/v1/jobs.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=stageline");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        // Payloads are slices of the received message, not copies of it.
        .bytes(".")
        // One value has one encoding: the entries of a map travel in the order of their keys.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
