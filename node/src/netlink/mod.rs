//! The kernel beside us: its links, addresses, routes and neighbours, mirrored as snapshots.
//!
//! The kernel stays the one place where routes and neighbours are configured and resolved; the
//! engines forward by a copy. [`Mirror`] reads the tables, follows every change, and hands out a new
//! [`tidegate_dataplane::route::Snapshot`] whenever something changes that forwarding depends on;
//! [`Resolver`] asks the kernel to resolve next hops whose MAC is missing, and keeps used ones fresh.
//!
//! Only the main table (and the local one, for the node's own addresses) is mirrored: routes in other
//! tables and policy rules do not take part, and the mirror says so when it sees any.

mod derive;
mod follow;
mod kernel;
mod mirror;
mod quicken;
mod read;
mod resolver;

pub use derive::{Derived, PortBinding, PortState, derive, snapshot};
pub use kernel::{Hop, Kernel, KernelRoute, Link, LinkAddress, Neighbour, RouteKind};
pub use mirror::{Mirror, MirrorHandle, MirrorStatus, Update};
pub use quicken::quicken;
pub use resolver::{Resolver, ResolverStats};
