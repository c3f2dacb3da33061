//! Fragments through the engine: whose session they are counted for, and what may not pass.

use super::*;
use crate::fragment::FragmentNote;
use crate::packet::parse;

const MORE: u16 = 0x2000;

/// Cuts an IPv4 frame into fragments of `size` payload bytes (a multiple of 8).
fn cut(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let payload = &frame[34..];
    let count = payload.len().div_ceil(size);
    let one = |(n, part): (usize, &[u8])| {
        let more = if n + 1 < count { MORE } else { 0 };
        fragment(frame, (n * size / 8) as u16 | more, part)
    };
    payload.chunks(size).enumerate().map(one).collect()
}

/// A fragment with the addresses and protocol of `frame`.
fn fragment(frame: &[u8], offset_and_flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = frame[..34].to_vec();
    out[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    out[20..22].copy_from_slice(&offset_and_flags.to_be_bytes());
    out[24..26].fill(0);
    let sum = fold(sum16(&out[14..34]));
    out[24..26].copy_from_slice(&sum.to_be_bytes());
    out.extend(payload);
    out
}

/// Sends fragments through as a worker does, keeping those that wait; what left, in order.
fn send_all(lab: &mut Lab, port: PortId, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut waiting: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut left = Vec::new();
    for bytes in frames {
        match lab.pass(port, bytes.clone()) {
            (Verdict::Transmit(_), sent) => left.push(sent),
            (Verdict::AwaitFragment { datagram, .. }, same) => {
                assert_eq!(same, bytes, "a waiting frame stays as it is");
                waiting.push((datagram.0, same));
            }
            (Verdict::Drop(_), _) => {}
            (other, _) => panic!("{other:?}"),
        }
        while let Some(settled) = lab.engine.next_settled() {
            let (now, later) = waiting.into_iter().partition(|(d, _)| *d == settled.datagram.0);
            waiting = later;
            let now: Vec<_> = now;
            for (_, bytes) in now {
                let Ok(note) = settled.outcome else { continue };
                let (verdict, sent) = noted(lab, port, bytes, note);
                assert!(matches!(verdict, Verdict::Transmit(_)), "{verdict:?}");
                left.push(sent);
            }
        }
    }
    left
}

fn noted(lab: &mut Lab, port: PortId, bytes: Vec<u8>, note: FragmentNote) -> (Verdict, Vec<u8>) {
    let mut frames = [TestFrame { port, bytes, note: Some(note) }];
    let mut verdicts = ArrayVec::new();
    lab.engine.process(&mut frames, &mut verdicts, lab.now);
    let [frame] = frames;
    (verdicts[0], frame.bytes)
}

/// The payloads put together by offset.
fn together(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut all: Vec<(u16, &[u8])> =
        fragments.iter().map(|f| (u16::from_be_bytes([f[20], f[21]]) & 0x1fff, &f[34..])).collect();
    all.sort_by_key(|(offset, _)| *offset);
    all.iter().flat_map(|(_, payload)| payload.iter().copied()).collect()
}

// Red when later fragments are dropped, are not counted for their session, or make one of their own.
#[test]
fn fragments_follow_the_first_ones_session_in_any_order() {
    let whole = udp(true, 4000, 53, 30_000);
    for reverse in [false, true] {
        let mut lab = Lab::new(POLICY, 1000);
        let mut fragments = cut(&whole, 1_480);
        if reverse {
            fragments.reverse();
        }
        let count = fragments.len();
        let left = send_all(&mut lab, OUT, fragments);
        assert_eq!(together(&left), whole[34..]);
        assert!(left.iter().all(|f| f[..6] == SERVER_MAC.0 && f[14 + 8] == 63), "forwarded like any packet");
        let session = lab.only();
        assert_eq!(session.wings[0].packets, count as u64);
        assert_eq!(session.wings[0].bytes, (30_008 + 20 * count) as u64);
        assert_eq!(session.wings[0].tuple.dst_port, 53);
        // The reply, fragmented too, is of the same session.
        let reply = cut(&udp(false, 4000, 53, 4_000), 1_480);
        assert_eq!(send_all(&mut lab, IN, reply).len(), 3);
        let session = lab.only();
        assert_eq!((session.wings[1].packets, session.state), (3, State::Replied));
        assert_eq!(lab.engine.fragments().in_use(), 0);
    }
}

// Red when a denied flow's later fragments pass, ask for a neighbour, or count for its rule again.
#[test]
fn what_the_first_fragment_may_not_the_others_may_not() {
    let mut lab = Lab::new(POLICY, 1000);
    // Nothing new from inside to outside.
    let fragments = cut(&udp(false, 4000, 53, 4_000), 1_480);
    let reasons: Vec<_> = fragments.into_iter().map(|f| dropped(lab.verdict(IN, f))).collect();
    let untracked = DropReason::FragmentUntracked;
    assert_eq!(reasons, [DropReason::PolicyDefault, untracked, untracked]);
    assert_eq!(lab.engine.rule_hits(None), 1);
    lab.routes(Routes { neighbours: false, ..Routes::default() });
    let mut fragments = cut(&udp(false, 4001, 53, 4_000), 1_480);
    // The same datagram identification again: another flow, another datagram.
    assert_eq!(dropped(lab.verdict(IN, fragments.remove(0))), DropReason::PolicyDefault);
    assert_eq!(dropped(lab.verdict(IN, fragments.remove(0))), untracked);
    lab.engine.take_events(|e| panic!("{e:?}"));
}

// Red when a datagram to a neighbour that is not known yet loses its later fragments.
#[test]
fn later_fragments_wait_for_a_neighbour_with_the_first() {
    let mut lab = Lab::new(POLICY, 1000);
    lab.routes(Routes { neighbours: false, ..Routes::default() });
    let fragments = cut(&udp(true, 4000, 53, 2_000), 1_480);
    let wait = Verdict::AwaitNeighbour { port: IN, next_hop: ip(SERVER) };
    let mut frames: Vec<_> =
        fragments.into_iter().map(|bytes| TestFrame { port: OUT, bytes, note: None }).collect();
    let mut verdicts = ArrayVec::new();
    lab.engine.process(&mut frames, &mut verdicts, lab.now);
    assert_eq!(verdicts[..], [wait, wait]);
    assert!(lab.sessions().is_empty());
    lab.routes(Routes::default());
    // The worker gives them again as they are, note and all: they are not checked a second time.
    lab.engine.process(&mut frames, &mut verdicts, lab.now);
    assert_eq!(verdicts[..], [Verdict::Transmit(IN); 2]);
}

// Red when a fragment that does not fit the way out is neither cut again nor refused.
#[test]
fn fragments_are_cut_again_for_a_smaller_mtu() {
    let mut lab = Lab::new(POLICY, 1000);
    lab.routes(Routes { inside_mtu: 600, ..Routes::default() });
    let mut whole = udp(true, 4000, 53, 2_800);
    whole[20] = 0;
    let mut left = Vec::new();
    for f in cut(&whole, 1_400) {
        lab.engine.outbox().clear();
        match lab.pass(OUT, f) {
            (Verdict::Consumed, _) => {
                left.extend(lab.engine.outbox().iter().map(|(_, frame)| frame.to_vec()));
            }
            // The last has but eight bytes.
            (verdict, frame) => {
                assert_eq!((verdict, frame.len()), (Verdict::Transmit(IN), 14 + 20 + 8));
                left.push(frame);
            }
        }
    }
    assert!(left.iter().all(|f| f.len() <= 614));
    assert_eq!(together(&left), whole[34..]);
    assert_eq!(lab.only().wings[0].packets, 3);
    let with_df = fragment(&whole, 0x4000 | MORE, &whole[34..34 + 1_400]);
    lab.wait_ms(1_100);
    assert_eq!(dropped(lab.verdict(OUT, with_df)), DropReason::TooBig);
}

// Red when a TCP header cut in two, a fragment that would overwrite one, or an overlap of it passes.
#[test]
fn tiny_and_overlapping_tcp_headers_do_not_pass() {
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    let data = tcp(true, 4000, 80, ACK, 1001, 5001, 64);
    let tiny = fragment(&data, MORE, &data[34..50]);
    assert_eq!(dropped(lab.verdict(OUT, tiny)), DropReason::FragmentTiny);
    let over = fragment(&data, 1 | MORE, &data[42..66]);
    assert_eq!(dropped(lab.verdict(OUT, over)), DropReason::FragmentTiny);
    let first = fragment(&data, MORE, &data[34..66]);
    assert_eq!(lab.verdict(OUT, first), Verdict::Transmit(IN));
    let overlap = fragment(&data, 3, &data[58..]);
    assert_eq!(dropped(lab.verdict(OUT, overlap)), DropReason::FragmentOverlap);
    let rest = fragment(&data, 4, &data[66..]);
    assert_eq!(dropped(lab.verdict(OUT, rest)), DropReason::FragmentOverlap);
}

// Red when a fragmented segment, whose checksum nobody verified, opens, closes or resets a connection.
#[test]
fn fragmented_tcp_segments_pass_and_change_no_state() {
    let mut lab = Lab::new(POLICY, 1000);
    let syn = cut(&tcp(true, 4000, 80, SYN, 1000, 0, 64), 32);
    let reasons: Vec<_> = syn.into_iter().map(|f| dropped(lab.verdict(OUT, f))).collect();
    let later = DropReason::FragmentUntracked;
    assert_eq!(reasons, [DropReason::TcpNoSession, later, later]);
    lab.connect(4000, 80);
    for flags in [RST, FIN | ACK, ACK] {
        lab.wait_ms(1_100);
        let fragments = cut(&tcp(true, 4000, 80, flags, 1001, 5001, 64), 48);
        assert_eq!(send_all(&mut lab, OUT, fragments).len(), 2);
        assert_eq!(lab.only().state, State::Established);
    }
    assert_eq!(lab.only().wings[0].packets, 2 + 6);
}

// Red when the fragments of one datagram do not meet: they are checked at different workers, go round in
// circles, or the flow's worker does not get them.
#[test]
fn fragments_meet_at_their_home_and_end_at_their_flows_worker() {
    let routes = Arc::new(Snapshot::empty());
    let mut labs: Vec<Lab> = (0..4).map(|_| Lab::new(POLICY, 1000)).collect();
    for (i, lab) in labs.iter_mut().enumerate() {
        let config = EngineConfig { shard: i as u16, shards: 4, ..*lab.engine.config() };
        let policy = lab.engine.policy().unwrap().clone();
        lab.engine = Engine::new(config, routes.clone()).unwrap();
        lab.engine.set_policy(policy);
        lab.routes(Routes::default());
    }
    let (mut hops_seen, mut ends) = ([0; 3], [0; 4]);
    for sport in 1..200u16 {
        let mut whole = udp(true, sport, 53, 2_000);
        whole[18..20].copy_from_slice(&sport.to_be_bytes());
        let mut at_end = None;
        for (n, bytes) in cut(&whole, 1_480).into_iter().enumerate() {
            // Each is received by another worker.
            let mut at = (usize::from(sport) + n) % 4;
            let mut frames = [TestFrame { port: OUT, bytes, note: None }];
            let mut hops = 0;
            loop {
                let mut verdicts = ArrayVec::new();
                let lab = &mut labs[at];
                lab.engine.process(&mut frames, &mut verdicts, lab.now);
                match verdicts[0] {
                    Verdict::Handover(next) => at = usize::from(next),
                    Verdict::Transmit(IN) => break,
                    other => panic!("{other:?}"),
                }
                hops += 1;
                assert!(hops <= 2);
            }
            hops_seen[hops] += 1;
            assert_eq!(*at_end.get_or_insert(at), at, "both at the flow's worker");
        }
        ends[at_end.unwrap()] += 1;
    }
    assert!(hops_seen.iter().all(|n| *n > 10) && ends.iter().all(|n| *n > 20), "{hops_seen:?} {ends:?}");
}

// Red when fragments of a large ping are not of the ping's session, or its reply does not shorten the timeout.
#[test]
fn j2_a_large_ping_is_one_session() {
    let mut lab = Lab::new(POLICY, 1000);
    let ping = |from, to, reply: bool| {
        let mut whole = echo(from, to, reply, 77);
        whole.extend([0x41; 3_000]);
        let sum = fold(sum16(&whole[34..36]) + sum16(&whole[38..]));
        whole[36..38].copy_from_slice(&sum.to_be_bytes());
        cut(&whole, 1_480)
    };
    assert_eq!(send_all(&mut lab, OUT, ping(CLIENT, SERVER, false)).len(), 3);
    assert_eq!(lab.only().remaining_ms, Some(60_000));
    assert_eq!(send_all(&mut lab, IN, ping(SERVER, CLIENT, true)).len(), 3);
    let session = lab.only();
    assert_eq!((session.wings[0].packets, session.wings[1].packets), (3, 3));
    assert_eq!(session.remaining_ms, Some(4_000));
    lab.wait_ms(6_000);
    assert!(lab.sessions().is_empty());
}

// Red when fragments from another zone join a datagram: whoever forges its source could spoil it.
#[test]
fn a_datagram_cannot_be_disturbed_from_another_zone() {
    let mut lab = Lab::new(POLICY, 1000);
    let fragments = cut(&udp(true, 4000, 53, 2_000), 1_480);
    assert_eq!(lab.verdict(OUT, fragments[0].clone()), Verdict::Transmit(IN));
    let mut forged = fragment(&fragments[0], 1 | MORE, &[0xee; 16]);
    forged[..6].copy_from_slice(&port_mac(IN).0);
    assert!(matches!(lab.verdict(IN, forged), Verdict::AwaitFragment { .. }));
    assert_eq!(lab.verdict(OUT, fragments[1].clone()), Verdict::Transmit(IN));
}

// Red when a fragment that is malformed by itself gets past the parser: a ping of death, a middle of no
// whole units, an empty one.
#[test]
fn fragments_that_are_wrong_by_themselves_are_refused() {
    let whole = udp(true, 4000, 53, 2_000);
    let of = |offset_and_flags, len: usize| fragment(&whole, offset_and_flags, &whole[34..34 + len]);
    let reason = |frame: Vec<u8>| parse(&frame, crate::packet::ParseOptions::default()).unwrap_err();
    assert_eq!(reason(of(0x1fff, 16)), DropReason::FragmentMalformed);
    assert_eq!(reason(of(8_190, 16)), DropReason::FragmentMalformed);
    assert_eq!(reason(of(10 | MORE, 15)), DropReason::FragmentMalformed);
    assert_eq!(reason(of(10, 0)), DropReason::FragmentMalformed);
}
