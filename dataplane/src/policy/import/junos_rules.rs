//! Junos policies: read line by line, resolved when all objects are known.

use super::draft::{AddressSet, Draft, NameBook, Rule};
use super::junos::Source;
use super::{Line, Sheet};
use std::collections::BTreeMap;

/// The zone that stands for the firewall itself.
const HOST: &str = "junos-host";
const OF_THE_HOST: &str = "it is about traffic of the firewall itself";
const NO_SUCH: &str = "no such setting of policies here";

/// From zone, to zone, name; global policies have no zones.
type Key<'t> = (Option<(&'t str, &'t str)>, &'t str);

/// A policy as it is read.
#[derive(Debug, Default)]
struct Policy<'t> {
    lines: Vec<Line<'t>>,
    from: Vec<&'t str>,
    to: Vec<&'t str>,
    source: Vec<&'t str>,
    destination: Vec<&'t str>,
    application: Vec<&'t str>,
    action: Option<&'static str>,
    log: bool,
    inactive: bool,
    description: Option<&'t str>,
    wrong: Option<(u32, String)>,
}

/// `set security policies ...`.
#[derive(Debug, Default)]
pub(super) struct Policies<'t> {
    policies: BTreeMap<Key<'t>, Policy<'t>>,
    order: Vec<Key<'t>>,
    /// Policies of which a line elsewhere says something that is not understood.
    doubtful: BTreeMap<Key<'t>, (u32, String)>,
    permit_all: Option<Line<'t>>,
}

impl<'t> Policies<'t> {
    /// Takes a `set` line in, or the `deactivate` of a whole policy.
    pub(super) fn line(source: &mut Source<'t>, line: Line<'t>, sheet: &mut Sheet) {
        let words = line.words.clone();
        let (key, rest) = match &words[3..] {
            ["from-zone", HOST, ..] | ["from-zone", _, "to-zone", HOST, ..] => {
                return sheet.not_taken(&line, OF_THE_HOST);
            }
            ["from-zone" | "global", ..] => match policy_of(&words[3..]) {
                Some(found) => found,
                None => return sheet.not_taken(&line, NO_SUCH),
            },
            ["default-policy", "permit-all"] => {
                source.policies.permit_all = Some(line);
                return;
            }
            ["default-policy", "deny-all"] => return sheet.taken(),
            _ => return sheet.not_taken(&line, NO_SUCH),
        };
        for zone in key.0.iter().flat_map(|(from, to)| [from, to]) {
            source.zone(zone);
        }
        let all = &mut source.policies;
        if !all.policies.contains_key(&key) {
            all.order.push(key);
        }
        let policy = all.policies.entry(key).or_default();
        // A `set` line may also end with the policy's name, and then it says nothing more.
        policy.inactive |= words[0] == "deactivate";
        if let Err(reason) = policy.set(rest) {
            policy.wrong.get_or_insert((line.number, reason));
        }
        policy.lines.push(line);
        let zones = policy.from.iter().chain(&policy.to).copied().collect::<Vec<_>>();
        zones.into_iter().for_each(|z| source.zone(z));
    }

    /// Remembers that `line` says something about a policy that is not understood.
    pub(super) fn doubt(&mut self, line: &Line<'t>, reason: &str) {
        if let [_, "security", "policies", rest @ ..] = line.words.as_slice()
            && let Some((key, _)) = policy_of(rest)
        {
            self.doubtful.entry(key).or_insert_with(|| (line.number, reason.to_owned()));
        }
    }

    /// Writes the rules in their order, global ones last, as the vendor tries them.
    pub(super) fn write(mut self, source: &mut Source<'t>, draft: &mut Draft, sheet: &mut Sheet) {
        let mut sets = Sets::default();
        let mut names: BTreeMap<(String, String), NameBook> = BTreeMap::new();
        let order = std::mem::take(&mut self.order);
        let (zoned, global): (Vec<_>, Vec<_>) = order.into_iter().partition(|(zones, _)| zones.is_some());
        for key in zoned.into_iter().chain(global) {
            let Some(mut policy) = self.policies.remove(&key) else { continue };
            policy.wrong = policy.wrong.or_else(|| self.doubtful.remove(&key));
            let rules = policy.resolve(key, source, draft, &mut sets);
            match rules {
                Ok(rules) => {
                    policy.lines.iter().for_each(|_| sheet.taken());
                    for mut rule in rules {
                        let book = names.entry((rule.from.clone(), rule.to.clone())).or_default();
                        rule.name = book.name(key.1, |_| true);
                        if rule.name != key.1 {
                            let what = format!("policy {} is called {}", key.1, rule.name);
                            sheet.note(&policy.lines[0], what);
                        }
                        draft.rule.push(rule);
                    }
                }
                Err((at, reason)) => policy.leave_out(key.1, at, &reason, sheet),
            }
        }
        if let Some(line) = self.permit_all {
            sheet.taken();
            let any = || vec!["any".to_owned()];
            let name =
                names.entry(("any".into(), "any".into())).or_default().name("default-policy", |_| true);
            draft.rule.push(Rule {
                name,
                from: "any".into(),
                to: "any".into(),
                source: any(),
                destination: any(),
                application: any(),
                action: "permit",
                ..Rule::default()
            });
            sheet.note(&line, "written as a last rule that permits everything between declared zones");
        }
    }
}

