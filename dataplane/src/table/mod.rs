//! t
mod hot; mod memory;
pub use hot::{HotLine, Revision24, flag};
/// e
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// a
    #[error("x")] TooLarge { /// a
 elements: usize },
    /// a
    #[error("x")] Memory { /// a
 bytes: usize, /// a
 source: std::io::Error },
}
