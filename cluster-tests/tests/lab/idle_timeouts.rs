//! Idle timeouts of the protocols without a handshake (J2).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::IpNumber;
use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::UdpEcho;

use crate::common::raw::{QUIET, RawEnd, SOON, raw_pair, v4, v6};
use crate::common::{PATIENCE, TestLab, eventually, lab, now};

const CLIENT_PORT: u16 = 4_000;
const SERVER_PORT: u16 = 5_300;

/// A packet of a protocol that no stack here speaks.
fn plain(end: &RawEnd, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) {
    let mut frame = Vec::new();
    end.packet(from, to).write(&mut frame, IpNumber(protocol), payload).unwrap();
    end.wire.send(&frame).unwrap();
}

/// The payload of the next packet of a protocol.
fn plain_arrival(end: &RawEnd, protocol: u8, patience: Duration) -> Option<Vec<u8>> {
    end.arrival(patience, |packet| {
        let payload = packet.net.as_ref()?.ip_payload_ref()?;
        (payload.ip_number == IpNumber(protocol)).then(|| payload.payload.to_vec())
    })
}

/// CRC32c bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// An SCTP packet: INIT from the client, INIT ACK from the server.
fn sctp(from_client: bool) -> Vec<u8> {
    let (source, destination, tag, chunk) =
        if from_client { (CLIENT_PORT, SERVER_PORT, 0u32, 1) } else { (SERVER_PORT, CLIENT_PORT, 7, 2) };
    let mut packet = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 9, 8, 7, 6]);
    let crc = crc32c(&packet);
    packet[8..12].copy_from_slice(&crc.to_le_bytes());
    packet
}

const SCTP: u8 = 132;
const GRE: u8 = 47;
const ESP: u8 = 50;
const OSPF: u8 = 89;

/// What each side sends of a protocol.
fn exchange_of(protocol: u8) -> [Vec<u8>; 2] {
    let plain = |text: &str| text.as_bytes().to_vec();
    match protocol {
        SCTP => [sctp(true), sctp(false)],
        GRE => [[&[0, 0, 8, 0][..], b"there"].concat(), [&[0, 0, 8, 0][..], b"back"].concat()],
        ESP => [plain("\0\0\x11\x11\0\0\0\x01there"), plain("\0\0\x22\x22\0\0\0\x01back")],
        _ => [plain("there and more"), plain("back and more")],
    }
}

/// The default policy with short timeouts, in seconds.
fn policy(timeouts: &str) -> String {
    format!("[timeouts]\n{timeouts}\n\n{DEFAULT_POLICY}")
}

/// Red when such a protocol makes no session, its reply does not pass, the session counts for another timeout,
/// or does not end when that is over.
#[test]
fn j2_sctp_gre_esp_and_others_time_out() {
    let lab = lab("j2raw", |spec| spec.policy = Some(policy("sctp = 3\nother = 4")));
    let pair = raw_pair(&lab);
    for (protocol, timeout) in [(SCTP, 3.0), (GRE, 4.0), (ESP, 4.0), (OSPF, 4.0)] {
        let number = protocol.to_string();
        let open = || lab.sessions(&["--protocol", &number]).unwrap();
        for (client, server) in [v4(&pair), v6(&pair)] {
            let [there, back] = exchange_of(protocol);
            plain(&pair.server, server, client, protocol, &back);
            assert_eq!(plain_arrival(&pair.client, protocol, QUIET), None, "nothing new from this side");
            plain(&pair.client, client, server, protocol, &there);
            assert_eq!(plain_arrival(&pair.server, protocol, SOON), Some(there.clone()));
            plain(&pair.server, server, client, protocol, &back);
            assert_eq!(plain_arrival(&pair.client, protocol, SOON), Some(back.clone()));
            let sessions = open();
            assert_eq!(sessions.len(), 1, "protocol {protocol}, one session both ways: {sessions:?}");
            assert_eq!(sessions[0]["timeout_s"].as_f64(), Some(timeout), "{}", sessions[0]);
            eventually("the session times out", PATIENCE, || open().is_empty().then_some(()));
            plain(&pair.server, server, client, protocol, &back);
            assert_eq!(plain_arrival(&pair.client, protocol, QUIET), None, "its reply passes no more");
        }
    }
}

