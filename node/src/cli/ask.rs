//! Asking before harm.

use super::output::write_failure;
use crate::exit::{Exit, Failure};
use std::io::{self, IsTerminal, Write};

/// Whether there is somebody to ask.
pub(super) fn terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Without `--yes` and without a terminal nothing is done: exit code 4.
pub(super) fn gate(yes: bool, what: &str) -> Result<(), Failure> {
    if yes || terminal() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!(
            "{what}, and there is no terminal to ask at; nothing was changed\n  help: give --yes if that is meant"
        ),
    ))
}

/// Asks, unless `--yes` has answered. A no ends the verb with exit code 4.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush().map_err(write_failure)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::error(format!("cannot read the answer: {e}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "nothing was changed")),
    }
}
