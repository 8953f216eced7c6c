//! What the tests of Stageline share.

pub mod exact;
pub mod functions;
