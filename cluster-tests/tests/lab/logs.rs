//! Records of flows as a log server gets them: what was permitted, refused and closed, over UDP and TCP, at a bounded
//! rate, and from a node that never waits for the server.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::traffic::{UdpEcho, udp_flows};

use crate::common::raw::{RawPair, SOON, raw_pair_without_sessions, v4};
use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, lab};

/// Where the node finds its log server: in its own namespace.
const SERVER: &str = "127.0.0.1:5514";
/// Idle timeout of UDP: the tests wait for its end, and a flow of theirs must not pause for so long.
const UDP_S: u32 = 4;

/// The default policy with the log on in every rule, short UDP sessions, and the default deny logged too.
fn logging_policy() -> String {
    let rules = DEFAULT_POLICY.replace("action = ", "log = true\naction = ");
    format!("{rules}\n[timeouts]\nudp = {UDP_S}\n[log]\ndefault_deny = true\n")
}

fn logging_lab(name: &str, transport: &str, rate_per_s: u32) -> TestLab {
    lab(name, |spec| {
        spec.policy = Some(logging_policy());
        spec.node_extra = format!(
            "\n[log]\nformat = \"json\"\nrate_per_s = 1000\n[[log.syslog]]\nserver = \"{SERVER}\"\n\
             transport = \"{transport}\"\nfacility = \"local4\"\nrate_per_s = {rate_per_s}\n"
        );
    })
}

/// A syslog message, taken apart.
#[derive(Debug)]
struct Message {
    priority: u16,
    id: String,
    host: String,
    fields: BTreeMap<String, String>,
}

impl Message {
    /// Not about the packets that showed that the way is open.
    fn is_about_the_flows(&self) -> bool {
        self.fields.get("source_port").is_none_or(|port| port != "4999")
    }
}

/// Reads `<PRI>1 TIME HOST APP PROCID MSGID [sd-id name="value" ...] words` (RFC 5424). No value here holds an escape.
fn parse(text: &str) -> Message {
    let (header, rest) =
        text.split_once(" [tidegate@32473").unwrap_or_else(|| panic!("no structured data: {text}"));
    let (data, words) =
        rest.split_once("] ").unwrap_or_else(|| panic!("structured data does not end: {text}"));
    assert!(!words.is_empty(), "{text}");
    let parts: Vec<&str> = header.split(' ').collect();
    let [version, time, host, app, pid, id] = parts[..] else { panic!("{header}") };
    let (priority, version) = version.trim_start_matches('<').split_once('>').unwrap();
    assert_eq!((version, app), ("1", "tidegate"), "{text}");
    assert!(time.len() == 24 && time.ends_with('Z') && pid.parse::<u32>().is_ok(), "{text}");
    let fields = data.split("\" ").filter_map(|field| field.trim().split_once("=\""));
    Message {
        priority: priority.parse().unwrap(),
        id: id.to_owned(),
        host: host.to_owned(),
        fields: fields.map(|(k, v)| (k.to_owned(), v.trim_end_matches('"').to_owned())).collect(),
    }
}

/// The flows of both tests: one that is permitted and answered, and ages out; one that a rule denies; one that no
/// rule matches. Returns what the log has to say of them, by MSGID and policy.
fn expected() -> BTreeMap<(&'static str, &'static str), BTreeMap<&'static str, &'static str>> {
    let permitted = [
        ("source", "CLIENT"),
        ("source_port", "4000"),
        ("destination", "SERVER"),
        ("destination_port", "5000"),
        ("protocol", "udp"),
        ("from_zone", "outside"),
        ("to_zone", "inside"),
        ("ingress_port", "outside"),
        ("egress_port", "inside"),
    ];
    let created = permitted.into_iter().chain([("packets", "1"), ("bytes", "33"), ("reply_packets", "0")]);
    let closed = permitted.into_iter().chain([
        ("reason", "aged"),
        ("packets", "2"),
        ("bytes", "66"),
        ("reply_packets", "1"),
        ("reply_bytes", "36"),
        ("state", "replied"),
    ]);
    let denied = [
        ("source_port", "4001"),
        ("destination_port", "9"),
        ("application", "discard"),
        ("ingress_port", "outside"),
        ("egress_port", "inside"),
        ("packets", "1"),
    ];
    let unmatched =
        [("source", "SERVER"), ("destination_port", "4002"), ("from_zone", "inside"), ("to_zone", "outside")];
    BTreeMap::from([
        (("SESSION_CREATE", "outside/inside/client-to-server"), created.collect()),
        (("SESSION_CLOSE", "outside/inside/client-to-server"), closed.collect()),
        (("FLOW_DENY", "outside/inside/no-discard"), denied.into()),
        (("FLOW_DENY", "default"), unmatched.into()),
    ])
}

