//! `policy import`.

use super::output::{print, print_json};
use super::{ImportVendor, Output};
use crate::exit::{Exit, Failure};
use std::path::Path;
use tidegate_dataplane::policy::import::{LineNote, Vendor, import as convert};

/// `policy import --from VENDOR FILE`: the policy file on stdout, what was not taken on stderr.
pub(super) fn import(from: ImportVendor, file: &Path, output: Output) -> Result<Exit, Failure> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|e| {
        Failure::usage(format!("cannot read {name}: {e}\n  help: name a file with the configuration as text"))
    })?;
    let vendor = match from {
        ImportVendor::Junos => Vendor::Junos,
        ImportVendor::Fortios => Vendor::FortiOs,
    };
    let imported = convert(vendor, &String::from_utf8_lossy(&bytes));
    if imported.lines_taken == 0 {
        let help = match from {
            ImportVendor::Junos => "export it with `show configuration | display set`",
            ImportVendor::Fortios => "it must hold a `config system session-ttl` block",
        };
        return Err(Failure::usage(format!("{name}: no line of it was understood\n  help: {help}")));
    }
    if output == Output::Json {
        print_json(&imported)?;
    } else {
        print(&imported.policy)?;
        let taken = imported.lines_taken;
        eprint!("{}{}", list("changed", &imported.notes), list("not taken", &imported.not_taken));
        eprintln!("{name}: {taken} lines taken, {} not taken", imported.not_taken.len());
    }
    verdict(&imported.policy)
}

/// The result is checked like any other policy: an import that cannot be put in force must not look like one
/// that can.
fn verdict(policy: &str) -> Result<Exit, Failure> {
    let (found, _) = crate::daemon::policy::check("imported policy", policy);
    let errors: String = found
        .iter()
        .filter(|d| d.severity == crate::diagnostic::Severity::Error)
        .map(|d| d.render(Some(policy)))
        .collect();
    if errors.is_empty() {
        Ok(Exit::Ok)
    } else {
        Err(Failure::error(format!("correct this first:\n{errors}")))
    }
}

fn list(what: &str, notes: &[LineNote]) -> String {
    notes.iter().map(|n| format!("line {}: {what}: {}\n  {}\n", n.line, n.reason, n.text)).collect()
}
