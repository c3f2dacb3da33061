//! J1, routing, and what the engine writes itself.

use super::*;

#[test]
fn j1_one_session_serves_both_wings_and_unknown_replies_do_not_pass() {
    // Red when a wing sets up a session of its own, or when the default is permit.
    let mut lab = Lab::new(POLICY, 1000);
    assert_eq!(dropped(lab.verdict(IN, udp(false, 4000, 53, 10))), DropReason::PolicyDefault);
    assert_eq!(lab.verdict(OUT, udp(true, 4000, 53, 10)), Verdict::Transmit(IN));
    assert_eq!(lab.verdict(IN, udp(false, 4000, 53, 30)), Verdict::Transmit(OUT));
    let s = lab.only();
    assert_eq!((s.wings[0].packets, s.wings[1].packets), (1, 1));
    assert_eq!((s.wings[0].bytes, s.wings[1].bytes), (38, 58));
    assert_eq!(s.wings[0].tuple.src, ip(CLIENT));
    assert_eq!(s.state, State::Replied);
    assert_eq!(lab.names.rule_name(s.rule), "outside/inside/out");
}

#[test]
fn j1_a_tuple_from_another_zone_is_no_match() {
    // Red when the ingress zone is not compared: the forged reply would pass.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 53, 10));
    let mut forged = udp(false, 4000, 53, 10);
    forged[..6].copy_from_slice(&port_mac(OUT).0);
    assert_eq!(dropped(lab.verdict(OUT, forged)), DropReason::ZoneMismatch);
    assert_eq!(lab.only().wings[1].packets, 0);
}

#[test]
fn j1_deny_is_silent_and_reject_tells_the_sender() {
    // Red when actions are mixed up, or when hits are not counted.
    let mut lab = Lab::new(POLICY, 1000);
    assert_eq!(dropped(lab.verdict(OUT, tcp(true, 4000, 9, SYN, 1, 0, 0))), DropReason::PolicyDeny);
    assert!(lab.engine.outbox().is_empty());
    assert_eq!(dropped(lab.verdict(OUT, tcp(true, 4000, 23, SYN, 1, 0, 0))), DropReason::PolicyReject);
    let answers: Vec<_> = lab.engine.outbox().iter().map(|(p, b)| (p, b.to_vec())).collect();
    assert_eq!(answers.len(), 1);
    let (port, reset) = &answers[0];
    assert_eq!((*port, &reset[..6]), (OUT, &CLIENT_MAC.0[..]));
    assert_eq!(reset[14 + 20 + 13], RST | ACK);
    assert_eq!(&reset[14 + 20 + 8..14 + 20 + 12], &2u32.to_be_bytes());
    assert!(lab.sessions().is_empty());
    let hits: Vec<_> =
        lab.engine.policy().unwrap().rules().iter().map(|r| lab.engine.rule_hits(Some(r.id))).collect();
    assert_eq!(hits, [1, 1, 0]);
}

#[test]
fn forwarding_rewrites_macs_ttl_and_checksum() {
    // Red when any of the three is left as it was.
    let mut lab = Lab::new(POLICY, 1000);
    let (v, out) = lab.pass(OUT, udp(true, 4000, 53, 10));
    assert_eq!(v, Verdict::Transmit(IN));
    assert_eq!((&out[..6], &out[6..12]), (&SERVER_MAC.0[..], &port_mac(IN).0[..]));
    assert_eq!(out[14 + 8], 63);
    assert_eq!(fold(sum16(&out[14..34])), 0, "IPv4 header checksum");
}

#[test]
fn a_batch_sees_the_sessions_that_it_made() {
    // Red when a packet later in the batch is judged by the lookup at the batch's start alone.
    let mut lab = Lab::new(POLICY, 1000);
    let bytes = [udp(true, 1, 53, 1), udp(false, 1, 53, 1), udp(true, 2, 53, 1), udp(true, 1, 53, 1)];
    let ports = [OUT, IN, OUT, OUT];
    let mut frames: Vec<_> =
        bytes.into_iter().zip(ports).map(|(bytes, port)| TestFrame { port, bytes, note: None }).collect();
    let mut verdicts = ArrayVec::new();
    lab.engine.process(&mut frames, &mut verdicts, lab.now);
    let t = Verdict::Transmit;
    assert_eq!(verdicts[..], [t(IN), t(OUT), t(IN), t(IN)]);
    assert_eq!(lab.sessions().len(), 2);
}

