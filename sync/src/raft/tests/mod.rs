//! Replicas in one process.

mod hostile;
mod membership;
mod stores;
mod turns;
mod world;
