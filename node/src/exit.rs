//! Exit codes: every way that a verb can end, mapped in one place.

use std::process::ExitCode;

/// How a verb ended. The numbers are part of the command line's contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Done.
    Ok,
    /// It failed.
    Error,
    /// The command line, a configuration or a policy file is wrong.
    Usage,
    /// No daemon answers at the control socket, or the cluster has no quorum.
    Unreachable,
    /// A safety gate refused: the verb needs a confirmation that was not given.
    Refused,
    /// Answered, but something that should work does not.
    Degraded,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
            Exit::Degraded => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// A verb's failure: what to print on stderr, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What happened and what to do about it. Empty: nothing more to say.
    pub message: String,
}

impl Failure {
    /// A failure with that exit code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into() }
    }

    /// An ordinary error (exit code 1).
    pub fn error(message: impl Into<String>) -> Self {
        Failure::new(Exit::Error, message)
    }

    /// A usage or configuration error (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }
}