fn make_flows(pair: &RawPair) {
    let (client, server) = v4(pair);
    pair.client.udp((client, 4000), (server, 5000), b"there");
    assert!(pair.server.udp_arrival(5000, SOON).is_some());
    pair.server.udp((server, 5000), (client, 4000), b"and back");
    assert!(pair.client.udp_arrival(4000, SOON).is_some());
    pair.client.udp((client, 4000), (server, 5000), b"again");
    assert!(pair.server.udp_arrival(5000, SOON).is_some());
    pair.client.udp((client, 4001), (server, 9), b"denied");
    pair.server.udp((server, 4001), (client, 4002), b"unasked");
}

/// Compares four messages, in whatever order, with what is expected.
fn assert_expected(pair: &RawPair, messages: &[Message], node: &str) {
    let (client, server) = v4(pair);
    let mut expected = expected();
    for message in messages {
        let severity = if message.id == "FLOW_DENY" { 5 } else { 6 };
        // Facility local4 is 20.
        assert_eq!((message.priority, message.host.as_str()), (20 * 8 + severity, node), "{message:?}");
        let key = (message.id.as_str(), message.fields["policy"].as_str());
        let wanted = expected.remove(&key).unwrap_or_else(|| panic!("not expected, or twice: {message:?}"));
        for (name, value) in wanted {
            let value = value.replace("CLIENT", &client.to_string()).replace("SERVER", &server.to_string());
            assert_eq!(message.fields.get(name), Some(&value), "{name}: {message:?}");
        }
        if message.id == "SESSION_CLOSE" {
            let (start, end) = (&message.fields["start"], &message.fields["end"]);
            assert!(
                start < end && message.fields["duration_s"].parse::<f64>().unwrap() >= f64::from(UDP_S),
                "{message:?}"
            );
        }
    }
    assert!(expected.is_empty(), "missing: {expected:?}");
}

/// Red when a record is missing, comes twice, lacks a field or counts wrongly, over UDP or on stderr.
#[test]
fn records_of_what_is_permitted_denied_and_closed_reach_a_udp_server_and_stderr() {
    let lab = logging_lab("logudp", "udp", 1000);
    let socket = lab.node().run(|| UdpSocket::bind(SERVER)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let pair = raw_pair_without_sessions(&lab);
    make_flows(&pair);
    let mut buffer = [0; 4096];
    let messages = std::iter::repeat_with(|| {
        let length = socket.recv(&mut buffer).expect("a message comes");
        parse(std::str::from_utf8(&buffer[..length]).unwrap())
    });
    let messages: Vec<Message> = messages.filter(Message::is_about_the_flows).take(4).collect();
    let node = lab.json(&["status"]).unwrap()["node"].as_str().unwrap().to_owned();
    assert_expected(&pair, &messages, &node);

    // Each target has a task of its own.
    let events = || {
        let log = std::fs::read_to_string(&lab.plan().nodes[0].log).unwrap();
        log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<Value>>()
    };
    let closed = eventually("on stderr too", PATIENCE, || {
        events().into_iter().find(|e| e["event"] == "session_close" && e["source_port"] == 4000)
    });
    assert_eq!(
        (&closed["reason"], &closed["packets"], &closed["reply_bytes"]),
        (&"aged".into(), &2.into(), &36.into())
    );
    assert_eq!(events().iter().filter(|e| e["event"] == "flow_deny").count(), 2);
    eventually("they are counted", PATIENCE, || (records(&lab, "sent") >= 4.0).then_some(()));
}

/// Records for the UDP server with that result.
fn records(lab: &TestLab, result: &str) -> f64 {
    let labels = [("target", "udp:127.0.0.1:5514"), ("result", result)];
    lab.metrics().unwrap().sum("tidegate_log_records_total", &labels).unwrap()
}

/// One message by its count (RFC 6587 section 3.4.1).
fn framed(stream: &mut TcpStream) -> Message {
    let mut length = String::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).expect("a message comes");
        if byte[0] == b' ' {
            break;
        }
        length.push(char::from(byte[0]));
    }
    let mut text = vec![0; length.parse().unwrap_or_else(|_| panic!("no count: {length}"))];
    stream.read_exact(&mut text).unwrap();
    parse(std::str::from_utf8(&text).unwrap())
}

