//! Tests that load the machine, or count what a loaded one would change: one at a time, with nothing beside them.

#[path = "../common/mod.rs"]
mod common;

mod bench_frames;
mod connections;
mod demo;
mod fail_closed;
mod flaps;
mod million;
mod queues;
mod raw_ends;
mod simulation;
mod table_full;
mod tcp_model;
