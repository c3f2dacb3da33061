//! Checks a policy file: everything that is wrong with it in one go.

use super::compiled::CompileError;
use super::matcher::Matcher;
use super::model::PolicyFile;
use super::read_objects::{Index, PREFIXES_MAX};
use super::read_rules::Objects;
use super::reader::{Keys, Section};
use super::report::{Diagnostic, Reporter};
use super::{read_log, read_objects, read_replication, read_rules, read_tcp, read_timeouts, warnings};
use serde::Serialize;
use std::collections::BTreeSet;
use toml::de::DeTable;

/// Largest policy file: 64 MiB, room for a million IPv6 prefixes.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Syntax errors reported at once; behind the first few they tend to be echoes.
const SYNTAX_ERRORS_MAX: usize = 20;

const ROOT: Keys = Keys {
    known: &[
        "timeouts",
        "tcp",
        "mss",
        "session_ttl",
        "log",
        "replication",
        "zone",
        "address_set",
        "application",
        "rule",
    ],
    later: &["aging"],
    node: &["table", "port"],
};

/// What a check found. The file can be compiled exactly when there is no error.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Why the file is refused, in the order of the file.
    pub errors: Vec<Diagnostic>,
    /// What an operator should know, in the order of the file; empty while there are syntax errors.
    pub warnings: Vec<Diagnostic>,
    /// The file, when there is no error.
    #[serde(skip)]
    pub file: Option<PolicyFile>,
}

/// Checks the text of a policy file. `file_name` is what diagnostics call it. Never panics, whatever
/// the text.
pub fn check(text: &str, file_name: &str) -> CheckReport {
    let mut reporter = Reporter::new(if text.len() > FILE_BYTES_MAX { "" } else { text }, file_name);
    let file = read(text, &mut reporter);
    let mut file = file.filter(|_| !reporter.has_errors());
    if let Some(file) = &mut file {
        match Matcher::new(file) {
            Ok(matcher) => file.shadowed = warnings::find(file, &matcher, &mut reporter),
            Err(error @ (CompileError::TooComplex | CompileError::Names(_))) => {
                reporter.error(0, error.to_string(), None);
            }
        }
    }
    let file = file.filter(|_| !reporter.has_errors());
    let (errors, warnings) = reporter.finish();
    CheckReport { errors, warnings, file }
}

impl PolicyFile {
    /// [`check`], for callers that want the file or the reasons why not.
    pub fn parse(text: &str, file_name: &str) -> Result<PolicyFile, Vec<Diagnostic>> {
        let report = check(text, file_name);
        report.file.ok_or(report.errors)
    }
}

fn read(text: &str, r: &mut Reporter<'_>) -> Option<PolicyFile> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes; at most {FILE_BYTES_MAX} are read", text.len());
        r.error(0, message, None);
        return None;
    }
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let mut found: Vec<_> = syntax
            .iter()
            .map(|e| (e.span().map_or(0, |s| s.start), e.message().lines().collect::<Vec<_>>().join("; ")))
            .collect();
        found.dedup();
        for (at, message) in found.into_iter().take(SYNTAX_ERRORS_MAX) {
            r.error(at, message, None);
        }
        return None;
    }
    let root = Section::open(document.get_ref(), 0, "the policy file".into(), ROOT, r);
    let (mut zones, mut sets, mut apps) = (Index::new(), Index::new(), Index::new());
    let mut prefixes_left = PREFIXES_MAX + 1;
    let timeouts = read_timeouts::timeouts(&root, r);
    let tcp = read_tcp::tcp(&root, r);
    let mss = read_tcp::mss(&root, r);
    let session_ttl = read_timeouts::session_ttl(&root, r);
    let log = read_log::log(&root, r);
    let replication = read_replication::replication(&root, r);
    let zone_list = read_objects::zones(&root, &mut zones, r);
    let address_sets = read_objects::address_sets(&root, &mut sets, &mut prefixes_left, r);
    let applications = read_objects::applications(&root, &mut apps, r);
    let terms: Vec<usize> = applications.iter().map(|a| a.terms.len()).collect();
    let mut objects =
        Objects { zones: &zones, address_sets: &sets, applications: &apps, terms: &terms, prefixes_left };
    let rules = read_rules::rules(&root, &mut objects, r);
    let file = PolicyFile {
        timeouts,
        tcp,
        mss,
        session_ttl,
        log,
        replication,
        zones: zone_list,
        address_sets,
        applications,
        rules,
        text: text.into(),
        shadowed: BTreeSet::new(),
    };
    read_replication::check(&root, &file, r);
    Some(file)
}
