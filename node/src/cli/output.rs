//! Printing: tables, JSON, and a reader that went away.

use crate::exit::{Exit, Failure};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// A failed write to stdout. A reader that went away (`| head`) is no error: the verb ends quietly.
pub(super) fn write_failure(e: io::Error) -> Failure {
    if e.kind() == io::ErrorKind::BrokenPipe {
        Failure::new(Exit::Ok, "")
    } else {
        Failure::error(format!("cannot write to stdout: {e}"))
    }
}

/// Prints text as it is.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(write_failure)
}

/// Prints one JSON value.
pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::error(e.to_string()))?;
    print(&(text + "\n"))
}

/// Prints a table with a header.
pub(super) fn print_table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    print(&(table.trim_fmt() + "\n"))
}

/// Prints "name: value" lines, aligned.
pub(super) fn print_facts(facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(k, _)| k.len()).max().unwrap_or(0) + 1;
    let text: String =
        facts.iter().map(|(k, v)| format!("{:width$} {v}\n", format!("{k}:"), width = width)).collect();
    print(&text)
}

/// "-" for nothing.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Seconds for people: `never`, `4.2s`, `29m58s`, `31d23h`.
pub(super) fn duration(s: Option<f64>) -> String {
    let Some(s) = s else { return "never".to_owned() };
    let whole = s.max(0.0) as u64;
    match whole {
        0..60 => format!("{:.1}s", s.max(0.0)),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Bytes for people.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Says on stderr which workers stayed silent, and makes the verb end as degraded.
pub(super) fn note_unanswered(workers: &[u16]) -> Exit {
    if workers.is_empty() {
        return Exit::Ok;
    }
    let list: Vec<String> = workers.iter().map(u16::to_string).collect();
    eprintln!(
        "tidegate: worker {} did not answer in time; what it holds is missing above (see `tidegate status`)",
        list.join(", ")
    );
    Exit::Degraded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_bytes_read_well() {
        // A wrong divisor in either shows here.
        assert_eq!(duration(None), "never");
        assert_eq!(duration(Some(4.25)), "4.2s");
        assert_eq!(duration(Some(1799.9)), "29m59s");
        assert_eq!(duration(Some(7260.0)), "2h01m");
        assert_eq!(duration(Some(2_764_800.0)), "32d00h");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
