//! Junos addresses and applications.

use super::super::model::Ttl;
use super::super::predefined;
use super::draft::{Application, Draft, NameBook, Term, Time};
use super::{Line, Sheet};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Sets within sets are followed so deep.
const DEPTH_MAX: u32 = 16;

/// One address book.
#[derive(Debug, Default)]
struct Book<'t> {
    addresses: BTreeMap<&'t str, Vec<IpNet>>,
    sets: BTreeMap<&'t str, Vec<&'t str>>,
}

/// All address books; one that is attached to no zone is everybody's.
#[derive(Debug, Default)]
pub(super) struct Books<'t> {
    books: BTreeMap<&'t str, Book<'t>>,
    attached: BTreeMap<&'t str, Vec<&'t str>>,
}

impl<'t> Books<'t> {
    /// `set security address-book BOOK ...`.
    pub(super) fn line(&mut self, book: &'t str, words: &[&'t str]) -> Result<(), String> {
        match words {
            ["attach", "zone", zone] => {
                self.attached.entry(zone).or_default().push(book);
                Ok(())
            }
            ["description", ..] => Err("an address book has no description here".into()),
            _ => self.books.entry(book).or_default().line(words),
        }
    }

    /// `set security zones security-zone ZONE address-book ...`: the older form, a book of the zone's own.
    pub(super) fn zone_line(&mut self, zone: &'t str, words: &[&'t str]) -> Result<(), String> {
        let books = self.attached.entry(zone).or_default();
        if !books.contains(&zone) {
            books.push(zone);
        }
        self.books.entry(zone).or_default().line(words)
    }

    /// The prefixes of an address or set as rules of that zone see it: the zone's books, then the global one.
    /// The first part of the answer is the book's name.
    pub(super) fn find(&self, zone: &str, name: &str) -> Option<(&'t str, Vec<IpNet>)> {
        let own = self.attached.get(zone).into_iter().flatten().copied();
        own.chain(["global"]).find_map(|book| {
            let mut found = BTreeSet::new();
            let (book, content) = self.books.get_key_value(book)?;
            content.collect(name, &mut found, DEPTH_MAX).then(|| (*book, found.into_iter().collect()))
        })
    }
}

impl<'t> Book<'t> {
    fn line(&mut self, words: &[&'t str]) -> Result<(), String> {
        match words {
            ["address", name, "range-address", first, "to", last] => {
                let prefixes = range(first, last).ok_or_else(|| format!("{first} to {last} is no range"))?;
                self.addresses.entry(name).or_default().extend(prefixes);
            }
            ["address", _, kind @ ("dns-name" | "wildcard-address"), ..] => {
                return Err(format!("{kind}: an address set holds prefixes only"));
            }
            ["address", _, "description", ..] | ["address-set", _, "description", ..] => {
                return Err("an imported address has no description here".into());
            }
            ["address", name, prefix] => {
                let net = parse_prefix(prefix).ok_or_else(|| format!("{prefix} is no prefix"))?;
                self.addresses.entry(name).or_default().push(net);
            }
            ["address-set", set, "address" | "address-set", member] => {
                self.sets.entry(set).or_default().push(member);
            }
            _ => return Err("no such setting of an address book here".into()),
        }
        Ok(())
    }

    fn collect(&self, name: &str, found: &mut BTreeSet<IpNet>, depth: u32) -> bool {
        if let Some(prefixes) = self.addresses.get(name) {
            found.extend(prefixes);
            return true;
        }
        let Some(members) = self.sets.get(name) else { return false };
        depth > 0 && members.iter().all(|m| self.collect(m, found, depth - 1))
    }
}

fn parse_prefix(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.ok().map(|n| n.trunc())
}

fn range(first: &str, last: &str) -> Option<Vec<IpNet>> {
    match (first.parse().ok()?, last.parse().ok()?) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => {
            Some(Ipv4Subnets::new(a, b, 0).map(IpNet::from).collect())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => {
            Some(Ipv6Subnets::new(a, b, 0).map(IpNet::from).collect())
        }
        _ => None,
    }
}

/// A custom application as it is read.
#[derive(Debug, Default)]
struct Custom<'t> {
    lines: Vec<Line<'t>>,
    description: Option<&'t str>,
    /// By term name; the application's own fields are the term without one.
    terms: Vec<(&'t str, TermRead)>,
    wrong: Option<(u32, String)>,
}

#[derive(Debug, Default, Clone)]
struct TermRead {
    term: Term,
    timeout: Option<Time>,
}

/// `set applications ...`.
#[derive(Debug, Default)]
pub(super) struct Applications<'t> {
    custom: BTreeMap<&'t str, Custom<'t>>,
    order: Vec<&'t str>,
    sets: BTreeMap<&'t str, Vec<&'t str>>,
    /// What rules write for an application of the source.
    names: BTreeMap<String, String>,
    book: NameBook,
}

