//! The control side: HTTP/JSON on a Unix socket, and the metrics listener.

mod error;
mod query;
mod routes;
mod serve;
mod sessions;
mod socket;
pub(crate) mod view;

pub use routes::{control_router, metrics_router};
pub use serve::{Listener, serve};
pub use socket::{ControlSocket, SocketError};

#[cfg(test)]
mod tests;
