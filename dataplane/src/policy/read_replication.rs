//! Reads `[replication]`, and what of it a rule says for itself. Checks the inequalities of
//! `spec/replication.md` as far as a file can know them.

use super::fields;
use super::model::PolicyFile;
use super::reader::{Keys, Section, Value, at, kind};
use super::replication::{DETECTION_MS_MAX, FLUSH_MS, OnTimeout, Protocols, ReplicationSettings, SetupAck};
use super::report::{Reporter, quote};
use super::suggest::nearest;
use super::{Action, Ttl};
use toml::de::DeValue;

const REPLICATION: Keys = Keys {
    known: &[
        "heartbeat_interval_ms",
        "heartbeat_misses",
        "setup_ack",
        "setup_ack_timeout_ms",
        "setup_ack_on_timeout",
        "park_ms",
        "protocols",
        "min_age_s",
    ],
    later: &[],
    node: &[],
};

/// TCP's first retransmission timeout (RFC 6298 section 2).
const TCP_FIRST_RTO_MS: u32 = 1000;

pub(super) fn replication(root: &Section<'_>, r: &mut Reporter<'_>) -> ReplicationSettings {
    let mut s = ReplicationSettings::default();
    let Some((at, table)) = root.table("replication", r) else { return s };
    let section = Section::open(table, at, "[replication]".into(), REPLICATION, r);
    for (key, range, value) in [
        ("heartbeat_interval_ms", 5..=1000, &mut s.heartbeat_interval_ms),
        ("heartbeat_misses", 2..=100, &mut s.heartbeat_misses),
        ("setup_ack_timeout_ms", FLUSH_MS + 1..=5000, &mut s.setup_ack_timeout_ms),
        ("min_age_s", 0..=3600, &mut s.min_age_s),
    ] {
        if let Some(n) = section.integer(key, range, r) {
            *value = n;
        }
    }
    s.setup_ack = setup_ack(&section, r).unwrap_or_default();
    let choices = [("release", OnTimeout::Release), ("drop", OnTimeout::Drop)];
    s.setup_ack_on_timeout = one_of(&section, "setup_ack_on_timeout", &choices, r).unwrap_or_default();
    s.park_ms = section.integer("park_ms", 0..=1000, r);
    if let Some(value) = section.get("protocols")
        && let Some(protocols) = protocols(value, r)
    {
        s.protocols = protocols;
    }
    inequalities(&section, &s, r);
    s
}

/// `setup_ack`, of the section or of a rule.
fn setup_ack(section: &Section<'_>, r: &mut Reporter<'_>) -> Option<SetupAck> {
    let choices = [("none", SetupAck::None), ("one", SetupAck::One), ("all", SetupAck::All)];
    one_of(section, "setup_ack", &choices, r)
}

fn one_of<T: Copy>(
    section: &Section<'_>,
    key: &str,
    choices: &[(&str, T)],
    r: &mut Reporter<'_>,
) -> Option<T> {
    let (at, text) = section.string(key, r)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
    let help = match nearest(text, choices.iter().map(|(name, _)| *name), &mut r.comparisons_left) {
        Some(guess) => format!("did you mean \"{guess}\"?"),
        None => format!("write {}", names.join(" or ")),
    };
    let message = format!("`{key}` in {} is {}, not {}", section.label, quote(text), names.join(" or "));
    r.error(at, message, help);
    None
}

