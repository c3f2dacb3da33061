//! The JSON that daemon and command line exchange: snake_case, units in names, additive changes only.
//!
//! `-o json` prints these values as they are, so they are the interface for scripts too.

mod cluster;
mod policy;
mod session;
mod status;
mod sync;
mod watch;

pub use cluster::*;
pub use policy::*;
pub use session::*;
pub use status::*;
pub use sync::*;
pub use watch::*;

use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use serde::{Deserialize, Serialize};

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// How the verb ends.
    pub exit: Exit,
    /// What happened and what to do.
    pub message: String,
    /// Findings in a file, when that is what is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `tidegate version`, and part of the status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Release.
    pub version: String,
}

impl Version {
    /// This program's.
    pub fn current() -> Self {
        Version { version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}
