//! `forward_while_listing`: a million sessions are listed while a generator offers half of what the node forwards.
//!
//! Compared with the same load and nobody listing; and the memory of daemon and CLI with what they had before, and
//! with what a short list takes.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::Scale;
use super::bed::{Bed, Kind};
use super::frames::Flows;
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::sys::{Stop, find_binary, read_file};

/// Name of the bench.
pub const NAME: &str = "forward_while_listing";
/// What is asked of the packets delivered while listing, against those without.
const GATE: f64 = 0.8;
/// What is asked of memory: no copy of the table.
const GATE_MEMORY: f64 = 1.25;
/// How long the load without a list is measured.
const CALM: Duration = Duration::from_secs(3);
/// A list longer than this has stalled.
const PATIENCE: Duration = Duration::from_secs(120);
/// Sessions of a short list.
const SHORT: &str = "1000";

const GENERATOR: &str =
    "BPF_PROG_TEST_RUN live frames, 60 bytes, evenly paced at half of the measured maximum";
const SINK: &str = "XDP program at the server's veth; `tidegate session list -o json` into /dev/null";
const PLACEMENT: &str = "CPU 0: generator and receiving end of the port; CPU 1: forwarder and sink; \
                         CLI and control side where the kernel runs them";

/// What one pair of runs gave.
#[derive(Debug, Clone, Copy)]
struct Pair {
    listing: f64,
    calm: f64,
    /// Kilobytes.
    daemon: [u64; 2],
    /// Kilobytes of a full and of a short list.
    cli: [u64; 2],
    list_s: f64,
}

/// Measures with and without a list, in turn.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    let (case, count) = if scale.gated { ("1M sessions", 1_000_000) } else { ("100k sessions", 100_000) };
    progress(&format!("{NAME}: setting up {case}"));
    let flows = Flows {
        count,
        client_base: Ipv4Addr::new(10, 82, 0, 0),
        server: Ipv4Addr::new(10, 81, 2, 10),
        server_port: 5000,
    };
    let mut bed = Bed::make(Kind::Tidegate, flows, stop)?;
    let maximum = bed.saturate(scale.window, stop)?;
    let mut pairs = Vec::new();
    for round in 0..scale.rounds {
        let pair = one_pair(&mut bed, (maximum / 2.0) as u32, round % 2 == 1, stop)?;
        progress(&format!(
            "{NAME}: round {}: {:.0} kpps while listing for {:.1} s, {:.0} without; daemon {} MiB, CLI {} MiB",
            round + 1,
            pair.listing / 1e3,
            pair.list_s,
            pair.calm / 1e3,
            pair.daemon[0] / 1024,
            pair.cli[0] / 1024
        ));
        pairs.push(pair);
    }
    let listed = count_listed(&bed)?;
    if listed < u64::from(count) {
        return Err(LabError::Check(format!("{listed} of {count} sessions are in the list")));
    }
    let runs = |of: fn(&Pair) -> [f64; 2]| pairs.iter().map(of).map(|[a, b]| Run::new(a, b)).collect();
    let gate = |gate| Some(gate).filter(|_| scale.gated);
    let row = |case: &str, peer, unit, better, gate, runs| {
        let (generator, sink, cpu_placement) = (GENERATOR, SINK, PLACEMENT);
        let subject = Subject { name: NAME, case, peer, unit, better, gate, generator, sink, cpu_placement };
        Row::from_runs(&subject, runs)
    };
    let memory = |who: &str| format!("{case}, memory of the {who}");
    let rates = runs(|pair| [pair.listing / 1e3, pair.calm / 1e3]);
    let daemon = runs(|pair| pair.daemon.map(mib));
    let cli = runs(|pair| pair.cli.map(mib));
    let limit = gate(GATE_MEMORY);
    Ok(vec![
        row(case, "nobody lists", "kpps", Better::Higher, gate(GATE), rates),
        row(&memory("daemon"), "before", "MiB", Better::Lower, limit, daemon),
        row(&memory("CLI"), "list of 1000", "MiB", Better::Lower, limit, cli),
    ])
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn one_pair(bed: &mut Bed, pace: u32, listing_first: bool, stop: &Stop) -> Result<Pair, LabError> {
    let daemon = bed.daemon()?.pid;
    let short = list(bed, &["--limit", SHORT], daemon, stop)?;
    let before = memory_kib(daemon, "VmRSS:")?;
    let calm = |bed: &Bed| {
        bed.pace(pace, || {
            stop.sleep(Duration::from_millis(500))?;
            bed.measure(CALM, stop)
        })
    };
    let first = if listing_first { None } else { Some(calm(bed)?) };
    let (rate, listed) = bed.pace(pace, || {
        stop.sleep(Duration::from_millis(500))?;
        let before = bed.arrived()?;
        let listed = list(bed, &[], daemon, stop)?;
        Ok(((bed.arrived()? - before) as f64 / listed.seconds, listed))
    })?;
    Ok(Pair {
        listing: rate,
        calm: first.map_or_else(|| calm(bed), Ok)?,
        daemon: [listed.daemon_kib, before],
        cli: [listed.cli_kib, short.cli_kib],
        list_s: listed.seconds,
    })
}

