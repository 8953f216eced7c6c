//! Programs that measure a cluster and print what they found. Nothing here is asserted in a test.

pub mod memory;
pub mod overlap;
pub mod pause;
