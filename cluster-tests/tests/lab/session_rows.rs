//! Sessions under an operator's hands: what begins one and names it (J1, J3), clear by each filter (J10), list,
//! show, summary and watch (J11).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{TcpEcho, UdpEcho, connect, exchange, udp_flows};

use crate::common::raw::{QUIET, SOON, raw_pair_without_sessions, v4};
use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, lab};

/// An application of the policy's own for UDP port 7777, and rules that let a predefined one and it in by name.
const APPLICATIONS: &str = r#"
[[application]]
name = "telemetry"
protocol = "udp"
destination_port = 7777
inactivity_timeout = 42

[[rule]]
name = "named"
from = "outside"
to = "inside"
source = "any"
destination = "any"
application = ["telemetry", "dns"]
action = "permit"
"#;

/// The policy above, before the rule that permits the rest.
fn with_applications() -> String {
    let (head, tail) = DEFAULT_POLICY.rsplit_once("[[rule]]").unwrap();
    format!("{head}{APPLICATIONS}\n[[rule]]{tail}")
}

fn only(lab: &TestLab, filters: &[&str]) -> Value {
    let mut found = lab.sessions(filters).unwrap();
    assert_eq!(found.len(), 1, "{filters:?}: {found:?}");
    found.remove(0)
}

/// Red when each direction has a session of its own, when a later packet makes another, or when the first packet
/// of a flow from the wrong side is taken for a reply.
#[test]
fn j1_one_session_serves_both_directions_of_a_flow() {
    let lab = lab("j1", |_| ());
    let pair = raw_pair_without_sessions(&lab);
    let (client, server) = v4(&pair);
    for n in 0..3 {
        pair.client.udp((client, 4000), (server, 5000), b"there");
        assert!(pair.server.udp_arrival(5000, SOON).is_some(), "packet {n} of the first direction");
        pair.server.udp((server, 5000), (client, 4000), b"and back");
        assert!(pair.client.udp_arrival(4000, SOON).is_some(), "packet {n} of the reply");
    }
    let session = only(&lab, &[]);
    assert_eq!((&session["forward"]["packets"], &session["reply"]["packets"]), (&3.into(), &3.into()));
    assert_eq!((&session["forward"]["bytes"], &session["reply"]["bytes"]), (&99.into(), &108.into()));
    assert_eq!(
        (&session["state"], &session["policy"]),
        (&"replied".into(), &"outside/inside/client-to-server".into())
    );
    // Another port is another flow, and nothing begins from inside.
    pair.server.udp((server, 5001), (client, 4000), b"unasked");
    assert_eq!(pair.client.udp_arrival(4000, QUIET), None);
    assert_eq!(lab.sessions(&[]).unwrap().len(), 1);
}

/// Red when an application is found by the wrong port or protocol, does not bring its timeout, or when a predefined
/// one is not known.
#[test]
fn j3_applications_name_the_flow_and_bring_their_timeout() {
    let lab = lab("j3", |spec| spec.policy = Some(with_applications()));
    let pair = raw_pair_without_sessions(&lab);
    let (client, server) = v4(&pair);
    for (port, application, timeout, source, rule) in [
        (7777, Some("telemetry"), 42.0, "application", "outside/inside/named"),
        (53, Some("dns"), 60.0, "protocol", "outside/inside/named"),
        // Under `any` a predefined application labels by port, one of the policy's own does not.
        (123, Some("ntp"), 60.0, "protocol", "outside/inside/client-to-server"),
        (7778, None, 60.0, "protocol", "outside/inside/client-to-server"),
    ] {
        pair.client.udp((client, 4000), (server, port), b"x");
        assert!(pair.server.udp_arrival(port, SOON).is_some());
        let session = only(&lab, &["--destination-port", &port.to_string()]);
        assert_eq!(session["application"].as_str(), application, "{session}");
        assert_eq!(session["timeout_s"].as_f64(), Some(timeout), "{session}");
        assert_eq!((&session["timeout_source"], &session["policy"]), (&source.into(), &rule.into()));
    }
}

