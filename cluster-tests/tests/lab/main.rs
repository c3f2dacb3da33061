//! Everything that an outsider sees, on real traffic in namespaces. One program, because each links the whole lab.

#[path = "../common/mod.rs"]
mod common;

mod cluster_atomic;
mod cluster_disk;
mod cluster_forming;
mod cluster_identity;
mod cluster_lease;
mod cluster_policy;
mod cluster_quorum;
mod cluster_store;
mod forged_segments;
mod fragment_torture;
mod fragments;
mod icmp;
mod icmp_rows;
mod idle_timeouts;
mod lab_itself;
mod lab_roads;
mod lifecycle;
mod logs;
mod next_hops;
mod policy;
mod reload;
mod repl_ages;
mod repl_forging;
mod repl_links;
mod repl_members;
mod repl_park;
mod repl_takeover;
mod session_rows;
mod tcp_rows;
mod ttl_rows;
