//! The bulk of what is said, as bytes: sessions, ends and questions in blocks of fixed layout, little-endian.
//!
//! A session is a head, and behind it what its flags say: facts of a wing that has more of them than bits, the
//! session that it took the place of, counters in 32 or 64 bits.

use super::message::FrameError;
use tidegate_dataplane::session::record::{SessionId, WingFacts};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Identity of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct IdRecord {
    pub(super) origin: U16,
    pub(super) boot: U32,
    pub(super) counter: U64,
}

impl From<SessionId> for IdRecord {
    fn from(id: SessionId) -> Self {
        IdRecord { origin: id.origin.into(), boot: id.boot.into(), counter: id.counter.into() }
    }
}

impl From<IdRecord> for SessionId {
    fn from(id: IdRecord) -> Self {
        SessionId { origin: id.origin.get(), boot: id.boot.get(), counter: id.counter.get() }
    }
}

/// A tuple; `A` is 4 bytes of IPv4 or 16 of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct TupleRecord<A> {
    pub(super) src: A,
    pub(super) dst: A,
    pub(super) src_port: U16,
    pub(super) dst_port: U16,
    pub(super) protocol: u8,
}

/// What every session has. Zones, rule and application are numbers of the stream's dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
    pub(super) id: IdRecord,
    pub(super) zones: [U16; 2],
    pub(super) rule: U32,
    pub(super) application: U16,
    pub(super) revision: U32,
    pub(super) age_ms: U32,
    pub(super) created_age_ms: U64,
    /// Fact bits of both wings.
    pub(super) bits: [u8; 2],
    /// What follows, see [`flag`]; [`CopyRecord::write`] fills it in.
    pub(super) flags: u8,
}

/// What follows a head, and what needs no more than a bit.
mod flag {
    /// Facts of the first direction.
    pub(super) const FACTS_0: u8 = 1;
    /// Facts of the reply.
    pub(super) const FACTS_1: u8 = 2;
    /// The session that it took the place of.
    pub(super) const SUPERSEDES: u8 = 4;
    /// Counters have 64 bits each.
    pub(super) const WIDE: u8 = 8;
    /// The teller sees the first direction itself.
    pub(super) const SIGHTED_0: u8 = 16;
    /// It sees the reply itself.
    pub(super) const SIGHTED_1: u8 = 32;
    /// All of these.
    pub(super) const ALL: u8 = 63;
}

/// Facts of a wing beside its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
struct FactsRecord {
    words: [U32; 5],
    mss: U16,
    scale_plus_1: u8,
}

/// [`tidegate_dataplane::session::copy::SessionCopy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CopyRecord<A> {
    pub(super) head: Head,
    pub(super) tuple: TupleRecord<A>,
    pub(super) facts: [WingFacts; 2],
    pub(super) sighted: [bool; 2],
    pub(super) supersedes: Option<SessionId>,
    /// Packets of both wings, then bytes of both.
    pub(super) counts: [u64; 4],
}

/// [`tidegate_dataplane::session::copy::EndNote`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct EndRecord<A> {
    pub(super) id: IdRecord,
    pub(super) tuple: TupleRecord<A>,
    pub(super) reason: u8,
    pub(super) age_ms: U32,
    pub(super) bits: [u8; 2],
}

/// [`tidegate_dataplane::engine::Question`]; IPv4 is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Unaligned, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct QuestionRecord {
    pub(super) id: IdRecord,
    pub(super) tuple: TupleRecord<[u8; 16]>,
    pub(super) age_ms: U32,
}

/// Reads a block at the front of `bytes`, and moves on behind it.
pub(super) fn block<T: FromBytes>(bytes: &mut &[u8]) -> Result<T, FrameError> {
    let (value, rest) = T::read_from_prefix(bytes).map_err(|_| FrameError::Short)?;
    *bytes = rest;
    Ok(value)
}