#[test]
fn a_missing_neighbour_holds_the_frame_untouched_and_sets_up_nothing() {
    // Red when the session is made before the way is known, or when nobody is asked.
    let mut lab = Lab::new(POLICY, 1000);
    lab.routes(Routes { neighbours: false, ..Routes::default() });
    let frame = udp(true, 4000, 53, 10);
    let (v, after) = lab.pass(OUT, frame.clone());
    assert_eq!(v, Verdict::AwaitNeighbour { port: IN, next_hop: ip(SERVER) });
    assert_eq!(after, frame);
    assert!(lab.sessions().is_empty());
    let mut events = Vec::new();
    lab.engine.take_events(|e| events.push(e));
    assert_eq!(events, [Event::NeighbourMissing { port: IN, next_hop: ip(SERVER) }]);
    // A denied flow asks for nothing.
    assert_eq!(dropped(lab.verdict(OUT, tcp(true, 1, 9, SYN, 1, 0, 0))), DropReason::PolicyDeny);
    lab.engine.take_events(|e| panic!("{e:?}"));
    lab.routes(Routes::default());
    assert_eq!(lab.verdict(OUT, frame), Verdict::Transmit(IN));
}

#[test]
fn a_neighbour_that_changes_its_mac_is_followed() {
    // Red when the cached way outlives its snapshot.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 53, 10));
    lab.routes(Routes { server_mac: Mac([9; 6]), ..Routes::default() });
    let (_, out) = lab.pass(OUT, udp(true, 4000, 53, 10));
    assert_eq!(&out[..6], &[9; 6]);
}

#[test]
fn a_route_into_another_zone_stops_the_flow() {
    // Red when the egress zone of a live session is not compared with the recorded one.
    let mut lab = Lab::new(POLICY, 1000);
    lab.verdict(OUT, udp(true, 4000, 53, 10));
    lab.routes(Routes { server_port: OUT, ..Routes::default() });
    assert_eq!(dropped(lab.verdict(OUT, udp(true, 4000, 53, 10))), DropReason::ZoneMismatch);
    lab.routes(Routes::default());
    assert_eq!(lab.verdict(OUT, udp(true, 4000, 53, 10)), Verdict::Transmit(IN));
}

#[test]
fn ttl_and_mtu_are_answered_by_icmp_from_the_ports_own_address() {
    // Red when the TTL is not checked, or the MTU of the way out is not respected.
    let mut lab = Lab::new(POLICY, 1000);
    let mut p = udp(true, 4000, 53, 10);
    p = ipv4(CLIENT, SERVER, 1, proto::UDP, Some(6), &p[34..]);
    assert_eq!(dropped(lab.verdict(OUT, p)), DropReason::TtlExpired);
    let error = lab.engine.outbox().iter().next().unwrap().1.to_vec();
    assert_eq!((error[23], error[34], error[35]), (proto::ICMP, 11, 0));
    assert_eq!(&error[26..30], &[10, 1, 0, 1]);
    assert!(lab.sessions().is_empty(), "an expired packet sets up nothing");

    lab.routes(Routes { inside_mtu: 1000, ..Routes::default() });
    assert_eq!(dropped(lab.verdict(OUT, udp(true, 4000, 53, 1200))), DropReason::TooBig);
    let error = lab.engine.outbox().iter().next().unwrap().1.to_vec();
    assert_eq!((error[34], error[35]), (3, 4));
    assert_eq!(&error[40..42], &1000u16.to_be_bytes());
}

