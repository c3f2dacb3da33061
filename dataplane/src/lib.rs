//! The pure heart of Tidegate: packets, sessions, policy and the engine that joins them.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or starts a thread: time
//! (`now`) and keys are arguments. That is what lets a whole cluster run inside one seeded
//! simulation, and what keeps the packet path free of locks, allocations and system calls.
//!
//! | room | holds |
//! |---|---|
//! | [`addr`], [`time`], [`names`], [`drops`] | the small words that everything shares |
//! | [`packet`] | parsing, checksums, and the few packets that a firewall writes itself |
//! | [`policy`] | the policy file, its checks, and its compiled form |
//! | [`route`] | the snapshot of ports, routes and neighbours that the engine forwards by |
//! | [`session`] | what a session is: facts, derived TCP state, timeouts |
//! | [`table`] | the session table: index, slab, sweep hand |
//! | [`fragment`] | the fragments of a datagram, checked against each other |
//! | [`engine`] | one shard: batch in, verdicts out |
//! | [`planted`] | mistakes that the simulations must find; none in a product |
#![forbid(unsafe_code)]

pub mod addr;
pub mod drops;
pub mod engine;
pub mod fragment;
pub mod names;
pub mod packet;
pub mod planted;
pub mod policy;
pub mod route;
pub mod session;
pub mod table;
pub mod time;
