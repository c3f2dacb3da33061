//! Early packets: parked, delivered when their session comes, dropped when it does not
//! (`spec/replication.md`, "Early packets").

use super::replica::{Cluster, boot};
use super::*;
use crate::session::owner::View;

/// Frames in a node's outbox, with the port that each leaves by; the box is empty afterwards.
pub(super) fn sent(lab: &mut Lab) -> Vec<(PortId, Vec<u8>)> {
    let frames = lab.engine.outbox().iter().map(|(port, bytes)| (port, bytes.to_vec())).collect();
    lab.engine.outbox().clear();
    frames
}

fn syn_ack(cport: u16) -> Vec<u8> {
    tcp(false, cport, 80, SYN | ACK, 5000, 1001, 0)
}

/// A frame as it leaves a node that has its session.
fn forwarded(port: PortId, open: Vec<u8>, frame: Vec<u8>) -> Vec<u8> {
    let mut lab = Lab::new(POLICY, 10);
    assert_eq!(lab.verdict(OUT, open), Verdict::Transmit(IN));
    let (verdict, bytes) = lab.pass(port, frame);
    assert!(matches!(verdict, Verdict::Transmit(_)), "{verdict:?}");
    bytes
}

fn open(c: &mut Cluster, cport: u16) {
    assert_eq!(c.of(1).verdict(OUT, tcp(true, cport, 80, SYN, 1000, 0, 0)), Verdict::Transmit(IN));
}

/// Red when a SYN-ACK that overtakes its session is dropped, or leaves otherwise than it would have.
#[test]
fn a_syn_ack_before_its_session_waits_and_is_delivered() {
    let mut c = Cluster::new(2);
    open(&mut c, 4000);
    assert_eq!(c.of(2).verdict(IN, syn_ack(4000)), Verdict::Consumed);
    assert_eq!(c.of(2).engine.waiting(), (1, 0));
    assert!(sent(c.of(2)).is_empty(), "sent before there was a session");
    c.talk();
    let expected = forwarded(IN, tcp(true, 4000, 80, SYN, 1000, 0, 0), syn_ack(4000));
    assert_eq!(sent(c.of(2)), [(OUT, expected)]);
    assert_eq!(c.of(2).only().state, State::SynReceived);
    assert_eq!(c.of(1).verdict(OUT, tcp(true, 4000, 80, ACK, 1001, 5001, 0)), Verdict::Transmit(IN));
    let counters = c.of(2).engine.counters();
    assert_eq!((counters.waiting.parked, counters.waiting.park_delivered), (1, 1));
    assert_eq!((counters.drops.total(), counters.forwarded_packets), (0, 1));
    assert_eq!(c.of(2).engine.waiting(), (0, 0));
}

/// The twin of the test above: the same packets with parking off, and on a node that is alone.
#[test]
fn without_parking_it_is_dropped() {
    let mut off = Cluster::with(2, &format!("{POLICY}[replication]\npark_ms = 0\n"));
    open(&mut off, 4000);
    assert_eq!(dropped(off.of(2).verdict(IN, syn_ack(4000))), DropReason::TcpNoSession);
    off.talk();
    assert!(sent(off.of(2)).is_empty());
    let mut alone = Cluster::new(2);
    alone.view(2, &[2]);
    assert_eq!(dropped(alone.of(2).verdict(IN, syn_ack(4000))), DropReason::TcpNoSession);
}

/// Red when what belongs to no session gets out, by its own time or with another session's arrival.
#[test]
fn forged_packets_are_never_delivered() {
    let mut c = Cluster::new(2);
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        assert_eq!(c.of(2).verdict(IN, tcp(false, 4001, 80, flags, 1, 1, 0)), Verdict::Consumed);
        assert_eq!(c.of(2).verdict(OUT, tcp(true, 4001, 80, flags, 1, 1, 0)), Verdict::Consumed);
    }
    open(&mut c, 4000);
    c.talk();
    assert_eq!(c.of(2).sessions().len(), 1);
    c.of(2).wait_ms(1000);
    assert_eq!(sent(c.of(2)), []);
    let counters = c.of(2).engine.counters();
    assert_eq!((counters.waiting.park_expired, counters.waiting.park_undelivered), (10, 0));
    assert_eq!((counters.drops.get(DropReason::TcpNoSession), counters.drops.total()), (10, 10));
    assert_eq!(c.of(2).engine.waiting(), (0, 0));
}

