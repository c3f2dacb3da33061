//! Reads a TOML document into a type and reports everything that does not fit, not just the first.
//!
//! serde stops at its first error. So the entry that it stumbled over is noted, taken out of the
//! document, and reading starts again: each round finds one more, and an operator sees all of them
//! in one go. Types read this way have only optional fields; what is missing is checked afterwards.

use crate::diagnostic::{Diagnostic, nearest};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Most findings in one file: beyond it, something more basic is wrong than a list can tell.
const FINDINGS_MAX: usize = 100;

/// The document, as far as it could be read, and what was wrong with it.
pub(crate) fn read<T: DeserializeOwned + Default>(file: &str, text: &str) -> (T, Vec<Diagnostic>) {
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let found = syntax.iter().take(FINDINGS_MAX).map(|e| diagnose(file, text, e)).collect();
        return (T::default(), found);
    }
    let span = document.span();
    let mut root = DeValue::Table(document.into_inner());
    let mut found = Vec::new();
    while found.len() < FINDINGS_MAX {
        match T::deserialize(ValueDeserializer::from(Spanned::new(span.clone(), root.clone()))) {
            Ok(value) => return (value, found),
            Err(error) => {
                found.push(diagnose(file, text, &error));
                if !error.span().is_some_and(|at| remove(&mut root, &at)) {
                    break;
                }
            }
        }
    }
    (T::default(), found)
}

/// Takes out the entry whose key or value lies at `at`; the smallest one that encloses it.
fn remove(value: &mut DeValue<'_>, at: &Range<usize>) -> bool {
    let encloses = |span: Range<usize>| span.start <= at.start && at.end <= span.end;
    match value {
        DeValue::Table(table) => {
            if table.iter_mut().any(|(_, v)| encloses(v.span()) && remove(v.get_mut(), at)) {
                return true;
            }
            // A table written under a header has the header's span, and its entries lie behind it.
            if table.iter_mut().any(|(_, v)| !encloses(v.span()) && remove(v.get_mut(), at)) {
                return true;
            }
            let key =
                table.iter().find(|(k, v)| encloses(k.span()) || v.span() == *at).map(|(k, _)| k.clone());
            key.is_some_and(|k| table.remove(&k).is_some())
        }
        DeValue::Array(array) => {
            if array.iter_mut().any(|v| remove(v.get_mut(), at)) {
                return true;
            }
            let index = array.iter().position(|v| v.span() == *at);
            index.is_some_and(|i| {
                let kept: Vec<_> =
                    array.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, v)| v.clone()).collect();
                *array = kept.into_iter().collect();
                true
            })
        }
        _ => false,
    }
}

/// A reader's error as a finding, with a suggestion where its words give one.
fn diagnose(file: &str, text: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let known = quoted.get(1..).unwrap_or_default();
    let (message, suggestion) = if message.starts_with("unknown field") && !quoted.is_empty() {
        let hint = match nearest(quoted[0], known.iter().copied()) {
            Some(k) => format!("did you mean `{k}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        (format!("unknown key `{}`", quoted[0]), Some(hint))
    } else if message.starts_with("unknown variant") && !quoted.is_empty() {
        let hint = match nearest(quoted[0], known.iter().copied()) {
            Some(k) => format!("did you mean \"{k}\"?"),
            None => format!("one of: {}", known.join(", ")),
        };
        (format!("unknown value \"{}\"", quoted[0]), Some(hint))
    } else if let Some((_, expected)) = message.split_once(", expected ") {
        let hint = format!("write {expected} here");
        (message.clone(), Some(hint))
    } else {
        (message, None)
    };
    let mut d = Diagnostic::error(file, text, error.span().unwrap_or(0..0), message);
    d.suggestion = suggestion;
    d
}
