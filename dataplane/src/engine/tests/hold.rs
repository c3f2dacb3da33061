//! First packets that wait until peers hold their session (`setup_ack`).

use super::park::sent;
use super::replica::Cluster;
use super::*;
use crate::session::EndReason;

fn waiting_for(peers: &str, more: &str) -> Cluster {
    let mut c = Cluster::with(3, &format!("{POLICY}[replication]\nsetup_ack = \"{peers}\"\n{more}\n"));
    // Two peers are connected, and have acknowledged nothing.
    let now = c.of(1).now;
    c.of(1).engine.acknowledged(1, 1, now);
    c
}

fn syn(cport: u16) -> Vec<u8> {
    tcp(true, cport, 80, SYN, 1000, 0, 0)
}

/// Node 1 hears that one peer, or all of them, hold changes below these numbers.
fn acknowledged(c: &mut Cluster, by_one: u64, by_all: u64) {
    let now = c.of(1).now;
    c.of(1).engine.acknowledged(by_one, by_all, now);
}

/// Red when the packet leaves before the peers that it waits for hold its session, or otherwise than it would have.
#[test]
fn a_first_packet_waits_for_its_peers() {
    for (peers, too_few, enough) in [("one", (1, 1), (2, 1)), ("all", (2, 1), (2, 2))] {
        let mut c = waiting_for(peers, "");
        assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed, "{peers}");
        assert_eq!(c.of(1).engine.log_head(), 2, "told at once");
        acknowledged(&mut c, too_few.0, too_few.1);
        c.of(1).wait_ms(100);
        assert!(sent(c.of(1)).is_empty(), "{peers}");
        acknowledged(&mut c, enough.0, enough.1);
        let expected = Lab::new(POLICY, 10).pass(OUT, syn(4000)).1;
        assert_eq!(sent(c.of(1)), [(IN, expected)], "{peers}");
        let session = c.of(1).only();
        assert_eq!((session.state, session.wings[0].packets), (State::SynSent, 1));
        assert_eq!(
            c.of(1).verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0)),
            Verdict::Transmit(OUT)
        );
        let counters = c.of(1).engine.counters();
        assert_eq!((counters.waiting.setup_held, counters.waiting.setup_timeouts), (1, 0));
        assert_eq!((counters.created, counters.drops.total()), (1, 0));
    }
}

/// Red when anything waits where nobody is there to wait for, or where policy does not ask for it.
#[test]
fn nothing_waits_without_peers_or_without_a_rule() {
    let mut c = waiting_for("all", "");
    acknowledged(&mut c, u64::MAX, u64::MAX);
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Transmit(IN));
    let mut none = waiting_for("none", "");
    assert_eq!(none.of(1).verdict(OUT, syn(4000)), Verdict::Transmit(IN));
    let kept_here = waiting_for("all", "protocols = [\"udp\"]").of(1).verdict(OUT, syn(4000));
    assert_eq!(kept_here, Verdict::Transmit(IN));
    let mut by_rule = POLICY.replace("\"permit\"", "\"permit\"\nsetup_ack = \"none\"");
    by_rule.push_str("[replication]\nsetup_ack = \"all\"\n");
    let mut c = Cluster::with(2, &by_rule);
    acknowledged(&mut c, 1, 1);
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Transmit(IN));
}

/// Red when those who wait are kept although the last peer has gone.
#[test]
fn the_last_peer_that_goes_lets_all_go() {
    let mut c = waiting_for("all", "");
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed);
    acknowledged(&mut c, u64::MAX, u64::MAX);
    assert_eq!(sent(c.of(1)).len(), 1);
    assert_eq!(c.of(1).engine.waiting(), (0, 0));
}

/// Red when a later packet overtakes the first, or the queue stays when it has gone.
#[test]
fn later_packets_queue_behind_the_first() {
    let mut c = waiting_for("one", "");
    for len in 10..30 {
        assert_eq!(c.of(1).verdict(OUT, udp(true, 4000, 53, len)), Verdict::Consumed);
        assert_eq!(c.of(1).verdict(OUT, udp(true, 4001, 53, len)), Verdict::Consumed);
    }
    assert_eq!(c.of(1).engine.waiting(), (0, 40));
    acknowledged(&mut c, 2, 1);
    let lengths =
        |frames: Vec<(PortId, Vec<u8>)>| frames.iter().map(|(_, f)| f.len() - 42).collect::<Vec<_>>();
    assert_eq!(lengths(sent(c.of(1))), (10..30).collect::<Vec<_>>(), "one flow is acknowledged");
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4000, 53, 30)), Verdict::Transmit(IN));
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4001, 53, 30)), Verdict::Consumed);
    acknowledged(&mut c, 3, 1);
    assert_eq!(lengths(sent(c.of(1))), (10..31).collect::<Vec<_>>());
    let packets: Vec<u64> = c.of(1).sessions().iter().map(|s| s.wings[0].packets).collect();
    assert_eq!(packets, [21, 21]);
    // A flow's queue is bounded.
    let verdicts: Vec<Verdict> = (0..40).map(|_| c.of(1).verdict(OUT, udp(true, 4002, 53, 9))).collect();
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Consumed).count(), 32);
    assert_eq!(dropped(verdicts[39]), DropReason::SetupQueueFull);
}