/// Red when packets of a flow change places, or the session's own later ones are parked still. UDP: the reply's
/// direction is denied, the other one permitted.
#[test]
fn packets_go_on_in_their_order() {
    let mut c = Cluster::new(2);
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4000, 53, 8)), Verdict::Transmit(IN));
    for len in 10..20 {
        assert_eq!(c.of(2).verdict(IN, udp(false, 4000, 53, len)), Verdict::Consumed);
        assert_eq!(c.of(2).verdict(IN, udp(false, 4001, 53, len)), Verdict::Consumed, "another flow");
    }
    c.talk();
    let lengths: Vec<usize> = sent(c.of(2)).iter().map(|(_, frame)| frame.len() - 42).collect();
    assert_eq!(lengths, (10..20).collect::<Vec<_>>());
    assert_eq!(c.of(2).verdict(IN, udp(false, 4000, 53, 20)), Verdict::Transmit(OUT));
    c.of(2).wait_ms(1000);
    assert!(sent(c.of(2)).is_empty());
    assert_eq!(c.of(2).engine.counters().drops.get(DropReason::PolicyDefault), 10);
}

/// Red when a packet that opens a session itself waits for somebody else's, or one that can only open.
#[test]
fn what_can_open_a_session_never_waits() {
    let mut c = Cluster::new(2);
    assert_eq!(c.of(2).verdict(OUT, udp(true, 4000, 53, 8)), Verdict::Transmit(IN));
    assert_eq!(c.of(2).verdict(OUT, tcp(true, 4001, 80, SYN, 1, 0, 0)), Verdict::Transmit(IN));
    // Denied, and the other direction is permitted: no packet of a session that is there.
    let scan = tcp(false, 80, 4002, SYN, 1, 0, 0);
    assert_eq!(dropped(c.of(2).verdict(IN, scan)), DropReason::PolicyDefault);
    // Denied both ways, and permitted but kept to its node.
    assert_eq!(dropped(c.of(2).verdict(OUT, tcp(true, 4003, 9, ACK, 1, 1, 0))), DropReason::TcpNoSession);
    assert_eq!(dropped(c.of(2).verdict(IN, echo(SERVER, CLIENT, true, 7))), DropReason::IcmpReplyUnmatched);
    assert_eq!(c.of(2).engine.waiting(), (0, 0));
}

/// Red when the time is not the configured one, or ends by anything but `now`.
#[test]
fn the_time_is_as_configured_or_by_the_round_trip() {
    let fixed = format!("{POLICY}[replication]\npark_ms = 50\n");
    for (policy, round_trip_us, ms) in [
        (fixed.as_str(), Some(1_000_000), 50),
        (POLICY, None, 200),
        (POLICY, Some(500), 20),
        (POLICY, Some(40_000), 81),
    ] {
        let mut c = Cluster::with(2, policy);
        if let Some(us) = round_trip_us {
            c.of(2).engine.set_peer_round_trip_us(us);
        }
        let lab = c.of(2);
        assert_eq!(lab.verdict(IN, syn_ack(4000)), Verdict::Consumed);
        let came = lab.now.0;
        lab.engine.sweep(Now(came + ms - 1));
        assert_eq!(lab.engine.waiting(), (1, 0), "{ms}");
        lab.engine.sweep(Now(came + ms));
        assert_eq!(lab.engine.waiting(), (0, 0), "{ms}");
        assert_eq!(lab.engine.counters().drops.get(DropReason::TcpNoSession), 1);
    }
}

/// Red when a sender is told that there is no session before it could come, or by a node that lacks sessions.
#[test]
fn answers_come_after_parking_and_from_a_node_in_sync() {
    let telling = POLICY.replace("\"permit\"", "\"permit\"\ntcp_rst = true");
    for in_sync in [true, false] {
        let mut c = Cluster::with(2, &telling);
        let (alive, synced) =
            ([boot(1), boot(2)], if in_sync { vec![boot(1), boot(2)] } else { vec![boot(1)] });
        c.of(2).engine.set_view(Arc::new(View::new(boot(2), alive, synced, 100)));
        let lab = c.of(2);
        assert_eq!(lab.verdict(OUT, tcp(true, 4000, 80, ACK, 7, 9, 0)), Verdict::Consumed);
        assert!(sent(lab).is_empty());
        lab.wait_ms(300);
        assert_eq!(sent(lab).len(), usize::from(in_sync));
        assert_eq!(lab.engine.counters().resets_sent, u64::from(in_sync));
        assert_eq!(lab.engine.counters().drops.get(DropReason::TcpNoSession), 1);
    }
}

