//! What replication knows of a session beside the table's lines: one side line a slot, 4 bytes that the sweep
//! reads, 20 for TCP windows that are learned, and one line for each peer that ever told of any.
//!
//! The packet path of an established session touches none of it.

use super::{PEERS_MAX, Peer};
use crate::session::owner::Boot;
use crate::session::record::SessionId;
use crate::session::tcp::Claims;
use crate::table::{Lines, SlotId, TableError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`SideLine::flags`].
pub(super) mod side_flag {
    /// A copy that no packet of this node has touched: the first one is told at once.
    pub(in crate::engine::replica) const UNSEEN: u8 = 1;
    /// A question about it is out.
    pub(in crate::engine::replica) const ASKED: u8 = 1 << 1;
    /// Its last packet as others tell it is in `heard_ms`.
    pub(in crate::engine::replica) const HEARD: u8 = 1 << 2;
    /// It took the place of another one.
    pub(in crate::engine::replica) const SUPERSEDES: u8 = 1 << 3;
    /// The policy changed, and its timeout follows with the next packet that any node sees (F7).
    pub(in crate::engine::replica) const RECLASS: u8 = 1 << 4;
    /// Not told yet: it is younger than the policy wants sessions to be.
    pub(in crate::engine::replica) const YOUNG: u8 = 1 << 5;
}

/// One session's side line.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct SideLine {
    /// Number of its newest entry in the log; 0 without one.
    pub newest: u64,
    /// What peers forwarded in boots before their present one.
    pub gone_packets: [u64; 2],
    /// The same in bytes.
    pub gone_bytes: [u64; 2],
    superseded_counter: u64,
    superseded_boot: u32,
    /// When the last packet came that only others tell of, in this node's time.
    pub heard_ms: u32,
    superseded_origin: u16,
    /// Peers that told of it: their lines of this slot are valid.
    pub told_by: u16,
    /// Who told of the packet at `heard_ms`.
    pub heard_from: u8,
    /// Bits of [`side_flag`].
    pub flags: u8,
    /// When this node last told at once that it sees a wing again, in units of [`SIGHT_UNIT_MS`].
    sight_told: u16,
}

const _: () = assert!(size_of::<SideLine>() == 64);

/// Unit of the time between two tellings of a sight.
const SIGHT_UNIT_MS: u32 = 128;
/// So many of them lie between two: two nodes that see one wing in turn must not tell each other for every packet.
const SIGHT_UNITS_MIN: u16 = 8;

impl SideLine {
    /// Whether a sight may be told at once: if so, the next may not be for about a second.
    pub(super) fn may_tell_sight(&mut self, now_ms32: u32) -> bool {
        let now = (now_ms32 / SIGHT_UNIT_MS) as u16;
        let due = now.wrapping_sub(self.sight_told) >= SIGHT_UNITS_MIN;
        if due {
            self.sight_told = now;
        }
        due
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// The session that it took the place of.
    pub(super) fn supersedes(&self) -> Option<SessionId> {
        self.has(side_flag::SUPERSEDES).then_some(SessionId {
            origin: self.superseded_origin,
            boot: self.superseded_boot,
            counter: self.superseded_counter,
        })
    }

    pub(super) fn set_supersedes(&mut self, id: Option<SessionId>) {
        let SessionId { origin, boot, counter } = id.unwrap_or_default();
        self.set(side_flag::SUPERSEDES, id.is_some());
        (self.superseded_origin, self.superseded_boot, self.superseded_counter) = (origin, boot, counter);
    }
}

/// What one peer told of one session.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PeerLine {
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// Resync epoch in which it last told of it.
    pub mark: u32,
    /// When it last told of it, in this node's time.
    pub told_ms: u32,
}

/// A peer as this shard knows it.
#[derive(Default)]
pub(super) struct PeerState {
    /// The boot that it last spoke as.
    pub boot: Option<Boot>,
    /// First mark of that boot: what bears a lower one was told by an earlier one.
    pub first_mark: u32,
    /// The boot of it that died last.
    died: Option<Boot>,
    lines: Option<Lines<PeerLine>>,
}

/// All side lines of a table.
pub(super) struct Sides {
    lines: Lines<SideLine>,
    told_ms: Lines<u32>,
    claims: Lines<Claims>,
    peers: [PeerState; PEERS_MAX],
    capacity: u32,
}

impl Sides {
    pub(super) fn try_new(capacity: u32) -> Result<Self, TableError> {
        let len = capacity as usize;
        Ok(Sides {
            lines: Lines::zeroed(len)?,
            told_ms: Lines::zeroed(len)?,
            claims: Lines::zeroed(len)?,
            peers: Default::default(),
            capacity,
        })
    }

    pub(super) fn line(&self, slot: SlotId) -> &SideLine {
        &self.lines.all()[slot.0 as usize]
    }

    pub(super) fn line_mut(&mut self, slot: SlotId) -> &mut SideLine {
        &mut self.lines.all_mut()[slot.0 as usize]
    }

    /// When each session was last told of, or heard of: what is younger is news.
    #[inline]
    pub(super) fn told_ms(&self) -> &[u32] {
        self.told_ms.all()
    }

