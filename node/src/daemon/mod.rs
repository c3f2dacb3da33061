//! `tidegate run`: from the configuration to forwarding, and back in order.
//!
//! Start: configuration, capabilities, first wall, control socket's lock, cluster membership or policy file,
//! workers, mirror, ports, control. Each step that fails ends the start with a message that says what to do.
//! End (SIGTERM, SIGINT): control stops accepting, the lead of the cluster is handed over, workers stop, the
//! socket's file goes; exit code 0. The XDP programs stay on their interfaces: between two runs nothing is
//! forwarded.

mod caps;
pub mod cluster;
pub mod dataplane;
mod declared;
mod delivery;
pub(crate) mod effective;
mod events;
pub(crate) mod flowlog;
mod logging;
pub mod metrics;
pub mod node;
pub mod policy;
pub mod ports;
pub(crate) mod replicate;
mod start;
mod supervise;
pub mod tandem;
#[cfg(test)]
pub(crate) mod twin;
pub mod workers;

pub use start::run;
