//! `[log]` and `[[log.syslog]]`.

use super::check::Checker;
use super::raw;
use super::{LogFormat, LogLevel, SyslogConfig, Transport};
use std::net::SocketAddr;
use toml::Spanned;

/// Records of flows on stderr in a second when nothing else is written.
const RATE_DEFAULT: u32 = 200;
/// The same for a syslog server.
const SYSLOG_RATE_DEFAULT: u32 = 1_000;
/// Highest rate.
const RATE_MAX: u32 = 100_000;
/// Most syslog servers.
const SERVERS_MAX: usize = 8;
/// The number that RFC 5612 sets aside for documentation: Tidegate has none of its own.
const ENTERPRISE_DEFAULT: u32 = 32_473;

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const TRANSPORTS: [(&str, Transport); 2] = [("udp", Transport::Udp), ("tcp", Transport::Tcp)];
/// RFC 5424 section 6.2.1, by the names of syslog.conf.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];
const LOCAL0: u8 = 16;

/// What is configured of logs.
pub(super) struct Log {
    pub(super) level: LogLevel,
    pub(super) format: LogFormat,
    pub(super) rate_per_s: u32,
    pub(super) syslog: Vec<SyslogConfig>,
}

impl Checker<'_> {
    pub(super) fn log(&mut self, raw: raw::Log) -> Log {
        let raw::Log { level, format, rate_per_s, syslog } = raw;
        if let Some(over) = syslog.get(SERVERS_MAX) {
            self.error(over.span(), format!("more than {SERVERS_MAX} syslog servers"), "remove some");
        }
        Log {
            level: self.word(level, "log.level", &LEVELS).unwrap_or(LogLevel::Info),
            format: self.word(format, "log.format", &FORMATS).unwrap_or(LogFormat::Text),
            rate_per_s: self.number(rate_per_s, "log.rate_per_s", 0..=RATE_MAX).unwrap_or(RATE_DEFAULT),
            syslog: syslog.into_iter().filter_map(|at| self.syslog(at)).collect(),
        }
    }

    fn syslog(&mut self, at: Spanned<raw::Syslog>) -> Option<SyslogConfig> {
        let span = at.span();
        let raw::Syslog { server, transport, facility, rate_per_s, enterprise_number } = at.into_inner();
        let server = match server {
            Some(at) => self.server(&at),
            None => {
                self.missing(span, "log.syslog.server", "add server = \"192.0.2.9:514\"");
                None
            }
        };
        let transport = self.word(transport, "log.syslog.transport", &TRANSPORTS).unwrap_or(Transport::Udp);
        let facility = self.word(facility, "log.syslog.facility", &FACILITIES).unwrap_or(LOCAL0);
        let rate_per_s = self.number(rate_per_s, "log.syslog.rate_per_s", 1..=RATE_MAX);
        let enterprise = self.number(enterprise_number, "log.syslog.enterprise_number", 1..=u32::MAX);
        Some(SyslogConfig {
            server: server?,
            transport,
            facility,
            rate_per_s: rate_per_s.unwrap_or(SYSLOG_RATE_DEFAULT),
            enterprise_number: enterprise.unwrap_or(ENTERPRISE_DEFAULT),
        })
    }

    /// An address, no name: a firewall's log must not wait for name servers.
    fn server(&mut self, at: &Spanned<String>) -> Option<SocketAddr> {
        let parsed = at.get_ref().parse().ok();
        if parsed.is_none() {
            let message =
                format!("`log.syslog.server` is \"{}\", which is no address with a port", at.get_ref());
            self.error(
                at.span(),
                message,
                "write one such as 192.0.2.9:514 or [2001:db8::9]:6514; names are not looked up",
            );
        }
        parsed
    }
}
