//! Under construction.

pub mod sdk;