/// Red when a flood takes more than its bounds, pushes out what came before from elsewhere while it is of one
/// source, keeps later packets out while it is of many, or loses count of a packet.
#[test]
fn floods_are_bounded_and_disturb_nobody() {
    let mut c = Cluster::new(2);
    let client = |n: u32| format!("10.1.{}.{}", n / 250 + 1, n % 250 + 1);
    let forged = |from: &str, sport: u32| {
        let mut p = Vec::new();
        p.extend((sport as u16).to_be_bytes());
        p.extend(80u16.to_be_bytes());
        p.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
        ipv4(from, SERVER, 64, proto::TCP, Some(16), &p)
    };
    open(&mut c, 4000);
    assert_eq!(c.of(2).verdict(IN, syn_ack(4000)), Verdict::Consumed);
    for n in 0..20_000 {
        let verdict = c.of(2).verdict(OUT, forged("10.1.0.77", n + 1));
        let parked = matches!(verdict, Verdict::Consumed | Verdict::Drop(DropReason::TcpNoSession));
        assert!(parked, "{verdict:?}");
    }
    let of_one = c.of(2).engine.waiting().0;
    assert!((1000..=1025).contains(&of_one), "{of_one}");
    c.talk();
    assert_eq!(sent(c.of(2)).len(), 1, "the oldest went with a flood of one source");
    for n in 0..50_000 {
        // A few share a bound with the one before, which has reached it.
        c.of(2).verdict(OUT, forged(&client(n), n + 1));
    }
    assert_eq!(c.of(2).engine.waiting().0, 4096);
    open(&mut c, 4001);
    assert_eq!(c.of(2).verdict(IN, syn_ack(4001)), Verdict::Consumed);
    c.talk();
    assert_eq!(sent(c.of(2)).len(), 1, "no place while others flood");
    c.of(2).wait_ms(2000);
    assert!(sent(c.of(2)).is_empty());
    let counters = c.of(2).engine.counters();
    assert_eq!(counters.drops.get(DropReason::TcpNoSession), 70_000);
    let w = counters.waiting;
    assert_eq!(w.parked, w.park_delivered + w.park_expired + w.park_evicted);
    assert_eq!((w.park_delivered, w.park_refused + w.park_expired + w.park_evicted), (2, 70_000));
}

/// Red when what finds no room in the outbox is lost.
#[test]
fn what_the_outbox_has_no_room_for_goes_a_little_later() {
    let mut c = Cluster::new(2);
    for port in 0..150 {
        open(&mut c, 4000 + port);
        assert_eq!(c.of(2).verdict(IN, syn_ack(4000 + port)), Verdict::Consumed);
    }
    c.talk();
    let mut frames = sent(c.of(2));
    assert_eq!(frames.len(), OUTBOX_PACKETS);
    for _ in 0..4 {
        let now = c.of(2).now;
        c.of(2).engine.sweep(now);
        frames.extend(sent(c.of(2)));
    }
    assert_eq!(frames.len(), 150);
    assert_eq!((c.of(2).engine.waiting(), c.of(2).engine.counters().drops.total()), ((0, 0), 0));
}

/// Red when an ICMP error that overtakes the session it is about is lost, or one about no session passes.
#[test]
fn an_icmp_error_waits_like_its_flow() {
    let mut c = Cluster::new(2);
    let about = udp(true, 4000, 53, 8);
    assert_eq!(c.of(1).verdict(OUT, about.clone()), Verdict::Transmit(IN));
    assert_eq!(c.of(2).verdict(IN, icmp_error("10.2.0.9", CLIENT, 3, 4, &about)), Verdict::Consumed);
    assert_eq!(
        c.of(2).verdict(IN, icmp_error("10.2.0.9", CLIENT, 3, 4, &udp(true, 4001, 53, 8))),
        Verdict::Consumed
    );
    c.talk();
    assert_eq!(sent(c.of(2)).len(), 1);
    c.of(2).wait_ms(300);
    assert!(sent(c.of(2)).is_empty());
    assert_eq!(c.of(2).engine.counters().drops.get(DropReason::IcmpErrorUnmatched), 1);
}
