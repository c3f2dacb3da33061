//! Packets: parsed once into a trusted type; nothing downstream checks a length again.
//!
//! [`parse`] reads a frame, verifies its checksums and says what it is, or why it must be dropped.
//! [`build`] writes the few packets that a firewall sends itself. No function here panics, for any
//! bytes: a fuzz target and property tests hold it to that.

use crate::addr::{Addr, Tuple};

mod types;
pub use types::*;