/// Red when the time is not kept, or what is chosen for then is not what happens.
#[test]
fn when_the_time_is_over_policy_chooses() {
    for drops in [false, true] {
        let choice = if drops { "drop" } else { "release" };
        let settings = format!("setup_ack_timeout_ms = 120\nsetup_ack_on_timeout = \"{choice}\"");
        let mut c = waiting_for("all", &settings);
        assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed);
        assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed, "repeated");
        // One of two peers has it, and says so.
        let told = c.read(1, 2);
        c.apply(1, 2, &told[0]);
        acknowledged(&mut c, 2, 1);
        let came = c.of(1).now.0;
        c.of(1).engine.sweep(Now(came + 119));
        assert_eq!(c.of(1).engine.waiting(), (0, 2));
        c.of(1).now = Now(came + 120);
        c.of(1).engine.sweep(Now(came + 120));
        assert_eq!(c.of(1).engine.waiting(), (0, 0));
        assert_eq!(c.of(1).engine.counters().waiting.setup_timeouts, 1);
        assert_eq!(sent(c.of(1)).len(), if drops { 0 } else { 2 });
        c.talk();
        assert_eq!(c.counts(), if drops { [0, 0, 0] } else { [1, 1, 1] }, "half made");
        let counters = c.of(1).engine.counters();
        assert_eq!(counters.drops.get(DropReason::SetupUnacknowledged), if drops { 2 } else { 0 });
        assert_eq!(counters.ended[EndReason::Unacknowledged as usize], u64::from(drops));
        // The client tries again: a new session.
        acknowledged(&mut c, 9, 9);
        assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Transmit(IN));
    }
}

/// Red when a session that is alive elsewhere is ended because one peer was slow.
#[test]
fn what_lives_elsewhere_is_not_dropped() {
    let mut c = waiting_for("all", "setup_ack_timeout_ms = 120\nsetup_ack_on_timeout = \"drop\"");
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed);
    c.talk();
    // Its SYN came a second time, by node 2, and was answered there.
    assert_eq!(c.of(2).verdict(OUT, syn(4000)), Verdict::Transmit(IN));
    assert_eq!(c.of(2).verdict(IN, tcp(false, 4000, 80, SYN | ACK, 5000, 1001, 0)), Verdict::Transmit(OUT));
    c.talk();
    c.of(1).wait_ms(200);
    assert_eq!(sent(c.of(1)).len(), 1);
    assert_eq!(c.counts(), [1, 1, 1]);
}

/// Red when a packet whose session ended while it waited makes a new one.
#[test]
fn what_was_cleared_meanwhile_is_dropped() {
    let mut c = waiting_for("one", "");
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed);
    let now = c.of(1).now;
    assert_eq!(c.of(1).engine.clear(0, 100, &SessionFilter::default(), now).1, 1);
    acknowledged(&mut c, 9, 9);
    assert!(sent(c.of(1)).is_empty() && c.of(1).sessions().is_empty());
    assert_eq!(c.of(1).engine.counters().drops.get(DropReason::SetupUnacknowledged), 1);
}

/// Red when a store that is full stops flows that may go on without it, or lets go what may not.
#[test]
fn a_full_store_does_what_a_timeout_does() {
    for (choice, forwarded) in [("release", true), ("drop", false)] {
        let settings = format!("setup_ack_timeout_ms = 5000\nsetup_ack_on_timeout = \"{choice}\"");
        let mut c = waiting_for("one", &settings);
        // All from one source: a quarter of the places.
        for n in 0..1024 {
            assert_eq!(c.of(1).verdict(OUT, syn(1 + n % 512)), Verdict::Consumed);
        }
        let now = c.of(1).now;
        c.of(1).engine.clear(0, 1, &SessionFilter::default(), now);
        let expected =
            if forwarded { Verdict::Transmit(IN) } else { Verdict::Drop(DropReason::SetupUnacknowledged) };
        assert_eq!(c.of(1).verdict(OUT, syn(5000)), expected);
        assert_eq!(c.of(1).engine.counters().waiting.setup_not_held, 1);
    }
}

/// Red when those who wait are lost, or change places, because the outbox is full.
#[test]
fn more_than_the_outbox_holds_goes_in_turn() {
    let mut c = waiting_for("one", "");
    for cport in 0..100 {
        for len in [10, 11] {
            assert_eq!(c.of(1).verdict(OUT, udp(true, 4000 + cport, 53, len)), Verdict::Consumed);
        }
    }
    acknowledged(&mut c, 1000, 1);
    let mut frames = sent(c.of(1));
    assert_eq!(frames.len(), OUTBOX_PACKETS);
    for _ in 0..5 {
        let now = c.of(1).now;
        c.of(1).engine.sweep(now);
        frames.extend(sent(c.of(1)));
    }
    let order: Vec<(u16, usize)> =
        frames.iter().map(|(_, f)| (u16::from_be_bytes([f[34], f[35]]), f.len() - 42)).collect();
    let expected: Vec<_> = (0..100).flat_map(|n| [(4000 + n, 10), (4000 + n, 11)]).collect();
    assert_eq!(order, expected);
    assert_eq!(c.of(1).engine.counters().drops.total(), 0);
}

/// Red when a minimum age keeps back the news that a packet waits for.
#[test]
fn a_minimum_age_does_not_delay_what_is_waited_for() {
    let mut c = waiting_for("one", "min_age_s = 10");
    assert_eq!(c.of(1).verdict(OUT, syn(4000)), Verdict::Consumed);
    c.talk();
    assert_eq!(c.counts(), [1, 1, 1]);
    acknowledged(&mut c, 2, 2);
    assert_eq!(sent(c.of(1)).len(), 1);
}
