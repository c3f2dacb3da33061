//! The filters' grammar: one for list, summary, clear and watch (J10, J11). README describes it.

use super::error::ApiError;
use super::units::{bytes, count, duration_ms};
use super::view::PROTOCOLS;
use crate::api::SessionQuery;
use crate::diagnostic::nearest;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use tidegate_dataplane::engine::{Bounds, PortRange, SessionFilter, Whose};
use tidegate_dataplane::names::{AppId, Names, RuleId, ZoneId};
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::session::State;

/// What the words of a filter can mean on this node.
pub(crate) struct Vocabulary {
    /// Zones, rules, applications.
    pub(crate) names: Arc<Names>,
    /// Name of each port, by number, and its network interface while it has one.
    pub(crate) ports: Vec<(String, Option<String>)>,
    /// Number and name of each node that has sessions, this one too.
    pub(crate) nodes: Vec<(u16, String)>,
}

/// A query as the engines understand it. What a query asks for and this node does not have is refused,
/// never passed over: a filter that is dropped would widen a clear.
pub(super) fn filter(query: &SessionQuery, known: &Vocabulary) -> Result<SessionFilter, ApiError> {
    // Destructured in full, so that a new key cannot be forgotten. `limit` and `sort` are a listing's.
    let SessionQuery {
        id,
        protocol: protocol_,
        source_prefix,
        destination_prefix,
        source_port,
        destination_port,
        interface: interface_,
        zone: zone_,
        policy,
        application: application_,
        family: family_,
        state: state_,
        owner,
        node,
        tunnel,
        resource_manager,
        min_duration,
        max_duration,
        min_remaining,
        max_remaining,
        min_packets,
        max_packets,
        min_bytes,
        max_bytes,
        limit: _,
        sort: _,
        local: _,
        view: _,
    } = query;
    refuse_unbuilt(*tunnel, *resource_manager)?;
    for (flag, text) in [("owner", owner), ("node", node)] {
        if let Some(text) = text {
            known.node(flag, text)?;
        }
    }
    let names = &*known.names;
    Ok(SessionFilter {
        id: given(id, |t| t.trim().parse().map_err(|e| ApiError::usage(format!("--id: {e}"))))?,
        protocol: given(protocol_, protocol)?,
        v4: given(family_, family)?,
        source: given(source_prefix, |p| prefix("source-prefix", p))?,
        destination: given(destination_prefix, |p| prefix("destination-prefix", p))?,
        source_port: given(source_port, |p| ports("source-port", p))?,
        destination_port: given(destination_port, |p| ports("destination-port", p))?,
        zone: given(zone_, |z| zone(z, names))?,
        state: given(state_, state)?,
        port: given(interface_, |i| known.interface(i))?,
        rules: given(policy, |p| rules(p, names))?,
        applications: given(application_, |a| application(a, names))?,
        duration_ms: bounds("duration", min_duration, max_duration, duration_ms)?,
        remaining_ms: bounds("remaining", min_remaining, max_remaining, duration_ms)?,
        packets: bounds("packets", min_packets, max_packets, count)?,
        bytes: bounds("bytes", min_bytes, max_bytes, bytes)?,
        whose: Whose::Anybodys,
    })
}

/// The same for a verb that takes all sessions that are meant, in no order.
pub(super) fn unordered(query: &SessionQuery, known: &Vocabulary) -> Result<SessionFilter, ApiError> {
    if query.limit.is_some() || query.sort.is_some() {
        return Err(ApiError::usage("--limit and --sort go with `session list` only"));
    }
    filter(query, known)
}

fn given<T>(
    text: &Option<String>,
    read: impl FnOnce(&str) -> Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    text.as_deref().map(read).transpose()
}

fn refuse_unbuilt(tunnel: bool, resource_manager: bool) -> Result<(), ApiError> {
    for (asked, flag, what) in [
        (tunnel, "tunnel", "tunnels are forwarded as GRE and ESP sessions and not ended here"),
        (resource_manager, "resource-manager", "there is no application-level helper"),
    ] {
        if asked {
            return Err(ApiError::usage(format!(
                "--{flag}: this version makes no such sessions: {what}\n  help: leave --{flag} out"
            )));
        }
    }
    Ok(())
}

impl Vocabulary {
    /// A node by its name or number.
    pub(super) fn node(&self, flag: &str, text: &str) -> Result<u16, ApiError> {
        let number = text.parse::<u16>().ok();
        let is_it = |(id, name): &&(u16, String)| name == text || Some(*id) == number;
        if let Some((id, _)) = self.nodes.iter().find(is_it) {
            return Ok(*id);
        }
        let known: Vec<String> =
            self.nodes.iter().map(|(id, name)| format!("{name} (number {id})")).collect();
        let help = match nearest(text, self.nodes.iter().map(|(_, name)| name.as_str())) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("one of: {}", known.join(", ")),
        };
        Err(ApiError::usage(format!("--{flag} {text}: no such node\n  help: {help}")))
    }

    /// A port by its own name or by that of its network interface.
    fn interface(&self, text: &str) -> Result<PortId, ApiError> {
        let by_name = self.ports.iter().position(|(name, _)| name == text);
        let by_interface = || self.ports.iter().position(|(_, ifname)| ifname.as_deref() == Some(text));
        if let Some(i) = by_name.or_else(by_interface) {
            return Ok(PortId(i as u8));
        }
        let all: Vec<&str> = self
            .ports
            .iter()
            .flat_map(|(name, ifname)| [Some(name.as_str()), ifname.as_deref()])
            .flatten()
            .collect();
        Err(unknown("interface", "interface", text, &all))
    }
}

