//! Replication, the engine's part: what changed here and must be told, and what others tell
//! (`spec/replication.md`).
//!
//! | file | holds |
//! |---|---|
//! | `log`, `tombs` | the change log and the tombstones, two bounded rings |
//! | `side` | what is known of a session beside the table's lines |
//! | `told` | what is logged, and how it is read out again |
//! | `apply`, `collide`, `ends` | what a peer tells: copies, two births of one tuple, ends |
//! | `early` | words that come before the birth that they belong to |
//! | `ageing` | who ends what when nobody sends any more, and the question before |
//! | `resync` | walks: what this node owns, what vanished there, what a dead peer told last |
//! | `verify` | what copies must agree in, as sums and as fields |
//!
//! Nothing here encodes, sends or waits; names are numbers of this process.

mod ageing;
mod apply;
mod collide;
mod counters;
mod early;
mod ends;
mod log;
mod resync;
mod rights;
mod side;
mod told;
mod tombs;
mod verify;

pub use ageing::{Question, refresh_ms, staleness_bound_ms};
pub use counters::ReplicationCounters;
#[cfg(feature = "corrupt")]
pub use verify::Corruption;
pub use verify::{SessionFields, VERIFY_BUCKETS, VerifySums};

use super::hold::Hold;
use super::park::Park;
use super::{Engine, hot_flag};
use crate::session::copy::EndNote;
use crate::session::owner::{Boot, View};
use crate::session::record::SessionId;
use crate::session::tcp::Claims;
use crate::table::{SlotId, TableError};
use early::Early;
use log::Log;
use resync::Echo;
use side::Sides;
use std::sync::Arc;
use tombs::Tombs;

/// A peer's place in this process, `0..PEERS_MAX`: given out by the node, stays with one node number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer(pub u8);

/// Most peers: all nodes of a cluster but this one.
pub const PEERS_MAX: usize = crate::session::owner::NODES_MAX - 1;

impl Peer {
    /// Its bit in a set of peers.
    fn bit(self) -> u16 {
        1u16.checked_shl(u32::from(self.0)).unwrap_or(0)
    }
}

/// Sizes of what replication keeps. A 0 is filled in from the table's capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicationConfig {
    /// Entries of the change log, 4 bytes each. A peer that falls further behind gets a resync.
    pub log_entries: u32,
    /// Tombstones of this node's decisions, and as many of others', about 112 bytes each.
    pub tombstones: u32,
}

impl ReplicationConfig {
    fn filled(self, capacity: u32) -> Self {
        let or = |n: u32, default: u32| if n == 0 { default } else { n };
        ReplicationConfig {
            log_entries: or(self.log_entries, capacity.saturating_mul(2).clamp(8_192, 1 << 22)),
            tombstones: or(self.tombstones, (capacity / 4).clamp(4_096, 1 << 18)),
        }
    }
}

/// What the log says next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A session of this slot has news: [`Engine::copy`] reads it.
    Session(SlotId),
    /// A session ended. Its age is counted to now.
    End(EndNote),
}

/// The reader's cursor is older than the log: it needs a resync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the change log no longer holds what this reader lacks")]
pub struct FellOut;

/// What became of something that a peer told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// A session (or its end) that was not known here.
    New,
    /// It added to what was known.
    Merged,
    /// It was known, or of no use.
    Unchanged,
    /// It is not allowed: no effect.
    Refused(Refusal),
    /// The table is full: the peer's sessions are not all here.
    NoRoom,
    /// This node knows better: its own copy, or the end, is logged for everybody.
    Answered,
}

/// Why something that a peer told is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A session that its origin, which is there, will tell itself.
    BirthOfAnother,
    /// A session of this very boot that was never made here.
    NeverMade,
    /// Values that no honest node tells.
    Absurd(&'static str),
    /// An end by age from a node that does not own the session.
    NotOwner,
    /// A session of another shard of this node.
    WrongShard,
    /// A session that the policy in force here keeps to its node.
    NotSynced,
    /// Replication is off.
    NotReplicating,
}

impl Refusal {
    /// The stable name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::BirthOfAnother => "birth_of_another",
            Refusal::NeverMade => "never_made",
            Refusal::Absurd(_) => "absurd",
            Refusal::NotOwner => "not_owner",
            Refusal::WrongShard => "wrong_shard",
            Refusal::NotSynced => "not_synced",
            Refusal::NotReplicating => "not_replicating",
        }
    }
}

/// All that an engine holds for replication once it is on.
pub(in crate::engine) struct Replica {
    log: Log,
    /// Ends that others told, so that a late copy cannot bring the dead back.
    foreign: Tombs,
    sides: Sides,
    /// How much older than the last telling a packet may be untold, in ms, by class.
    refresh_ms: Vec<u32>,
    questions: Vec<(SlotId, SessionId)>,
    echo: Option<Echo>,
    early: Early,
    /// Peers whose present boot is alive in the view.
    alive: u16,
    /// Sessions younger than this are not told (`[replication] min_age_s`).
    min_age_ms: u64,
    /// Peers that told births of others that were alive then, and whose.
    refused: arrayvec::ArrayVec<(Peer, Boot), REFUSED_MAX>,
    wishes: u16,
    /// Something was logged that the sweep of an earlier resync must not take for vanished.
    marks: [Option<(u32, u64)>; PEERS_MAX],
}

