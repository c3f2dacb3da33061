//! Sessions on more than one node: what is said between nodes, what of it is believed, and which copy goes
//! where when (`spec/replication.md`).
//!
//! | file | holds |
//! |---|---|
//! | `message`, `record` | the bytes of streams: envelope, items, acknowledgements |
//! | `outlet` | the sending end of a worker's stream: batches, the dictionary of names |
//! | `inlet` | the receiving end: everything that a peer claims is judged here, once |
//! | `shard` | beside each engine, on its worker: cursors, resyncs, questions, for each peer |
//! | `heartbeat` | the bytes of a heartbeat |
//! | `detect` | heartbeats in, who is alive out |
//! | `coordinator` | views, who is in sync, what follows from a death or a pause |
//!
//! Nothing here does I/O or knows a clock: bytes go in and out, `now` is an argument.

pub mod coordinator;
pub mod detect;
pub mod heartbeat;
pub mod inlet;
pub mod message;
pub mod outlet;
mod record;
pub mod shard;

pub use inlet::{Decoded, Doubt, Inlet, InletConfig, InletError, LEARNED_MAX, NameTable, PeerNames, Records};
pub use message::{Back, FrameError, Kind, ResyncWhy};
pub use shard::{FromNode, Item, News, PeerStatus, Shard, ShardConfig, ShardStatus, Wire};