/// What each test below has in its table: five UDP flows of the client, one of them to port 53, one to another server
/// address, and a TCP connection.
struct Flows {
    _udp: Vec<UdpEcho>,
    _tcp: TcpEcho,
    stream: std::net::TcpStream,
}

const UDP_PORTS: [(u16, u16); 4] = [(4000, 7), (4001, 7), (4002, 53), (4003, 7777)];

fn flows(lab: &TestLab) -> Flows {
    let mut udp = Vec::new();
    for port in [7, 53, 7777] {
        udp.push(UdpEcho::start(&lab.server(), lab.server_v4(port)).unwrap());
    }
    udp.push(UdpEcho::start(&lab.server(), lab.server_v6(7)).unwrap());
    let tcp = TcpEcho::start(&lab.server(), lab.server_v4(8080)).unwrap();
    let mut flows = Flows { _udp: udp, _tcp: tcp, stream: open(lab) };
    refill(lab, &mut flows);
    flows
}

fn open(lab: &TestLab) -> std::net::TcpStream {
    // The echo may be a moment late.
    eventually("a connection", PATIENCE, || connect(&lab.client(), lab.server_v4(8080), PATIENCE).ok())
}

/// Makes every flow a session again.
fn refill(lab: &TestLab, flows: &mut Flows) {
    for (source, destination) in UDP_PORTS {
        assert_eq!(
            udp_flows(&lab.client(), lab.server_v4(destination), [source], TRIES, EACH_TRY).unwrap().len(),
            1
        );
    }
    assert_eq!(udp_flows(&lab.client(), lab.server_v6(7), [4010], TRIES, EACH_TRY).unwrap().len(), 1);
    if lab.sessions(&["--protocol", "tcp"]).unwrap().is_empty() {
        flows.stream = open(lab);
    }
    exchange(&mut flows.stream, b"still there?", PATIENCE).unwrap();
}

/// Protocol and source port of every UDP session, and `tcp` for the connection.
fn present(lab: &TestLab, filters: &[&str]) -> BTreeSet<String> {
    let name = |s: &Value| match s["protocol"].as_str() {
        Some("udp") => s["forward"]["source_port"].to_string(),
        other => other.unwrap_or_default().to_owned(),
    };
    lab.sessions(filters).unwrap().iter().map(name).collect()
}

