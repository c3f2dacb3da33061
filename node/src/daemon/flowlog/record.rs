//! From an engine's event to the names and times that operators read.

use crate::api::{FlowRecord, WatchLine};
use crate::control::view::{NamesView, protocol_name, shown_port};
use std::time::{Duration, Instant, SystemTime};
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::engine::{Happened, RefusedFlow, SessionEvent};
use tidegate_dataplane::names::AppId;
use tidegate_dataplane::time::Now;

/// The engines' clock, and how to get from it to the time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Zero of the engines' clock.
    pub(crate) start: Instant,
}

impl Clock {
    /// The time of day of an engine's `at`, by the time of day now.
    fn wall(self, at: Now) -> SystemTime {
        let since = (self.start.elapsed().as_millis() as u64).saturating_sub(at.0);
        let now = SystemTime::now();
        now.checked_sub(Duration::from_millis(since)).unwrap_or(now)
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn flow(names: &NamesView, tuple: &Tuple, at: SystemTime) -> FlowRecord {
    FlowRecord {
        time: rfc3339(at),
        node: names.node.clone(),
        protocol: protocol_name(tuple.protocol),
        protocol_number: tuple.protocol,
        source: tuple.src.to_string(),
        source_port: shown_port(tuple, tuple.src_port),
        destination: tuple.dst.to_string(),
        destination_port: shown_port(tuple, tuple.dst_port),
        ..FlowRecord::default()
    }
}

fn application(names: &NamesView, id: AppId) -> Option<String> {
    (id != AppId(0)).then(|| names.names.application_name(id).to_owned())
}

/// A record of an event in a session's life.
pub(crate) fn session(e: &SessionEvent, names: &NamesView, clock: Clock) -> FlowRecord {
    let at = clock.wall(e.at);
    let lived = Duration::from_millis(e.at.since(e.created));
    FlowRecord {
        id: Some(e.id.to_string()),
        state: Some(e.state.name().to_owned()),
        previous_state: match e.what {
            Happened::Changed { from } => Some(from.name().to_owned()),
            _ => None,
        },
        reason: match e.what {
            Happened::Ended(reason) => Some(reason.name().to_owned()),
            _ => None,
        },
        from_zone: names.names.zone_name(e.zones[0]).to_owned(),
        to_zone: names.names.zone_name(e.zones[1]).to_owned(),
        ingress_port: names.port(e.ports[0]),
        egress_port: names.port(e.ports[1]),
        policy: names.names.rule_name(e.rule).to_owned(),
        application: application(names, e.application),
        revision: Some(e.revision),
        started_at: Some(rfc3339(at.checked_sub(lived).unwrap_or(at))),
        duration_s: Some(lived.as_millis() as f64 / 1000.0),
        packets: e.packets[0],
        bytes: e.bytes[0],
        reply_packets: e.packets[1],
        reply_bytes: e.bytes[1],
        ..flow(names, &e.tuple, at)
    }
}

/// A record of a refused flow.
pub(crate) fn refused(e: &RefusedFlow, names: &NamesView, clock: Clock) -> FlowRecord {
    FlowRecord {
        from_zone: names.names.zone_name(e.zones[0]).to_owned(),
        to_zone: names.names.zone_name(e.zones[1]).to_owned(),
        ingress_port: names.port(e.ports[0]),
        egress_port: names.port(e.ports[1]),
        policy: e.rule.map_or("default", |r| names.names.rule_name(r)).to_owned(),
        application: application(names, e.application),
        packets: 1,
        bytes: e.bytes.into(),
        ..flow(names, &e.tuple, clock.wall(e.at))
    }
}

/// A line of `session watch`.
pub(crate) fn watch_line(e: &SessionEvent, names: &NamesView, clock: Clock) -> WatchLine {
    let record = Box::new(session(e, names, clock));
    match e.what {
        Happened::Created => WatchLine::Created(record),
        Happened::Changed { .. } => WatchLine::Changed(record),
        Happened::Ended(_) => WatchLine::Ended(record),
    }
}
