//! Junos `set` lines: flow settings here, objects and policies in the files beside.

use super::draft::{Draft, Mss, NameBook, Tcp, TimeWait, Zone};
use super::junos_objects::{Applications, Books};
use super::junos_rules::Policies;
use super::{Line, Sheet, number};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Why a setting that exists on the other side has no counterpart yet.
const NO_TUNNELS: &str = "there are no tunnels here yet";
const NO_AGEING: &str = "aggressive ageing is not built yet";
const NO_HELPERS: &str = "there are no application helpers (ALG) here yet";
const INACTIVE: &str = "inactive in the source (`deactivate`)";
const DEACTIVATES_NOTHING: &str = "no `set` line begins with what it deactivates";
const OTHER: &str = "only security flow, zones, address books, policies and applications are read";

/// Everything of the source that rules refer to.
#[derive(Default)]
pub(super) struct Source<'t> {
    pub(super) tcp: Tcp,
    pub(super) tcp_seen: bool,
    pub(super) mss: Option<Mss>,
    /// In the order in which they are first named, with the name that the file has for each.
    zones: Vec<(&'t str, String)>,
    zone_names: NameBook,
    pub(super) books: Books<'t>,
    pub(super) applications: Applications<'t>,
    pub(super) policies: Policies<'t>,
}

impl<'t> Source<'t> {
    /// Remembers a zone.
    pub(super) fn zone(&mut self, name: &'t str) {
        if name != "any" && !self.zones.iter().any(|(zone, _)| *zone == name) {
            let own = self.zone_names.name(name, |_| true);
            self.zones.push((name, own));
        }
    }

    /// A zone as the policy file calls it.
    pub(super) fn zone_name(&self, zone: &str) -> String {
        let known = self.zones.iter().find(|(name, _)| *name == zone);
        known.map_or("any", |(_, own)| own).to_owned()
    }
}

pub(super) fn read(text: &str, sheet: &mut Sheet) -> Draft {
    let mut source = Source::default();
    let inactive = Inactive::read(text);
    for line in Line::all(text) {
        if inactive.holds(&line.words) {
            sheet.not_taken(&line, INACTIVE);
            continue;
        }
        match line.words.as_slice() {
            ["deactivate", rest @ ..] if !inactive.names_a_line(rest) => {
                source.policies.doubt(&line, DEACTIVATES_NOTHING);
                sheet.not_taken(&line, DEACTIVATES_NOTHING);
            }
            ["deactivate", rest @ ..] if !is_policy(rest) => sheet.taken(),
            ["set", "security", "flow", rest @ ..] => {
                let rest = rest.to_vec();
                match flow(&mut source, &rest) {
                    Ok(()) => sheet.taken(),
                    Err(reason) => sheet.not_taken(&line, reason),
                }
            }
            ["set", "security", "policies", ..] | ["deactivate", "security", "policies", ..] => {
                Policies::line(&mut source, line, sheet);
            }
            ["set", "security", "zones", "security-zone", name, rest @ ..] => {
                let (name, rest) = (*name, rest.to_vec());
                source.zone(name);
                zone(&mut source, name, &rest, &line, sheet);
            }
            ["set", "security", "address-book", book, rest @ ..] => {
                let (book, rest) = (*book, rest.to_vec());
                match source.books.line(book, &rest) {
                    Ok(()) => sheet.taken(),
                    Err(reason) => sheet.not_taken(&line, reason),
                }
            }
            ["set", "applications", ..] => source.applications.line(line, sheet),
            ["set", "security", "alg", ..] => sheet.not_taken(&line, NO_HELPERS),
            _ => sheet.not_taken(&line, OTHER),
        }
    }
    write(source, sheet)
}

/// What `deactivate` lines name, whichever line they come after: to the vendor it is as if it were not there.
struct Inactive<'t> {
    /// Without whole policies: such a one keeps its place, as a rule that is not enabled.
    named: BTreeSet<Vec<&'t str>>,
    /// All `set` lines, if anything is deactivated.
    set: BTreeSet<Vec<&'t str>>,
}