#[test]
fn a_packet_that_may_be_fragmented_leaves_in_pieces_that_fit() {
    // Red when the pieces exceed the MTU, or bytes go missing.
    let mut lab = Lab::new(POLICY, 1000);
    lab.routes(Routes { inside_mtu: 600, ..Routes::default() });
    let mut p = udp(true, 4000, 53, 1200);
    p[20] = 0; // don't-fragment off
    p[24..26].copy_from_slice(&[0, 0]);
    let c = fold(sum16(&p[14..34]));
    p[24..26].copy_from_slice(&c.to_be_bytes());
    assert_eq!(lab.verdict(OUT, p.clone()), Verdict::Consumed);
    let pieces: Vec<_> = lab.engine.outbox().iter().map(|(port, b)| (port, b.to_vec())).collect();
    assert!(pieces.len() >= 3 && pieces.iter().all(|(port, b)| *port == IN && b.len() - 14 <= 600));
    let body: Vec<u8> = pieces.iter().flat_map(|(_, b)| b[34..].to_vec()).collect();
    assert_eq!(body, p[34..]);
}

#[test]
fn icmp_errors_are_rate_limited() {
    // Red when `send_icmp` does not ask the limit.
    let mut lab = Lab::new(POLICY, 1000);
    let mut sent = 0;
    for i in 0..200 {
        let p = udp(true, 4000 + i, 53, 10);
        lab.verdict(OUT, ipv4(CLIENT, SERVER, 1, proto::UDP, Some(6), &p[34..]));
        sent += lab.engine.outbox().iter().count();
    }
    assert_eq!(sent as u64, lab.engine.counters().icmp_errors_sent);
    assert!(sent <= 10, "{sent}");
    assert_eq!(lab.engine.counters().icmp_errors_limited, 200 - sent as u64);
}

#[test]
fn unreachable_destinations_are_told() {
    // Red when a missing route is dropped in silence.
    let mut lab = Lab::new(POLICY, 1000);
    let p = udp(true, 4000, 53, 10);
    let stray = ipv4(CLIENT, "203.0.113.1", 64, proto::UDP, Some(6), &p[34..]);
    assert_eq!(dropped(lab.verdict(OUT, stray)), DropReason::NoRoute);
    let error = lab.engine.outbox().iter().next().unwrap().1.to_vec();
    assert_eq!((error[34], error[35]), (3, 0));
}

#[test]
fn frames_for_other_stations_and_broken_ones_change_nothing() {
    // Red when the destination MAC or the checksum is not verified.
    let mut lab = Lab::new(POLICY, 1000);
    let mut other = udp(true, 4000, 53, 10);
    other[5] ^= 1;
    assert_eq!(dropped(lab.verdict(OUT, other)), DropReason::NotForUs);
    let mut broken = udp(true, 4000, 53, 10);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert_eq!(dropped(lab.verdict(OUT, broken)), DropReason::L4Checksum);
    assert!(lab.sessions().is_empty());
    assert_eq!(lab.engine.counters().drops.total(), 2);
}

#[test]
fn every_flow_has_one_shard_both_directions_and_its_icmp_errors() {
    // Red when the shard depends on the direction, or an error is steered by its outer tuple.
    let routes = Arc::new(Snapshot::empty());
    let mut labs: Vec<Lab> = (0..4).map(|_| Lab::new(POLICY, 1000)).collect();
    for (i, lab) in labs.iter_mut().enumerate() {
        let config = EngineConfig { shard: i as u16, shards: 4, ..*lab.engine.config() };
        let policy = lab.engine.policy().unwrap().clone();
        lab.engine = Engine::new(config, routes.clone()).unwrap();
        lab.engine.set_policy(policy);
        lab.routes(Routes::default());
    }
    let mut seen = [0; 4];
    for sport in 1..200 {
        let up = udp(true, sport, 53, 10);
        let error = icmp_error(SERVER, CLIENT, 3, 3, &up);
        let owner = |v: Verdict, me: usize| if let Verdict::Handover(o) = v { usize::from(o) } else { me };
        let shard = owner(labs[0].verdict(OUT, up.clone()), 0);
        seen[shard] += 1;
        for (i, lab) in labs.iter_mut().enumerate() {
            assert_eq!(owner(lab.verdict(OUT, up.clone()), i), shard);
            assert_eq!(owner(lab.verdict(IN, udp(false, sport, 53, 10)), i), shard);
            assert_eq!(owner(lab.verdict(IN, error.clone()), i), shard);
        }
    }
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
}
