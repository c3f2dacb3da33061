//! Turns the configuration of other firewalls into a policy file (`spec/sessions.md`, "Import").
//!
//! Why it exists: operators bring timeouts and rules that have grown for years. What has a counterpart is
//! taken over exactly; every other line is listed with its number and the reason. Nothing is guessed: a
//! rule of which one line is not understood is left out as a whole, for without that line it would match
//! more, or do something else.
//!
//! | file | holds |
//! |---|---|
//! | `draft` | the policy file that is being written |
//! | `junos` | `set security flow|policies|zones|address-book`, `set applications` |
//! | `junos_objects` | Junos addresses and applications, the predefined ones too |
//! | `junos_rules` | Junos policies, resolved |
//! | `fortios` | a `config system session-ttl` block |

mod draft;
mod fortios;
mod junos;
mod junos_objects;
mod junos_rules;
#[cfg(test)]
mod tests;

use serde::Serialize;

/// Whose configuration it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// `set` lines, as `show configuration | display set` prints them.
    Junos,
    /// The `config system session-ttl` block.
    FortiOs,
}

/// A line of the source, and what there is to say about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LineNote {
    /// Line in the source, from 1.
    pub line: u32,
    /// The line, without the blanks around it.
    pub text: String,
    /// Why it was not taken, or what was changed in taking it.
    pub reason: String,
}

/// What an import made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Imported {
    /// The policy file.
    pub policy: String,
    /// Lines that were taken over.
    pub lines_taken: u32,
    /// Every line that was not, in the order of the source.
    pub not_taken: Vec<LineNote>,
    /// Lines that were taken over with a change that an operator should know of.
    pub notes: Vec<LineNote>,
}

/// Reads a vendor's configuration. Whatever the text, it never panics; the result is a file for
/// [`super::check`].
pub fn import(vendor: Vendor, text: &str) -> Imported {
    let mut sheet = Sheet::default();
    let draft = match vendor {
        Vendor::Junos => junos::read(text, &mut sheet),
        Vendor::FortiOs => fortios::read(text, &mut sheet),
    };
    let mut imported = sheet.imported;
    imported.policy = draft.text();
    imported.not_taken.sort_by_key(|n| n.line);
    imported.notes.sort_by_key(|n| n.line);
    imported
}

/// A line of the source, cut into words; quotes hold a word together.
#[derive(Clone, Debug)]
struct Line<'t> {
    number: u32,
    text: &'t str,
    words: Vec<&'t str>,
}

impl<'t> Line<'t> {
    /// The lines that say something.
    fn all(text: &'t str) -> impl Iterator<Item = Line<'t>> {
        text.lines().zip(1..).filter_map(|(line, number)| {
            let text = line.trim();
            let silent = text.is_empty() || text.starts_with('#') || text.starts_with("/*");
            (!silent).then(|| Line { number, text, words: words(text) })
        })
    }
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// What became of each line.
#[derive(Debug, Default)]
struct Sheet {
    imported: Imported,
}

impl Sheet {
    fn taken(&mut self) {
        self.imported.lines_taken += 1;
    }

    fn not_taken(&mut self, line: &Line<'_>, reason: impl Into<String>) {
        self.imported.not_taken.push(note(line, reason));
    }

    fn note(&mut self, line: &Line<'_>, what: impl Into<String>) {
        self.imported.notes.push(note(line, what));
    }
}

fn note(line: &Line<'_>, reason: impl Into<String>) -> LineNote {
    // A line of megabytes is named by its beginning.
    let text = line.text.chars().take(200).collect();
    LineNote { line: line.number, text, reason: reason.into() }
}

/// A number in a range, as a vendor's manual bounds it; else why not.
fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!("{text} is not a number from {} to {}", range.start(), range.end())),
    }
}
