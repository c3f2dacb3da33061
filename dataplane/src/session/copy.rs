//! A session as one node tells another of it, and the end of one (`spec/replication.md`, "What a session
//! is made of").
//!
//! Names are numbers of this process here; on the wire they are names. Times are ages, counted back from
//! the moment of telling.

use super::EndReason;
use super::record::{SessionId, WingFacts};
use crate::addr::Tuple;
use crate::names::{AppId, RuleId, ZoneId};

/// What of a session never changes. Equal in two copies, or they are two sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Birth {
    /// Identity.
    pub id: SessionId,
    /// Its first direction.
    pub tuple: Tuple,
    /// Ingress zone of each wing; 0 is the first direction.
    pub zones: [ZoneId; 2],
    /// Rule that let it in.
    pub rule: RuleId,
    /// Application that it matched as.
    pub application: AppId,
    /// Policy revision that let it in.
    pub revision: u32,
    /// The closing session of the same tuple that its SYN took the place of (J6).
    pub supersedes: Option<SessionId>,
}

/// One node's copy of a session, as it tells others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionCopy {
    /// What never changes.
    pub birth: Birth,
    /// Facts of the first direction (0) and the reply (1), all that the teller knows. For protocols other
    /// than TCP only [`super::tcp::fact::MID`] counts: the wing was seen.
    pub facts: [WingFacts; 2],
    /// TCP: which wings the teller sees itself, as far as it knows: where they are is not what others told it.
    pub sighted: [bool; 2],
    /// Milliseconds since the last packet that the teller knows of, its own or another node's.
    pub age_ms: u32,
    /// Milliseconds since it was set up.
    pub created_age_ms: u64,
    /// Packets of each wing that the teller forwarded itself.
    pub packets: [u64; 2],
    /// Bytes of each wing that the teller forwarded itself (IP length).
    pub bytes: [u64; 2],
}

/// The end of a session, as its owner tells others (a tombstone): by identity; the tuple only helps to
/// find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndNote {
    /// Which session.
    pub id: SessionId,
    /// Its first direction.
    pub tuple: Tuple,
    /// Why. [`EndReason::Aged`] is a claim; all others are final in every view.
    pub reason: EndReason,
    /// The evidence for a claim: milliseconds since the last packet that the teller knew of, counted to the
    /// moment of telling.
    pub age_ms: u32,
    /// Fact bits of both wings as the teller had them: whoever lacks the closing ones sees by them that
    /// it was closing.
    pub bits: [u8; 2],
}

impl EndReason {
    /// Whether no younger copy anywhere can undo it.
    pub fn is_final(self) -> bool {
        self != EndReason::Aged
    }
}
