//! AF_XDP ports, the XDP program and the worker threads: everything of the dataplane that touches the
//! kernel or memory that the kernel shares. The only crate with `unsafe`.
//!
//! | module | holds |
//! |---|---|
//! | [`workers`], [`pipeline`] | starting workers for engines, commands, numbers, the frame audit |
//! | [`ports`], [`port`] | opening and closing ports at run time; which interface a port is |
//! | [`program`] | the XDP program that outlives the process: the second wall of fail closed |
//! | [`sysctl`] | the first wall: the kernel's own forwarding is off, and stays off |
//! | [`area`], [`socket`], [`io`], [`twin`] | packet memory, AF_XDP sockets, and their in-memory twin |
//! | [`stats`], [`error`] | every number, every error |
//!
//! Only `area`, `socket` and `sys` hold `unsafe`; each block says what it relies on.
#![deny(unsafe_code)]
// This is a shell: it reads the clock, and waits.
#![allow(clippy::disallowed_methods)]

#[allow(unsafe_code)]
pub mod area;
mod audit;
pub mod error;
pub mod io;
mod ledger;
mod netlink;
pub mod pipeline;
pub mod port;
pub mod ports;
pub mod program;
#[allow(unsafe_code)]
pub mod socket;
pub mod stats;
#[allow(unsafe_code)]
mod sys;
pub mod sysctl;
pub mod twin;
mod worker;
pub mod workers;

pub use netlink::XdpMode;
pub use worker::{EventSink, Idle};
