//! Reads `[[zone]]`, `[[address_set]]` and `[[application]]`, and registers their names.

use super::fields::{looks_like_address, port_range, prefix, protocol};
use super::model::{AddressSet, Application, PortRange, Term, Zone};
use super::predefined;
use super::reader::{Keys, Section};
use super::report::Reporter;
use super::ttl::PORT_PROTOCOLS;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::de::DeTable;

/// Zones in a policy.
pub(super) const ZONES_MAX: usize = 1024;
/// Address sets in a policy.
pub(super) const ADDRESS_SETS_MAX: usize = 65_535;
/// Prefixes in a policy, those that rules write themselves included.
pub(super) const PREFIXES_MAX: usize = 1_000_000;
/// Applications in a policy.
pub(super) const APPLICATIONS_MAX: usize = 16_384;
/// Terms of one application.
const TERMS_MAX: usize = 1024;

const ZONE: Keys = Keys { known: &["name", "description"], later: &[], node: &[] };
const ADDRESS_SET: Keys = Keys { known: &["name", "description", "prefixes"], later: &[], node: &[] };
const APPLICATION: Keys = Keys {
    known: &[
        "name",
        "description",
        "protocol",
        "source_port",
        "destination_port",
        "inactivity_timeout",
        "term",
    ],
    later: &["alg"],
    node: &[],
};
const TERM: Keys = Keys { known: &["protocol", "source_port", "destination_port"], later: &[], node: &[] };

/// Names of one kind and the index that each stands for.
pub(super) type Index = BTreeMap<Arc<str>, u32>;

/// Opens each `[[key]]` with its name: at most `max`, each name once. Without a name (or with one
/// used before) a table is still checked, but nothing can refer to it.
fn named<'t>(
    root: &Section<'t>,
    (key, keys, max): (&str, Keys, usize),
    index: &mut Index,
    r: &mut Reporter<'_>,
) -> Vec<(Section<'t>, Option<Arc<str>>)> {
    let tables = root.tables(key, key, r);
    if let Some((at, _)) = tables.get(max) {
        r.error(*at, format!("more than {max} [[{key}]] tables"), None);
    }
    let mut places: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut sections = Vec::new();
    for (i, (at, table)) in tables.into_iter().take(max).enumerate() {
        let label = label(key, table);
        let section = Section::open(table, at, label, keys, r);
        let name = section.name(r).and_then(|(at, name)| match places.get(&name) {
            None => {
                places.insert(name.clone(), at);
                index.insert(name.clone(), i as u32);
                Some(name)
            }
            Some(first) => {
                let (line, _) = r.lines.position(*first);
                let message = format!("the {key} `{name}` exists already, in line {line}");
                r.error(at, message, "choose another name, or join the two".to_string());
                None
            }
        });
        sections.push((section, name));
    }
    sections
}

/// How messages call a table: by its name when it has a short one.
pub(super) fn label(key: &str, table: &DeTable<'_>) -> String {
    match table.get("name").and_then(|v| v.get_ref().as_str()) {
        Some(name) if name.len() <= super::reader::NAME_BYTES_MAX => {
            format!("{key} {}", super::report::quote(name))
        }
        _ => format!("[[{key}]]"),
    }
}

/// Stands in for a name that was refused; the file is then refused too.
fn or_unnamed(name: Option<Arc<str>>) -> Arc<str> {
    name.unwrap_or_else(|| "?".into())
}

/// `[[zone]]`.
pub(super) fn zones(root: &Section<'_>, index: &mut Index, r: &mut Reporter<'_>) -> Vec<Zone> {
    named(root, ("zone", ZONE, ZONES_MAX), index, r)
        .into_iter()
        .map(|(section, name)| Zone {
            name: or_unnamed(name),
            description: section.description(r),
            at: section.at,
        })
        .collect()
}

