//! The engine's stories, told to an engine alone: processes are played by [`world::World`], which
//! also checks after every event what must always hold.

mod ending;
mod leases;
mod leaving;
mod parting;
mod placing;
mod random;
mod restart;
mod sources;
mod starting;
mod suspects;
mod watching;
mod world;
