//! From an engine's numbers to the names and units that operators read.

use crate::api::{Session, Wing, WingTcp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidegate_dataplane::addr::{ICMP_QUERY_PORT, Tuple, proto};
use tidegate_dataplane::engine::{SessionView, WingView};
use tidegate_dataplane::names::{AppId, Names};
use tidegate_dataplane::policy::Protocols;
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::session::owner::View;
use tidegate_dataplane::session::timeouts::TimeoutSource;

/// Protocols with a name.
pub(crate) const PROTOCOLS: [(&str, u8); 7] = [
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("icmp", proto::ICMP),
    ("icmpv6", proto::ICMPV6),
    ("sctp", proto::SCTP),
    ("gre", proto::GRE),
    ("esp", proto::ESP),
];

/// A protocol's name, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    let name = PROTOCOLS.iter().find(|(_, n)| *n == number);
    name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// What numbers are called.
pub struct NamesView {
    /// Zones, rules, applications.
    pub names: Arc<Names>,
    /// Ports by number.
    pub ports: Vec<String>,
    /// This node.
    pub node: String,
    /// Names of nodes by number, former ones too.
    pub nodes: BTreeMap<u16, String>,
    /// Who is there; `None` while the node is in no cluster.
    pub view: Option<Arc<View>>,
    /// Protocols whose sessions other nodes are told of.
    pub told: Option<Protocols>,
}

impl NamesView {
    /// A session as shown. `wall` is the time of day now.
    pub(crate) fn session(&self, v: &SessionView, worker: u16, wall: SystemTime) -> Session {
        let [forward, reply] = &v.wings;
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let started = wall.checked_sub(Duration::from_millis(v.duration_ms)).unwrap_or(wall);
        Session {
            id: v.id.to_string(),
            protocol: protocol_name(forward.tuple.protocol),
            protocol_number: forward.tuple.protocol,
            state: v.state.name().to_owned(),
            from_zone: self.names.zone_name(forward.zone).to_owned(),
            to_zone: self.names.zone_name(reply.zone).to_owned(),
            policy: self.names.rule_name(v.rule).to_owned(),
            revision: v.revision,
            application: (v.application != AppId(0))
                .then(|| self.names.application_name(v.application).to_owned()),
            timeout_s: v.timeout.and_then(|t| t.timeout_ms).map(seconds),
            timeout_source: v.timeout.map_or_else(|| "unknown".to_owned(), |t| source_name(t.source)),
            remaining_s: v.remaining_ms.map(seconds),
            idle_s: seconds(v.idle_ms),
            age_s: seconds(v.duration_ms),
            started_at: humantime::format_rfc3339_millis(started).to_string(),
            forward: self.wing(forward, reply),
            reply: self.wing(reply, forward),
            worker,
            origin: self.node_name(v.id.origin),
            owner: v.owner.map_or_else(|| self.node.clone(), |boot| self.node_name(boot.node)),
            replicas: self.replicas(v),
        }
    }

    /// A node's name; its number, if it was never heard of.
    fn node_name(&self, id: u16) -> String {
        match &self.view {
            Some(_) => self.nodes.get(&id).cloned().unwrap_or_else(|| id.to_string()),
            None => self.node.clone(),
        }
    }

    /// Nodes in sync beside the owner, which hold whatever is told; and this one, which holds what it shows.
    fn replicas(&self, v: &SessionView) -> Vec<String> {
        let (Some(view), Some(owner)) = (&self.view, v.owner) else { return Vec::new() };
        let told = v.shared || self.told.is_some_and(|p| p.holds(v.wings[0].tuple.protocol));
        let others = view.alive().iter().filter(|b| **b != owner);
        let hold = others.filter(|b| **b == view.me || (told && view.in_sync().contains(b)));
        hold.map(|b| self.node_name(b.node)).collect()
    }

    /// The logical name of a port.
    pub(crate) fn port(&self, port: Option<PortId>) -> Option<String> {
        port.and_then(|p| self.ports.get(usize::from(p.0)).cloned())
    }

    fn wing(&self, wing: &WingView, other: &WingView) -> Wing {
        let t = &wing.tuple;
        let f = &wing.facts;
        Wing {
            source: t.src.to_string(),
            source_port: shown_port(t, t.src_port),
            destination: t.dst.to_string(),
            destination_port: shown_port(t, t.dst_port),
            zone: self.names.zone_name(wing.zone).to_owned(),
            ingress_port: self.port(wing.ingress.or(other.egress)),
            egress_port: self.port(wing.egress),
            packets: wing.packets,
            bytes: wing.bytes,
            tcp: (t.protocol == proto::TCP).then(|| WingTcp {
                sequence_max: f.seq_max,
                acknowledgement_max: f.ack_max,
                window_bytes_max: f.window_max,
                window_scale: f.scale_plus_1.checked_sub(1),
                mss_bytes: (f.mss != 0).then_some(f.mss),
            }),
        }
    }
}

/// A port of a tuple as shown: `None` where the protocol has none. The far side of an ICMP query's
/// tuple holds no port, only the direction.
pub(crate) fn shown_port(tuple: &Tuple, port: u16) -> Option<u16> {
    match tuple.protocol {
        proto::TCP | proto::UDP | proto::SCTP => Some(port),
        proto::ICMP | proto::ICMPV6 => (port != ICMP_QUERY_PORT).then_some(port),
        _ => None,
    }
}

/// What set a timeout, as `session show` says it (F5).
pub(crate) fn source_name(source: TimeoutSource) -> String {
    match source {
        TimeoutSource::Application => "application".to_owned(),
        TimeoutSource::Rule => "rule".to_owned(),
        TimeoutSource::PortEntry(id) => format!("session_ttl.port {id}"),
        TimeoutSource::SessionTtlDefault => "session_ttl.default".to_owned(),
        TimeoutSource::PredefinedApplication => "predefined application".to_owned(),
        TimeoutSource::Protocol => "protocol".to_owned(),
        TimeoutSource::IcmpReply => "timeouts.icmp_reply".to_owned(),
        TimeoutSource::TcpInitial => "tcp.initial_timeout".to_owned(),
        TimeoutSource::TcpTimeWait => "tcp.time_wait".to_owned(),
        TimeoutSource::TcpLastAck => "tcp last ACK".to_owned(),
    }
}
