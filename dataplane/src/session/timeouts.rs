//! Idle timeouts: which one a session has, and what set it (J2, J3, J4, J6, F1 to F7).

/// Longest timeout in seconds that any setting takes (J2, J3, F1, F2): 32 days.
pub const TIMEOUT_S_MAX: u32 = 2_764_800;

/// What set a session's timeout, in the order of F5 and with the TCP states of J4 and J6.
/// `session show` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutSource {
    /// `inactivity_timeout` of an application written in the policy (J3, F5).
    Application,
    /// `session_ttl` of the rule (F5).
    Rule,
    /// A `[[session_ttl.port]]` entry, by its id (F2).
    PortEntry(u16),
    /// `session_ttl.default` (F1).
    SessionTtlDefault,
    /// A predefined application's own (J3).
    PredefinedApplication,
    /// The protocol's (J2).
    Protocol,
    /// `timeouts.icmp_reply`: an ICMP query that was answered (J2).
    IcmpReply,
    /// `tcp.initial_timeout`: the handshake is not complete (J4).
    TcpInitial,
    /// `tcp.time_wait`: both sides have sent FIN (J6).
    TcpTimeWait,
    /// Two seconds after the last ACK of a close (J6).
    TcpLastAck,
}

/// One timeout class: sessions of a class age alike. An ageing epoch is one cutoff for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimeoutClass {
    /// Idle time after which the session ends, in milliseconds; `None` is `never` (F6).
    pub timeout_ms: Option<u64>,
    /// What set it.
    pub source: TimeoutSource,
}
