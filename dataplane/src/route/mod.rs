//! The snapshot that the engine forwards by: ports, routes and neighbours, mirrored from the kernel.
//!
//! Built by the node from netlink, immutable, shared by all engines, replaced as a whole. Its
//! generation changes with each replacement, so that whatever a session has cached (its egress) is
//! checked by one comparison.

mod snapshot;

pub use snapshot::{
    Adjacency, Egress, EgressId, NextHop, PortInfo, Resolution, Route, Snapshot, SnapshotBuilder,
};

/// Number of a port in a node, as its configuration lists them. Stable while the process runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PortId(pub u8);

/// Most ports that a node may have.
pub const PORTS_MAX: usize = 64;