/// Red when an idle session outlives its timeout, one that is in use does not live on, or UDP counts for
/// another protocol's timeout.
#[test]
fn j2_udp_lives_while_it_is_used() {
    let lab = lab("j2udp", |spec| spec.policy = Some(policy("udp = 3\nother = 600")));
    let server = lab.server_v4(SERVER_PORT);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let socket = lab.client().run(|| UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0)))).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let id = |lab: &TestLab| lab.sessions(&["--protocol", "udp"]).unwrap().first().map(|s| s["id"].clone());
    let (mut first, mut start, mut sent) = (None, now(), now());
    // Used for longer than the timeout, without a pause as long as it.
    while start.elapsed() < Duration::from_secs(4) {
        let before = std::mem::replace(&mut sent, now());
        socket.send_to(b"ping", server).unwrap();
        socket.recv(&mut [0; 16]).unwrap();
        if before.elapsed() > Duration::from_millis(2500) {
            // The machine stood still: that proves nothing, again.
            (first, start) = (None, sent);
        }
        let used = id(&lab);
        if sent.elapsed() < Duration::from_millis(2500) {
            assert!(used.is_some() && *first.get_or_insert(used.clone()) == used, "still the same session");
        }
        crate::common::pause(Duration::from_millis(500));
    }
    eventually("the session times out", PATIENCE, || id(&lab).is_none().then_some(()));
}

/// Red when an answered ping keeps its session as long as an unanswered one, or a reply without its query
/// passes.
#[test]
fn j2_an_answered_query_goes_soon() {
    let lab = lab("j2icmp", |spec| spec.policy = Some(policy("icmp = 40\nicmp_reply = 6")));
    let pair = raw_pair(&lab);
    for (client, server) in [v4(&pair), v6(&pair)] {
        let (protocol, filter) = if client.is_ipv4() { (1, "icmp") } else { (58, "icmpv6") };
        let echo = |end: &RawEnd, from, to, reply: bool, id: u16| {
            let mut frame = Vec::new();
            let builder = end.packet(from, to);
            match (client.is_ipv4(), reply) {
                (true, false) => builder.icmpv4_echo_request(id, 1).write(&mut frame, b"ping"),
                (true, true) => builder.icmpv4_echo_reply(id, 1).write(&mut frame, b"ping"),
                (false, false) => builder.icmpv6_echo_request(id, 1).write(&mut frame, b"ping"),
                (false, true) => builder.icmpv6_echo_reply(id, 1).write(&mut frame, b"ping"),
            }
            .unwrap();
            end.wire.send(&frame).unwrap();
        };
        let seen = |end: &RawEnd, patience, wanted: [u8; 2], id: u16| {
            end.arrival(patience, |packet| {
                let payload = packet.net.as_ref()?.ip_payload_ref()?;
                let icmp = payload.payload;
                (payload.ip_number == IpNumber(protocol)
                    && wanted.contains(icmp.first()?)
                    && icmp.get(4..6)? == id.to_be_bytes())
                .then_some(())
            })
        };
        echo(&pair.server, server, client, true, 77);
        assert_eq!(seen(&pair.client, QUIET, [0, 129], 77), None, "a reply without its query");
        for id in [77, 78] {
            echo(&pair.client, client, server, false, id);
            assert!(seen(&pair.server, SOON, [8, 128], id).is_some());
        }
        echo(&pair.server, server, client, true, 77);
        assert!(seen(&pair.client, SOON, [0, 129], 77).is_some());
        let timeouts = || -> Vec<f64> {
            let sessions = lab.sessions(&["--protocol", filter]).unwrap();
            sessions.iter().filter_map(|s| s["timeout_s"].as_f64()).collect()
        };
        let mut both = timeouts();
        both.sort_by(f64::total_cmp);
        assert_eq!(both, [6.0, 40.0]);
        eventually("the answered one goes", PATIENCE, || (timeouts() == [40.0]).then_some(()));
        lab.tidegate(&["session", "clear", "--all", "--yes"]).unwrap();
    }
}
