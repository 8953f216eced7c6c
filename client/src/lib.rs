//! Under construction.

#[cfg(feature = "cli")]
pub mod stock;
