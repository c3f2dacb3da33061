//! TCP tracking against a model of it: shared by the fuzz target and by a test of the workspace.

#![allow(unreachable_pub, reason = "a module of two crates")]

pub mod drive;
pub mod model;
