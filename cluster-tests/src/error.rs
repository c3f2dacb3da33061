//! What can go wrong in a lab, said so that the reader knows what to do next.

use std::path::PathBuf;

/// Why the lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, XDP and AF_XDP need root.
    #[error("this needs root (network namespaces, XDP, AF_XDP); run: sudo {command}")]
    NotRoot {
        /// The command line to repeat under sudo.
        command: String,
    },
    /// The name does not fit into the names of namespaces and directories.
    #[error("lab name {name:?}: use 1 to {max} of a-z, 0-9 and '-', not starting or ending with '-'")]
    BadName {
        /// What was given.
        name: String,
        /// Longest name.
        max: usize,
    },
    /// An option's value is out of its range, or not built yet.
    #[error("--{option}: {reason}")]
    BadOption {
        /// Long name of the option.
        option: &'static str,
        /// What is wrong with the value, and which values are right.
        reason: String,
    },
    /// A lab of that name exists.
    #[error("lab {name} exists already; remove it with: tidegate-lab down --name {name}")]
    Exists {
        /// Its name.
        name: String,
    },
    /// No lab of that name is there.
    #[error("no lab {name}; make one with: tidegate-lab up --name {name}")]
    NoLab {
        /// The name that was given.
        name: String,
    },
    /// A program that the lab calls failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// Program and arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// A program that the lab needs is not installed.
    #[error("cannot run `{program}`: {source}; install it with: make setup")]
    Missing {
        /// The program.
        program: String,
        /// Why it could not be started.
        source: std::io::Error,
    },
    /// The daemon's binary is nowhere.
    #[error("no `{name}` binary (looked at {looked}); build it with: make build")]
    NoBinary {
        /// Its name.
        name: &'static str,
        /// The places that were looked at.
        looked: String,
    },
    /// A file or directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried, such as `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The daemon ended before it was ready.
    #[error("{node} ended before it was ready ({status}); its log ends with:\n{log_tail}")]
    NodeEnded {
        /// Node name.
        node: String,
        /// Its exit status.
        status: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The daemon did not become ready in time.
    #[error("{node} was not ready after {waited_s} s: {last}; its log ends with:\n{log_tail}")]
    NotReady {
        /// Node name.
        node: String,
        /// How long was waited.
        waited_s: u64,
        /// The last answer of its readiness check.
        last: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
    /// A check that the lab made did not come out as it must.
    #[error("{0}")]
    Check(String),
}

impl LabError {
    /// A failed system call, with what was tried.
    pub fn system(what: impl Into<String>, source: impl Into<std::io::Error>) -> LabError {
        LabError::System { what: what.into(), source: source.into() }
    }

    /// The exit code of the program that ends with this error: 2 for usage, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            LabError::BadName { .. } | LabError::BadOption { .. } | LabError::NotRoot { .. } => 2,
            LabError::Interrupted => 130,
            _ => 1,
        }
    }
}
