//! Engines with shards, joined in memory; some peers are no shards, and lie.

mod ageing;
mod chaos;
mod flow;
mod hostile;
mod resync;
mod waiting;
mod world;
