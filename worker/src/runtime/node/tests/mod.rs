//! What a node does when the coordinator is away, or another one.

mod cut_off;
mod terms;
