//! The control side: HTTP/JSON on a Unix socket, and the metrics listener.

mod error;
pub(crate) mod query;
mod routes;
mod serve;
mod sessions;
mod socket;
mod sort;
mod units;
pub(crate) mod view;
mod watch;

pub use routes::{control_router, metrics_router};
pub use serve::{Listener, serve};
pub use socket::{ControlSocket, SocketError};

#[cfg(test)]
mod tests;