/// Red when a filter of clear is ignored (more goes than is meant), read another way (less or other sessions go), or
/// when the number that is printed is not the number that went.
#[test]
fn j10_each_filter_clears_what_it_means_and_nothing_else() {
    let lab = lab("j10", |spec| spec.policy = Some(with_applications()));
    let mut flows = flows(&lab);
    let every = present(&lab, &[]);
    assert_eq!(every.len(), 6, "{every:?}");
    let id = |lab: &TestLab| only(lab, &["--source-port", "4001"])["id"].as_str().unwrap().to_owned();
    let client = lab.plan().client.ipv4.clone();
    let server_v6 = format!("{}/128", lab.plan().server.ipv6);
    let cases: [(&[&str], &[&str]); 14] = [
        (&["--application", "telemetry"], &["4003"]),
        (&["--destination-port", "53"], &["4002"]),
        (&["--source-port", "4000-4001"], &["4000", "4001"]),
        (&["--protocol", "tcp"], &["tcp"]),
        (&["--family", "ipv6"], &["4010"]),
        (&["--destination-prefix", &server_v6], &["4010"]),
        (&["--source-prefix", &client, "--protocol", "udp"], &["4000", "4001", "4002", "4003"]),
        (&["--policy", "named"], &["4002", "4003"]),
        (&["--state", "established"], &["tcp"]),
        (&["--zone", "inside", "--destination-port", "53"], &["4002"]),
        (&["--interface", "inside", "--source-port", "4000"], &["4000"]),
        (&["--interface", "outside", "--protocol", "tcp"], &["tcp"]),
        (&["--node", "1", "--owner", "1", "--source-port", "4002"], &["4002"]),
        (&["--min-packets", "1000000"], &[]),
    ];
    for (filters, meant) in cases {
        let mut verb = vec!["--yes", "session", "clear"];
        verb.extend(filters);
        let reply = lab.json(&verb).unwrap();
        assert_eq!(reply["cleared"].as_u64(), Some(meant.len() as u64), "{filters:?}: {reply}");
        assert_eq!(reply["nodes"][0]["cleared"], reply["cleared"], "{reply}");
        let left = present(&lab, &[]);
        let gone: BTreeSet<&str> = every.difference(&left).map(String::as_str).collect();
        assert_eq!(gone, meant.iter().copied().collect(), "{filters:?}");
        refill(&lab, &mut flows);
    }
    let one = id(&lab);
    assert_eq!(lab.json(&["--yes", "session", "clear", "--id", &one]).unwrap()["cleared"], 1);
    assert_ne!(present(&lab, &[]), every);
    refill(&lab, &mut flows);
    let text = lab.tidegate(&["--yes", "session", "clear", "--all"]).unwrap().stdout;
    assert!(text.contains(": 6 sessions cleared\n6 sessions cleared"), "{text}");
    assert!(present(&lab, &[]).is_empty());
}

/// Red when clear goes on without being asked, takes a word that it does not know for "everything", or takes a
/// filter whose sessions do not exist for one that means nothing.
#[test]
fn j10_clear_refuses_what_is_not_confirmed_not_known_or_not_built() {
    let lab = lab("j10r", |_| ());
    let _flows = flows(&lab);
    let refusals: [(&[&str], i32, &str); 8] = [
        (&["session", "clear", "--all"], 4, "--yes"),
        (&["--yes", "session", "clear"], 2, "--all"),
        (&["--yes", "session", "clear", "--state", "stablished"], 2, "did you mean established?"),
        (&["--yes", "session", "clear", "--zone", "insde"], 2, "did you mean inside?"),
        (&["--yes", "session", "clear", "--application", "sssh"], 2, "did you mean ssh?"),
        (&["--yes", "session", "clear", "--tunnel"], 2, "--tunnel"),
        (&["--yes", "session", "clear", "--resource-manager"], 2, "--resource-manager"),
        (&["--yes", "session", "clear", "--node", "nowhere"], 2, "no such node"),
    ];
    for (verb, code, says) in refusals {
        let refused = lab.tidegate(verb).unwrap();
        assert_eq!(refused.code, Some(code), "{verb:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{verb:?}: {}", refused.stderr);
    }
    assert_eq!(present(&lab, &[]).len(), 6, "something was cleared");
}

