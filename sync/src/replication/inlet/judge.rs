//! What can be true of a record, and what cannot.

use super::{Doubt, InletConfig, dictionary::Dictionary};
use crate::replication::record::{CopyRecord, EndRecord, QuestionRecord, TupleRecord};
use crate::replication::shard::Item;
use tidegate_dataplane::addr::{Addr, ICMP_QUERY_PORT, Tuple, proto};
use tidegate_dataplane::engine::Question;
use tidegate_dataplane::session::EndReason;
use tidegate_dataplane::session::copy::{Birth, EndNote, SessionCopy};
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::session::record::{SessionId, WingFacts};
use tidegate_dataplane::session::tcp::fact;
use tidegate_dataplane::time::Now;

/// How far two nodes' readings of one age may differ: on its way a record may wait behind others, while the
/// ages in it stand still.
const SLACK_MS: u64 = 10_000;
/// Longer than any node has been up: ten years.
const LIFE_MS_MAX: u64 = 10 * 365 * 86_400_000;
/// Most packets in a millisecond of a session's life: 100 million a second.
const PACKETS_PER_MS_MAX: u64 = 100_000;
/// Bytes of the smallest and the largest IP packet; IPv4's header is 20, a payload of IPv6 at most 65,535.
const PACKET_BYTES: (u64, u64) = (20, 65_575);
/// Largest window that TCP can grant (RFC 7323 section 2.3).
const WINDOW_MAX: u32 = 65_535 << 14;

/// What one end of a link believes possible.
#[derive(Debug)]
pub(super) struct Judge {
    teller: Boot,
    me: Boot,
    uptime_ms: u64,
    up_at: Now,
    now: Now,
}

impl Judge {
    pub(super) fn new(config: &InletConfig) -> Self {
        let InletConfig { teller, me, uptime_ms, up_at, .. } = *config;
        Judge { teller, me, uptime_ms, up_at, now: up_at }
    }

    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    pub(super) fn copy<A>(
        &self,
        tuple: Tuple,
        record: &CopyRecord<A>,
        names: &Dictionary,
    ) -> Result<(Tuple, Item), Doubt> {
        let CopyRecord { head, facts, sighted, supersedes, counts, .. } = *record;
        let id = SessionId::from(head.id);
        let (age_ms, created_age_ms) = (head.age_ms.get(), head.created_age_ms.get());
        if u64::from(age_ms) > created_age_ms.saturating_add(SLACK_MS) || created_age_ms > LIFE_MS_MAX {
            return Err(Doubt::Age);
        }
        self.identity(id, created_age_ms)?;
        if supersedes == Some(id) {
            return Err(Doubt::Identity);
        }
        let sees_tcp = tuple.protocol == proto::TCP || sighted == [false; 2];
        if !sees_tcp || !facts.iter().all(|facts| facts_possible(facts, tuple.protocol)) {
            return Err(Doubt::Facts);
        }
        let (packets, bytes) = counters(counts, created_age_ms)?;
        let [from, to] = head.zones;
        let birth = Birth {
            id,
            tuple,
            zones: [names.zone(from.get())?, names.zone(to.get())?],
            rule: names.rule(head.rule.get())?,
            application: names.application(head.application.get())?,
            revision: head.revision.get(),
            supersedes,
        };
        Ok((tuple, Item::Copy(SessionCopy { birth, facts, sighted, age_ms, created_age_ms, packets, bytes })))
    }

    pub(super) fn end<A>(&self, tuple: Tuple, record: &EndRecord<A>) -> Result<(Tuple, Item), Doubt> {
        let reason = *EndReason::ALL.get(usize::from(record.reason)).ok_or(Doubt::Reason)?;
        if !record.bits.iter().all(|bits| bits_possible(*bits, tuple.protocol)) {
            return Err(Doubt::Facts);
        }
        let (id, age_ms, bits) = (record.id.into(), record.age_ms.get(), record.bits);
        Ok((tuple, Item::End(EndNote { id, tuple, reason, age_ms, bits })))
    }

    pub(super) fn question(&self, record: &QuestionRecord) -> Result<Question, Doubt> {
        let tuple = mapped(&record.tuple)?;
        Ok(Question { id: record.id.into(), tuple, age_ms: record.age_ms.get() })
    }

