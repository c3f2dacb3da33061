//! What a session is: an unchanging birth, facts that only grow, and an end.
//!
//! Nothing here looks at a table, a policy file or a clock. [`tcp`] turns segments into facts and
//! facts into a state; [`timeouts`] names the timeout classes; [`record`] is the memory of it. [`copy`] is
//! a session as one node tells another of it, [`owner`] says which node decides its fate.

pub mod copy;
pub mod owner;
pub mod record;
pub mod tcp;
pub mod timeouts;

/// Derived state of a session: what `session list` shows and what chooses the timeout class. Held in
/// one byte of the hot line; never sent to another node, which derives its own from the facts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Packets of the first direction only (not TCP).
    OneWay = 0,
    /// Packets of both directions (not TCP).
    Replied = 1,
    /// TCP: a SYN was seen.
    SynSent = 2,
    /// TCP: both SYNs were seen, not both acknowledged.
    SynReceived = 3,
    /// TCP: the handshake is complete.
    Established = 4,
    /// TCP: one side has sent FIN.
    HalfClosed = 5,
    /// TCP: both sides have sent FIN.
    TimeWait = 6,
    /// TCP: both FINs are acknowledged.
    Closed = 7,
    /// TCP: a valid RST was seen.
    Reset = 8,
}

impl State {
    /// Every state, by its number.
    pub const ALL: [State; 9] = [
        State::OneWay,
        State::Replied,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::HalfClosed,
        State::TimeWait,
        State::Closed,
        State::Reset,
    ];

    /// The state of that number; `OneWay` for a number that no state has.
    #[inline]
    pub fn from_u8(n: u8) -> State {
        *State::ALL.get(usize::from(n)).unwrap_or(&State::OneWay)
    }

    /// Whether a new SYN may begin a new session in its place (J6).
    #[inline]
    pub fn is_closing(self) -> bool {
        matches!(self, State::TimeWait | State::Closed | State::Reset)
    }

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            State::OneWay => "one_way",
            State::Replied => "replied",
            State::SynSent => "syn_sent",
            State::SynReceived => "syn_received",
            State::Established => "established",
            State::HalfClosed => "half_closed",
            State::TimeWait => "time_wait",
            State::Closed => "closed",
            State::Reset => "reset",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EndReason {
    /// Idle longer than its timeout (J2).
    Aged = 0,
    /// Completed close with `tcp.fin_invalidate` (J6), or the other host said that nobody listens (J9).
    Closed = 1,
    /// Valid RST with `tcp.rst_invalidate` (J5).
    Reset = 2,
    /// Cleared by an operator (J10).
    Cleared = 3,
    /// The policy in force denies it.
    Denied = 4,
    /// A new session took its tuple (J6).
    Superseded = 5,
    /// No peer acknowledged it in time, and policy wanted that (`replication.setup_ack`).
    Unacknowledged = 6,
}

impl EndReason {
    /// Every reason, by its number.
    pub const ALL: [EndReason; 7] = [
        EndReason::Aged,
        EndReason::Closed,
        EndReason::Reset,
        EndReason::Cleared,
        EndReason::Denied,
        EndReason::Superseded,
        EndReason::Unacknowledged,
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Aged => "aged",
            EndReason::Closed => "closed",
            EndReason::Reset => "reset",
            EndReason::Cleared => "cleared",
            EndReason::Denied => "denied",
            EndReason::Superseded => "superseded",
            EndReason::Unacknowledged => "unacknowledged",
        }
    }
}