impl<'t> Policy<'t> {
    fn set(&mut self, words: &[&'t str]) -> Result<(), String> {
        match words {
            [] => {}
            ["description", text] => self.description = Some(text),
            ["match", "source-address", values @ ..] => self.source.extend(listed(values)),
            ["match", "destination-address", values @ ..] => self.destination.extend(listed(values)),
            ["match", "application", values @ ..] => self.application.extend(listed(values)),
            ["match", "from-zone" | "to-zone", values @ ..] if listed(values).contains(&HOST) => {
                return Err(OF_THE_HOST.into());
            }
            ["match", "from-zone", values @ ..] => self.from.extend(listed(values)),
            ["match", "to-zone", values @ ..] => self.to.extend(listed(values)),
            ["match", "source-identity" | "dynamic-application" | "url-category", "any" | "none"] => {}
            ["then", "permit"] => self.action = Some("permit"),
            ["then", "deny"] => self.action = Some("deny"),
            ["then", "reject"] => self.action = Some("reject"),
            ["then", "log", "session-init" | "session-close"] => self.log = true,
            ["then", "count"] => {}
            other => return Err(format!("`{}` has no counterpart here", other.join(" "))),
        }
        Ok(())
    }

    /// The rules that say the same: one, or one for each pair of zones that a global policy names.
    fn resolve(
        &self,
        key: Key<'t>,
        source: &mut Source<'t>,
        draft: &mut Draft,
        sets: &mut Sets,
    ) -> Result<Vec<Rule>, (u32, String)> {
        let at = self.lines[0].number;
        let wrong = |reason: String| (at, reason);
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let action = self.action.ok_or_else(|| wrong("no action is named".into()))?;
        let mut application = Vec::new();
        for name in &self.application {
            let found = source.applications.find(name, draft);
            let found = found.ok_or_else(|| wrong(format!("application {name} was not imported")))?;
            application.extend(found);
        }
        let (froms, tos) = match key.0 {
            Some((from, to)) => (vec![from], vec![to]),
            None => (or_any(&self.from), or_any(&self.to)),
        };
        if [&self.source, &self.destination, &self.application].iter().any(|list| list.is_empty()) {
            return Err(wrong("source, destination or application is not matched on".into()));
        }
        let mut rules = Vec::new();
        for from in &froms {
            for to in &tos {
                let unknown = |name: &str| wrong(format!("address {name} was not imported"));
                let resolve = |zone: &str, names: &[&str], sets: &mut Sets, draft: &mut Draft| {
                    let each =
                        names.iter().map(|n| sets.address(source, draft, zone, n).ok_or_else(|| unknown(n)));
                    each.collect::<Result<Vec<_>, _>>()
                };
                rules.push(Rule {
                    name: String::new(),
                    from: source.zone_name(from),
                    to: source.zone_name(to),
                    source: resolve(from, &self.source, sets, draft)?,
                    destination: resolve(to, &self.destination, sets, draft)?,
                    application: application.clone(),
                    action,
                    log: self.log,
                    enabled: self.inactive.then_some(false),
                    description: self.description.map(str::to_owned),
                });
            }
        }
        Ok(rules)
    }

    fn leave_out(&self, name: &str, at: u32, reason: &str, sheet: &mut Sheet) {
        let opens = match self.action {
            Some("permit") => "",
            _ => "; a later rule may permit what it denies",
        };
        for line in &self.lines {
            let why = if line.number == at {
                format!("{reason}{opens}")
            } else {
                format!("policy {name} is left out: line {at}, {reason}{opens}")
            };
            sheet.not_taken(line, why);
        }
    }
}

/// The policy that the words after `security policies` name, and what they say of it.
fn policy_of<'w, 't>(words: &'w [&'t str]) -> Option<(Key<'t>, &'w [&'t str])> {
    match words {
        ["from-zone", from, "to-zone", to, "policy", name, rest @ ..] => {
            Some(((Some((from, to)), name), rest))
        }
        ["global", "policy", name, rest @ ..] => Some(((None, name), rest)),
        _ => None,
    }
}

/// `value`, or `[ value value ]`.
fn listed<'t>(values: &[&'t str]) -> Vec<&'t str> {
    values.iter().map(|v| v.trim_matches(['[', ']'])).filter(|v| !v.is_empty()).collect()
}

fn or_any<'t>(zones: &[&'t str]) -> Vec<&'t str> {
    if zones.is_empty() { vec!["any"] } else { zones.to_vec() }
}

/// Address sets written so far, by book and name.
#[derive(Debug, Default)]
struct Sets {
    written: BTreeMap<(String, String), String>,
    names: NameBook,
}

impl Sets {
    fn address(&mut self, source: &Source<'_>, draft: &mut Draft, zone: &str, name: &str) -> Option<String> {
        match name {
            "any" => return Some("any".into()),
            "any-ipv4" => return Some("0.0.0.0/0".into()),
            "any-ipv6" => return Some("::/0".into()),
            _ => {}
        }
        let (book, prefixes) = source.books.find(zone, name)?;
        let key = (book.to_owned(), name.to_owned());
        if let Some(written) = self.written.get(&key) {
            return Some(written.clone());
        }
        let set = self.names.name(name, |n| n.parse::<std::net::IpAddr>().is_err());
        let prefixes = prefixes.iter().map(ToString::to_string).collect();
        draft.address_set.push(AddressSet { name: set.clone(), prefixes });
        self.written.insert(key, set.clone());
        Some(set)
    }
}