    pub(super) fn set_told_ms(&mut self, slot: SlotId, ms32: u32) {
        self.told_ms.all_mut()[slot.0 as usize] = ms32;
    }

    /// What segments of the session claim.
    #[inline]
    pub(super) fn claims_mut(&mut self, slot: SlotId) -> &mut Claims {
        &mut self.claims.all_mut()[slot.0 as usize]
    }

    /// Forgets all about a slot.
    pub(super) fn clear(&mut self, slot: SlotId) {
        *self.line_mut(slot) = SideLine::default();
        *self.claims_mut(slot) = Claims::default();
    }

    pub(super) fn peer(&self, peer: Peer) -> Option<&PeerState> {
        self.peers.get(usize::from(peer.0))
    }

    /// The peers that ever told anything, with their boots.
    pub(super) fn boots(&self) -> impl Iterator<Item = (Peer, Boot)> {
        (0u8..).zip(&self.peers).filter_map(|(n, p)| p.boot.map(|boot| (Peer(n), boot)))
    }

    /// Notes who speaks; `false` when there is no such place, or no memory for what it tells.
    pub(super) fn hear(&mut self, peer: Peer, teller: Boot, mark: Option<u32>) -> bool {
        let Some(state) = self.peers.get_mut(usize::from(peer.0)) else { return false };
        if let Some(mark) = mark
            && state.boot != Some(teller)
        {
            state.boot = Some(teller);
            state.first_mark = mark;
        }
        if state.lines.is_none() {
            state.lines = Lines::zeroed(self.capacity as usize).ok();
        }
        state.lines.is_some()
    }

    /// A peer's boot is dead.
    pub(super) fn died(&mut self, peer: Peer, it: Boot) {
        if let Some(state) = self.peers.get_mut(usize::from(peer.0)) {
            state.died = Some(it);
        }
    }

    /// Who was taken for dead, and is alive after all.
    pub(super) fn revive(&mut self, is_alive: impl Fn(Boot) -> bool) {
        for state in &mut self.peers {
            state.died = state.died.filter(|it| !is_alive(*it));
        }
    }

    /// Whether that boot of a peer is dead: what comes of it now was on its way.
    pub(super) fn is_dead(&self, peer: Peer, it: Boot) -> bool {
        self.peers.get(usize::from(peer.0)).is_some_and(|state| state.died == Some(it))
    }

    /// What a peer told of a session in its present boot or an earlier one.
    pub(super) fn told_line(&self, slot: SlotId, peer: Peer) -> Option<&PeerLine> {
        let told = self.line(slot).told_by & peer.bit() != 0;
        let lines = self.peer(peer).and_then(|p| p.lines.as_ref()).filter(|_| told)?;
        lines.all().get(slot.0 as usize)
    }

    /// Takes a peer's counts of a session: they only grow within one boot of it.
    pub(super) fn count(
        &mut self,
        slot: SlotId,
        peer: Peer,
        mark: u32,
        (packets, bytes): ([u64; 2], [u64; 2]),
        now_ms32: u32,
    ) {
        let side = &mut self.lines.all_mut()[slot.0 as usize];
        let Some(state) = self.peers.get_mut(usize::from(peer.0)) else { return };
        let first_mark = state.first_mark;
        let Some(lines) = &mut state.lines else { return };
        let line = &mut lines.all_mut()[slot.0 as usize];
        let known = side.told_by & peer.bit() != 0;
        side.told_by |= peer.bit();
        if !known {
            *line = PeerLine { packets, bytes, mark, told_ms: now_ms32 };
            return;
        }
        for w in 0..2 {
            if line.mark < first_mark {
                side.gone_packets[w] = side.gone_packets[w].saturating_add(line.packets[w]);
                side.gone_bytes[w] = side.gone_bytes[w].saturating_add(line.bytes[w]);
                (line.packets[w], line.bytes[w]) = (packets[w], bytes[w]);
            } else {
                line.packets[w] = line.packets[w].max(packets[w]);
                line.bytes[w] = line.bytes[w].max(bytes[w]);
            }
        }
        line.mark = line.mark.max(mark);
        line.told_ms = now_ms32;
    }

    /// Packets and bytes of each wing that other nodes forwarded, as far as they told.
    pub(super) fn others(&self, slot: SlotId) -> ([u64; 2], [u64; 2]) {
        let side = self.line(slot);
        let (mut packets, mut bytes) = (side.gone_packets, side.gone_bytes);
        for n in (0..PEERS_MAX as u8).filter(|n| side.told_by & Peer(*n).bit() != 0) {
            let Some(line) = self.told_line(slot, Peer(n)) else { continue };
            for w in 0..2 {
                packets[w] = packets[w].saturating_add(line.packets[w]);
                bytes[w] = bytes[w].saturating_add(line.bytes[w]);
            }
        }
        (packets, bytes)
    }

    pub(super) fn bytes(&self) -> usize {
        let peers: usize = self.peers.iter().filter_map(|p| p.lines.as_ref()).map(Lines::bytes).sum();
        self.lines.bytes() + self.told_ms.bytes() + self.claims.bytes() + peers
    }
}
