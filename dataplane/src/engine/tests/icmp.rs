//! J9: which ICMP errors end a session, which merely pass, and which are refused.

use super::*;

/// The session that a client's datagram made, and the datagram.
fn open(lab: &mut Lab) -> Vec<u8> {
    let datagram = udp(true, 4000, 53, 20);
    assert_eq!(lab.verdict(OUT, datagram.clone()), Verdict::Transmit(IN));
    datagram
}

// Red when "nobody listens" from the host itself leaves the session alive, is not forwarded, or ends it under
// another reason.
#[test]
fn j9_an_unreachable_port_or_protocol_ends_its_udp_session() {
    for code in [2, 3] {
        let mut lab = Lab::new(POLICY, 1000);
        let about = open(&mut lab);
        let error = icmp_error(SERVER, CLIENT, 3, code, &about);
        assert_eq!(lab.verdict(IN, error.clone()), Verdict::Transmit(OUT));
        assert!(lab.sessions().is_empty(), "code {code}");
        assert_eq!(lab.engine.counters().ended[crate::session::EndReason::Closed as usize], 1);
        assert_eq!(dropped(lab.verdict(IN, error)), DropReason::IcmpErrorUnmatched, "about nothing now");
    }
}

// Red when any other error, a router's word, or an error about the reply ends a session, or does not pass.
#[test]
fn j9_other_errors_pass_and_end_nothing() {
    let router = "10.2.0.77";
    let errors = [
        (SERVER, 3, 0),
        (SERVER, 3, 1),
        (SERVER, 3, 4),
        (SERVER, 3, 13),
        (SERVER, 11, 0),
        (SERVER, 12, 0),
        (SERVER, 4, 0),
        (router, 3, 3),
        (router, 3, 2),
        (router, 11, 0),
    ];
    for (source, kind, code) in errors {
        let mut lab = Lab::new(POLICY, 1000);
        let about = open(&mut lab);
        lab.wait_ms(10);
        let error = icmp_error(source, CLIENT, kind, code, &about);
        assert_eq!(lab.verdict(IN, error), Verdict::Transmit(OUT), "{source} {kind}/{code}");
        let session = lab.only();
        assert_eq!(session.idle_ms, 10, "an error restarts no timer");
        assert_eq!(session.wings[1].packets, 0, "nor is it counted for the session");
    }
    let mut lab = Lab::new(POLICY, 1000);
    open(&mut lab);
    let reply = udp(false, 4000, 53, 20);
    assert_eq!(lab.verdict(IN, reply.clone()), Verdict::Transmit(OUT));
    let error = icmp_error(CLIENT, SERVER, 3, 3, &reply);
    assert_eq!(lab.verdict(OUT, error), Verdict::Transmit(IN), "from the side that asked");
    lab.only();
}

// Red when a forged error passes or changes anything: from the wrong zone, to the wrong host, about another
// tuple, about the other direction, or about a fragment that holds no ports.
#[test]
fn j9_forged_errors_change_nothing() {
    let mut lab = Lab::new(POLICY, 1000);
    let about = open(&mut lab);
    let mut from_outside = icmp_error(SERVER, CLIENT, 3, 3, &about);
    from_outside[..6].copy_from_slice(&port_mac(OUT).0);
    let mut later_fragment = about.clone();
    later_fragment[20..22].copy_from_slice(&[0, 185]);
    let forged = [
        (OUT, from_outside),
        (IN, icmp_error(SERVER, "10.1.0.9", 3, 3, &about)),
        (IN, icmp_error(SERVER, CLIENT, 3, 3, &udp(true, 4001, 53, 20))),
        (IN, icmp_error(SERVER, CLIENT, 3, 3, &udp(true, 4000, 54, 20))),
        (IN, icmp_error(SERVER, CLIENT, 3, 3, &tcp(true, 4000, 53, ACK, 1, 1, 0))),
        (IN, icmp_error(SERVER, CLIENT, 3, 3, &udp(false, 4000, 53, 20))),
        (IN, icmp_error(SERVER, CLIENT, 3, 3, &later_fragment)),
    ];
    for (n, (port, error)) in forged.into_iter().enumerate() {
        assert_eq!(dropped(lab.verdict(port, error)), DropReason::IcmpErrorUnmatched, "forged error {n}");
        lab.only();
    }
}

// Red when an error ends a TCP session, or one about a sequence number that was never sent passes.
#[test]
fn j9_no_error_ends_a_tcp_session() {
    let mut lab = Lab::new(POLICY, 1000);
    lab.connect(4000, 80);
    for code in [2, 3] {
        let about = tcp(true, 4000, 80, ACK, 1001, 5001, 20);
        let error = icmp_error(SERVER, CLIENT, 3, code, &about);
        assert_eq!(lab.verdict(IN, error), Verdict::Transmit(OUT));
        assert_eq!(lab.only().state, State::Established);
    }
    let never_sent = tcp(true, 4000, 80, ACK, 900_000, 5001, 20);
    let error = icmp_error(SERVER, CLIENT, 3, 3, &never_sent);
    assert_eq!(dropped(lab.verdict(IN, error)), DropReason::IcmpErrorUnmatched);
}
