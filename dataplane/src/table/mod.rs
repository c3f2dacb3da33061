//! The session table of one shard.