/// `[[address_set]]`. `prefixes_left` is how many more prefixes the policy may have.
pub(super) fn address_sets(
    root: &Section<'_>,
    index: &mut Index,
    prefixes_left: &mut usize,
    r: &mut Reporter<'_>,
) -> Vec<AddressSet> {
    let mut sets = Vec::new();
    for (section, name) in named(root, ("address_set", ADDRESS_SET, ADDRESS_SETS_MAX), index, r) {
        section.description(r);
        if name.as_deref().is_some_and(looks_like_address) {
            let message =
                format!("the name of {} is an address: rules could not tell it from one", section.label);
            r.error(section.at, message, "begin it with a letter".to_string());
        }
        section.require("prefixes", "add prefixes = [\"192.0.2.0/24\"]", r);
        let texts = section.strings("prefixes", r).unwrap_or_default();
        let mut prefixes = Vec::with_capacity(texts.len().min(*prefixes_left));
        for (at, text) in texts {
            if !take_prefix(prefixes_left, at, r) {
                break;
            }
            prefixes.extend(prefix(text, at, r));
        }
        sets.push(AddressSet { name: or_unnamed(name), prefixes, at: section.at });
    }
    sets
}

/// Takes one from the policy's prefixes; the first that is too many is reported.
pub(super) fn take_prefix(left: &mut usize, at: usize, r: &mut Reporter<'_>) -> bool {
    match *left {
        0 => false,
        1 => {
            *left = 0;
            r.error(at, format!("more than {PREFIXES_MAX} prefixes in the policy"), None);
            false
        }
        _ => {
            *left -= 1;
            true
        }
    }
}

/// `[[application]]` (J3).
pub(super) fn applications(root: &Section<'_>, index: &mut Index, r: &mut Reporter<'_>) -> Vec<Application> {
    let mut applications = Vec::new();
    for (section, name) in named(root, ("application", APPLICATION, APPLICATIONS_MAX), index, r) {
        section.description(r);
        if let Some(name) = name.as_deref().filter(|n| predefined::find(n).is_some()) {
            let message = format!("`{name}` is a predefined application");
            r.error(section.at, message, format!("choose another name, such as `my-{name}`"));
        }
        let inactivity_timeout = section.ttl("inactivity_timeout", 1, r);
        let terms = terms(&section, r);
        applications.push(Application { name: or_unnamed(name), terms, inactivity_timeout, at: section.at });
    }
    applications
}

/// An application is one protocol and its ports, or a list of `[[application.term]]`.
fn terms(section: &Section<'_>, r: &mut Reporter<'_>) -> Vec<Term> {
    let tables = section.tables("term", "application.term", r);
    let inline = TERM.known.iter().find(|key| section.get(key).is_some());
    if section.get("term").is_none() {
        return term(section, r).into_iter().collect();
    }
    if let Some(key) = inline {
        let message = format!("{} has `{key}` beside its terms", section.label);
        r.error(section.at, message, format!("move `{key}` into a [[application.term]]"));
    }
    if tables.is_empty() {
        r.error(section.at, format!("{} has no term: it would match nothing", section.label), None);
    }
    if let Some((at, _)) = tables.get(TERMS_MAX) {
        r.error(*at, format!("{} has more than {TERMS_MAX} terms", section.label), None);
    }
    let mut terms = Vec::new();
    for (at, table) in tables.into_iter().take(TERMS_MAX) {
        let label = format!("a term of {}", section.label);
        terms.extend(term(&Section::open(table, at, label, TERM, r), r));
    }
    terms
}

fn term(section: &Section<'_>, r: &mut Reporter<'_>) -> Option<Term> {
    let value = section.require("protocol", "add protocol = \"tcp\", or a number", r)?;
    let protocol = protocol(value, 1, &section.label, r);
    let mut range = |key| match section.get(key) {
        None => Some(PortRange::ALL),
        Some(value) => {
            if let Some(protocol) = protocol.filter(|p| !PORT_PROTOCOLS.contains(p)) {
                let message = format!("{} has `{key}`, but protocol {protocol} has no ports", section.label);
                let help = "ports go with tcp, udp and sctp; remove it";
                r.error(super::reader::at(value), message, help.to_string());
                return None;
            }
            port_range(value, key, &section.label, r)
        }
    };
    let (source, destination) = (range("source_port"), range("destination_port"));
    Some(Term { protocol: protocol?, source: source?, destination: destination? })
}