/// Names and numbers, or `"any"`.
fn protocols(value: Value<'_>, r: &mut Reporter<'_>) -> Option<Protocols> {
    let items = match value.get_ref() {
        DeValue::String(text) if text == "any" => return Some(Protocols::ALL),
        DeValue::Array(items) => items,
        _ => {
            let message = format!("`protocols` in [replication] is {}, not a list", kind(value));
            let help = "write protocols = [\"tcp\", \"udp\"], or \"any\"";
            r.error(at(value), message, help.to_string());
            return None;
        }
    };
    if items.is_empty() {
        let message = "`protocols` in [replication] is empty: no session would be replicated";
        r.error(at(value), message, "list protocols, or set sync = false in rules".to_string());
        return None;
    }
    let mut found = Protocols::NONE;
    for item in items.iter() {
        let protocol = fields::protocol(item, 0, "`protocols` of [replication]", r)?;
        if !found.add(protocol) {
            let message = format!("protocol {protocol} stands twice in `protocols` of [replication]");
            r.warn(at(item), message, None);
        }
    }
    Some(found)
}

/// What of the settings must be longer than what. Round trips are unknown here: they count as nothing.
fn inequalities(section: &Section<'_>, s: &ReplicationSettings, r: &mut Reporter<'_>) {
    let detection_ms = s.detection_ms();
    if detection_ms > DETECTION_MS_MAX {
        let message = format!(
            "a dead node would be seen after {detection_ms} ms (heartbeat_interval_ms x heartbeat_misses), \
             which is above {DETECTION_MS_MAX} ms"
        );
        r.error(place(section, HEARTBEAT), message, "lower one of the two".to_string());
    }
    match s.park_ms {
        Some(ms @ 1..=FLUSH_MS) => {
            let message = format!(
                "`park_ms` is {ms}: a packet would be dropped before its session can come, as peers are told \
                 within {FLUSH_MS} ms and a round trip"
            );
            let help = "20 or more, above the round trip between the nodes; 0 switches parking off; \
                        left out, it follows the measured round trip";
            r.error(place(section, &["park_ms"]), message, help.to_string());
        }
        Some(ms @ 1..20) => {
            let message = format!(
                "`park_ms` is {ms}, which must be longer than the round trip between the nodes and the flush \
                 interval of {FLUSH_MS} ms together"
            );
            let help = "left out, it follows the measured round trip, from 20 to 200 ms";
            r.warn(place(section, &["park_ms"]), message, help.to_string());
        }
        _ => {}
    }
}

const HEARTBEAT: &[&str] = &["heartbeat_misses", "heartbeat_interval_ms"];

/// Where the first of the keys stands that is written, or the section.
fn place(section: &Section<'_>, keys: &[&str]) -> usize {
    keys.iter().find_map(|key| section.get(key)).map_or(section.at, at)
}

/// What the settings and the rest of the file say together.
pub(super) fn check(root: &Section<'_>, file: &PolicyFile, r: &mut Reporter<'_>) {
    let Some(table) = root.get("replication") else { return };
    let written = |key: &str| table.get_ref().as_table().and_then(|t| t.get(key)).map(at);
    let s = &file.replication;
    let detection_ms = s.detection_ms();
    let heartbeat = HEARTBEAT.iter().find_map(|key| written(key)).unwrap_or_else(|| at(table));
    if let Some((seconds, what)) = shortest(file).filter(|(seconds, _)| seconds * 1000 <= detection_ms) {
        let message = format!(
            "a dead node is seen after {detection_ms} ms, but sessions may idle for {seconds} s only ({what}): \
             they would be over before anybody else may decide so"
        );
        r.error(heartbeat, message, "lower heartbeat_interval_ms x heartbeat_misses below it".to_string());
    }
    let holds = |ack: SetupAck| ack != SetupAck::None;
    if holds(s.setup_ack) || file.rules.iter().any(|rule| rule.setup_ack.is_some_and(holds)) {
        held(&written, s, r);
    } else {
        for key in ["setup_ack_timeout_ms", "setup_ack_on_timeout"] {
            if let Some(at) = written(key) {
                let message = format!("`{key}` has no effect: no first packet waits for peers");
                r.warn(at, message, "set setup_ack = \"one\" or \"all\", here or in a rule".to_string());
            }
        }
    }
}

