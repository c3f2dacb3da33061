//! The Tidegate node: the daemon that runs the dataplane, and the command line that talks to it.
//!
//! The pure crates decide; this one connects them to a machine: configuration, kernel routes and
//! neighbours, the control socket, metrics, and the operator. Clocks and randomness are read here
//! and handed down as arguments.
//!
//! | room | holds |
//! |---|---|
//! | [`api`] | the JSON that daemon and command line exchange |
//! | [`cli`] | verbs, output formats, exit codes |
//! | [`client`] | HTTP/JSON over the control socket |
//! | [`config`] | `node.toml`, its checks and its messages |
//! | [`control`] | the control socket and the metrics listener |
//! | [`daemon`] | start, supervision, shutdown |
//! | [`netlink`] | the mirror of the kernel's links, addresses, routes and neighbours |
#![forbid(unsafe_code)]
// The clock is an argument in the pure crates; this is the shell that reads it.
#![allow(clippy::disallowed_methods)]

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod diagnostic;
pub mod exit;
pub mod netlink;
