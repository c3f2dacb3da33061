//! What policy permits, denies and rejects, as hosts see it, and sessions under the operator's hands.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{TcpEcho, UdpEcho, connect, exchange, udp_flows};

use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, ip, lab, now};

const SHORT: Duration = Duration::from_millis(700);

/// Red when a denied flow passes, when deny is not silent, or when its packets are not counted.
#[test]
fn j1_denied_flows_fail_in_silence_and_are_counted() {
    let lab = lab("deny", |_| ());
    for address in [lab.server_v4(9), lab.server_v6(9)] {
        let _tcp = TcpEcho::start(&lab.server(), address).unwrap();
        let _udp = UdpEcho::start(&lab.server(), address).unwrap();
        let error = connect(&lab.client(), address, SHORT).expect_err("port 9 is denied");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "deny is silent: {error}");
        assert!(udp_flows(&lab.client(), address, 20_000..20_010, 2, SHORT).unwrap().is_empty());
    }
    let counted = |reason, least| {
        eventually(reason, PATIENCE, || (lab.drops(reason).unwrap() >= least).then_some(()));
    };
    counted("policy_deny", 2 * (1 + 20));
    // Nothing new from server to client, while replies go on.
    let client = SocketAddr::new(ip(&lab.plan().client.ipv4), 7000);
    let _tcp = TcpEcho::start(&lab.client(), client).unwrap();
    let error = connect(&lab.server(), client, SHORT).expect_err("nothing new from server to client");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    counted("policy_default", 1);
}

/// Red when reject is as silent as deny: the client waits instead of being told.
#[test]
fn j1_rejected_flows_are_told() {
    let lab = lab("reject", |spec| {
        spec.policy = Some(DEFAULT_POLICY.replace("\"deny\"", "\"reject\""));
    });
    for address in [lab.server_v4(9), lab.server_v6(9)] {
        let error = connect(&lab.client(), address, PATIENCE).expect_err("port 9 is rejected");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let told = lab.client().run(|| {
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"anybody?")?;
            socket.recv(&mut [0; 16])
        });
        let error = told.unwrap().expect_err("port 9 is rejected");
        let timeout = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!timeout, "no ICMP error came: {error}");
    }
}

/// Red when a reload is not taken, takes a broken file, breaks sessions that the new policy still permits, or
/// leaves one alive that it denies.
#[test]
fn a_reload_takes_effect_at_once_and_a_broken_file_changes_nothing() {
    let lab = lab("reload", |_| ());
    let (stays, goes) = (lab.server_v4(7000), lab.server_v4(7001));
    let _echoes = [stays, goes].map(|address| TcpEcho::start(&lab.server(), address).unwrap());
    let mut staying = connect(&lab.client(), stays, PATIENCE).unwrap();
    let mut going = connect(&lab.client(), goes, PATIENCE).unwrap();
    for stream in [&mut staying, &mut going] {
        exchange(stream, b"before", PATIENCE).unwrap();
    }
    let file = &lab.plan().nodes[0].policy;

    std::fs::write(file, format!("{DEFAULT_POLICY}\n[[rule]]\nnonsense = true\n")).unwrap();
    let refused = lab.tidegate(&["policy", "reload"]).unwrap();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let said = refused.stdout + &refused.stderr;
    assert!(said.contains("policy.toml") && said.contains("nonsense"), "{said}");
    exchange(&mut going, b"still the old policy", PATIENCE).unwrap();

    std::fs::write(file, deny_tcp_port(7001)).unwrap();
    let path = file.to_str().unwrap();
    let diff = lab.tidegate(&["policy", "diff", path]).unwrap();
    assert!(
        diff.stdout.contains("+destination_port = 7001"),
        "what the reload would change: {}",
        diff.stdout
    );
    let taken = lab.tidegate(&["policy", "reload"]).unwrap();
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    assert_eq!(lab.json(&["policy", "diff", path]).unwrap()["changed"], false);
    assert_eq!(lab.tidegate(&["policy", "export"]).unwrap().stdout, deny_tcp_port(7001));
    exchange(&mut staying, b"permitted by both", PATIENCE).unwrap();
    assert!(exchange(&mut going, b"denied now", SHORT).is_err(), "a denied session goes on");
    assert!(connect(&lab.client(), goes, SHORT).is_err(), "a denied connection is set up");
    assert!(connect(&lab.client(), stays, PATIENCE).is_ok());
}

