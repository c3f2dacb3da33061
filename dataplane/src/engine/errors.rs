//! ICMP errors that pass along a session, and the packets that the engine writes itself.

use super::process::{NoWay, Work};
use super::{Engine, Event, Frame, Verdict};
use crate::addr::{Mac, proto};
use crate::drops::DropReason;
use crate::packet::build::{self, ErrorKind};
use crate::packet::{IcmpError, L4, Packet};
use crate::route::{Egress, PortId, Route};
use crate::session::EndReason;
use crate::session::tcp::seq_le;
use crate::table::SlotId;
use crate::time::Now;

/// Bytes in front of the highest sequence number that an ICMP error may be about, when no window of
/// the other side is known: the largest window without scaling.
const UNSCALED_WINDOW: u32 = 65_535;

impl Engine {
    /// An ICMP error follows the session of the packet that it is about, against that packet's
    /// direction (RFC 5508 section 4). It restarts no timer and changes no fact: it may be forged. The
    /// one exception is J9.
    pub(super) fn pass_icmp_error<F: Frame>(
        &mut self,
        frame: &mut F,
        w: &Work,
        e: &IcmpError,
        slot: Option<SlotId>,
        now: Now,
    ) -> Verdict {
        let unmatched = Verdict::Drop(DropReason::IcmpErrorUnmatched);
        let Some(slot) = slot else {
            let parked = self.park(frame, w, DropReason::IcmpErrorUnmatched, now);
            return if parked { Verdict::Consumed } else { unmatched };
        };
        let hot = self.table.hot(slot);
        // The wing that sent the offending packet, and the one along which the error travels.
        let offender = usize::from(hot.first_forward() != w.forward);
        let back = 1 - offender;
        let out_zone = hot.zone[offender];
        if hot.zone[back] != w.zone || w.packet.tuple.dst != e.embedded.src {
            return unmatched;
        }
        if let Some(seq) = e.embedded_seq
            && !self.was_sent(slot, offender, seq)
        {
            return unmatched;
        }
        if self.needs_judging(slot) && !self.judge_for_packet(slot) {
            return Verdict::Drop(DropReason::PolicyRevoked);
        }
        // The error's destination is the end of the session that this wing leads to, so the way is
        // the wing's own.
        let egress = match self.way(slot, back, w) {
            Ok(egress) => egress,
            Err(NoWay::Await(verdict)) => {
                self.ask_for_neighbour(verdict);
                return verdict;
            }
            Err(NoWay::Drop(reason)) => return Verdict::Drop(reason),
        };
        if egress.zone != Some(out_zone) {
            return Verdict::Drop(DropReason::ZoneMismatch);
        }
        if w.packet.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        if self.is_too_big(w, &egress) {
            return Verdict::Drop(DropReason::TooBig);
        }
        let verdict = self.send(frame, w, &egress);
        if offender == 0 && closes(w, e) {
            self.end(slot, EndReason::Closed);
        }
        verdict
    }

    /// Whether a wing can have sent a segment with that sequence number: an off-path forger has to
    /// guess it.
    fn was_sent(&self, slot: SlotId, wing: usize, seq: u32) -> bool {
        let wings = &self.table.cold(slot).wings;
        let window = wings[1 - wing].window_max.max(UNSCALED_WINDOW);
        seq_le(seq, wings[wing].seq_max) && seq_le(wings[wing].seq_max.wrapping_sub(window), seq)
    }

    /// There is no way out: wait for the neighbour, or drop and tell the sender.
    pub(super) fn no_way(&mut self, data: &[u8], w: &Work, no: NoWay, now: Now) -> Verdict {
        let reason = match no {
            NoWay::Await(verdict) => {
                self.ask_for_neighbour(verdict);
                return verdict;
            }
            NoWay::Drop(reason) => reason,
        };
        let kind = match (reason, self.routes.route(w.packet.tuple.dst)) {
            (DropReason::RouteRefused, Some(Route::Blackhole)) => None,
            (DropReason::RouteRefused, Some(Route::Prohibit)) => Some(ErrorKind::AdminProhibited),
            (DropReason::RouteRefused, _) => Some(ErrorKind::HostUnreachable),
            _ => Some(ErrorKind::NetUnreachable),
        };
        if let Some(kind) = kind {
            self.send_icmp(data, &w.packet, w.port, kind, now);
        }
        Verdict::Drop(reason)
    }

    fn ask_for_neighbour(&mut self, verdict: Verdict) {
        if let Verdict::AwaitNeighbour { port, next_hop } = verdict {
            self.push_event(Event::NeighbourMissing { port, next_hop });
        }
    }