/// Red when the connection that the operator works by is not named, or named although it stays.
#[test]
fn j10_the_operators_own_connection_is_named() {
    let lab = lab("j10own", |_| ());
    let flows = flows(&lab);
    let (client, server) = (flows.stream.local_addr().unwrap(), flows.stream.peer_addr().unwrap());
    let ssh = format!("{} {} {} {}", client.ip(), client.port(), server.ip(), server.port());
    let clear = |filters: &[&str]| {
        let mut verb = vec!["--yes", "session", "clear"];
        verb.extend(filters);
        let done = tidegate(&lab, &verb).env("SSH_CONNECTION", &ssh).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    assert_eq!(clear(&["--protocol", "udp"]), "");
    let said = clear(&["--protocol", "tcp"]);
    assert!(said.contains("your own SSH connection") && said.contains(&client.to_string()), "{said}");
}

/// A verb of the command line in the node's namespace, not yet started.
fn tidegate(lab: &TestLab, arguments: &[&str]) -> Command {
    let binary = tidegate_lab::sys::find_binary("tidegate", "TIDEGATE_BIN").unwrap();
    let mut command = lab.node().command(&binary);
    command.arg("--control").arg(&lab.plan().nodes[0].control).args(arguments);
    command
}

/// Red when a bound is ignored or read the wrong way, when a sorted list is not in order or forgets its limit, or
/// when show and summary lack what the row names.
#[test]
fn j11_lists_are_filtered_sorted_and_cut_and_a_session_shows_everything() {
    let lab = lab("j11", |_| ());
    let mut flows = flows(&lab);
    for _ in 0..20 {
        exchange(&mut flows.stream, &[7; 1000], PATIENCE).unwrap();
    }
    assert_eq!(present(&lab, &["--min-bytes", "20kB"]), ["tcp".to_owned()].into());
    assert_eq!(present(&lab, &["--max-bytes", "20kB"]).len(), 5);
    assert_eq!(present(&lab, &["--min-packets", "20"]), ["tcp".to_owned()].into());
    assert_eq!(present(&lab, &["--min-remaining", "5m"]), ["tcp".to_owned()].into());
    assert_eq!(present(&lab, &["--max-remaining", "60"]).len(), 5);
    assert_eq!(present(&lab, &["--min-duration", "1h"]).len(), 0);
    assert_eq!(present(&lab, &["--max-duration", "1h"]).len(), 6);
    assert_eq!(present(&lab, &["--state", "replied"]).len(), 5);

    let sorted = lab.sessions(&["--protocol", "udp", "--sort", "source-port:desc", "--limit", "3"]).unwrap();
    let ports: Vec<_> = sorted.iter().map(|s| s["forward"]["source_port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [4010, 4003, 4002]);
    let first = lab.tidegate(&["session", "list", "--sort", "bytes:desc", "--limit", "1"]).unwrap();
    assert!(first.stdout.contains(":8080") && first.stderr.contains("the first 1 of 6"), "{first:?}");
    assert_eq!(lab.tidegate(&["session", "list", "--sort", "bites"]).unwrap().code, Some(2));

    let id = only(&lab, &["--protocol", "tcp"])["id"].as_str().unwrap().to_owned();
    let shown = lab.json(&["session", "show", &id]).unwrap();
    assert_eq!((&shown["state"], &shown["timeout_s"]), (&"established".into(), &1800.0.into()));
    assert_eq!(shown["timeout_source"], "protocol");
    assert!(shown["remaining_s"].as_f64().unwrap() <= 1800.0);
    let node = &lab.json(&["status"]).unwrap()["node"];
    assert_eq!((&shown["owner"], &shown["replicas"]), (node, &Value::Array(Vec::new())));
    for (wing, ingress, egress) in [("forward", "outside", "inside"), ("reply", "inside", "outside")] {
        let wing = &shown[wing];
        assert_eq!(
            (&wing["ingress_port"], &wing["egress_port"]),
            (&ingress.into(), &egress.into()),
            "{shown}"
        );
        assert!(
            wing["packets"].as_u64().unwrap() > 20 && wing["bytes"].as_u64().unwrap() > 20_000,
            "{shown}"
        );
        for fact in ["sequence_max", "acknowledgement_max", "window_scale", "mss_bytes"] {
            assert!(wing["tcp"][fact].is_u64(), "{fact}: {shown}");
        }
    }
    let text = lab.tidegate(&["session", "show", &id]).unwrap().stdout;
    for part in ["30m00s, set by protocol", "owner:", "replicas:", "forward TCP:", "started:"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let summary = lab.json(&["session", "summary"]).unwrap();
    for (key, want) in [
        ("unicast", 6),
        ("multicast", 0),
        ("failed", 0),
        ("in_drop", 0),
        ("in_use", 6),
        ("valid", 6),
        ("pending", 0),
        ("invalidated", 0),
        ("maximum", 262_144),
    ] {
        assert_eq!(summary[key].as_u64(), Some(want), "{key}: {summary}");
        assert_eq!(summary["nodes"][0][key].as_u64(), Some(want), "{key} of the node: {summary}");
    }
    assert_eq!(lab.json(&["session", "summary", "--protocol", "udp"]).unwrap()["matching"], 5);
    let settings = lab.tidegate(&["policy", "show", "--effective"]).unwrap().stdout;
    assert!(settings.contains("timeouts.tcp") && settings.contains("default"), "{settings}");
}

/// A `session watch -o json` that runs.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(lab: &TestLab, filters: &[&str]) -> Watching {
        let mut verb = vec!["-o", "json", "session", "watch"];
        verb.extend(filters);
        let mut child = tidegate(lab, &verb).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut watching = Watching { child, lines };
        assert_eq!(watching.next()["event"], "watching");
        watching
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("the watch ended").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Ctrl-C.
    fn interrupt(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// Red when a birth, a change or an end is not told, when the reason of the end is wrong, when the filter lets
/// others through, or when Ctrl-C ends in an error.
#[test]
fn j11_watch_tells_what_happens_to_the_sessions_that_are_meant() {
    let lab = lab("j11w", |_| ());
    let mut watching = Watching::start(&lab, &["--protocol", "tcp"]);
    let mut flows = flows(&lab);
    exchange(&mut flows.stream, b"hello", PATIENCE).unwrap();
    let created = watching.next();
    assert_eq!((&created["event"], &created["state"]), (&"created".into(), &"syn_sent".into()));
    assert_eq!((&created["destination_port"], &created["ingress_port"]), (&8080.into(), &"outside".into()));
    let changes: Vec<Value> = (0..2).map(|_| watching.next()).collect();
    let states: Vec<_> =
        changes.iter().map(|c| (c["previous_state"].as_str(), c["state"].as_str())).collect();
    assert_eq!(
        states,
        [(Some("syn_sent"), Some("syn_received")), (Some("syn_received"), Some("established"))]
    );
    lab.json(&["--yes", "session", "clear", "--all"]).unwrap();
    let ended = watching.next();
    assert_eq!(
        (&ended["event"], &ended["reason"], &ended["id"]),
        (&"ended".into(), &"cleared".into(), &created["id"])
    );
    assert!(ended["packets"].as_u64() >= Some(3) && ended["reply_packets"].as_u64() >= Some(2), "{ended}");
    assert_eq!(watching.interrupt(), Some(0));
}

/// Red when the end of an idle session is not told as what it is.
#[test]
fn j11_watch_names_the_reason_of_an_end() {
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 1\n");
    let lab = lab("j11e", |spec| spec.policy = Some(policy));
    let pair = raw_pair_without_sessions(&lab);
    let (client, server) = v4(&pair);
    let mut watching = Watching::start(&lab, &["--destination-port", "5000"]);
    pair.client.udp((client, 4000), (server, 5001), b"not meant");
    pair.client.udp((client, 4000), (server, 5000), b"meant");
    assert_eq!(watching.next()["event"], "created");
    let ended = watching.next();
    assert_eq!((&ended["event"], &ended["reason"]), (&"ended".into(), &"aged".into()));
    assert!(ended["duration_s"].as_f64() >= Some(1.0), "{ended}");
    assert_eq!(watching.interrupt(), Some(0));
}

/// Red when a watch keeps the daemon from ending, or does not notice that it has.
#[test]
fn a_watch_ends_with_the_daemon_and_does_not_hold_it() {
    let mut lab = lab("j11end", |_| ());
    let mut watching = Watching::start(&lab, &[]);
    assert_eq!(lab.daemon().unwrap().terminate().unwrap(), Some(0), "the daemon had to be killed");
    assert_eq!(watching.child.wait().unwrap().code(), Some(3));
}