/// The default policy with one more port denied.
fn deny_tcp_port(port: u16) -> String {
    let term = "[[application.term]]\n";
    let denied = format!("{term}protocol = \"tcp\"\ndestination_port = {port}\n\n{term}");
    DEFAULT_POLICY.replacen(term, &denied, 1)
}

/// Red when a filter is ignored, a session is not shown with both wings' counts, or a cleared session lives on.
#[test]
fn j10_j11_sessions_are_listed_shown_and_cleared() {
    let lab = lab("sessions", |_| ());
    let udp = lab.server_v6(5300);
    let _echo = UdpEcho::start(&lab.server(), udp).unwrap();
    assert_eq!(udp_flows(&lab.client(), udp, [4000, 4001], 3, PATIENCE).unwrap().len(), 2);
    let tcp = lab.server_v4(7000);
    let _tcp = TcpEcho::start(&lab.server(), tcp).unwrap();
    let mut stream = connect(&lab.client(), tcp, PATIENCE).unwrap();
    exchange(&mut stream, b"hello", PATIENCE).unwrap();

    assert_eq!(lab.sessions(&[]).unwrap().len(), 3);
    assert_eq!(lab.sessions(&["--protocol", "udp"]).unwrap().len(), 2);
    assert_eq!(lab.sessions(&["--destination-port", "7000"]).unwrap().len(), 1);
    assert_eq!(lab.sessions(&["--source-prefix", "10.81.1.0/24"]).unwrap().len(), 1);
    assert_eq!(lab.sessions(&["--protocol", "tcp", "--source-port", "4000"]).unwrap().len(), 0);
    let found = lab.sessions(&["--protocol", "udp", "--source-port", "4000"]).unwrap();
    let id = found[0]["id"].as_str().unwrap().to_owned();
    let shown = lab.json(&["session", "show", &id]).unwrap();
    assert_eq!(shown["forward"]["source"], lab.plan().client.ipv6.as_str());
    assert_eq!(shown["forward"]["destination_port"], 5300);
    assert_eq!(shown["forward"]["packets"], shown["reply"]["packets"]);
    assert_eq!(shown["policy"], "outside/inside/client-to-server");

    let unasked = lab.tidegate(&["session", "clear", "--id", &id]).unwrap();
    assert_eq!(unasked.code, Some(4), "clear without a terminal and without --yes");
    let cleared = lab.json(&["--yes", "session", "clear", "--protocol", "tcp"]).unwrap();
    assert_eq!(cleared["cleared"], 1, "{cleared}");
    assert!(exchange(&mut stream, b"into the void", SHORT).is_err(), "a cleared TCP session goes on");
    eventually("it is counted", PATIENCE, || (lab.drops("tcp_no_session").unwrap() > 0).then_some(()));
    lab.json(&["--yes", "session", "clear", "--id", &id]).unwrap();
    assert_eq!(lab.sessions(&["--protocol", "udp"]).unwrap().len(), 1);
    assert_eq!(udp_flows(&lab.client(), udp, [4000], TRIES, EACH_TRY).unwrap().len(), 1);
    let again = lab.sessions(&["--protocol", "udp", "--source-port", "4000"]).unwrap();
    assert_ne!(again[0]["id"], id.as_str(), "an id came back");
}

/// Red when a session never ages (it stays in the list) or ages by a timeout that its packets do not restart (it
/// goes while in use).
#[test]
fn j2_a_session_leaves_at_its_timeout_and_not_while_in_use() {
    let lab = lab("timeout", |spec| spec.policy = Some(format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 3\n")));
    let server = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let id = |lab: &TestLab| {
        lab.sessions(&["--protocol", "udp"]).unwrap().first().map(|found| found["id"].clone())
    };
    let (mut first, mut start, mut sent) = (None, now(), now());
    // Used for longer than the timeout, without a pause as long as it.
    while start.elapsed() < Duration::from_secs(4) {
        let before = std::mem::replace(&mut sent, now());
        assert_eq!(udp_flows(&lab.client(), server, [4000], TRIES, EACH_TRY).unwrap().len(), 1);
        if before.elapsed() > Duration::from_millis(2500) {
            // The machine stood still: that proves nothing, again.
            (first, start) = (None, sent);
        }
        let used = id(&lab);
        if sent.elapsed() < Duration::from_millis(2500) {
            assert!(used.is_some() && (first.is_none() || used == first), "the session went while in use");
            first = used;
        }
        crate::common::pause(Duration::from_millis(500));
    }
    eventually("the session leaves", PATIENCE, || id(&lab).is_none().then_some(()));
    assert!(sent.elapsed() > Duration::from_millis(2900), "it left before its timeout");
}
