//! The filters' grammar: one for list, summary and clear (J10, J11).

use super::error::ApiError;
use super::view::PROTOCOLS;
use crate::api::SessionQuery;
use crate::diagnostic::nearest;
use ipnet::IpNet;
use std::net::IpAddr;
use tidegate_dataplane::engine::{PortRange, SessionFilter};
use tidegate_dataplane::names::{AppId, Names, RuleId, ZoneId};

/// A query as the engines understand it.
pub(super) fn filter(query: &SessionQuery, names: &Names) -> Result<SessionFilter, ApiError> {
    let parse = |text: &Option<String>| text.as_deref().map(str::trim).map(str::to_owned);
    Ok(SessionFilter {
        id: parse(&query.id).map(|id| id.parse().map_err(|e| ApiError::usage(format!("{e}")))).transpose()?,
        protocol: query.protocol.as_deref().map(protocol).transpose()?,
        v4: query.family.as_deref().map(family).transpose()?,
        source: query.source_prefix.as_deref().map(|p| prefix("source-prefix", p)).transpose()?,
        destination: query
            .destination_prefix
            .as_deref()
            .map(|p| prefix("destination-prefix", p))
            .transpose()?,
        source_port: query.source_port.as_deref().map(|p| ports("source-port", p)).transpose()?,
        destination_port: query
            .destination_port
            .as_deref()
            .map(|p| ports("destination-port", p))
            .transpose()?,
        zone: query.zone.as_deref().map(|z| zone(z, names)).transpose()?,
        rules: query.policy.as_deref().map(|p| rules(p, names)).transpose()?,
        applications: query.application.as_deref().map(|a| application(a, names)).transpose()?,
    })
}

fn protocol(text: &str) -> Result<u8, ApiError> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == lower) {
        return Ok(*number);
    }
    lower.parse().map_err(|_| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(n, _)| *n).collect();
        let help = match nearest(&lower, names.iter().copied()) {
            Some(n) => format!("did you mean {n}?"),
            None => format!("one of {}, or a number from 0 to 255", names.join(", ")),
        };
        ApiError::usage(format!("--protocol {text}: no such protocol\n  help: {help}"))
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
        let help = match nearest(text, known.iter().copied()) {
            Some(z) => format!("did you mean {z}?"),
            None => format!("zones: {}", known.join(", ")),
        };
        ApiError::usage(format!("--zone {text}: no such zone\n  help: {help}"))
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
        None => {
            let help = match nearest(text, all().map(|(_, n)| n)) {
                Some(a) => format!("did you mean {a}?"),
                None => "see `tidegate policy show`".to_owned(),
            };
            Err(ApiError::usage(format!("--application {text}: no such application\n  help: {help}")))
        }
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
mod tests {
    use super::*;

    fn names() -> Names {
        let mut n = Names::default();
        n.zone("trust").unwrap();
        n.rule("trust/untrust/web").unwrap();
        n.rule("dmz/untrust/web").unwrap();
        n.application("http").unwrap();
        n
    }

    fn query(change: impl FnOnce(&mut SessionQuery)) -> Result<SessionFilter, ApiError> {
        let mut q = SessionQuery::default();
        change(&mut q);
        filter(&q, &names())
    }

    #[test]
    fn j10_filters_are_read() {
        // Each line fails if its filter is dropped or read as another.
        assert_eq!(query(|_| {}).unwrap(), SessionFilter::default());
        assert_eq!(query(|q| q.protocol = Some("TCP".into())).unwrap().protocol, Some(6));
        assert_eq!(query(|q| q.protocol = Some("89".into())).unwrap().protocol, Some(89));
        let range = Some(PortRange { first: 8000, last: 8099 });
        assert_eq!(query(|q| q.destination_port = Some("8000-8099".into())).unwrap().destination_port, range);
        let one = query(|q| q.source_prefix = Some("10.0.0.1".into())).unwrap();
        assert_eq!(one.source.unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(query(|q| q.family = Some("ipv6".into())).unwrap().v4, Some(false));
        let http = query(|q| q.application = Some("http".into())).unwrap();
        assert_eq!(http.applications, Some(vec![AppId(1)]));
        assert_eq!(query(|q| q.zone = Some("trust".into())).unwrap().zone, Some(ZoneId(0)));
        assert_eq!(query(|q| q.policy = Some("web".into())).unwrap().rules, Some(vec![RuleId(0), RuleId(1)]));
        let full = query(|q| q.policy = Some("dmz/untrust/web".into())).unwrap();
        assert_eq!(full.rules, Some(vec![RuleId(1)]));
    }

    #[test]
    fn nonsense_is_refused_not_ignored() {
        // A filter that is silently dropped would make `clear` clear everything.
        for change in [
            (|q: &mut SessionQuery| q.protocol = Some("tpc".into())) as fn(&mut SessionQuery),
            |q| q.source_prefix = Some("10.0.0.0/33".into()),
            |q| q.destination_port = Some("99-1".into()),
            |q| q.source_port = Some("65536".into()),
            |q| q.zone = Some("tryst".into()),
            |q| q.policy = Some("wob".into()),
            |q| q.application = Some("htp".into()),
            |q| q.family = Some("ipx".into()),
            |q| q.id = Some("1-2".into()),
        ] {
            assert!(query(change).is_err());
        }
    }
}