/// Red when frames have no count, or the node does not come back to a server that went away.
#[test]
fn records_reach_a_tcp_server_also_after_it_was_away() {
    let lab = logging_lab("logtcp", "tcp", 1000);
    let listen = || lab.node().run(|| TcpListener::bind(SERVER)).unwrap().unwrap();
    let accept = |listener: &TcpListener| {
        listener.set_nonblocking(true).unwrap();
        let stream = eventually("a connection", PATIENCE, || listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let listener = listen();
    let pair = raw_pair_without_sessions(&lab);
    make_flows(&pair);
    let mut stream = accept(&listener);
    let messages = std::iter::repeat_with(|| framed(&mut stream)).filter(Message::is_about_the_flows);
    let messages: Vec<Message> = messages.take(4).collect();
    let node = lab.json(&["status"]).unwrap()["node"].as_str().unwrap().to_owned();
    assert_expected(&pair, &messages, &node);

    drop(stream);
    drop(listener);
    let (client, server) = v4(&pair);
    pair.client.udp((client, 4003), (server, 9), b"while it is away");
    crate::common::pause(Duration::from_millis(300));
    let listener = listen();
    let mut stream = accept(&listener);
    let message = std::iter::repeat_with(|| framed(&mut stream)).find(Message::is_about_the_flows).unwrap();
    assert_eq!((message.id.as_str(), message.fields["source_port"].as_str()), ("FLOW_DENY", "4003"));
}

/// Red when the rate is not bounded (every record comes), or what was left out is not told.
#[test]
fn the_rate_is_bounded_and_what_is_left_out_is_counted() {
    const FLOWS: u64 = 300;
    let lab = logging_lab("lograte", "udp", 5);
    let socket = lab.node().run(|| UdpSocket::bind(SERVER)).unwrap().unwrap();
    let pair = raw_pair_without_sessions(&lab);
    let (client, server) = v4(&pair);
    for n in 0..FLOWS as u16 {
        pair.client.udp((client, 10_000 + n), (server, 9), b"denied");
    }
    eventually("all are refused", PATIENCE, || (lab.drops("policy_deny").unwrap() >= FLOWS).then_some(()));
    socket.set_nonblocking(true).unwrap();
    let (mut came, mut left_out, mut buffer) = (0, 0, [0; 4096]);
    eventually("every record or its count", PATIENCE, || {
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = parse(std::str::from_utf8(&buffer[..length]).unwrap());
            came += u64::from(message.id == "FLOW_DENY");
            left_out += message.fields.get("left_out").map_or(0, |n| n.parse::<u64>().unwrap());
        }
        (came + left_out >= FLOWS).then_some(())
    });
    // Besides the flows, at most the sessions that showed that the way is open.
    assert!(came + left_out <= FLOWS + 8, "{came} records, {left_out} left out");
    assert!(left_out > came, "{came} records, {left_out} left out");
    eventually("what was told is counted", PATIENCE, || {
        (records(&lab, "left_out") == left_out as f64).then_some(())
    });
}

/// Red when flows wait for a log server that does not answer, or its records pile up in memory.
#[test]
fn a_dead_server_costs_records_and_nothing_else() {
    const FLOWS: u16 = 5_000;
    let lab = logging_lab("logdead", "tcp", 100_000);
    let server = lab.server_v4(7);
    let _echo = UdpEcho::start(&lab.server(), server).unwrap();
    let flows = |first: u16, count: u16| {
        udp_flows(&lab.client(), server, first..first + count, TRIES, EACH_TRY).unwrap().len()
    };
    assert_eq!(flows(10_000, 2_000), 2_000);
    let before_kib = resident_kib(&lab);
    assert_eq!(flows(20_000, FLOWS), usize::from(FLOWS));
    let grown_kib = resident_kib(&lab).saturating_sub(before_kib);
    assert!(grown_kib < 2_048, "the daemon grew by {grown_kib} KiB");
    let count = |result| {
        let labels = [("target", "tcp:127.0.0.1:5514"), ("result", result)];
        lab.metrics().unwrap().sum("tidegate_log_records_total", &labels).unwrap()
    };
    // A birth for each flow, less what may wait. The task that counts them may be behind the traffic.
    let least = f64::from(FLOWS + 2_000 - 1_100);
    eventually("every record is left out", PATIENCE, || (count("left_out") >= least).then_some(()));
    assert_eq!(count("sent"), 0.0);
}

fn resident_kib(lab: &TestLab) -> u64 {
    let pid = lab.json(&["status"]).unwrap()["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}