impl<'t> Inactive<'t> {
    fn read(text: &'t str) -> Self {
        let after = |verb: &'static str| {
            let lines = Line::all(text).filter(move |line| line.words[0] == verb && line.words.len() > 1);
            lines.map(|line| line.words[1..].to_vec())
        };
        let named: BTreeSet<_> = after("deactivate").collect();
        let set = if named.is_empty() { BTreeSet::new() } else { after("set").collect() };
        Inactive { named: named.into_iter().filter(|words| !is_policy(words)).collect(), set }
    }

    fn holds(&self, words: &[&'t str]) -> bool {
        !self.named.is_empty()
            && words.first() == Some(&"set")
            && (2..=words.len()).any(|end| self.named.contains(&words[1..end]))
    }

    /// Whether there is a `set` line that begins with these words: the least one that is not below them would.
    fn names_a_line(&self, words: &[&'t str]) -> bool {
        let from = (Bound::Included(words), Bound::Unbounded);
        !words.is_empty()
            && self.set.range::<[&str], _>(from).next().is_some_and(|set| set.starts_with(words))
    }
}

/// Whether these words name a policy as a whole.
fn is_policy(words: &[&str]) -> bool {
    matches!(
        words,
        ["security", "policies", "from-zone", _, "to-zone", _, "policy", _]
            | ["security", "policies", "global", "policy", _]
    )
}

fn write(mut source: Source<'_>, sheet: &mut Sheet) -> Draft {
    let mut draft = Draft {
        tcp: source.tcp_seen.then(|| source.tcp.clone()),
        mss: source.mss.take(),
        ..Draft::default()
    };
    source.applications.write(&mut draft, sheet);
    let policies = std::mem::take(&mut source.policies);
    policies.write(&mut source, &mut draft, sheet);
    draft.zone = source.zones.into_iter().map(|(_, name)| Zone { name }).collect();
    draft
}

/// `set security flow ...` (J4 to J8).
fn flow(source: &mut Source<'_>, words: &[&str]) -> Result<(), String> {
    let tcp = &mut source.tcp;
    match words {
        ["tcp-session", "rst-invalidate-session"] => tcp.rst_invalidate = Some(true),
        ["tcp-session", "fin-invalidate-session"] => tcp.fin_invalidate = Some(true),
        ["tcp-session", "no-syn-check"] => tcp.syn_check = Some(false),
        ["tcp-session", "strict-syn-check"] => tcp.strict_syn_check = Some(true),
        ["tcp-session", "no-sequence-check"] => tcp.sequence_check = Some(false),
        ["tcp-session", "rst-sequence-check"] => tcp.rst_sequence_check = Some(true),
        ["tcp-session", "no-syn-check-in-tunnel"] => return Err(NO_TUNNELS.into()),
        ["tcp-session", "tcp-initial-timeout", n] => tcp.initial_timeout = Some(number(n, 4..=300)?),
        ["tcp-session", "time-wait-state", "session-timeout", n] => {
            tcp.time_wait = Some(TimeWait::Seconds(number(n, 2..=600)?));
        }
        ["tcp-session", "time-wait-state", "session-ageout"] => {
            tcp.time_wait = Some(TimeWait::Word("ageout"));
        }
        ["tcp-session", "time-wait-state", "apply-to-half-close-state"] => {
            tcp.half_close_time_wait = Some(true);
        }
        ["tcp-mss", "all-tcp", "mss", n] => {
            source.mss = Some(Mss { all_tcp: number(n, 64..=65_535)? });
            return Ok(());
        }
        ["tcp-mss", ..] => return Err(NO_TUNNELS.into()),
        ["aging", ..] => return Err(NO_AGEING.into()),
        _ => return Err("no such setting here".into()),
    }
    source.tcp_seen = true;
    Ok(())
}

/// `set security zones security-zone NAME ...`.
fn zone<'t>(source: &mut Source<'t>, name: &'t str, words: &[&'t str], line: &Line<'t>, sheet: &mut Sheet) {
    let result = match words {
        [] => Ok(()),
        ["address-book", rest @ ..] => source.books.zone_line(name, rest),
        ["interfaces", ..] => Err("which port is in which zone is said in each node's configuration".into()),
        ["host-inbound-traffic", ..] => Err("it is about traffic to the firewall itself".into()),
        ["tcp-rst"] => Err("a rule's own tcp_rst does that here".into()),
        _ => Err("no such setting of a zone here".into()),
    };
    match result {
        Ok(()) => sheet.taken(),
        Err(reason) => sheet.not_taken(line, reason),
    }
}
