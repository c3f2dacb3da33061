//! Syslog messages (RFC 5424): a header, the record as structured data, and a few words for people.

use crate::api::FlowRecord;
use crate::config::SyslogConfig;
use std::fmt::Write as _;
use std::time::SystemTime;

/// What a record is about; its MSGID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A session was set up.
    Create,
    /// A session ended.
    Close,
    /// A first packet was denied.
    Deny,
    /// A first packet was rejected.
    Reject,
}

impl Kind {
    /// The stable name, on stderr.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Create => "session_create",
            Kind::Close => "session_close",
            Kind::Deny => "flow_deny",
            Kind::Reject => "flow_reject",
        }
    }

    fn message_id(self) -> &'static str {
        match self {
            Kind::Create => "SESSION_CREATE",
            Kind::Close => "SESSION_CLOSE",
            Kind::Deny => "FLOW_DENY",
            Kind::Reject => "FLOW_REJECT",
        }
    }

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Kind::Create => "session created",
            Kind::Close => "session closed",
            Kind::Deny => "flow denied",
            Kind::Reject => "flow rejected",
        }
    }

    fn severity(self) -> u8 {
        match self {
            Kind::Create | Kind::Close => INFORMATIONAL,
            Kind::Deny | Kind::Reject => NOTICE,
        }
    }
}

/// Severities of RFC 5424 section 6.2.1.
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;
/// Longest HOSTNAME (RFC 5424 section 6).
const HOSTNAME_MAX: usize = 255;

/// Writes messages for one server.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    facility: u8,
    /// HOSTNAME, APP-NAME and PROCID.
    origin: String,
    sd_id: String,
}

impl Encoder {
    pub(super) fn new(node: &str, config: &SyslogConfig) -> Encoder {
        let host: String = node.chars().filter(char::is_ascii_graphic).take(HOSTNAME_MAX).collect();
        let host = if host.is_empty() { "-" } else { &host };
        Encoder {
            facility: config.facility,
            origin: format!("{host} tidegate {}", std::process::id()),
            sd_id: format!("tidegate@{}", config.enterprise_number),
        }
    }

    /// A record as a message.
    pub(super) fn record(&self, kind: Kind, r: &FlowRecord, left_out: u64) -> String {
        let number = |n: Option<u16>| n.map(|n| n.to_string());
        let reply = |n: u64| r.id.is_some().then(|| n.to_string());
        let fields = [
            ("session", r.id.clone()),
            ("reason", r.reason.clone()),
            ("start", r.started_at.clone()),
            ("end", (kind == Kind::Close).then(|| r.time.clone())),
            ("duration_s", r.duration_s.map(|s| format!("{s:.3}"))),
            ("protocol", Some(r.protocol.clone())),
            ("source", Some(r.source.clone())),
            ("source_port", number(r.source_port)),
            ("destination", Some(r.destination.clone())),
            ("destination_port", number(r.destination_port)),
            ("from_zone", Some(r.from_zone.clone())),
            ("to_zone", Some(r.to_zone.clone())),
            ("ingress_port", r.ingress_port.clone()),
            ("egress_port", r.egress_port.clone()),
            ("policy", Some(r.policy.clone())),
            ("application", r.application.clone()),
            ("state", r.state.clone()),
            ("packets", Some(r.packets.to_string())),
            ("bytes", Some(r.bytes.to_string())),
            ("reply_packets", reply(r.reply_packets)),
            ("reply_bytes", reply(r.reply_bytes)),
            ("left_out", (left_out > 0).then(|| left_out.to_string())),
        ];
        self.message(kind.severity(), &r.time, kind.message_id(), &fields, kind.words())
    }

    /// How many records were left out, as a message of its own.
    pub(super) fn left_out(&self, count: u64) -> String {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let fields = [("left_out", Some(count.to_string()))];
        self.message(NOTICE, &time, "LEFT_OUT", &fields, "flow records were left out")
    }

    fn message(
        &self,
        severity: u8,
        time: &str,
        id: &str,
        fields: &[(&str, Option<String>)],
        words: &str,
    ) -> String {
        let mut out = String::with_capacity(768);
        let priority = u16::from(self.facility) * 8 + u16::from(severity);
        // Writing to a string does not fail.
        let _ = write!(out, "<{priority}>1 {time} {} {id} [{}", self.origin, self.sd_id);
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = write!(out, " {name}=\"");
                escape(value, &mut out);
                out.push('"');
            }
        }
        let _ = write!(out, "] {words}");
        out
    }
}

/// PARAM-VALUE: `"`, `\` and `]` are escaped (RFC 5424 section 6.3.3). Control characters, which names
/// cannot hold anyway, would break lines at servers that write them to files.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(if c.is_control() { '?' } else { c });
    }
}
