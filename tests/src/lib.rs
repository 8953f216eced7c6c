//! What the tests of Stageline share.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod exact;
pub mod figures;
pub mod functions;
pub mod proxy;
pub mod sim;
pub mod stages;
