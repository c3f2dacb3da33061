//! ICMP errors, genuine and forged (J9).

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use etherparse::{IpNumber, PacketBuilder};

use crate::common::raw::{QUIET, RawEnd, RawPair, SOON, Segment, raw_pair, v4, v6};
use crate::common::{TestLab, eventually, lab};

const CLIENT_PORT: u16 = 4_000;
const SERVER_PORT: u16 = 5_300;

/// An ICMP error about `about` (an IP packet), in the family of its ends.
fn error(end: &RawEnd, from: IpAddr, to: IpAddr, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = end.packet(from, to);
    if from.is_ipv4() {
        builder.icmpv4_raw(kind, code, [0; 4]).write(&mut frame, about).unwrap();
    } else {
        builder.icmpv6_raw(kind, code, [0; 4]).write(&mut frame, about).unwrap();
    }
    frame
}

/// An IP packet with a UDP header, as an error quotes it.
fn quoted(from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (from.0, to.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 63),
        (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 63),
        _ => panic!("two families"),
    };
    builder.udp(from.1, to.1).write(&mut packet, b"query").unwrap();
    packet
}

fn quoted_tcp(from: (IpAddr, u16), to: (IpAddr, u16), seq: u32) -> Vec<u8> {
    let mut packet = quoted(from, to);
    let (protocol, l4) = if from.0.is_ipv4() { (9, 20) } else { (6, 40) };
    packet[protocol] = 6;
    packet[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    if from.0.is_ipv4() {
        packet[10..12].fill(0);
    }
    packet.extend([0; 12]);
    packet
}

/// The next ICMP error that arrives: type, code, and what it quotes.
fn error_arrival(end: &RawEnd, patience: Duration) -> Option<(u8, u8, Vec<u8>)> {
    end.arrival(patience, |packet| {
        let l4 = packet.net.as_ref()?.ip_payload_ref()?;
        let icmp = l4.payload;
        let kinds: &[u8] = match l4.ip_number {
            IpNumber::ICMP => &[3, 4, 11, 12],
            IpNumber::IPV6_ICMP => &[1, 2, 3, 4],
            _ => return None,
        };
        kinds.contains(icmp.first()?).then(|| (icmp[0], icmp[1], icmp[8..].to_vec()))
    })
}

struct Bench {
    lab: TestLab,
    pair: RawPair,
}

impl Bench {
    fn new(test: &str) -> Bench {
        let lab = lab(test, |_| ());
        let pair = raw_pair(&lab);
        Bench { lab, pair }
    }

    /// A datagram from client to server, which makes the session.
    fn open(&self, (client, server): (IpAddr, IpAddr)) {
        self.pair.client.udp((client, CLIENT_PORT), (server, SERVER_PORT), b"query");
        assert!(self.pair.server.udp_arrival(SERVER_PORT, SOON).is_some());
    }

    fn is_open(&self) -> bool {
        !self.lab.sessions(&["--destination-port", &SERVER_PORT.to_string()]).unwrap().is_empty()
    }

    fn ended_closed(&self) -> u64 {
        let metrics = self.lab.metrics().unwrap();
        metrics.sum("tidegate_sessions_ended_total", &[("cause", "closed")]).unwrap() as u64
    }
}

/// Red when a host's "nobody listens" does not reach the sender, or its session lives on.
#[test]
fn j9_an_unreachable_port_ends_its_udp_session() {
    let b = Bench::new("j9ends");
    let mut ended = 0;
    for (ends, kind, codes) in [(v4(&b.pair), 3, &[2u8, 3][..]), (v6(&b.pair), 1, &[4])] {
        for code in codes {
            b.open(ends);
            assert!(b.is_open());
            let (client, server) = ends;
            let about = quoted((client, CLIENT_PORT), (server, SERVER_PORT));
            let genuine = error(&b.pair.server, server, client, kind, *code, &about);
            b.pair.server.wire.send(&genuine).unwrap();
            let seen = error_arrival(&b.pair.client, SOON);
            assert_eq!(seen, Some((kind, *code, about)), "it passes as it is");
            eventually("the session ends", SOON, || (!b.is_open()).then_some(()));
            ended += 1;
            // Scrapes close together share one answer.
            eventually("its end is counted", SOON, || (b.ended_closed() == ended).then_some(()));
        }
    }
    // Real stacks: the sender is told, and the next error is about nothing.
    for server in [b.lab.server_v4(SERVER_PORT), b.lab.server_v6(SERVER_PORT)] {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = b.lab.client().run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.send(b"anybody?").unwrap();
        let refused = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        eventually("the session ends", SOON, || (!b.is_open()).then_some(()));
    }
}

/// Red when errors that say nothing final end a session, or do not pass back along it.
#[test]
fn j9_other_errors_pass_and_end_nothing() {
    let b = Bench::new("j9pass");
    for (ends, errors) in [
        (v4(&b.pair), &[(3u8, 0u8), (3, 1), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)][..]),
        (v6(&b.pair), &[(1, 0), (1, 1), (1, 3), (2, 0), (3, 0), (4, 0)]),
    ] {
        let (client, server) = ends;
        b.open(ends);
        let about = quoted((client, CLIENT_PORT), (server, SERVER_PORT));
        for (kind, code) in errors {
            let passing = error(&b.pair.server, server, client, *kind, *code, &about);
            b.pair.server.wire.send(&passing).unwrap();
            let seen = error_arrival(&b.pair.client, SOON);
            assert_eq!(seen, Some((*kind, *code, about.clone())));
        }
        // A router behind the node speaks of the port: it cannot know, but it may be heard.
        let router: IpAddr = if client.is_ipv4() {
            b.lab.plan().server.ipv4.parse().unwrap()
        } else {
            b.lab.plan().server.ipv6.parse().unwrap()
        };
        let (kind, code) = if client.is_ipv4() { (3, 3) } else { (1, 4) };
        b.pair.server.wire.send(&error(&b.pair.server, router, client, kind, code, &about)).unwrap();
        assert_eq!(error_arrival(&b.pair.client, SOON), Some((kind, code, about)));
        // From the side that asked, about a reply.
        b.pair.server.udp((server, SERVER_PORT), (client, CLIENT_PORT), b"answer");
        assert!(b.pair.client.udp_arrival(CLIENT_PORT, SOON).is_some());
        let about = quoted((server, SERVER_PORT), (client, CLIENT_PORT));
        b.pair.client.wire.send(&error(&b.pair.client, client, server, kind, code, &about)).unwrap();
        assert_eq!(error_arrival(&b.pair.server, SOON), Some((kind, code, about)));
        assert!(b.is_open());
        assert_eq!(b.ended_closed(), 0);
        b.lab.tidegate(&["session", "clear", "--all", "--yes"]).unwrap();
    }
}