/// An unknown word, with the nearest one that is known, or all of them.
fn unknown(flag: &str, what: &str, text: &str, known: &[&str]) -> ApiError {
    let help = match nearest(text, known.iter().copied()) {
        Some(word) => format!("did you mean {word}?"),
        None => format!("one of: {}", known.join(", ")),
    };
    ApiError::usage(format!("--{flag} {text}: no such {what}\n  help: {help}"))
}

fn bounds(
    what: &str,
    min: &Option<String>,
    max: &Option<String>,
    read: impl Fn(&str, &str) -> Result<u64, ApiError>,
) -> Result<Bounds, ApiError> {
    let min = given(min, |t| read(&format!("min-{what}"), t))?;
    let max = given(max, |t| read(&format!("max-{what}"), t))?;
    match (min, max) {
        (Some(low), Some(high)) if low > high => {
            Err(ApiError::usage(format!("--min-{what} is above --max-{what}: no session can be meant")))
        }
        _ => Ok(Bounds { min, max }),
    }
}

fn state(text: &str) -> Result<State, ApiError> {
    let plain = text.to_ascii_lowercase().replace('-', "_");
    let all = State::ALL.map(State::name);
    match State::ALL.into_iter().find(|s| s.name() == plain) {
        Some(state) => Ok(state),
        None => Err(unknown("state", "state", text, &all)),
    }
}

fn protocol(text: &str) -> Result<u8, ApiError> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == lower) {
        return Ok(*number);
    }
    lower.parse().map_err(|_| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(n, _)| *n).chain(["a number from 0 to 255"]).collect();
        unknown("protocol", "protocol", text, &names)
    })
}

/// A prefix; an address is a prefix of one. Host bits are of no account, as in the vendors' CLIs.
fn prefix(flag: &str, text: &str) -> Result<IpNet, ApiError> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map(|net| net.trunc()).map_err(|_| {
        ApiError::usage(format!(
            "--{flag} {text}: no prefix\n  help: such as 10.1.0.0/24, 10.1.0.7 or 2001:db8::/32"
        ))
    })
}

fn ports(flag: &str, text: &str) -> Result<PortRange, ApiError> {
    let parse = |s: &str| s.trim().parse::<u16>().ok();
    let range = match text.split_once('-') {
        Some((first, last)) => parse(first).zip(parse(last)),
        None => parse(text).map(|p| (p, p)),
    };
    match range {
        Some((first, last)) if first <= last => Ok(PortRange { first, last }),
        _ => Err(ApiError::usage(format!(
            "--{flag} {text}: no port\n  help: a number from 0 to 65535, or a range such as 8000-8099"
        ))),
    }
}

fn zone(text: &str, names: &Names) -> Result<ZoneId, ApiError> {
    names.find_zone(text).ok_or_else(|| {
        let known: Vec<&str> =
            (0..u16::MAX).map(|n| names.zone_name(ZoneId(n))).take_while(|n| *n != "?").collect();
        unknown("zone", "zone", text, &known)
    })
}

fn family(text: &str) -> Result<bool, ApiError> {
    match text {
        "ipv4" => Ok(true),
        "ipv6" => Ok(false),
        _ => Err(ApiError::usage(format!("--family {text}: no such family\n  help: ipv4 or ipv6"))),
    }
}

fn application(text: &str, names: &Names) -> Result<Vec<AppId>, ApiError> {
    // Number 0 is "none".
    let all =
        || (1..u16::MAX).map(|n| (AppId(n), names.application_name(AppId(n)))).take_while(|(_, n)| *n != "?");
    match all().find(|(_, name)| *name == text) {
        Some((id, _)) => Ok(vec![id]),
        None => Err(unknown("application", "application", text, &all().map(|(_, n)| n).collect::<Vec<_>>())),
    }
}

/// Every rule of that name: `from/to/name`, or `name` in all zones. Rules of earlier revisions count:
/// their sessions may still live.
fn rules(text: &str, names: &Names) -> Result<Vec<RuleId>, ApiError> {
    let all =
        || (0..u32::MAX).map(|n| (RuleId(n), names.rule_name(RuleId(n)))).take_while(|(_, n)| *n != "?");
    let short = |name: &str| name.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let found: Vec<RuleId> =
        all().filter(|(_, name)| *name == text || short(name) == text).map(|(id, _)| id).collect();
    if found.is_empty() {
        let known: Vec<String> = all().map(|(_, n)| n.to_owned()).collect();
        let shorts: Vec<String> = known.iter().map(|n| short(n)).collect();
        let help = match nearest(text, known.iter().chain(&shorts).map(String::as_str)) {
            Some(r) => format!("did you mean {r}?"),
            None => "see `tidegate policy show`".to_owned(),
        };
        return Err(ApiError::usage(format!("--policy {text}: no such rule\n  help: {help}")));
    }
    Ok(found)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
