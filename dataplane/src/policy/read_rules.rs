//! Reads `[[rule]]` (J1) and resolves what it refers to.

use super::fields::{looks_like_address, prefix};
use super::model::{AddressRef, ApplicationRef, Rule, ZoneRef};
use super::read_objects::{Index, label, take_prefix};
use super::read_replication;
use super::reader::{Keys, Section, at};
use super::report::{Reporter, quote};
use super::suggest::nearest;
use super::{Action, PREDEFINED, predefined};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use toml::de::DeTable;

/// Rules in a policy.
pub(super) const RULES_MAX: usize = 65_535;
/// Applications in one rule: they are tried one after the other.
const RULE_APPLICATIONS_MAX: usize = 1024;
/// Terms of all applications of all rules together.
const RULE_TERMS_MAX: usize = 2_000_000;

const RULE: Keys = Keys {
    known: &[
        "name",
        "description",
        "from",
        "to",
        "source",
        "destination",
        "application",
        "action",
        "session_ttl",
        "log",
        "tcp_rst",
        "sync",
        "setup_ack",
        "enabled",
    ],
    later: &[],
    node: &[],
};

/// What rules refer to, and what is left of the policy's bounds.
#[derive(Debug)]
pub(super) struct Objects<'a> {
    pub(super) zones: &'a Index,
    pub(super) address_sets: &'a Index,
    pub(super) applications: &'a Index,
    /// Terms of each application, by index.
    pub(super) terms: &'a [usize],
    pub(super) prefixes_left: usize,
}

/// `[[rule]]`, in file order.
pub(super) fn rules(root: &Section<'_>, objects: &mut Objects<'_>, r: &mut Reporter<'_>) -> Vec<Rule> {
    let tables = root.tables("rule", "rule", r);
    if let Some((at, _)) = tables.get(RULES_MAX) {
        r.error(*at, format!("more than {RULES_MAX} [[rule]] tables"), None);
    }
    let mut names: BTreeMap<(String, String, Arc<str>), usize> = BTreeMap::new();
    let mut terms_left = RULE_TERMS_MAX;
    let mut rules = Vec::new();
    for (at, table) in tables.into_iter().take(RULES_MAX) {
        let Some(rule) = rule(at, table, objects, &mut names, r) else { continue };
        let terms: usize = rule.application.iter().map(|a| objects.term_count(*a)).sum();
        if terms > terms_left {
            let message = format!("the rules together have more than {RULE_TERMS_MAX} application terms");
            r.error(at, message, "use fewer or wider terms".to_string());
            break;
        }
        terms_left -= terms;
        rules.push(rule);
    }
    rules
}

fn rule<'t>(
    start: usize,
    table: &'t DeTable<'t>,
    objects: &mut Objects<'_>,
    names: &mut BTreeMap<(String, String, Arc<str>), usize>,
    r: &mut Reporter<'_>,
) -> Option<Rule> {
    let section = Section::open(table, start, label("rule", table), RULE, r);
    let name = section.name(r);
    let from = objects.zone(&section, "from", r);
    let to = objects.zone(&section, "to", r);
    if let (Some((at, name)), Some((from, _)), Some((to, _))) = (&name, &from, &to) {
        let key = (from.to_string(), to.to_string(), name.clone());
        if let Some(first) = names.get(&key) {
            let (line, _) = r.lines.position(*first);
            let message = format!("the rule `{name}` from `{from}` to `{to}` exists already, in line {line}");
            r.error(*at, message, "a name is used once for each pair of zones".to_string());
        }
        names.entry(key).or_insert(*at);
    }
    let source = objects.addresses(&section, "source", r);
    let destination = objects.addresses(&section, "destination", r);
    let application = objects.applications(&section, r);
    let action = action(&section, r);
    let session_ttl = section.ttl("session_ttl", 1, r);
    let log = section.boolean("log", r).unwrap_or(false);
    let tcp_rst = tcp_rst(&section, action, r);
    let (sync, setup_ack) = read_replication::of_rule(&section, action, r);
    let enabled = section.boolean("enabled", r).unwrap_or(true);
    let description = section.description(r);
    let line = r.lines.position(start).0;
    Some(Rule {
        name: name?.1,
        from: from?.1,
        to: to?.1,
        source: source?,
        destination: destination?,
        application: application?,
        action: action?,
        session_ttl,
        log,
        tcp_rst,
        sync,
        setup_ack,
        enabled,
        description,
        line,
        at: start,
    })
}

/// J7: only what a rule would permit is answered; `reject` answers by itself, and `deny` is silent.
fn tcp_rst(section: &Section<'_>, action: Option<Action>, r: &mut Reporter<'_>) -> bool {
    let wanted = section.boolean("tcp_rst", r).unwrap_or(false);
    if let (true, Some(Action::Deny | Action::Reject), Some(value)) = (wanted, action, section.get("tcp_rst"))
    {
        let message = format!("`tcp_rst` in {} goes with action = \"permit\" only", section.label);
        r.error(at(value), message, "remove it; \"reject\" answers every first packet".to_string());
    }
    wanted
}

fn action(section: &Section<'_>, r: &mut Reporter<'_>) -> Option<Action> {
    section.require("action", "add action = \"permit\", \"deny\" or \"reject\"", r)?;
    let (at, text) = section.string("action", r)?;
    match text {
        "permit" => return Some(Action::Permit),
        "deny" => return Some(Action::Deny),
        "reject" => return Some(Action::Reject),
        _ => {}
    }
    let help = match text.to_ascii_lowercase().as_str() {
        "allow" | "accept" | "pass" => "write \"permit\"".to_string(),
        "drop" | "discard" | "block" => {
            "write \"deny\" (silent) or \"reject\" (the sender is told)".to_string()
        }
        _ => match nearest(text, ["permit", "deny", "reject"], &mut r.comparisons_left) {
            Some(guess) => format!("did you mean \"{guess}\"?"),
            None => "an action is \"permit\", \"deny\" or \"reject\"".to_string(),
        },
    };
    r.error(at, format!("{} is not an action", quote(text)), help);
    None
}

