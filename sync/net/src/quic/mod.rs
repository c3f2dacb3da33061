//! QUIC between members: endpoints, framing, the first exchange, and questions.
//!
//! Every member dials every other one and sends its own traffic only on the connection that it dialled:
//! two connections a pair, and no tie to break.

pub(crate) mod endpoint;
pub(crate) mod frame;
pub(crate) mod hello;
pub(crate) mod rpc;

pub use hello::Versions;
