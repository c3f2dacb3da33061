//! Running other programs, and finding our own binaries.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Netns;
use crate::LabError;

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
    /// Its exit code, if it was not killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end and insists on exit code 0. Returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, LabError> {
    let output = run_in(None, program, arguments)?;
    if output.success {
        return Ok(output.stdout);
    }
    Err(LabError::Command {
        command: std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" "),
        status: output.code.map_or("killed".into(), |code| format!("exit code {code}")),
        stderr: output.stderr.trim_end().to_owned(),
    })
}

/// Runs a program to its end, in a namespace or outside; any exit code is an answer.
pub fn run_in(netns: Option<&Netns>, program: &str, arguments: &[&str]) -> Result<Output, LabError> {
    let mut command = match netns {
        Some(netns) => netns.command(program),
        None => Command::new(program),
    };
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Missing { program: program.to_owned(), source })?;
    Ok(Output {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Errors with the command to repeat, unless we are root.
pub fn require_root() -> Result<(), LabError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    Err(LabError::NotRoot { command })
}

/// Finds one of our own binaries: the variable `env` names it, or it stands beside the running program
/// (also above a test's `deps`), or in `target/release` of the workspace.
pub fn find_binary(name: &'static str, env: &str) -> Result<PathBuf, LabError> {
    let mut candidates = Vec::new();
    if let Some(path) = std::env::var_os(env) {
        candidates.push(PathBuf::from(path));
    } else {
        let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
        // A test runs from target/debug/deps; the binaries that `make build` made are the ones to judge.
        let is_test = beside.as_ref().is_some_and(|dir| dir.ends_with("deps"));
        if let (Some(dir), false) = (&beside, is_test) {
            candidates.push(dir.join(name));
        }
        candidates.push(target_dir(&workspace).join("release").join(name));
    }
    for candidate in &candidates {
        if let Ok(path) = candidate.canonicalize()
            && path.is_file()
        {
            return Ok(path);
        }
    }
    let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(LabError::NoBinary { name, looked })
}

fn target_dir(workspace: &std::path::Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}
