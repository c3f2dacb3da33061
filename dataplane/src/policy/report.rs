//! What a check found: plain data, for people and for JSON.

use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// So many errors, and as many warnings, are kept; one more line then says how many were not.
pub const DIAGNOSTICS_MAX: usize = 1000;

/// Columns are counted in characters up to here, in bytes behind it: a line of megabytes must not
/// be walked for each finding.
const COLUMN_WALK_BYTES: usize = 64 * 1024;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file does what it says, which may not be what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One finding. Displays as `file:line:column: error: message`, and a line `  help: suggestion`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnostic {
    /// Name of the file, as it was given to the check.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)?;
        match &self.suggestion {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Where the lines of a text start.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Lines { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// Line and column of a byte offset, both from 1.
    pub(super) fn position(&self, at: usize) -> (u32, u32) {
        let at = at.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts[line - 1];
        let before = &self.text.as_bytes()[start..at];
        let column = if before.len() > COLUMN_WALK_BYTES {
            before.len()
        } else {
            // A byte that does not continue a character starts one.
            before.iter().filter(|b| **b & 0xc0 != 0x80).count()
        };
        (line as u32, column as u32 + 1)
    }
}

#[derive(Debug)]
struct Finding {
    at: usize,
    message: String,
    suggestion: Option<String>,
}

/// Findings of one severity, up to the bound.
#[derive(Debug, Default)]
struct Findings {
    kept: Vec<Finding>,
    dropped: usize,
}

/// Collects findings by byte offset while a file is read.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    pub(super) lines: Lines<'a>,
    file: Arc<str>,
    errors: Findings,
    warnings: Findings,
    /// How many more names may be compared for suggestions; see [`super::suggest`].
    pub(super) comparisons_left: u32,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(text: &'a str, file: &str) -> Self {
        Reporter {
            lines: Lines::new(text),
            file: file.into(),
            errors: Findings::default(),
            warnings: Findings::default(),
            comparisons_left: super::suggest::COMPARISONS_MAX,
        }
    }

    /// The file is refused for this.
    pub(super) fn error(&mut self, at: usize, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.errors.push(at, message.into(), help.into());
    }

    /// The operator should know this.
    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.warnings.push(at, message.into(), help.into());
    }

    /// Counts a warning that need not be worded, when as many as are kept are there. Says whether.
    pub(super) fn warn_unworded(&mut self) -> bool {
        let full = self.warnings.kept.len() >= DIAGNOSTICS_MAX;
        self.warnings.dropped += usize::from(full);
        full
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.kept.is_empty()
    }

    /// Errors and warnings, each in the order of the file.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let Reporter { lines, file, errors, warnings, .. } = self;
        (errors.place(&lines, &file, Severity::Error), warnings.place(&lines, &file, Severity::Warning))
    }
}

impl Findings {
    fn push(&mut self, at: usize, message: String, suggestion: Option<String>) {
        if self.kept.len() < DIAGNOSTICS_MAX {
            self.kept.push(Finding { at, message, suggestion });
        } else {
            self.dropped += 1;
        }
    }

    fn place(mut self, lines: &Lines<'_>, file: &Arc<str>, severity: Severity) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|f| f.at);
        if self.dropped > 0 {
            let at = self.kept.last().map_or(0, |f| f.at);
            let message = format!("{} more {severity}s are not shown", self.dropped);
            self.kept.push(Finding { at, message, suggestion: None });
        }
        self.kept
            .into_iter()
            .map(|Finding { at, message, suggestion }| {
                let (line, column) = lines.position(at);
                Diagnostic { file: file.clone(), line, column, severity, message, suggestion }
            })
            .collect()
    }
}

/// A piece of the file inside a message: in backticks, clipped, control characters escaped.
pub(super) fn quote(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let clipped: String = text.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(CHARACTERS_MAX).is_some() { "..." } else { "" };
    format!("`{clipped}{more}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when columns count bytes, or a line break belongs to the next line.
    #[test]
    fn positions_are_lines_and_characters_from_one() {
        let lines = Lines::new("ab\nä=1\n");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(2), (1, 3));
        assert_eq!(lines.position(3), (2, 1));
        assert_eq!(lines.position(5), (2, 2));
        assert_eq!(lines.position(99), (3, 1));
        assert_eq!(Lines::new("").position(0), (1, 1));
    }

    /// Goes red when findings are kept without a bound, or vanish without a word.
    #[test]
    fn findings_beyond_the_bound_are_counted() {
        let mut r = Reporter::new("x", "f");
        (0..DIAGNOSTICS_MAX + 5).for_each(|_| r.error(0, "e", None));
        let (errors, warnings) = r.finish();
        assert_eq!(errors.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(errors[DIAGNOSTICS_MAX].message, "5 more errors are not shown");
        assert!(warnings.is_empty());
    }

    #[test]
    fn display_is_what_editors_parse() {
        let mut r = Reporter::new("a\nbc", "p.toml");
        r.error(3, "no", "yes".to_string());
        assert_eq!(r.finish().0[0].to_string(), "p.toml:2:2: error: no\n  help: yes");
        assert_eq!(quote("a\nb"), "`a\\nb`");
        assert_eq!(quote(&"x".repeat(61)), format!("`{}...`", "x".repeat(60)));
    }
}
