//! The pure part of a Tidegate cluster: what the nodes agree on, and how.
//!
//! No socket, clock, file or randomness: time (`now`) and seeds are arguments, so that a whole cluster
//! runs inside one deterministic simulation.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod codec;
pub mod raft;
pub mod replication;
