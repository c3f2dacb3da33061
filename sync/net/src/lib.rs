//! The shell around `tidegate-sync`: QUIC between nodes, certificates and join tokens, and the durable
//! Raft store.
#![forbid(unsafe_code)]
// A shell: it reads clocks, and gives them to the pure crates as arguments.
#![allow(clippy::disallowed_methods)]

pub mod cluster;
pub mod identity;
pub mod pki;
pub mod quic;
pub mod replicate;
pub mod store;
