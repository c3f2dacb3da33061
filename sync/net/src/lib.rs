//! The shell around `tidegate-sync`: QUIC between nodes, certificates and join tokens, and the durable
//! Raft store.
#![forbid(unsafe_code)]

pub mod identity;
pub mod pki;
pub mod store;
