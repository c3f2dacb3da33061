//! The lab: a client, a server and a node between them, in network namespaces of one machine.
//!
//! It exists so that Tidegate is judged from outside, by real kernel TCP stacks that know nothing of it:
//! `tidegate-lab up` leaves such a lab running for any program, the demo and the end-to-end tests build theirs
//! with the same code, and the benches put the generator and the sink where client and server are.
//!
//! Nothing here touches the machine's own network: every interface is born inside a namespace of the lab.
#![forbid(unsafe_code)]
// A lab lives in real time: the clock bans of clippy.toml are for the pure crates.
#![allow(clippy::disallowed_methods)]

pub mod bench;
pub mod demo;
mod error;
pub mod lab;
pub mod policies;
pub mod sim;
pub mod sys;
pub mod traffic;

pub use error::LabError;
