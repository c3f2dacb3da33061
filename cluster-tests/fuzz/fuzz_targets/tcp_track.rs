//! Segments between two ends, in any order and at any time, through an engine and through the model of
//! TCP tracking: they must agree about each (`src/tcp/drive.rs` has the format of an input).
#![no_main]

#[path = "../src/tcp/mod.rs"]
mod tcp;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tcp::drive::run(data, |_| ()));
