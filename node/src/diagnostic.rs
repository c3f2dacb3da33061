//! One shape for everything that is wrong with a file: where, what, and what to write instead.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::ops::Range;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; it may not do what was meant.
    Warning,
}

/// One finding in a configuration or policy file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the operator named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Diagnostic {
    /// An error at a byte range of `text`.
    pub fn error(file: &str, text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let (line, column) = position(text, span.start);
        Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            line,
            column,
            message: message.into(),
            suggestion: None,
        }
    }

    /// The same with a suggestion.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The finding with the line that it is about and a mark under the column:
    /// `file:line:column: error: message`, which editors can jump to.
    pub fn render(&self, text: Option<&str>) -> String {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut out = format!("{}:{}:{}: {word}: {}\n", self.file, self.line, self.column, self.message);
        if let Some(line) = text.and_then(|t| t.lines().nth((self.line as usize).saturating_sub(1))) {
            let number = self.line.to_string();
            let pad: String = line
                .chars()
                .take((self.column as usize).saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = writeln!(out, "  {number} | {line}");
            let _ = writeln!(out, "  {:width$} | {pad}^", "", width = number.len());
        }
        if let Some(suggestion) = &self.suggestion {
            let _ = writeln!(out, "  help: {suggestion}");
        }
        out
    }
}

/// Line and column (both from 1, the column in characters) of a byte offset.
pub fn position(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (line as u32, column as u32)
}

/// The known word nearest to a misspelled one, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        // Counting bytes instead of characters, or from 0, turns this red.
        assert_eq!(position("a\nbéd = 1", 0), (1, 1));
        assert_eq!(position("a\nbéd = 1", 5), (2, 3));
        assert_eq!(position("a\n", 99), (2, 1));
    }

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        // Without the distance limit the second case would offer something.
        assert_eq!(nearest("capcity", ["capacity", "count"]), Some("capacity"));
        assert_eq!(nearest("frobnicate", ["capacity", "count"]), None);
    }

    #[test]
    fn render_points_at_the_column() {
        // Drop the caret line from `render` and this fails.
        let text = "x = 1\n\tyy = 2\n";
        let d = Diagnostic::error("f.toml", text, 7..9, "unknown key `yy`").suggest("write `y`");
        assert_eq!(
            d.render(Some(text)),
            "f.toml:2:2: error: unknown key `yy`\n  2 | \tyy = 2\n    | \t^\n  help: write `y`\n"
        );
    }
}
