//! The stock stage functions: what a pipeline file can use without a program of its own.
//!
//! They are plain functions of plain values; registering them is the caller's business. All of them
//! may wait for a disk or compute for long, so they are to be registered as blocking functions.
//!
//! | name | operator | takes | makes |
//! |---|---|---|---|
//! | `read` | map | a path, or a record with one in `path` | the record, with `text` |
//! | `stat` | map | a path, or a record with one in `path` | the record, with `exists`, `kind`, `size` |
//! | `jq` | flat_map | any value | the outputs of one jq expression: any number of them |

mod ahead;
mod files;
mod jq;
mod registry;
mod value;

pub use files::{DEFAULT_MAX_BYTES, read, stat};
pub use jq::{Jq, JqError, Output, Outputs};
pub use registry::registry;

use stageline_protocol::pipeline::Op;

/// A stock function, as a pipeline file knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Its name.
    pub name: &'static str,
    /// Its operator.
    pub op: Op,
    /// What its one parameter is.
    pub parameter: Parameter,
}

/// The one parameter of a stock function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// It has none.
    None,
    /// A jq expression, which must be given.
    Expression,
    /// The most bytes that it takes from one file; [`DEFAULT_MAX_BYTES`] unless given.
    MaxBytes,
}

/// All stock functions.
pub const STOCK: [Stock; 3] = [
    Stock { name: "jq", op: Op::FlatMap, parameter: Parameter::Expression },
    Stock { name: "read", op: Op::Map, parameter: Parameter::MaxBytes },
    Stock { name: "stat", op: Op::Map, parameter: Parameter::None },
];

/// The stock function of that name.
#[must_use]
pub fn find(name: &str) -> Option<Stock> {
    STOCK.into_iter().find(|stock| stock.name == name)
}