impl<'t> Applications<'t> {
    pub(super) fn line(&mut self, line: Line<'t>, sheet: &mut Sheet) {
        let words = line.words.clone();
        match &words[2..] {
            ["application-set", set, "application" | "application-set", member] => {
                self.sets.entry(set).or_default().push(member);
                sheet.taken();
            }
            ["application", _, .., "application-protocol", _] | ["application", _, .., "alg", _] => {
                sheet.not_taken(&line, "there are no application helpers (ALG) here yet, so none is on");
            }
            ["application", name, rest @ ..] => {
                if !self.custom.contains_key(name) {
                    self.order.push(name);
                }
                let custom = self.custom.entry(name).or_default();
                if let Err(reason) = custom.set(rest) {
                    custom.wrong.get_or_insert((line.number, reason));
                }
                custom.lines.push(line);
            }
            _ => sheet.not_taken(&line, "no such setting of applications here"),
        }
    }

    /// Writes the custom applications; one with a line that is not understood is left out.
    pub(super) fn write(&mut self, draft: &mut Draft, sheet: &mut Sheet) {
        for name in std::mem::take(&mut self.order) {
            let Some(custom) = self.custom.get(name) else { continue };
            match custom.judge() {
                Ok((term, timeout)) => {
                    let own = self.book.name(name, |n| predefined::find(n).is_none());
                    if own != name {
                        sheet.note(&custom.lines[0], format!("application {name} is called {own}"));
                    }
                    custom.lines.iter().for_each(|_| sheet.taken());
                    self.names.insert(name.to_owned(), own.clone());
                    let description = custom.description.map(str::to_owned);
                    draft.application.push(Application {
                        name: own,
                        description,
                        inactivity_timeout: timeout,
                        term,
                    });
                }
                Err((at, reason)) => {
                    for line in &custom.lines {
                        let why = if line.number == at {
                            reason.clone()
                        } else {
                            format!("application {name} is left out: line {at}, {reason}")
                        };
                        sheet.not_taken(line, why);
                    }
                }
            }
        }
    }

    /// What a rule writes for an application or set of the source; `None` when there is no such thing here.
    pub(super) fn find(&mut self, name: &str, draft: &mut Draft) -> Option<Vec<String>> {
        let mut found = Vec::new();
        self.collect(name, draft, &mut found, DEPTH_MAX).then_some(found)
    }

    fn collect(&mut self, name: &str, draft: &mut Draft, found: &mut Vec<String>, depth: u32) -> bool {
        let written = match (self.names.get(name), name) {
            (Some(own), _) => Some(own.clone()),
            (None, "any") => Some("any".to_owned()),
            (None, _) if self.custom.contains_key(name) => None,
            (None, _) => self.predefined(name, draft),
        };
        if let Some(written) = written {
            if !found.contains(&written) {
                found.push(written);
            }
            return true;
        }
        let Some(members) = self.sets.get(name).cloned() else { return false };
        depth > 0 && members.into_iter().all(|m| self.collect(m, draft, found, depth - 1))
    }

    /// One of the vendor's predefined applications: ours where it is exactly the same, else one of the
    /// policy's own.
    fn predefined(&mut self, name: &str, draft: &mut Draft) -> Option<String> {
        if let Some((_, ours)) = SAME.iter().find(|(theirs, _)| *theirs == name) {
            return Some((*ours).to_owned());
        }
        let (_, terms) = JUNOS.iter().find(|(theirs, _)| *theirs == name)?;
        let own = self.book.name(name, |n| predefined::find(n).is_none());
        let term = terms
            .iter()
            .map(|(protocol, port)| Term {
                protocol: *protocol,
                destination_port: (!port.is_empty()).then(|| (*port).to_owned()),
                ..Term::default()
            })
            .collect();
        draft.application.push(Application { name: own.clone(), term, ..Application::default() });
        self.names.insert(name.to_owned(), own.clone());
        Some(own)
    }
}

