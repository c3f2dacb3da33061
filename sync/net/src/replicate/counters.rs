//! What the exchange counts.

use crate::cluster::counters::count;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::heartbeat::PATHS_MAX;

/// The living twin of [`PeerExchange`].
pub(crate) struct PeerCounters {
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) batches_sent: AtomicU64,
    pub(crate) batches_received: AtomicU64,
    pub(crate) backs_sent: AtomicU64,
    pub(crate) backs_received: AtomicU64,
    pub(crate) swallowed: AtomicU64,
    pub(crate) links: AtomicU64,
    pub(crate) replaced: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) beats_sent: AtomicU64,
    pub(crate) beats_failed: AtomicU64,
    pub(crate) beats_received: AtomicU64,
    pub(crate) beats_old: AtomicU64,
    pub(crate) beats_forged: AtomicU64,
    /// By the peer's numbering.
    pub(crate) paths: Box<[PathCounters; PATHS_MAX]>,
}

impl Default for PeerCounters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        PeerCounters {
            bytes_sent: zero(),
            bytes_received: zero(),
            batches_sent: zero(),
            batches_received: zero(),
            backs_sent: zero(),
            backs_received: zero(),
            swallowed: zero(),
            links: zero(),
            replaced: zero(),
            dials_failed: zero(),
            refused: zero(),
            beats_sent: zero(),
            beats_failed: zero(),
            beats_received: zero(),
            beats_old: zero(),
            beats_forged: zero(),
            paths: Box::new([const { PathCounters::new() }; PATHS_MAX]),
        }
    }
}

/// Heartbeats that came by one path.
pub(crate) struct PathCounters {
    pub(crate) received: AtomicU64,
    pub(crate) missing: AtomicU64,
    /// When the newest came, in ms of the node's clock.
    pub(crate) at_ms: AtomicU64,
}

impl PathCounters {
    const fn new() -> Self {
        PathCounters { received: AtomicU64::new(0), missing: AtomicU64::new(0), at_ms: AtomicU64::new(0) }
    }

    pub(crate) fn note(&self, missing: u64, now: Now) {
        count(&self.received);
        self.missing.fetch_add(missing, Relaxed);
        self.at_ms.store(now.0, Relaxed);
    }
}

/// Heartbeats that belong to nobody.
#[derive(Default)]
pub(crate) struct HeartCounters {
    pub(crate) malformed: AtomicU64,
    pub(crate) unknown_key: AtomicU64,
}

/// One look at the exchange.
#[derive(Clone, PartialEq, Debug)]
pub struct ExchangeHealth {
    /// Where this node takes heartbeats.
    pub heartbeats: Vec<SocketAddr>,
    /// All other full members, by node.
    pub peers: Vec<PeerExchange>,
    /// Packets to the heartbeats' sockets that are none.
    pub heartbeats_malformed: u64,
    /// Heartbeats under a key that is not known (any more): of a process that has no link yet, or strangers'.
    pub heartbeats_unknown_key: u64,
    /// Connections for session records that were refused.
    pub connections_refused: u64,
}

/// The exchange with one peer, since this process began.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerExchange {
    /// Its node number.
    pub node: u16,
    /// Number of the link that is up.
    pub link: Option<u64>,
    /// Where it was reached.
    pub address: Option<SocketAddr>,
    /// Why it is not reached; `None` while it is.
    pub last_error: Option<String>,
    /// Round trip, in microseconds, as QUIC estimates it.
    pub rtt_us: Option<u64>,
    /// Packets of this node's present connection to it, and those that were lost.
    pub packets_sent: u64,
    /// Of those.
    pub packets_lost: u64,
    /// Bytes of batches that were handed to QUIC.
    pub bytes_sent: u64,
    /// Bytes of batches that came.
    pub bytes_received: u64,
    /// Batches.
    pub batches_sent: u64,
    /// Batches.
    pub batches_received: u64,
    /// Messages by the way back (acknowledgements).
    pub backs_sent: u64,
    /// Messages by the way back.
    pub backs_received: u64,
    /// Batches that were too long to be sent.
    pub swallowed: u64,
    /// Links that came up.
    pub links: u64,
    /// Links that a newer connection of the peer ended.
    pub replaced: u64,
    /// Rounds over its addresses that reached nobody.
    pub dials_failed: u64,
    /// Links or connections that were closed because it broke the protocol.
    pub refused: u64,
    /// Heartbeats to it, on all paths together.
    pub heartbeats_sent: u64,
    /// Heartbeats that the system did not take.
    pub heartbeats_failed: u64,
    /// Heartbeats from it, on all paths together, each once.
    pub heartbeats_received: u64,
    /// Heartbeats that were not newer than the newest on their path: repeated, or late.
    pub heartbeats_old: u64,
    /// Heartbeats under its key whose seal was wrong, or whose content was not what the key is for.
    pub heartbeats_forged: u64,
    /// Ways by which heartbeats came.
    pub paths: Vec<PathHealth>,
}

/// One pair of addresses, as heartbeats come by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathHealth {
    /// The peer's address.
    pub from: Option<SocketAddr>,
    /// Own address.
    pub to: Option<SocketAddr>,
    /// Heartbeats that came.
    pub received: u64,
    /// Heartbeats that did not come though later ones did.
    pub missing: u64,
    /// Age of the newest, in ms.
    pub age_ms: u64,
}

impl PeerCounters {
    /// The ways by which something came; a path's number is (the peer's socket) x (own addresses) + (own address).
    pub(crate) fn path_health(&self, theirs: &[SocketAddr], own: &[SocketAddr], now: Now) -> Vec<PathHealth> {
        let paths = self.paths.iter().enumerate();
        let used = paths.filter(|(_, path)| path.received.load(Relaxed) > 0);
        used.map(|(number, path)| PathHealth {
            from: theirs.get(number / own.len().max(1)).copied(),
            to: own.get(number % own.len().max(1)).copied(),
            received: path.received.load(Relaxed),
            missing: path.missing.load(Relaxed),
            age_ms: now.since(Now(path.at_ms.load(Relaxed))),
        })
        .collect()
    }
}