/// What a list took.
struct Listed {
    seconds: f64,
    cli_kib: u64,
    daemon_kib: u64,
}

/// Lists into nowhere and looks at the memory of both sides meanwhile.
fn list(bed: &Bed, arguments: &[&str], daemon: i32, stop: &Stop) -> Result<Listed, LabError> {
    let start = std::time::Instant::now();
    let mut child = start_list(bed, arguments, Stdio::null())?;
    let mut listed = Listed { seconds: 0.0, cli_kib: 0, daemon_kib: 0 };
    let status = loop {
        stop.check().inspect_err(|_| end(&mut child))?;
        // A child that has just ended has no memory any more.
        listed.cli_kib = listed.cli_kib.max(memory_kib(child.id() as i32, "VmHWM:").unwrap_or(0));
        listed.daemon_kib = listed.daemon_kib.max(memory_kib(daemon, "VmRSS:")?);
        let ended = child.try_wait().map_err(|source| LabError::system("wait for the list", source))?;
        if let Some(status) = ended {
            break status;
        }
        if start.elapsed() > PATIENCE {
            end(&mut child);
            return Err(LabError::Check(format!("the list has not ended within {PATIENCE:?}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    listed.seconds = start.elapsed().as_secs_f64();
    if status.success() { Ok(listed) } else { Err(LabError::Check(format!("the list ended with {status}"))) }
}

/// Sessions in a whole list.
fn count_listed(bed: &Bed) -> Result<u64, LabError> {
    let mut child = start_list(bed, &[], Stdio::piped())?;
    let mut count = 0;
    if let Some(output) = child.stdout.take() {
        let lines = std::io::BufRead::split(std::io::BufReader::new(output), b'\n');
        for line in lines {
            let line = line.map_err(|source| LabError::system("read the list", source))?;
            count +=
                line.windows(6).filter(|text| text == b"\"id\":\"" || text == b"\"id\": ").count() as u64;
        }
    }
    end(&mut child);
    Ok(count)
}

fn start_list(bed: &Bed, arguments: &[&str], output: Stdio) -> Result<Child, LabError> {
    let binary: PathBuf = find_binary("tidegate", "TIDEGATE_BIN")?;
    // The control socket is a file: the CLI needs no namespace, and so is the child itself.
    std::process::Command::new(binary)
        .arg("--control")
        .arg(&bed.lab().plan().nodes[0].control)
        .args(["session", "list", "-o", "json"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
        .map_err(|source| LabError::system("start the list", source))
}

fn end(child: &mut Child) {
    // It may have ended by itself; waiting cannot fail for a child of ours.
    let _ = child.kill();
    let _ = child.wait();
}

/// A line of /proc/PID/status, in KiB.
fn memory_kib(pid: i32, line: &str) -> Result<u64, LabError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = read_file(&path)?;
    let value =
        status.lines().find_map(|l| l.strip_prefix(line)?.split_ascii_whitespace().next()?.parse().ok());
    value.ok_or_else(|| LabError::Check(format!("no {line} in {}", path.display())))
}
