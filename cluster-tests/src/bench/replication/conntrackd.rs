//! conntrackd beside the kernel's connection tracking of a lab's two nodes, as a pair of firewalls uses it: reliable
//! events in, FTFW over the sync segment, and an external cache at the other node that `-c` puts into its kernel.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::LabError;
use crate::lab::{Lab, NodePlan};
use crate::sys::{Netns, Stop, read_file, run_in, write_file};

/// How long it may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);

/// One daemon for each node; both end with this value.
pub(super) struct Conntrackd {
    seats: Vec<Seat>,
}

struct Seat {
    number: u32,
    netns: Netns,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Conntrackd {
    /// Errors with what to do unless conntrackd is installed.
    pub(super) fn require() -> Result<(), LabError> {
        match run_in(None, "conntrackd", &["-v"]) {
            Ok(_) => Ok(()),
            Err(LabError::Missing { .. }) => Err(LabError::Check(
                "conntrackd is not installed: run `make bench`, which installs what benches compare with"
                    .into(),
            )),
            Err(other) => Err(other),
        }
    }

    /// Writes their configuration and starts both.
    pub(super) fn start(lab: &Lab, stop: &Stop) -> Result<Conntrackd, LabError> {
        let nodes = &lab.plan().nodes;
        let mut all = Conntrackd { seats: Vec::new() };
        for (node, other) in nodes.iter().zip(nodes.iter().rev()) {
            let config = node.dir.join("conntrackd.conf");
            write_file(&config, &configuration(node, sync_address(node)?, sync_address(other)?))?;
            let netns = Netns::new(&node.netns);
            let log = node.dir.join("conntrackd.log");
            all.seats.push(Seat { number: node.number, netns, config, log, child: None });
        }
        nodes.iter().try_for_each(|node| all.start_one(node.number, stop))?;
        // Their first words over the link; what is tracked before would wait for them.
        stop.sleep(Duration::from_secs(1))?;
        Ok(all)
    }

    /// Starts that of a node and waits until it answers.
    pub(super) fn start_one(&mut self, number: u32, stop: &Stop) -> Result<(), LabError> {
        let seat = self.seats.iter_mut().find(|seat| seat.number == number).ok_or_else(|| nobody(number))?;
        let log = File::create(&seat.log).and_then(|log| Ok([log.try_clone()?, log]));
        let [out, errors] =
            log.map_err(|source| LabError::File { action: "write", path: seat.log.clone(), source })?;
        let mut command = seat.netns.command("conntrackd");
        command.arg("-C").arg(&seat.config).stdin(Stdio::null()).stdout(out).stderr(errors);
        let child = command.spawn();
        seat.child =
            Some(child.map_err(|source| LabError::Missing { program: "conntrackd".into(), source })?);
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            if self.ask(number, &["-s"]).is_ok() {
                return Ok(());
            }
            stop.sleep(Duration::from_millis(5))?;
        }
        let said = self.seat(number).map(|seat| read_file(&seat.log).unwrap_or_default());
        Err(LabError::Check(format!(
            "conntrackd of node {number} does not answer: {}",
            said.unwrap_or_default().trim()
        )))
    }

    /// Kills that of a node.
    pub(super) fn kill_one(&mut self, number: u32) {
        for seat in self.seats.iter_mut().filter(|seat| seat.number == number) {
            seat.kill();
        }
    }

    /// The process of a node's daemon.
    pub(super) fn pid(&self, number: u32) -> Option<i32> {
        self.seat(number)?.child.as_ref().map(|child| child.id() as i32)
    }

    /// What a node's daemon answers to a request such as `-s`.
    pub(super) fn ask(&self, number: u32, request: &[&str]) -> Result<String, LabError> {
        let seat = self.seat(number).ok_or_else(|| nobody(number))?;
        let config = seat.config.display().to_string();
        let mut arguments = vec!["-C", config.as_str()];
        arguments.extend(request);
        let output = run_in(Some(&seat.netns), "conntrackd", &arguments)?;
        match output.success {
            true => Ok(output.stdout),
            false => Err(LabError::Check(format!("conntrackd {}: {}", request.join(" "), output.stderr))),
        }
    }

    /// Begins `conntrackd -c`: what the other node has told is put into this node's kernel.
    pub(super) fn begin_commit(&self, number: u32) -> Result<Child, LabError> {
        let seat = self.seat(number).ok_or_else(|| nobody(number))?;
        let mut command = seat.netns.command("conntrackd");
        command.arg("-C").arg(&seat.config).arg("-c");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|source| LabError::Missing { program: "conntrackd".into(), source })
    }

    /// Sessions of the other node that this one's daemon holds.
    pub(super) fn external(&self, number: u32) -> Result<u64, LabError> {
        let text = self.ask(number, &["-s"])?;
        external_of(&text).ok_or_else(|| LabError::Check(format!("conntrackd -s printed {text}")))
    }

    fn seat(&self, number: u32) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.number == number)
    }
}

impl Seat {
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            // What it leaves would keep the next one from starting.
            for left in ["lock", "sock"] {
                let _ = std::fs::remove_file(self.config.with_extension(left));
            }
        }
    }
}

impl Drop for Conntrackd {
    fn drop(&mut self) {
        self.seats.iter_mut().for_each(Seat::kill);
    }
}

/// The first line behind `cache external:` has the number of connections.
fn external_of(text: &str) -> Option<u64> {
    let (_, external) = text.split_once("cache external:")?;
    external.lines().find(|line| !line.trim().is_empty())?.split_ascii_whitespace().last()?.parse().ok()
}

fn sync_address(node: &NodePlan) -> Result<&str, LabError> {
    let sync = node.sync.as_ref().map(|sync| sync.ipv4.as_str());
    sync.ok_or_else(|| LabError::Check(format!("{} has no sync address", node.name)))
}

fn nobody(number: u32) -> LabError {
    LabError::Check(format!("no conntrackd at node {number}"))
}

fn configuration(node: &NodePlan, own: &str, other: &str) -> String {
    let beside = |extension| node.dir.join("conntrackd").with_extension(extension).display().to_string();
    let (lock, socket) = (beside("lock"), beside("sock"));
    format!(
        "Sync {{
 Mode FTFW {{
  ResendQueueSize 131072
  CommitTimeout 1800
  PurgeTimeout 60
 }}
 UDP {{
  IPv4_address {own}
  IPv4_Destination_Address {other}
  Port 3780
  Interface sync
  SndSocketBuffer 24985600
  RcvSocketBuffer 24985600
  Checksum on
 }}
}}
General {{
 HashSize 262144
 HashLimit 2000000
 LogFile off
 Syslog off
 LockFile {lock}
 UNIX {{
  Path {socket}
 }}
 NetlinkBufferSize 20971520
 NetlinkBufferSizeMaxGrowth 83886080
 NetlinkEventsReliable On
 EventIterationLimit 1000
 Filter From Kernelspace {{
  Protocol Accept {{
   TCP
   UDP
  }}
 }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when the internal cache, which is this node's own, is taken for what the other has told.
    #[test]
    fn the_external_cache_is_what_counts() {
        let text = "cache internal:\ncurrent active connections:\t          7\n\n\
                    cache external:\ncurrent active connections:\t        175000\nconnections created:\t 1 failed:\t 2\n";
        assert_eq!(external_of(text), Some(175_000));
        assert_eq!(external_of("cache internal:\ncurrent active connections: 7\n"), None);
    }
}