/// First packets wait: for how long, beside what else takes time.
fn held(written: &dyn Fn(&str) -> Option<usize>, s: &ReplicationSettings, r: &mut Reporter<'_>) {
    let (timeout_ms, detection_ms) = (s.setup_ack_timeout_ms, s.detection_ms());
    let place = ["setup_ack_timeout_ms", "setup_ack_on_timeout", "setup_ack"].iter().find_map(|k| written(k));
    let place = place.unwrap_or(0);
    if timeout_ms >= TCP_FIRST_RTO_MS {
        let message = format!(
            "`setup_ack_timeout_ms` is {timeout_ms}: clients repeat a SYN after {TCP_FIRST_RTO_MS} ms already"
        );
        r.warn(place, message, None);
    }
    if s.setup_ack_on_timeout == OnTimeout::Drop && timeout_ms <= detection_ms {
        let message = format!(
            "`setup_ack_timeout_ms` is {timeout_ms}, and a dead peer is seen after {detection_ms} ms only: until \
             then new flows that wait for it are dropped"
        );
        let help = format!("set it above {detection_ms}, or setup_ack_on_timeout = \"release\"");
        r.warn(place, message, help);
    }
}

/// The shortest idle timeout that the file gives to replicated sessions, and what sets it.
fn shortest(file: &PolicyFile) -> Option<(u32, String)> {
    let seconds = |ttl: Option<Ttl>| match ttl {
        Some(Ttl::Seconds(s)) => Some(s),
        _ => None,
    };
    let t = &file.timeouts;
    let protocols = &file.replication.protocols;
    let icmp = protocols.holds(1) || protocols.holds(58);
    let by_protocol = [
        (protocols.holds(6), t.tcp_s, "timeouts.tcp"),
        (protocols.holds(6), file.tcp.initial_timeout_s, "tcp.initial_timeout"),
        (protocols.holds(17), t.udp_s, "timeouts.udp"),
        (protocols.holds(132), t.sctp_s, "timeouts.sctp"),
        (icmp, t.icmp_s, "timeouts.icmp"),
        (icmp, t.icmp_reply_s, "timeouts.icmp_reply"),
        (true, t.other_s, "timeouts.other"),
    ];
    let by_protocol =
        by_protocol.into_iter().filter(|(on, ..)| *on).map(|(_, s, what)| (s, what.to_string()));
    let ports = file.session_ttl.ports.iter();
    let ports = ports.filter_map(|p| Some((seconds(Some(p.timeout))?, format!("session_ttl.port {}", p.id))));
    let applications = file.applications.iter();
    let applications = applications
        .filter_map(|a| Some((seconds(a.inactivity_timeout)?, format!("application `{}`", a.name))));
    let rules = file.rules.iter().filter(|rule| rule.sync != Some(false));
    let rules = rules.filter_map(|r| Some((seconds(r.session_ttl)?, format!("rule `{}`", r.name))));
    by_protocol.chain(ports).chain(applications).chain(rules).min_by_key(|(s, _)| *s)
}

/// `sync` and `setup_ack` of a rule.
pub(super) fn of_rule(
    section: &Section<'_>,
    action: Option<Action>,
    r: &mut Reporter<'_>,
) -> (Option<bool>, Option<SetupAck>) {
    let sync = section.boolean("sync", r);
    let ack = setup_ack(section, r);
    for key in ["sync", "setup_ack"] {
        if let (Some(Action::Deny | Action::Reject), Some(value)) = (action, section.get(key)) {
            let message = format!("`{key}` in {} goes with action = \"permit\" only", section.label);
            r.error(at(value), message, "remove it; the rule sets up no session".to_string());
        }
    }
    if let (Some(false), Some(SetupAck::One | SetupAck::All), Some(value)) =
        (sync, ack, section.get("setup_ack"))
    {
        let message = format!("`setup_ack` in {} waits for peers that `sync` keeps out", section.label);
        r.error(at(value), message, "set sync = true, or setup_ack = \"none\"".to_string());
    }
    (sync, ack)
}
