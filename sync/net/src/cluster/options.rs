//! Settings of a member.

use crate::quic::Versions;
use std::net::SocketAddr;
use std::time::Duration;

/// How a member runs. The defaults are what a cluster on a LAN wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; empty: on the addresses that it advertises.
    pub listen: Vec<SocketAddr>,
    /// The build, as peers are shown it.
    pub build: String,
    /// The protocol versions that it speaks; others than the default are for tests.
    pub versions: Versions,
    /// Length of one Raft tick.
    pub tick: Duration,
    /// Shortest election timeout in ticks; the longest is twice that.
    pub election_ticks: u32,
    /// Ticks from one heartbeat of the leader to the next.
    pub heartbeat_ticks: u32,
    /// How long a certificate is good.
    pub certificate_life: Duration,
    /// How long a call looks for a leader before it says that there is no quorum; a call's own timeout may
    /// end it earlier.
    pub leader_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: Vec::new(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            versions: Versions::default(),
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            certificate_life: Duration::from_secs(90 * 24 * 3_600),
            leader_patience: Duration::from_secs(4),
        }
    }
}
