//! What the demo prints: one line for each thing that happened, with the time since the start.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints to standard output.
pub(super) struct Show {
    start: Instant,
    terminal: bool,
}

impl Show {
    pub(super) fn start() -> Show {
        Show { start: Instant::now(), terminal: std::io::stdout().is_terminal() }
    }

    /// Something begins.
    pub(super) fn say(&self, text: &str) {
        self.line(&format!("{:5.1} s    {text}", self.seconds()));
    }

    /// A check passed.
    pub(super) fn passed(&self, text: &str) {
        self.line(&format!("{:5.1} s ok {text}", self.seconds()));
    }

    /// What a command printed, set off from the rest; at most `lines_max` lines.
    pub(super) fn output(&self, command: &str, text: &str, lines_max: usize) {
        self.line(&format!("           $ {command}"));
        for line in text.lines().take(lines_max) {
            self.line(&format!("           {line}"));
        }
    }

    /// A passing state, on a terminal only.
    pub(super) fn progress(&self, text: &str) {
        if self.terminal {
            let mut out = std::io::stdout().lock();
            // Nobody misses it when it cannot be printed.
            let _ = write!(out, "\r{:5.1} s    {text}\x1b[K", self.seconds());
            let _ = out.flush();
        }
    }

    /// The end of it all.
    pub(super) fn end(&self) {
        self.line(&format!("\nEvery check passed, in {:.1} s.", self.seconds()));
    }

    fn line(&self, text: &str) {
        let wipe = if self.terminal { "\r\x1b[K" } else { "" };
        let mut out = std::io::stdout().lock();
        // A reader that went away does not stop the checks.
        let _ = writeln!(out, "{wipe}{text}");
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
