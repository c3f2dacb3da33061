//! Members of a cluster on loopback, with real QUIC and real stores.
#![allow(clippy::disallowed_methods)]

mod support;

mod certificates;
mod exchange;
mod form;
mod hostile;
mod kills;
mod mad_exchange;
mod pair;
mod refuse;
mod relay;
mod stop;
mod store;
mod tokens;
