//! The control side: HTTP/JSON on a Unix socket, and the metrics listener.

mod apply;
mod asker;
mod clear;
mod cluster;
mod error;
mod everywhere;
pub(crate) mod members;
mod policy;
pub(crate) mod query;
mod routes;
mod serve;
mod sessions;
mod socket;
mod sort;
mod sync;
mod units;
mod verify;
pub(crate) mod view;
mod watch;
mod whose;

pub use asker::Asker;
pub use routes::{control_router, metrics_router};
pub use serve::{Listener, serve};
pub use socket::{ControlSocket, SocketError};

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod quic_tests;
#[cfg(test)]
mod tests;
