//! Typed access to one table of the file that reports what is wrong and goes on.
//!
//! Why it exists: serde's `deny_unknown_fields` has the right rules, but stops at the first error; an
//! operator wants all of them. So the spanned document is walked by hand, with the same rules: an
//! unknown key, a wrong type or a value out of range is an error, never ignored.

use super::model::Ttl;
use super::report::{Reporter, quote};
use super::suggest::nearest;
use crate::session::timeouts::TIMEOUT_S_MAX;
use std::ops::RangeInclusive;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest name.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// Longest description.
const DESCRIPTION_BYTES_MAX: usize = 255;

/// The keys of a table: those that exist, and those that Tidegate knows of but does not have yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) known: &'static [&'static str],
    pub(super) later: &'static [&'static str],
    /// Keys that belong in a node's configuration file.
    pub(super) node: &'static [&'static str],
}

/// One table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    /// Byte offset of its header.
    pub(super) at: usize,
    /// How messages call it.
    pub(super) label: String,
}

/// A value and its place.
pub(super) type Value<'t> = &'t Spanned<DeValue<'t>>;

/// Byte offset of a value.
pub(super) fn at<T>(value: &Spanned<T>) -> usize {
    value.span().start
}

impl<'t> Section<'t> {
    /// Opens a table: every key that it must not have is an error.
    pub(super) fn open(
        table: &'t DeTable<'t>,
        at: usize,
        label: String,
        keys: Keys,
        r: &mut Reporter<'_>,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if keys.known.contains(&name) {
                continue;
            }
            let list = format!("known here: {}", keys.known.join(", "));
            if keys.later.contains(&name) {
                let message = format!("{} in {label} is not supported by this version", quote(name));
                r.error(key.span().start, message, format!("remove it; {list}"));
                continue;
            }
            if keys.node.contains(&name) {
                let message = format!("{} is no part of the policy", quote(name));
                let help = "it differs from node to node: move it to the node's configuration file";
                r.error(key.span().start, message, help.to_string());
                continue;
            }
            let guess = nearest(name, keys.known.iter().copied(), &mut r.comparisons_left);
            let help = guess.map_or(list, |g| format!("did you mean `{g}`?"));
            r.error(key.span().start, format!("unknown key {} in {label}", quote(name)), help);
        }
        Section { table, at, label }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Value<'t>> {
        self.table.get(key)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, help: &str, r: &mut Reporter<'_>) -> Option<Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            r.error(self.at, format!("{} has no `{key}`", self.label), help.to_string());
        }
        value
    }

    /// An integer in a range.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>, r: &mut Reporter<'_>) -> Option<u32> {
        self.integer_value(self.get(key)?, key, range, "", r)
    }

    /// A timeout: seconds from `min` to 2764800, or `never` (F6), which is warned about.
    pub(super) fn ttl(&self, key: &str, min: u32, r: &mut Reporter<'_>) -> Option<Ttl> {
        let value = self.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            if text == "never" {
                let message =
                    format!("`never`: sessions that get it from {} do not end by being idle", self.label);
                let help = "they take at most 10 % of the session table, beyond that 2764800 s is used; \
                            a long timeout is safer";
                r.warn(at(value), message, help.to_string());
                return Some(Ttl::Never);
            }
            if text.eq_ignore_ascii_case("never") {
                let message = format!("`{key}` in {} does not know {}", self.label, quote(text));
                r.error(at(value), message, "write \"never\"".to_string());
                return None;
            }
        }
        self.integer_value(value, key, min..=TIMEOUT_S_MAX, " or \"never\"", r).map(Ttl::Seconds)
    }

    fn integer_value(
        &self,
        value: Value<'t>,
        key: &str,
        range: RangeInclusive<u32>,
        or: &str,
        r: &mut Reporter<'_>,
    ) -> Option<u32> {
        let (min, max) = (*range.start(), *range.end());
        let wanted = format!("an integer from {min} to {max}{or}");
        let DeValue::Integer(integer) = value.get_ref() else {
            let message = format!("`{key}` in {} is {}, not {wanted}", self.label, kind(value));
            r.error(at(value), message, integer_help(value));
            return None;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(n) if i128::from(min) <= n && n <= i128::from(max) => Some(n as u32),
            outside => {
                let message = format!(
                    "`{key}` in {} is {}, which is out of range: {wanted}",
                    self.label,
                    quote(integer.as_str())
                );
                let nearest = if outside.is_ok_and(|n| n < i128::from(min)) { min } else { max };
                r.error(at(value), message, format!("the nearest that is allowed is {nearest}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, r: &mut Reporter<'_>) -> Option<bool> {
        let value = self.get(key)?;
        if let DeValue::Boolean(b) = value.get_ref() {
            return Some(*b);
        }
        let message = format!("`{key}` in {} is {}, not true or false", self.label, kind(value));
        r.error(at(value), message, "write true or false, without quotes".to_string());
        None
    }

    /// A string and its place.
    pub(super) fn string(&self, key: &str, r: &mut Reporter<'_>) -> Option<(usize, &'t str)> {
        let value = self.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some((at(value), text));
        }
        let message = format!("`{key}` in {} is {}, not a string", self.label, kind(value));
        r.error(at(value), message, format!("write {key} = \"...\""));
        None
    }

    /// A free text for people.
    pub(super) fn description(&self, r: &mut Reporter<'_>) -> Option<Arc<str>> {
        let (at, text) = self.string("description", r)?;
        if text.len() > DESCRIPTION_BYTES_MAX || text.chars().any(char::is_control) {
            let message =
                format!("the description of {} is too long or holds control characters", self.label);
            r.error(at, message, format!("one line of at most {DESCRIPTION_BYTES_MAX} bytes"));
            return None;
        }
        Some(text.into())
    }

    /// The `name` of a table that must have one.
    pub(super) fn name(&self, r: &mut Reporter<'_>) -> Option<(usize, Arc<str>)> {
        self.require("name", "add name = \"...\"", r)?;
        let (at, name) = self.string("name", r)?;
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if !first || !rest || name.len() > NAME_BYTES_MAX {
            let help = format!(
                "1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, _ - and . , the first a letter, \
                 a digit or _"
            );
            r.error(at, format!("{} is not a name", quote(name)), help);
            return None;
        }
        if name == "any" {
            r.error(at, "`any` is reserved", "choose another name".to_string());
            return None;
        }
        Some((at, name.into()))
    }

    /// A string, or an array of strings that is not empty. Elements that are wrong are left out.
    pub(super) fn strings(&self, key: &str, r: &mut Reporter<'_>) -> Option<Vec<(usize, &'t str)>> {
        let value = self.get(key)?;
        let items = match value.get_ref() {
            DeValue::String(text) => return Some(vec![(at(value), text)]),
            DeValue::Array(items) => items,
            _ => {
                let message = format!("`{key}` in {} is {}, not a list of strings", self.label, kind(value));
                r.error(at(value), message, format!("write {key} = [\"...\"]"));
                return None;
            }
        };
        if items.is_empty() {
            let message = format!("`{key}` in {} is empty: it would match nothing", self.label);
            r.error(at(value), message, "list what it matches".to_string());
            return None;
        }
        let mut strings = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => strings.push((at(item), text.as_ref())),
                _ => {
                    let message =
                        format!("an element of `{key}` in {} is {}, not a string", self.label, kind(item));
                    r.error(at(item), message, "put it in quotes".to_string());
                }
            }
        }
        Some(strings)
    }

    /// A table under that key.
    pub(super) fn table(&self, key: &str, r: &mut Reporter<'_>) -> Option<(usize, &'t DeTable<'t>)> {
        let value = self.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some((at(value), table));
        }
        r.error(at(value), format!("`{key}` is {}, not a table", kind(value)), format!("write [{key}]"));
        None
    }

    /// The tables of a `[[path]]`, whose last part is `key`.
    pub(super) fn tables(
        &self,
        key: &str,
        path: &str,
        r: &mut Reporter<'_>,
    ) -> Vec<(usize, &'t DeTable<'t>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let help = format!("write each as [[{path}]]");
        let DeValue::Array(items) = value.get_ref() else {
            r.error(at(value), format!("`{path}` is {}, not a list of tables", kind(value)), help);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((at(item), table)),
                _ => {
                    let message = format!("an element of `{path}` is {}, not a table", kind(item));
                    r.error(at(item), message, help.clone());
                }
            }
        }
        tables
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("the string {}", quote(text)),
        DeValue::Integer(_) => "an integer".into(),
        DeValue::Float(_) => "a floating-point number".into(),
        DeValue::Boolean(b) => format!("the boolean `{b}`"),
        DeValue::Datetime(_) => "a date or time".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// For a string where an integer belongs: often the number is in it.
fn integer_help(value: Value<'_>) -> Option<String> {
    let DeValue::String(text) = value.get_ref() else { return None };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let number: u32 = digits.parse().ok()?;
    let scale = match text[digits.len()..].trim() {
        "" => return Some(format!("write {number}, without quotes")),
        "s" | "sec" | "seconds" => 1,
        "m" | "min" | "minutes" => 60,
        "h" | "hours" => 3600,
        "d" | "days" => 86_400,
        _ => return None,
    };
    Some(format!("times are in seconds: write {}", number.checked_mul(scale)?))
}