    /// A session lives no longer than the boot that made it, and one of an earlier boot than a node's present
    /// one began before that.
    fn identity(&self, id: SessionId, created_age_ms: u64) -> Result<(), Doubt> {
        let boot = Boot { node: id.origin, boot: id.boot };
        let uptime_ms = if id.origin == self.teller.node {
            self.uptime_ms.saturating_add(self.now.since(self.up_at))
        } else if id.origin == self.me.node {
            self.now.0
        } else {
            return Ok(());
        };
        let present = boot == self.teller || boot == self.me;
        let possible = if present {
            created_age_ms <= uptime_ms.saturating_add(SLACK_MS)
        } else {
            created_age_ms.saturating_add(SLACK_MS) >= uptime_ms
        };
        if possible { Ok(()) } else { Err(Doubt::Identity) }
    }
}

pub(super) fn tuple4(wire: &TupleRecord<[u8; 4]>) -> Result<Tuple, Doubt> {
    let martian = |a: [u8; 4]| matches!(a, [0 | 127 | 224.., ..] | [169, 254, ..]);
    if martian(wire.src) || martian(wire.dst) {
        return Err(Doubt::Tuple);
    }
    tuple(wire, Addr::from_v4(wire.src), Addr::from_v4(wire.dst))
}

pub(super) fn tuple6(wire: &TupleRecord<[u8; 16]>) -> Result<Tuple, Doubt> {
    let (src, dst) = (Addr::from_v6(wire.src), Addr::from_v6(wire.dst));
    let martian = |addr: Addr| {
        let top = addr.0 >> 32;
        top == 0 || top == 0xffff || addr.0 >> 118 == 0xfe80 >> 6 || addr.0 >> 120 == 0xff
    };
    if martian(src) || martian(dst) { Err(Doubt::Tuple) } else { tuple(wire, src, dst) }
}

/// A tuple of either family, IPv4 mapped.
fn mapped(wire: &TupleRecord<[u8; 16]>) -> Result<Tuple, Doubt> {
    let TupleRecord { src_port, dst_port, protocol, .. } = *wire;
    match (Addr::from_v6(wire.src).to_v4(), Addr::from_v6(wire.dst).to_v4()) {
        (Some(src), Some(dst)) => tuple4(&TupleRecord { src, dst, src_port, dst_port, protocol }),
        _ => tuple6(wire),
    }
}

/// What the parser lets through, and nothing else.
fn tuple<A>(wire: &TupleRecord<A>, src: Addr, dst: Addr) -> Result<Tuple, Doubt> {
    let (src_port, dst_port, protocol) = (wire.src_port.get(), wire.dst_port.get(), wire.protocol);
    let ports = match protocol {
        proto::TCP | proto::SCTP => src_port != 0 && dst_port != 0,
        proto::UDP => dst_port != 0 || src_port != 0,
        proto::ICMP => src.is_v4() && (src_port == ICMP_QUERY_PORT || dst_port == ICMP_QUERY_PORT),
        proto::ICMPV6 => !src.is_v4() && (src_port == ICMP_QUERY_PORT || dst_port == ICMP_QUERY_PORT),
        _ => src_port == 0 && dst_port == 0,
    };
    if !ports || (src == dst && src_port == dst_port) {
        return Err(Doubt::Tuple);
    }
    Ok(Tuple { src, dst, src_port, dst_port, protocol })
}

fn bits_possible(bits: u8, protocol: u8) -> bool {
    let possible = if protocol == proto::TCP { fact::ALL | fact::FRAGMENTED } else { fact::MID };
    bits & !possible == 0
}

fn facts_possible(facts: &WingFacts, protocol: u8) -> bool {
    let only_bits = WingFacts { bits: facts.bits, ..WingFacts::default() };
    bits_possible(facts.bits, protocol)
        && facts.scale_plus_1 <= 15
        && facts.window_max <= WINDOW_MAX
        && (protocol == proto::TCP || *facts == only_bits)
}

fn counters([p0, p1, b0, b1]: [u64; 4], life_ms: u64) -> Result<([u64; 2], [u64; 2]), Doubt> {
    let most = life_ms.saturating_add(SLACK_MS).saturating_mul(PACKETS_PER_MS_MAX);
    let possible = |packets: u64, bytes: u64| {
        packets <= most
            && bytes >= packets.saturating_mul(PACKET_BYTES.0)
            && bytes <= packets.saturating_mul(PACKET_BYTES.1)
    };
    if possible(p0, b0) && possible(p1, b1) { Ok(([p0, p1], [b0, b1])) } else { Err(Doubt::Counters) }
}
