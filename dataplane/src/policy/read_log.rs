//! Reads `[log]`: what is logged beyond the rules that ask for it.

use super::model::LogSettings;
use super::reader::{Keys, Section};
use super::report::Reporter;

const LOG: Keys = Keys { known: &["default_deny"], later: &[], node: &["level", "format", "syslog"] };

pub(super) fn log(root: &Section<'_>, r: &mut Reporter<'_>) -> LogSettings {
    let mut log = LogSettings::default();
    let Some((at, table)) = root.table("log", r) else { return log };
    let section = Section::open(table, at, "[log]".into(), LOG, r);
    if let Some(switch) = section.boolean("default_deny", r) {
        log.default_deny = switch;
    }
    log
}
