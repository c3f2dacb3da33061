//! What a file that is right may still get wrong: overlaps (F4), rules that never match, names that
//! nothing uses.

use super::matcher::Matcher;
use super::model::{AddressRef, ApplicationRef, PolicyFile, PortRange, PortTtl, ZoneRef};
use super::report::Reporter;
use super::shadow;
use super::ttl::precedence;
use std::collections::BTreeSet;

/// Adds every warning about a file without errors. Returns the rules that never match.
pub(super) fn find(file: &PolicyFile, matcher: &Matcher, r: &mut Reporter<'_>) -> BTreeSet<u32> {
    port_overlaps(&file.session_ttl.ports, r);
    let shadowed = shadow::find(file, matcher, r);
    unused(file, r);
    shadowed
}

/// F4.
fn port_overlaps(entries: &[PortTtl], r: &mut Reporter<'_>) {
    for (i, later) in entries.iter().enumerate() {
        for earlier in &entries[..i] {
            if !overlap(earlier, later) || r.warn_unworded() {
                continue;
            }
            let (winner, loser) =
                if precedence(earlier) < precedence(later) { (earlier, later) } else { (later, earlier) };
            let why = if winner.protocol != loser.protocol {
                "an exact protocol counts before 0 (any)"
            } else if precedence(winner).1 != precedence(loser).1 {
                "the narrower range counts"
            } else {
                "the lower id counts"
            };
            let message = format!(
                "session_ttl.port {} and {} overlap; where they do, {} is used: {why}",
                earlier.id, later.id, winner.id
            );
            r.warn(later.at, message, "make the ranges disjoint to say it in the file".to_string());
        }
    }
}

fn overlap(a: &PortTtl, b: &PortTtl) -> bool {
    let protocols = a.protocol == b.protocol || a.protocol == 0 || b.protocol == 0;
    let (p, q) = (a.ports.unwrap_or(PortRange::ALL), b.ports.unwrap_or(PortRange::ALL));
    // An entry with ports never covers a protocol without them.
    let portless = |e: &PortTtl| e.protocol != 0 && !super::ttl::PORT_PROTOCOLS.contains(&e.protocol);
    let kinds = !(a.ports.is_some() && portless(b) || b.ports.is_some() && portless(a));
    protocols && kinds && p.first <= q.last && q.first <= p.last
}

/// Zones, address sets and applications that no rule names.
fn unused(file: &PolicyFile, r: &mut Reporter<'_>) {
    if file.rules.is_empty() {
        r.warn(0, "there is no rule: everything is denied", "add a [[rule]]".to_string());
        return;
    }
    let mut zones = vec![false; file.zones.len()];
    let mut sets = vec![false; file.address_sets.len()];
    let mut applications = vec![false; file.applications.len()];
    for rule in &file.rules {
        for zone in [rule.from, rule.to] {
            match zone {
                ZoneRef::Any => zones.fill(true),
                ZoneRef::Zone(i) => zones[usize::from(i)] = true,
            }
        }
        for address in rule.source.iter().chain(&rule.destination) {
            if let AddressRef::Set(i) = address {
                sets[*i as usize] = true;
            }
        }
        for application in &rule.application {
            if let ApplicationRef::Own(i) = application {
                applications[usize::from(*i)] = true;
            }
        }
    }
    for (zone, _) in file.zones.iter().zip(zones).filter(|(_, used)| !used) {
        let message = format!("no rule names the zone `{}`: everything from and to it is denied", zone.name);
        r.warn(zone.at, message, None);
    }
    for (set, _) in file.address_sets.iter().zip(sets).filter(|(_, used)| !used) {
        r.warn(set.at, format!("no rule uses the address set `{}`", set.name), None);
    }
    for (application, _) in file.applications.iter().zip(applications).filter(|(_, used)| !used) {
        r.warn(application.at, format!("no rule uses the application `{}`", application.name), None);
    }
}