impl Replica {
    /// Packets and bytes of each wing that other nodes forwarded.
    pub(super) fn others(&self, slot: SlotId) -> ([u64; 2], [u64; 2]) {
        self.sides.others(slot)
    }

    /// What segments of a TCP session claim that fitted nothing.
    #[inline]
    pub(super) fn claims_mut(&mut self, slot: SlotId) -> &mut Claims {
        self.sides.claims_mut(slot)
    }
}

/// Refused births that are remembered, by teller and origin.
const REFUSED_MAX: usize = 32;

impl Engine {
    /// Turns replication on, once: from here on changes are logged, and side lines exist. Sessions that
    /// are there already are told by the next resync.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn enable_replication(&mut self, config: ReplicationConfig) -> Result<(), TableError> {
        if self.replica.is_some() {
            return Ok(());
        }
        let capacity = self.table.capacity();
        let config = config.filled(capacity);
        let mut sides = Sides::try_new(capacity)?;
        for (slot, hot) in (0u32..).map(SlotId).zip(self.table.hot_lines()) {
            sides.set_told_ms(slot, hot.last_seen_ms);
        }
        self.replica = Some(Box::new(Replica {
            log: Log::new(config.log_entries, config.tombstones),
            foreign: Tombs::new(config.tombstones),
            sides,
            refresh_ms: Vec::new(),
            questions: Vec::with_capacity(ageing::QUESTIONS_MAX),
            echo: None,
            early: Early::new(),
            alive: 0,
            min_age_ms: 0,
            refused: arrayvec::ArrayVec::new(),
            wishes: 0,
            marks: [None; PEERS_MAX],
        }));
        self.set_expiries();
        self.park = Some(Box::new(Park::new()));
        self.hold = Some(Box::new(Hold::new()));
        self.set_parking();
        self.set_min_age();
        Ok(())
    }

    /// Whether replication is on.
    pub fn is_replicating(&self) -> bool {
        self.replica.is_some()
    }

    /// Believes this of who is there from now on. A takeover is nothing more: no session is touched.
    pub fn set_view(&mut self, view: Arc<View>) {
        if let Some(r) = &mut self.replica {
            r.alive = r.sides.boots().filter(|(_, b)| view.is_alive(*b)).fold(0, |set, (p, _)| set | p.bit());
            r.sides.revive(|it| view.is_alive(it));
            let gone = |&(_, origin): &(Peer, Boot)| !view.is_alive(origin);
            r.wishes |= r.refused.iter().filter(|r| gone(r)).fold(0, |set, (p, _)| set | p.bit());
            r.refused.retain(|r| !gone(r));
        }
        self.view = Some(view);
        self.set_expiries();
        self.set_parking();
    }

    /// What it believes of who is there.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// Whether this node decides a session's fate: by its view, or because it knows of no other node.
    pub(super) fn is_mine(&self, slot: SlotId) -> bool {
        self.view.as_ref().is_none_or(|v| v.is_mine(self.table.cold(slot).id()))
    }

    /// Whether others hold a session too, as far as this node knows.
    #[inline]
    pub(super) fn is_shared(&self, slot: SlotId) -> bool {
        self.table.hot(slot).flags & hot_flag::SHARED != 0
    }

    /// Whether a session is kept to this node by policy.
    #[inline]
    pub(super) fn is_unsynced(&self, slot: SlotId) -> bool {
        self.table.hot(slot).flags & hot_flag::UNSYNCED != 0
    }

    /// The session of that identity, by its tuple.
    fn find_id(&self, id: SessionId, tuple: &crate::addr::Tuple) -> Option<SlotId> {
        let (key, _) = tuple.canonical();
        let slot = self.table.find(&key, self.table.hash(&key))?;
        (self.table.cold(slot).id() == id).then_some(slot)
    }

    /// A slot is about to be free.
    #[inline]
    pub(super) fn forget_side(&mut self, slot: SlotId) {
        self.look_again(slot);
        if let Some(r) = &mut self.replica {
            r.sides.clear(slot);
        }
    }

    /// Live tombstones: of this node's decisions, and of others'.
    pub fn tombstones(&self) -> (u32, u32) {
        self.replica.as_ref().map_or((0, 0), |r| (r.log.tombs.live(), r.foreign.live()))
    }

    /// Bytes of address space that replication takes beside the table.
    pub fn replication_bytes(&self) -> usize {
        self.replica
            .as_ref()
            .map_or(0, |r| r.sides.bytes() + r.log.bytes() + r.log.tombs.bytes() + r.foreign.bytes())
    }
}
