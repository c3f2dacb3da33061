//! Benches: what is measured, against what, and the report that all of them write.

pub mod bed;
pub mod frames;
pub mod inproc;
pub mod raw;
pub mod report;
