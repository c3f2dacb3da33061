//! The main job: the node that everything runs through is killed, and nobody notices but by a pause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::steps::{Family, MIB, TestFile, check, short};
use super::{FILE_BYTES, Show};
use crate::LabError;
use crate::lab::Lab;
use crate::sys::Stop;
use crate::traffic::{HttpServer, Streams, fetch};

/// The interactive stream's port and the download's; no other session goes to a port from one to the other.
const STREAM_PORT: u16 = 8079;
const FILE_PORT: u16 = 8080;
const BOTH: [&str; 4] = ["--protocol", "tcp", "--destination-port", "8079-8080"];

/// Something waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A download and an interactive stream run through node 1, node 1 is killed, both go on through node 2; then back.
pub(super) fn takeover(lab: &Lab, file: &TestFile, stop: &Stop, show: &Show) -> Result<(), LabError> {
    let plan = lab.plan();
    let (client, server) = (lab.client(), lab.server());
    let to_stream = Family::V6.socket(&plan.server, STREAM_PORT)?;
    let stream = Streams::open(&client, &server, to_stream, 1, Duration::from_millis(50))?;
    let address = Family::V4.socket(&plan.server, FILE_PORT)?;
    let _http = HttpServer::start(&server, address, file.path())?;
    let arrived = AtomicU64::new(0);
    let fetched = std::thread::scope(|scope| {
        let fetching =
            scope.spawn(|| fetch(&client, address, stop, |total| arrived.store(total, Ordering::Relaxed)));
        let killed = kill_under_way(lab, &arrived, || fetching.is_finished(), stop, show);
        while killed.is_ok() && !fetching.is_finished() {
            let so_far = arrived.load(Ordering::Relaxed);
            show.progress(&format!("{} of {} MiB, through node2", so_far / MIB, FILE_BYTES / MIB));
            std::thread::sleep(Duration::from_millis(50));
        }
        let fetched = fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        killed.and(fetched)
    });
    let (bytes, sha256) = fetched?;
    if bytes != FILE_BYTES || sha256 != file.sha256() {
        return Err(check(format!("the file arrived as {bytes} bytes with SHA-256 {sha256}")));
    }
    show.passed(&format!(
        "the download went on through node2: {} MiB, SHA-256 {} at both ends",
        bytes / MIB,
        short(&sha256)
    ));
    stream.go_on(PATIENCE)?;
    show.passed(&format!(
        "the interactive stream went on too: every byte right, longest pause {:.1} s",
        stream.longest_silence().as_secs_f64()
    ));
    shown(lab, 2, "node2", None, STREAM_PORT, stop)?;
    list(lab, 2, show)?;
    show.passed("its session has a new owner, and the same identity");
    back(lab, &stream, stop, show)
}

/// Kills node 1 when a quarter of the file has arrived, and moves client and server to node 2.
fn kill_under_way(
    lab: &Lab,
    arrived: &AtomicU64,
    is_done: impl Fn() -> bool,
    stop: &Stop,
    show: &Show,
) -> Result<(), LabError> {
    while arrived.load(Ordering::Relaxed) < FILE_BYTES / 4 {
        if is_done() {
            return Err(check("the download ended before a quarter of it had arrived".into()));
        }
        stop.sleep(Duration::from_millis(2))?;
    }
    for node in [1, 2] {
        for port in [STREAM_PORT, FILE_PORT] {
            shown(lab, node, "node1", Some("node2"), port, stop)?;
        }
        list(lab, node, show)?;
    }
    show.passed("both sessions are on both nodes, and node1 owns them");
    let so_far = arrived.load(Ordering::Relaxed) / MIB;
    lab.at(1).kill()?;
    lab.route_via(2)?;
    show.say(&format!(
        "node1 is killed (kill -9) after {so_far} MiB; client and server send through node2 now"
    ));
    Ok(())
}

/// Starts node 1 again and moves everything back.
fn back(lab: &Lab, stream: &Streams, stop: &Stop, show: &Show) -> Result<(), LabError> {
    let start = Instant::now();
    lab.at(1).start(stop)?;
    while lab.at(1).json(&["status"])?["sync"]["in_sync"] != true {
        if start.elapsed() > PATIENCE {
            return Err(check("node1 is back, but not in sync".to_owned()));
        }
        stop.sleep(Duration::from_millis(20))?;
    }
    shown(lab, 1, "node2", Some("node1"), STREAM_PORT, stop)?;
    show.say(&format!("node1 is back, and in sync {:.1} s after its start", start.elapsed().as_secs_f64()));
    show.passed("what it had left stays with node2");
    lab.route_via(1)?;
    stream.go_on(PATIENCE)?;
    show.passed("moved back to node1: the stream goes on");
    Ok(())
}

/// Waits until a node shows one session to that port, with that owner and, if there is one, that node with a copy.
fn shown(
    lab: &Lab,
    node: u32,
    owner: &str,
    replica: Option<&str>,
    port: u16,
    stop: &Stop,
) -> Result<(), LabError> {
    let start = Instant::now();
    let port = port.to_string();
    loop {
        let sessions = lab.at(node).sessions(&["--protocol", "tcp", "--destination-port", &port])?;
        if let [one] = &sessions[..]
            && one["owner"] == owner
            && one["replicas"] == Value::from_iter(replica)
        {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let seen = Value::from(sessions);
            return Err(check(format!(
                "node{node} shows no session to port {port} that {owner} owns, with {replica:?}: {seen}"
            )));
        }
        stop.sleep(Duration::from_millis(20))?;
    }
}

/// The sessions as an operator sees them at a node.
fn list(lab: &Lab, node: u32, show: &Show) -> Result<(), LabError> {
    let mut verb = vec!["session", "list"];
    verb.extend(BOTH);
    let output = lab.at(node).tidegate(&verb)?;
    // 5: a member of the cluster does not answer, as one that was killed.
    if !matches!(output.code, Some(0 | 5)) {
        return Err(check(format!("tidegate session list: {}", output.stderr)));
    }
    show.output(&format!("node{node}: tidegate {}", verb.join(" ")), &output.stdout, 5);
    Ok(())
}
