//! Session records between nodes, and their heartbeats.
//!
//! | file | holds |
//! |---|---|
//! | `wiring` | what the node plugs in: where batches go to and come from, the heart |
//! | `exchange` | the running whole: [`Exchange`] |
//! | `plane` | what the tasks share; the table of peers |
//! | `link`, `dial`, `serve`, `greeting`, `stream` | two connections with each peer, as one link |
//! | `heart`, `keys` | heartbeats, and what they are sealed with |
//! | `counters` | what is counted |
//!
//! Records have connections of their own ([`crate::pki::ALPN_SYNC`]), apart from Raft and questions, so that bulk data
//! holds up neither; heartbeats are UDP packets of their own, apart from both. Here bytes are moved and limited; what
//! they mean is judged by `tidegate_sync::replication`.

mod counters;
mod dial;
mod exchange;
mod greeting;
mod heart;
mod keys;
mod link;
mod plane;
mod serve;
mod stream;
mod wiring;

pub use counters::{ExchangeHealth, PathHealth, PeerExchange};
pub use exchange::{Exchange, ExchangeError};
pub(crate) use plane::Plane;
pub(crate) use serve::serve;
pub use wiring::{
    BACK_BYTES_MAX, BACK_QUEUE, BATCH_BYTES_MAX, BackOutlet, COPIES, ExchangeConfig, Heart, Intake, Intakes,
    Link, Links, Outlet, QUEUE, STREAMS_MAX, Wiring,
};
