//! Under construction.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod stock;