/// Red when an error that no host on the session's path can have sent passes, is not counted, or changes
/// anything.
#[test]
fn j9_forged_errors_change_nothing() {
    let b = Bench::new("j9forged");
    for ends in [v4(&b.pair), v6(&b.pair)] {
        let (client, server) = ends;
        let (kind, code) = if client.is_ipv4() { (3, 3) } else { (1, 4) };
        b.open(ends);
        let about = quoted((client, CLIENT_PORT), (server, SERVER_PORT));
        let another = |client_port, server_port| quoted((client, client_port), (server, server_port));
        let bystander: IpAddr = if client.is_ipv4() {
            b.lab.plan().client.ipv4.parse().unwrap()
        } else {
            b.lab.plan().client.ipv6.parse().unwrap()
        };
        let (from_server, from_client) = (&b.pair.server, &b.pair.client);
        let forged = [
            ("from the asking side", from_client, error(from_client, server, client, kind, code, &about)),
            ("to another host", from_server, error(from_server, server, bystander, kind, code, &about)),
            (
                "another port",
                from_server,
                error(from_server, server, client, kind, code, &another(4_001, SERVER_PORT)),
            ),
            (
                "another server port",
                from_server,
                error(from_server, server, client, kind, code, &another(CLIENT_PORT, 5_301)),
            ),
            (
                "about the reply",
                from_server,
                error(
                    from_server,
                    server,
                    client,
                    kind,
                    code,
                    &quoted((server, SERVER_PORT), (client, CLIENT_PORT)),
                ),
            ),
            (
                "another protocol",
                from_server,
                error(
                    from_server,
                    server,
                    client,
                    kind,
                    code,
                    &quoted_tcp((client, CLIENT_PORT), (server, SERVER_PORT), 1),
                ),
            ),
        ];
        for (what, end, frame) in forged {
            let before = b.lab.drops("icmp_error_unmatched").unwrap();
            end.wire.send(&frame).unwrap();
            eventually(what, SOON, || {
                (b.lab.drops("icmp_error_unmatched").unwrap() == before + 1).then_some(())
            });
        }
        assert_eq!(error_arrival(&b.pair.client, QUIET), None);
        assert!(b.is_open());
        // The way is open still.
        b.pair.server.udp((server, SERVER_PORT), (client, CLIENT_PORT), b"answer");
        assert!(b.pair.client.udp_arrival(CLIENT_PORT, SOON).is_some());
        b.lab.tidegate(&["session", "clear", "--all", "--yes"]).unwrap();
    }
    assert_eq!(b.ended_closed(), 0);
}

/// Red when an error ends a TCP session, or passes about a sequence number that was never sent.
#[test]
fn j9_no_error_ends_a_tcp_session() {
    let b = Bench::new("j9tcp");
    for ends in [v4(&b.pair), v6(&b.pair)] {
        let (client, server) = ((ends.0, CLIENT_PORT), (ends.1, SERVER_PORT));
        let segment = |flags, seq, ack| Segment { flags, seq, ack, window: 8_000, ..Segment::default() };
        b.pair.client.tcp(client, server, &segment("S", 1_000, 0));
        b.pair.server.tcp_arrival(SERVER_PORT, SOON).unwrap();
        b.pair.server.tcp(server, client, &segment("SA", 9_000, 1_001));
        b.pair.client.tcp_arrival(CLIENT_PORT, SOON).unwrap();
        b.pair.client.tcp(client, server, &segment("A", 1_001, 9_001));
        b.pair.server.tcp_arrival(SERVER_PORT, SOON).unwrap();
        let (kind, code) = if client.0.is_ipv4() { (3, 3) } else { (1, 4) };
        let about = quoted_tcp(client, server, 1_001);
        b.pair.server.wire.send(&error(&b.pair.server, server.0, client.0, kind, code, &about)).unwrap();
        assert_eq!(error_arrival(&b.pair.client, SOON), Some((kind, code, about)));
        let before = b.lab.drops("icmp_error_unmatched").unwrap();
        let about = quoted_tcp(client, server, 800_000_000);
        b.pair.server.wire.send(&error(&b.pair.server, server.0, client.0, kind, code, &about)).unwrap();
        eventually("a sequence number that was never sent", SOON, || {
            (b.lab.drops("icmp_error_unmatched").unwrap() == before + 1).then_some(())
        });
        assert_eq!(error_arrival(&b.pair.client, QUIET), None);
        let sessions = b.lab.sessions(&["--protocol", "tcp"]).unwrap();
        assert_eq!(sessions[0]["state"], "established", "{sessions:?}");
        b.lab.tidegate(&["session", "clear", "--all", "--yes"]).unwrap();
    }
}