impl Objects<'_> {
    /// Terms that an application adds to a rule.
    fn term_count(&self, application: ApplicationRef) -> usize {
        match application {
            ApplicationRef::Any => 1,
            ApplicationRef::Predefined(i) => PREDEFINED[usize::from(i)].terms.len(),
            ApplicationRef::Own(i) => self.terms.get(usize::from(i)).copied().unwrap_or(0),
        }
    }

    fn zone<'t>(&self, section: &Section<'t>, key: &str, r: &mut Reporter<'_>) -> Option<(&'t str, ZoneRef)> {
        section.require(key, &format!("add {key} = \"...\", the name of a zone, or \"any\""), r)?;
        let (at, name) = section.string(key, r)?;
        if name == "any" {
            return Some((name, ZoneRef::Any));
        }
        match self.zones.get(name) {
            Some(index) => Some((name, ZoneRef::Zone(*index as u16))),
            None => {
                let known = self.zones.keys().map(|k| &**k).chain(["any"]);
                let guess = nearest(name, known, &mut r.comparisons_left);
                let help = match guess {
                    Some(guess) => format!("did you mean \"{guess}\"?"),
                    None => format!("declare it: [[zone]] name = {name:?}"),
                };
                r.error(at, format!("there is no zone {}", quote(name)), help);
                None
            }
        }
    }

    fn addresses(
        &mut self,
        section: &Section<'_>,
        key: &str,
        r: &mut Reporter<'_>,
    ) -> Option<Vec<AddressRef>> {
        section.require(key, &format!("add {key} = [\"any\"], or what it matches"), r)?;
        let texts = section.strings(key, r)?;
        let count = texts.len();
        let mut found = Vec::with_capacity(count);
        let mut seen = BTreeSet::new();
        let any = texts.iter().find(|(_, text)| *text == "any").map(|(at, _)| *at);
        for (at, text) in texts {
            let Some(address) = self.address(text, at, r) else { continue };
            if !seen.insert(address) {
                r.warn(at, format!("{} stands twice in `{key}` of {}", quote(text), section.label), None);
            }
            found.push(address);
        }
        if let Some(at) = any.filter(|_| count > 1) {
            let message = format!("`any` in `{key}` of {} makes the others pointless", section.label);
            r.warn(at, message, format!("write {key} = [\"any\"]"));
        }
        (found.len() == count).then_some(found)
    }

    fn address(&mut self, text: &str, at: usize, r: &mut Reporter<'_>) -> Option<AddressRef> {
        if text == "any" {
            return Some(AddressRef::Any);
        }
        if looks_like_address(text) {
            if !take_prefix(&mut self.prefixes_left, at, r) {
                return None;
            }
            return prefix(text, at, r).map(AddressRef::Prefix);
        }
        if let Some(index) = self.address_sets.get(text) {
            return Some(AddressRef::Set(*index));
        }
        let known = self.address_sets.keys().map(|k| &**k).chain(["any"]);
        let help = match nearest(text, known, &mut r.comparisons_left) {
            Some(guess) => format!("did you mean \"{guess}\"?"),
            None => "declare it as [[address_set]], or write a prefix".to_string(),
        };
        r.error(at, format!("there is no address set {}", quote(text)), help);
        None
    }

    fn applications(&self, section: &Section<'_>, r: &mut Reporter<'_>) -> Option<Vec<ApplicationRef>> {
        section.require("application", "add application = [\"any\"], or what it matches", r)?;
        let texts = section.strings("application", r)?;
        let count = texts.len();
        if let Some((at, _)) = texts.get(RULE_APPLICATIONS_MAX) {
            let message = format!("{} has more than {RULE_APPLICATIONS_MAX} applications", section.label);
            r.error(*at, message, "use an [[application]] with several terms".to_string());
            return None;
        }
        let mut found = Vec::with_capacity(count);
        let mut seen = BTreeSet::new();
        for (at, text) in texts {
            let Some(application) = self.application(text, at, r) else { continue };
            if !seen.insert(application) {
                let message = format!("{} stands twice in `application` of {}", quote(text), section.label);
                r.warn(at, message, None);
            } else if found.contains(&ApplicationRef::Any) {
                let message =
                    format!("{} stands behind `any` in {}: it never matches", quote(text), section.label);
                r.warn(at, message, "move it before `any`".to_string());
            }
            found.push(application);
        }
        (found.len() == count).then_some(found)
    }

    fn application(&self, text: &str, at: usize, r: &mut Reporter<'_>) -> Option<ApplicationRef> {
        if text == "any" {
            return Some(ApplicationRef::Any);
        }
        if let Some(index) = self.applications.get(text) {
            return Some(ApplicationRef::Own(*index as u16));
        }
        if let Some(index) = predefined::find(text) {
            return Some(ApplicationRef::Predefined(index));
        }
        let predefined = PREDEFINED.iter().map(|p| p.name);
        let known = self.applications.keys().map(|k| &**k).chain(predefined).chain(["any"]);
        let help = match nearest(text, known, &mut r.comparisons_left) {
            Some(guess) => format!("did you mean \"{guess}\"?"),
            None => "declare it as [[application]]".to_string(),
        };
        r.error(at, format!("there is no application {}", quote(text)), help);
        None
    }
}
