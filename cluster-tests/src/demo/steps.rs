//! The demo's steps. Each prints what it does and ends in an error when its claim does not hold.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{FILE_BYTES, SHORT_PORT, SHORT_TIMEOUT_S, Show, file_path};
use crate::LabError;
use crate::lab::{Host, Lab};
use crate::sys::{Netns, Stop, run_in};
use crate::traffic::{TcpEcho, UdpEcho, connect, make_file, snmp_value, udp_flows};

pub(super) const MIB: u64 = 1024 * 1024;
const IPERF_S: u64 = 2;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn address(self, host: &Host) -> &str {
        match self {
            Family::V4 => &host.ipv4,
            Family::V6 => &host.ipv6,
        }
    }

    pub(super) fn socket(self, host: &Host, port: u16) -> Result<SocketAddr, LabError> {
        let ip: IpAddr = self.address(host).parse().map_err(|error| check(format!("{error}")))?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// The file that the server serves; removed when dropped.
pub(super) struct TestFile {
    path: PathBuf,
    sha256: String,
}

impl TestFile {
    pub(super) fn make(show: &Show) -> Result<TestFile, LabError> {
        // Made first, so that a write that fails half-way is cleaned up too.
        let mut file = TestFile { path: file_path(), sha256: String::new() };
        file.sha256 = make_file(&file.path, FILE_BYTES, u64::from(std::process::id()))?;
        show.say(&format!("the server's file: {} MiB, SHA-256 {}", FILE_BYTES / MIB, short(&file.sha256)));
        Ok(file)
    }
}

impl TestFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(super) fn ping(lab: &Lab, family: Family, show: &Show) -> Result<(), LabError> {
    let server = family.address(&lab.plan().server);
    let output = run_in(Some(&lab.client()), "ping", &["-n", "-c", "5", "-i", "0.1", "-W", "2", server])?;
    let times = output.stdout.lines().find(|line| line.contains("min/avg/max")).unwrap_or_default();
    let average = times.split('/').nth(4).unwrap_or("?");
    if !output.success || !output.stdout.contains(" 0% packet loss") {
        return Err(check(format!("ping over {}: {}{}", family.name(), output.stdout, output.stderr)));
    }
    show.passed(&format!("{}: ping, 5 of 5 answered, {average} ms on average", family.name()));
    Ok(())
}

pub(super) fn udp(lab: &Lab, family: Family, show: &Show) -> Result<(), LabError> {
    let server = family.socket(&lab.plan().server, 5300)?;
    let _echo = UdpEcho::start(&lab.server(), server)?;
    let flows = 20_000..20_100;
    let answered = udp_flows(&lab.client(), server, flows.clone(), 3, Duration::from_secs(1))?;
    if answered.len() != flows.len() {
        return Err(check(format!("UDP over {}: {} of 100 flows answered", family.name(), answered.len())));
    }
    show.passed(&format!("{}: UDP, 100 of 100 flows answered", family.name()));
    Ok(())
}

pub(super) fn iperf3(
    lab: &Lab,
    family: Family,
    reverse: bool,
    stop: &Stop,
    show: &Show,
) -> Result<(), LabError> {
    let address = family.address(&lab.plan().server);
    let way = if reverse { "server to client" } else { "client to server" };
    let _server = Running(
        lab.server()
            .command("iperf3")
            .args(["-s", "-1"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| LabError::Missing { program: "iperf3".into(), source })?,
    );
    let seconds = IPERF_S.to_string();
    let mut arguments = vec!["-J", "-t", seconds.as_str(), "-c", address];
    arguments.extend(reverse.then_some("-R"));
    // The server may take a moment until it listens.
    for attempt in 0.. {
        show.progress(&format!("{}: iperf3, {way}", family.name()));
        let mut client = lab.client().command("iperf3");
        client.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let report =
            wait_for(client.spawn().map_err(|source| LabError::system("run iperf3", source))?, stop)?;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
        match report["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(rate) if rate > 0.0 => {
                show.passed(&format!("{}: iperf3, {way}, {:.2} Gbit/s", family.name(), rate / 1e9));
                return Ok(());
            }
            _ if attempt < 20 => stop.sleep(Duration::from_millis(50))?,
            _ => return Err(check(format!("iperf3 over {}, {way}: {}", family.name(), report["error"]))),
        }
    }
    Ok(())
}

/// A connection to a port that policy denies fails, though a server listens there.
pub(super) fn denied(lab: &Lab, show: &Show) -> Result<(), LabError> {
    let server = Family::V4.socket(&lab.plan().server, 9)?;
    let _echo = TcpEcho::start(&lab.server(), server)?;
    let before = lab.drops("policy_deny")?;
    if connect(&lab.client(), server, Duration::from_millis(1500)).is_ok() {
        return Err(check("a connection to port 9 was set up, which policy denies".into()));
    }
    let dropped = lab.drops("policy_deny")? - before;
    if dropped == 0 {
        return Err(check("the denied packets were not counted".into()));
    }
    show.passed(&format!("port 9 is denied: no connection, {dropped} packets dropped as policy_deny"));
    Ok(())
}

/// A session with a short timeout is there, and then it is not.
pub(super) fn timeout(lab: &Lab, stop: &Stop, show: &Show) -> Result<(), LabError> {
    let server = Family::V6.socket(&lab.plan().server, SHORT_PORT)?;
    let _echo = UdpEcho::start(&lab.server(), server)?;
    udp_flows(&lab.client(), server, [SHORT_PORT], 3, Duration::from_secs(1))?;
    let start = Instant::now();
    let port = SHORT_PORT.to_string();
    let filter = ["--protocol", "udp", "--destination-port", port.as_str()];
    if lab.sessions(&filter)?.len() != 1 {
        return Err(check(format!("no session for UDP port {SHORT_PORT}")));
    }
    show.output(
        &format!("tidegate session list --protocol udp --destination-port {port}"),
        &list_sessions(lab, &filter)?,
        4,
    );
    while !lab.sessions(&filter)?.is_empty() {
        if start.elapsed().as_secs() > SHORT_TIMEOUT_S + 5 {
            return Err(check("the session did not leave at its timeout".into()));
        }
        show.progress(&format!("the session is idle for {:.1} s", start.elapsed().as_secs_f64()));
        stop.sleep(Duration::from_millis(100))?;
    }
    let took_s = start.elapsed().as_secs_f64();
    if took_s < SHORT_TIMEOUT_S as f64 - 0.5 {
        return Err(check(format!("the session left after {took_s:.1} s, before its timeout")));
    }
    show.passed(&format!(
        "the session left at its timeout of {SHORT_TIMEOUT_S} s (seen gone after {took_s:.1} s)"
    ));
    Ok(())
}

/// Datagrams that the kernels of the nodes' namespaces have forwarded.
pub(super) fn kernel_forwarded(lab: &Lab) -> Result<u64, LabError> {
    lab.members().map(|node| forwarded_in(&node.netns())).sum()
}

fn forwarded_in(node: &Netns) -> Result<u64, LabError> {
    let (snmp, snmp6) = (node.proc_net("snmp")?, node.proc_net("snmp6")?);
    let ipv6 =
        snmp6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")?.trim().parse::<u64>().ok());
    match (snmp_value(&snmp, "Ip:", "ForwDatagrams"), ipv6) {
        (Some(ipv4), Some(ipv6)) => Ok(ipv4 + ipv6),
        _ => Err(check("the kernel does not count forwarded datagrams".into())),
    }
}

pub(super) fn dataplane_did_it(lab: &Lab, before: u64, show: &Show) -> Result<(), LabError> {
    let by_kernel = kernel_forwarded(lab)? - before;
    let list = lab.json(&["port", "list"])?;
    let ports = list["ports"].as_array().cloned().unwrap_or_default();
    let packets: u64 = ports.iter().filter_map(|port| port["tx_packets"].as_u64()).sum();
    if by_kernel != 0 || packets == 0 {
        return Err(check(format!("the kernels forwarded {by_kernel} datagrams, the dataplane {packets}")));
    }
    show.passed(&format!("since then node1's dataplane forwarded {packets} packets, the kernels none"));
    Ok(())
}

/// The session list as an operator sees it.
fn list_sessions(lab: &Lab, filter: &[&str]) -> Result<String, LabError> {
    let mut verb = vec!["session", "list"];
    verb.extend(filter);
    let output = lab.tidegate(&verb)?;
    if output.success {
        Ok(output.stdout)
    } else {
        Err(check(format!("tidegate session list: {}", output.stderr)))
    }
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a program and returns what it printed, unless and until somebody asks us to end.
fn wait_for(child: Child, stop: &Stop) -> Result<String, LabError> {
    let mut running = Running(child);
    let mut stdout = running.0.stdout.take();
    let fail = |source| LabError::system("wait for iperf3", source);
    std::thread::scope(|scope| {
        // Read beside waiting: a report larger than a pipe would block it.
        let reading = scope.spawn(move || {
            let mut text = String::new();
            let read = stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_to_string(&mut text));
            read.map(|_| text)
        });
        while running.0.try_wait().map_err(fail)?.is_none() {
            if let Err(interrupted) = stop.sleep(Duration::from_millis(20)) {
                drop(running);
                return Err(interrupted);
            }
        }
        reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(fail)
    })
}

pub(super) fn check(message: String) -> LabError {
    LabError::Check(message)
}

/// The beginning of a hash, for people.
pub(super) fn short(sha256: &str) -> String {
    format!("{}...", sha256.get(..16).unwrap_or(sha256))
}