impl<A: FromBytes + IntoBytes + Unaligned + Immutable> CopyRecord<A> {
    /// Appends the tag and the record.
    pub(super) fn write(&self, tag: u8, to: &mut Vec<u8>) {
        let CopyRecord { head, tuple, facts, sighted, supersedes, counts } = self;
        let has_more = |f: &WingFacts| *f != (WingFacts { bits: f.bits, ..WingFacts::default() });
        let wide = counts.iter().any(|n| u32::try_from(*n).is_err());
        let flags = (u8::from(has_more(&facts[0])) * flag::FACTS_0)
            | (u8::from(has_more(&facts[1])) * flag::FACTS_1)
            | (u8::from(sighted[0]) * flag::SIGHTED_0)
            | (u8::from(sighted[1]) * flag::SIGHTED_1)
            | (u8::from(supersedes.is_some()) * flag::SUPERSEDES)
            | (u8::from(wide) * flag::WIDE);
        to.push(tag);
        to.extend_from_slice(Head { flags, bits: [facts[0].bits, facts[1].bits], ..*head }.as_bytes());
        to.extend_from_slice(tuple.as_bytes());
        for (wing, flag) in facts.iter().zip([flag::FACTS_0, flag::FACTS_1]) {
            if flags & flag != 0 {
                to.extend_from_slice(facts_record(wing).as_bytes());
            }
        }
        if let Some(id) = supersedes {
            to.extend_from_slice(IdRecord::from(*id).as_bytes());
        }
        if wide {
            to.extend_from_slice(counts.map(U64::new).as_bytes());
        } else {
            to.extend_from_slice(counts.map(|n| U32::new(n as u32)).as_bytes());
        }
    }

    /// Reads what follows the tag.
    pub(super) fn read(bytes: &mut &[u8]) -> Result<Self, FrameError> {
        let head: Head = block(bytes)?;
        if head.flags & !flag::ALL != 0 {
            return Err(FrameError::Form(head.flags));
        }
        let has = |flag: u8| head.flags & flag != 0;
        let tuple = block(bytes)?;
        let mut facts = head.bits.map(|bits| WingFacts { bits, ..WingFacts::default() });
        for (wing, flag) in facts.iter_mut().zip([flag::FACTS_0, flag::FACTS_1]) {
            if has(flag) {
                *wing = wing_facts(wing.bits, block(bytes)?);
            }
        }
        let supersedes = if has(flag::SUPERSEDES) { Some(block::<IdRecord>(bytes)?.into()) } else { None };
        let counts = if has(flag::WIDE) {
            block::<[U64; 4]>(bytes)?.map(U64::get)
        } else {
            block::<[U32; 4]>(bytes)?.map(|n| u64::from(n.get()))
        };
        let sighted = [has(flag::SIGHTED_0), has(flag::SIGHTED_1)];
        Ok(CopyRecord { head, tuple, facts, sighted, supersedes, counts })
    }
}

impl<A: IntoBytes + Unaligned + Immutable> EndRecord<A> {
    /// Appends the tag and the record.
    pub(super) fn write(&self, tag: u8, to: &mut Vec<u8>) {
        to.push(tag);
        to.extend_from_slice(self.as_bytes());
    }
}

fn facts_record(f: &WingFacts) -> FactsRecord {
    FactsRecord {
        words: [f.seq_max, f.ack_max, f.edge_max, f.window_max, f.isn].map(U32::new),
        mss: f.mss.into(),
        scale_plus_1: f.scale_plus_1,
    }
}

fn wing_facts(bits: u8, record: FactsRecord) -> WingFacts {
    let [seq_max, ack_max, edge_max, window_max, isn] = record.words.map(U32::get);
    let (mss, scale_plus_1) = (record.mss.get(), record.scale_plus_1);
    WingFacts { seq_max, ack_max, edge_max, window_max, isn, mss, bits, scale_plus_1 }
}