    /// A frame that waited for a neighbour in vain: counted, and its sender told that the host is
    /// unreachable (RFC 1812 section 5.2.7.1). The worker frees the frame.
    pub fn neighbour_failed<F: Frame>(&mut self, frame: &F, now: Now) {
        self.count_drop(DropReason::NeighbourUnresolved);
        let partial = self.routes.port(frame.port()).is_some_and(|p| p.partial_checksums);
        let options = crate::packet::ParseOptions { partial_checksums: partial };
        if let Ok(p) = crate::packet::parse(frame.data(), options) {
            self.send_icmp(frame.data(), &p, frame.port(), ErrorKind::HostUnreachable, now);
        }
    }

    /// Refuses a packet whose TTL or hop limit ends here (RFC 1812 section 5.3.1, RFC 4443 section 3.3).
    #[inline]
    pub(super) fn refuse_ttl(&mut self, data: &[u8], w: &Work, now: Now) -> Option<Verdict> {
        if w.packet.ttl > 1 {
            return None;
        }
        self.send_icmp(data, &w.packet, w.port, ErrorKind::TimeExceeded, now);
        Some(Verdict::Drop(DropReason::TtlExpired))
    }

    /// Refuses a packet that is larger than the way out and must not be fragmented (RFC 1191, RFC 8201).
    pub(super) fn refuse_too_big(&mut self, data: &[u8], w: &Work, egress: &Egress, now: Now) -> Verdict {
        let mtu = u16::try_from(egress.mtu).unwrap_or(u16::MAX);
        self.send_icmp(data, &w.packet, w.port, ErrorKind::FragmentationNeeded { mtu }, now);
        Verdict::Drop(DropReason::TooBig)
    }

    /// Cuts an IPv4 packet, already rewritten for the way out, into fragments (RFC 791 section 3.2).
    pub(super) fn send_fragments(&mut self, data: &[u8], w: &Work, egress: &Egress) -> Verdict {
        self.counters.fragmented += 1;
        let mtu = u16::try_from(egress.mtu).unwrap_or(u16::MAX);
        let Some(mut fragments) = build::ipv4_fragments(data, &w.packet, mtu) else {
            return Verdict::Drop(DropReason::TooBig);
        };
        if fragments.count() > self.outbox.room() {
            return Verdict::Drop(DropReason::TransmitFull);
        }
        while self.outbox.push(egress.port, |out| fragments.write_next(out)) {}
        Verdict::Consumed
    }

    /// Tells the sender of a flow that `reject` refused: TCP RST, or ICMP unreachable (J1).
    pub(super) fn send_refusal(&mut self, data: &[u8], w: &Work, now: Now) {
        if !matches!(w.packet.l4_info, L4::Tcp(_)) {
            let kind = if w.packet.l4_info == L4::Udp {
                ErrorKind::PortUnreachable
            } else {
                ErrorKind::AdminProhibited
            };
            return self.send_icmp(data, &w.packet, w.port, kind, now);
        }
        if !self.icmp_limit.take(now) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let Some((own, peer)) = self.macs(data, w.port) else { return };
        if self.outbox.push(w.port, |out| build::tcp_reset(out, &w.packet, own, peer)) {
            self.counters.resets_sent += 1;
        }
    }

    /// Sends an ICMP error back by the port that the packet came in by, to the neighbour that sent it,
    /// at a bounded rate (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
    fn send_icmp(&mut self, data: &[u8], p: &Packet, port: PortId, kind: ErrorKind, now: Now) {
        let source = self.routes.port(port).and_then(|i| if p.v4 { i.ipv4 } else { i.ipv6 });
        let (Some(source), Some((own, peer))) = (source, self.macs(data, port)) else { return };
        if !self.icmp_limit.take(now) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        if self.outbox.push(port, |out| build::icmp_error(out, data, p, kind, own, peer, source)) {
            self.counters.icmp_errors_sent += 1;
        }
    }

    /// Source and destination MAC of an answer to a received frame.
    fn macs(&self, data: &[u8], port: PortId) -> Option<(Mac, Mac)> {
        let own = self.routes.port(port)?.mac;
        let peer = data.get(6..12)?.try_into().ok()?;
        Some((own, Mac(peer)))
    }
}

/// Whether an error about the first direction ends its session (J9): the host that a UDP session leads
/// to says itself that nobody listens. Only that host can know, so a router's word passes and ends
/// nothing; TCP has its own way to close.
fn closes(w: &Work, e: &IcmpError) -> bool {
    let nobody_listens = matches!((w.packet.v4, e.kind, e.code), (true, 3, 2 | 3) | (false, 1, 4));
    nobody_listens && e.embedded.protocol == proto::UDP && w.packet.tuple.src == e.embedded.dst
}
