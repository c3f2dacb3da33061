//! One node's memory is false in one field of a session: `session verify` finds it and says which, and it can be healed.
//!
//! This program is both the test and the daemon whose memory it falsifies: built with the product's feature `corrupt`,
//! which the product itself is never built with. Started with `run` it is the daemon.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tidegate_lab::lab::{DEFAULT_POLICY, Member};
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{TcpEcho, connect, exchange};

use common::repl::{replicating, wait_in_sync, wait_verified};
use common::{PATIENCE, TestLab, eventually, pause};

const NAME: &str = "each_falsified_field_is_named_and_can_be_healed";
const TCP_PORT: u16 = 7000;
/// Every field of a TCP session that one node can be alone with. `id` is another session then.
const FIELDS: [&str; 10] = [
    "id",
    "from_zone",
    "to_zone",
    "first.facts",
    "reply.facts",
    "first.mss",
    "reply.mss",
    "first.scale",
    "reply.scale",
    "supersedes",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "run") {
        return tidegate::cli::main();
    }
    // What `cargo test` hands to every test program: options, numbers that belong to them, and parts of names.
    let has = |option: &str| arguments.iter().any(|one| one == option);
    let is_filter = |one: &&String| !one.starts_with('-') && one.parse::<u32>().is_err();
    let mut filters = arguments.iter().filter(is_filter).peekable();
    let is_meant = filters.peek().is_none() || filters.any(|filter| NAME.contains(filter.as_str()));
    if !is_meant || has("--ignored") {
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        println!("{NAME}: test");
    } else {
        each_falsified_field_is_named_and_can_be_healed();
        println!("test {NAME} ... ok");
    }
    ExitCode::SUCCESS
}

/// Goes red when a field that must agree on all nodes is not compared, or is not named; when others are named too; or when
/// `sync resync` and `session clear` leave something false.
fn each_falsified_field_is_named_and_can_be_healed() {
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\ntcp = 600\n");
    let lab = replicating("falsified", 2, |spec| spec.policy = Some(policy));
    lab.at(2).terminate().unwrap();
    lab.at(2).spawn_build(std::env::current_exe().unwrap()).unwrap();
    lab.at(2).wait_ready(&Stop::default()).unwrap();
    wait_in_sync(&lab);
    let address = lab.server_v4(TCP_PORT);
    let _echo = TcpEcho::start(&lab.server(), address).unwrap();
    let open = |_: &&str| {
        let mut stream = connect(&lab.client(), address, PATIENCE).unwrap();
        exchange(&mut stream, b"idle from now on", PATIENCE).unwrap();
        stream
    };
    let _streams: Vec<_> = FIELDS.iter().map(open).collect();
    eventually("node2 holds all", PATIENCE, || (ids(&lab, 2).len() == FIELDS.len()).then_some(()));
    wait_verified(lab.at(1));
    let sessions = ids(&lab, 1);
    assert_eq!(corrupt(lab.at(1), &sessions[0], "first.mss").0, 404, "the product can be falsified");

    let mut wanted = BTreeMap::new();
    for (id, field) in sessions.iter().zip(FIELDS) {
        assert_eq!(corrupt(lab.at(2), id, field), (200, "true".to_owned()), "{field} of {id}");
        wanted.insert(id.clone(), BTreeSet::from([field.to_owned()]));
    }
    assert_eq!(corrupt(lab.at(2), &sessions[0], "no such field").0, 400);
    let (code, verification) = verify(lab.at(1));
    assert_eq!((code, &verification["agree"]), (Some(5), &Value::Bool(false)), "{verification}");
    let mut found = BTreeMap::new();
    let mut missing = BTreeMap::new();
    for session in verification["differing"].as_array().unwrap() {
        let id = session["id"].as_str().unwrap().to_owned();
        for node in session["missing_on"].as_array().unwrap() {
            missing.insert(node.as_str().unwrap().to_owned(), id.clone());
        }
        let fields: BTreeSet<_> = session["fields"].as_object().unwrap().keys().cloned().collect();
        if !fields.is_empty() {
            found.insert(id, fields);
        }
    }
    // Another id is another session: each node lacks the other's.
    wanted.remove(&sessions[0]);
    assert_eq!(found, wanted, "{verification}");
    assert_eq!(missing.get("node2"), Some(&sessions[0]), "{verification}");
    assert_eq!((missing.len(), missing.contains_key("node1")), (2, true), "{verification}");

    // A session whose birth is false goes with one resync and comes with the next; what is false in one that stays
    // goes with it.
    eventually("node2 holds what node1 made, and nothing else", PATIENCE, || {
        assert_eq!(lab.at(1).tidegate(&["sync", "resync"]).unwrap().code, Some(0));
        pause(Duration::from_secs(1));
        (ids(&lab, 2) == sessions).then_some(())
    });
    let port = TCP_PORT.to_string();
    lab.at(1).json(&["--yes", "session", "clear", "--protocol", "tcp", "--destination-port", &port]).unwrap();
    eventually("nothing is left", PATIENCE, || {
        [1, 2].iter().all(|node| ids(&lab, *node).is_empty()).then_some(())
    });
    let _streams: Vec<_> = FIELDS.iter().map(open).collect();
    eventually("node2 holds what is new", PATIENCE, || {
        (ids(&lab, 2).len() == FIELDS.len() && ids(&lab, 1) == ids(&lab, 2)).then_some(())
    });
    wait_verified(lab.at(1));
}

/// The sessions that a node holds itself.
fn ids(lab: &TestLab, node: u32) -> Vec<String> {
    let port = TCP_PORT.to_string();
    let filter = ["--local", "--protocol", "tcp", "--destination-port", &port];
    let mut ids: Vec<_> = (lab.at(node).sessions(&filter).unwrap().iter())
        .map(|session| session["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    ids
}

/// `session verify`, with its exit code.
fn verify(member: Member<'_>) -> (Option<i32>, Value) {
    let output = member.tidegate(&["session", "verify", "-o", "json"]).unwrap();
    (output.code, serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

/// Asks a daemon to falsify one field of one session; the status and what it answers.
fn corrupt(member: Member<'_>, id: &str, field: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(&member.plan().control).unwrap();
    let field = field.replace(' ', "%20");
    let request = format!(
        "POST /v1/test/corrupt?id={id}&field={field} HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, body.trim().to_owned())
}
