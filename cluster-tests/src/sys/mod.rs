//! The thin layer between the lab and the machine: programs, namespaces, processes, signals.

mod command;
mod netns;
mod process;
mod stop;

pub use command::{Output, find_binary, require_root, run, run_in};
pub use netns::Netns;
pub use process::{ProcessId, pin};
pub use stop::Stop;

use std::path::Path;

use crate::LabError;

/// Reads a file, naming it when that fails.
pub fn read_file(path: &Path) -> Result<String, LabError> {
    std::fs::read_to_string(path).map_err(|source| LabError::File {
        action: "read",
        path: path.into(),
        source,
    })
}

/// Writes a file, naming it when that fails.
pub fn write_file(path: &Path, text: &str) -> Result<(), LabError> {
    std::fs::write(path, text).map_err(|source| LabError::File { action: "write", path: path.into(), source })
}
