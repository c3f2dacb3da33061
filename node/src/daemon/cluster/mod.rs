//! The node as a member of a cluster: what was agreed goes to the engines, and what they enforce is told.
//!
//! The agreement itself is `tidegate-sync-net`'s, behind [`Agreement`]. Here it is decided what a member
//! enforces ([`follow`]), who it is ([`Seat`]), and what an operator sees of it ([`report`]).

mod agreement;
mod follow;
mod forming;
mod member;
pub(crate) mod report;
mod seat;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod twin;

pub use agreement::{Agreement, Clusters, Forming, Report, Rotation};
pub(super) use follow::follow;
pub use forming::FormError;
pub(crate) use member::QuicClusters;
pub use seat::{Key, Seat, View};
