//! One shard: batch in, verdicts out.

mod io;
pub use io::*;