impl<'t> Custom<'t> {
    fn set(&mut self, words: &[&'t str]) -> Result<(), String> {
        match words {
            [] => Ok(()),
            ["description", text] => {
                self.description = Some(text);
                Ok(())
            }
            ["term", name, fields @ ..] => self.fields(name, fields),
            fields => self.fields("", fields),
        }
    }

    fn fields(&mut self, term: &'t str, fields: &[&'t str]) -> Result<(), String> {
        let at = match self.terms.iter().position(|(name, _)| *name == term) {
            Some(at) => at,
            None => {
                self.terms.push((term, TermRead::default()));
                self.terms.len() - 1
            }
        };
        let t = &mut self.terms[at].1;
        for pair in fields.chunks(2) {
            match pair {
                ["protocol", p] => t.term.protocol = protocol(p)?,
                ["source-port", p] => t.term.source_port = Some(ports(p)?),
                ["destination-port", p] => t.term.destination_port = Some(ports(p)?),
                ["inactivity-timeout", "never"] => t.timeout = Some(Time(Ttl::Never)),
                ["inactivity-timeout", n] => {
                    t.timeout = Some(Time(Ttl::Seconds(super::number(n, 1..=2_764_800)?)));
                }
                ["alg" | "application-protocol", _] => {
                    return Err("there are no application helpers (ALG) here yet".into());
                }
                other => return Err(format!("`{}` cannot be matched on here", other.join(" "))),
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<(Vec<Term>, Option<Time>), (u32, String)> {
        let at = self.lines[0].number;
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let timeout = self.terms.iter().find_map(|(_, t)| t.timeout);
        if self.terms.iter().any(|(_, t)| t.timeout != timeout) {
            return Err((at, "its terms have different timeouts; here one application has one".into()));
        }
        if self.terms.is_empty() || self.terms.iter().any(|(_, t)| t.term.protocol == 0) {
            return Err((at, "no protocol is named".into()));
        }
        Ok((self.terms.iter().map(|(_, t)| t.term.clone()).collect(), timeout))
    }
}

fn protocol(text: &str) -> Result<u32, String> {
    const NAMES: [(&str, u32); 11] = [
        ("icmp", 1),
        ("igmp", 2),
        ("ipip", 4),
        ("tcp", 6),
        ("udp", 17),
        ("rsvp", 46),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmp6", 58),
        ("sctp", 132),
    ];
    match NAMES.iter().find(|(name, _)| *name == text) {
        Some((_, number)) => Ok(*number),
        None => super::number(text, 1..=255).map_err(|_| format!("protocol {text} is not known")),
    }
}

/// A port, a range, or one of the names that the vendor accepts for both.
fn ports(text: &str) -> Result<String, String> {
    const NAMES: [(&str, &str); 16] = [
        ("bgp", "179"),
        ("domain", "53"),
        ("ftp", "21"),
        ("http", "80"),
        ("https", "443"),
        ("imap", "143"),
        ("ldap", "389"),
        ("ntp", "123"),
        ("pop3", "110"),
        ("radius", "1812"),
        ("smtp", "25"),
        ("snmp", "161"),
        ("ssh", "22"),
        ("syslog", "514"),
        ("telnet", "23"),
        ("tftp", "69"),
    ];
    if let Some((_, port)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok((*port).to_owned());
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parsed = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    match parsed {
        Some((first, last)) if first == last => Ok(first.to_string()),
        Some((first, last)) if first < last => Ok(format!("{first}-{last}")),
        _ => Err(format!("`{text}` is no port")),
    }
}

/// The vendor's predefined applications that are exactly ours.
const SAME: &[(&str, &str)] = &[
    ("junos-ssh", "ssh"),
    ("junos-telnet", "telnet"),
    ("junos-ftp", "ftp"),
    ("junos-smtp", "smtp"),
    ("junos-tftp", "tftp"),
    ("junos-http", "http"),
    ("junos-https", "https"),
    ("junos-imap", "imap"),
    ("junos-imaps", "imaps"),
    ("junos-pop3", "pop3"),
    ("junos-ntp", "ntp"),
    ("junos-syslog", "syslog"),
    ("junos-bgp", "bgp"),
    ("junos-ldap", "ldap"),
    ("junos-rtsp", "rtsp"),
    ("junos-gre", "gre"),
    ("junos-tcp-any", "tcp-any"),
    ("junos-udp-any", "udp-any"),
];

/// Those that are not: protocol and destination ports of each term.
type Terms = &'static [(u32, &'static str)];
const JUNOS: &[(&str, Terms)] = &[
    ("junos-dns-udp", &[(17, "53")]),
    ("junos-dns-tcp", &[(6, "53")]),
    ("junos-ike", &[(17, "500")]),
    ("junos-ike-nat", &[(17, "4500")]),
    ("junos-sip", &[(17, "5060"), (6, "5060")]),
    ("junos-radius", &[(17, "1812")]),
    ("junos-radacct", &[(17, "1813")]),
    ("junos-tacacs", &[(6, "49")]),
    ("junos-ms-sql", &[(6, "1433")]),
    ("junos-nbname", &[(17, "137")]),
    ("junos-nbds", &[(17, "138")]),
    ("junos-smb", &[(6, "139"), (6, "445")]),
    ("junos-smb-session", &[(6, "445")]),
    ("junos-vnc", &[(6, "5800"), (6, "5900")]),
    ("junos-dhcp-client", &[(17, "68")]),
    ("junos-dhcp-server", &[(17, "67")]),
    ("junos-dhcp-relay", &[(17, "67")]),
    ("junos-icmp-all", &[(1, "")]),
    ("junos-icmp6-all", &[(58, "")]),
    ("junos-ospf", &[(89, "")]),
];
