//! A test bed of the forwarding benches: a lab with one kind of forwarder in the middle, the generator's flows set
//! up in both directions, and sinks at both ends.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::frames::{Direction, Flows, Generator, Pass, Sink, mac_of};

use crate::LabError;
use crate::lab::{Forwarder, Lab, LabSpec};
use crate::sys::{Netns, ProcessId, Stop, find_binary, pin, read_file, run_in, write_file};

/// The CPU of the generator, and with it of the receiving end of the node's port.
pub const GENERATOR_CPU: usize = 0;
/// The CPU that forwards.
pub const FORWARDER_CPU: usize = 1;
/// Frames between two looks at the clock.
const CHUNK_FRAMES: u32 = 400_000;
/// Between two bursts when nothing may be lost: longer than any forwarder takes for one.
const GENTLE_PAUSE: Duration = Duration::from_millis(5);
/// Calls of a paced generator. Each costs some milliseconds beside its frames.
const CALLS_PER_S: u32 = 2;
/// Client addresses of the generator's flows.
pub(super) const CLIENTS: &str = "10.82.0.0/15";
/// nf_conntrack's hash: one bucket for each tuple, so that the kernel does not search lists.
pub(super) const CONNTRACK_BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";
/// How many flows it tracks.
pub(super) const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// The lab's default policy as the kernel has it.
const NFT_RULES: &str = r#"
table inet firewall {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname "outside" oifname "inside" tcp dport 9 drop
    iifname "outside" oifname "inside" udp dport 9 drop
    iifname "outside" oifname "inside" ct state new accept
  }
}
"#;

/// What forwards in a bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The daemon.
    Tidegate,
    /// `afxdp` alone.
    Raw,
    /// The kernel with nf_conntrack and equal rules.
    Conntrack,
}

impl Kind {
    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tidegate => "tidegate",
            Kind::Raw => "raw_afxdp",
            Kind::Conntrack => "nf_conntrack",
        }
    }
}

/// One lab, ready to measure.
pub struct Bed {
    kind: Kind,
    flows: Flows,
    // Programs go before the interfaces that they are on.
    server_sink: Sink,
    client_sink: Sink,
    _passes: Vec<Pass>,
    _shared: Vec<Shared>,
    lab: Lab,
}

impl Bed {
    /// Makes the lab and sets up every flow in both directions.
    pub fn make(kind: Kind, flows: Flows, stop: &Stop) -> Result<Bed, LabError> {
        // A quarter of the table stays free, as it would in use.
        let bed = Bed::make_empty(kind, flows, (flows.count + flows.count / 3).max(10_000), stop)?;
        if kind != Kind::Raw {
            bed.set_up_flows(stop)?;
        }
        Ok(bed)
    }

    /// Makes the lab, with room for so many sessions, and sets up none.
    pub fn make_empty(kind: Kind, flows: Flows, sessions: u32, stop: &Stop) -> Result<Bed, LabError> {
        let lab = make_lab(kind, sessions, stop)?;
        let node = lab.node();
        let (mut passes, mut shared) = (Vec::new(), Vec::new());
        if kind != Kind::Raw {
            node.ip(&format!("route add {CLIENTS} via {} dev outside", lab.plan().client.ipv4))?;
        }
        if kind == Kind::Conntrack {
            shared = prepare_conntrack(&node, sessions)?;
            for port in ["outside", "inside"] {
                passes.push(Pass::attach(&node, port)?);
            }
        }
        let bed = Bed {
            server_sink: Sink::attach(&lab.server(), "eth0", &flows)?,
            client_sink: Sink::attach(&lab.client(), "eth0", &flows)?,
            kind,
            flows,
            _passes: passes,
            _shared: shared,
            lab,
        };
        if kind != Kind::Raw {
            bed.resolve_neighbours()?;
        }
        Ok(bed)
    }

    /// What forwards here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The process of the daemon that forwards here.
    pub fn daemon(&mut self) -> Result<ProcessId, LabError> {
        self.lab.daemon().map(|daemon| daemon.process())
    }

    /// Offers more than anything forwards for `window` and returns how many frames a second arrived.
    pub fn saturate(&self, window: Duration, stop: &Stop) -> Result<f64, LabError> {
        let _raw = match self.kind {
            Kind::Raw => Some(self.start_raw()?),
            _ => None,
        };
        self.while_sending(Duration::ZERO, CHUNK_FRAMES, || {
            stop.sleep(Duration::from_millis(500))?;
            self.measure(window, stop)
        })
    }

    /// Offers so many frames a second for as long as `work` takes.
    pub fn pace<T>(
        &self,
        frames_per_s: u32,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let frames_per_s = frames_per_s.max(1);
        let gap = Duration::from_secs(1) / frames_per_s;
        self.while_sending(gap, frames_per_s.div_ceil(CALLS_PER_S), work)
    }

    /// Runs `work` while another thread sends so many frames, with a gap after each, again and again.
    fn while_sending<T>(
        &self,
        gap: Duration,
        frames: u32,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let generating = scope.spawn(|| {
                let mut generator = self.generator(Direction::Forward, gap)?;
                while !done.load(Ordering::Relaxed) {
                    generator.send(frames)?;
                }
                Ok(())
            });
            let worked = work();
            done.store(true, Ordering::Relaxed);
            let generated: Result<(), LabError> =
                generating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            generated.and(worked)
        })
    }

    /// How many frames a second arrive at the server for so long.
    pub fn measure(&self, window: Duration, stop: &Stop) -> Result<f64, LabError> {
        let (start, before) = (Instant::now(), self.server_sink.frames()?);
        stop.sleep(window)?;
        let arrived = self.server_sink.frames()? - before;
        Ok(arrived as f64 / start.elapsed().as_secs_f64())
    }

    /// Frames that arrived at the server so far.
    pub fn arrived(&self) -> Result<u64, LabError> {
        self.server_sink.frames()
    }

    /// Sends each flow's frame `times` times, so slowly that none may be lost, and insists that all arrived (of
    /// the kernel's, nearly all).
    pub fn send_losslessly(&self, direction: Direction, times: u32) -> Result<(), LabError> {
        let sink = match direction {
            Direction::Forward => &self.server_sink,
            Direction::Reply => &self.client_sink,
        };
        let frames = self.flows.count * times;
        let before = sink.frames()?;
        std::thread::scope(|scope| {
            let sending =
                scope.spawn(|| self.generator(direction, Duration::ZERO)?.send_gently(frames, GENTLE_PAUSE));
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let deadline = Instant::now() + Duration::from_secs(2);
        while sink.frames()? - before < u64::from(frames) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let arrived = sink.frames()? - before;
        // The kernel loses some of a burst behind its forwarding; what it measures sets up the flows that lack.
        let tolerated = if self.kind == Kind::Conntrack { u64::from(frames) / 100 } else { 0 };
        if arrived + tolerated >= u64::from(frames) {
            return Ok(());
        }
        Err(LabError::Check(format!(
            "{}: {arrived} of {frames} frames arrived ({direction:?}), though slowly sent",
            self.kind.name()
        )))
    }

    /// Frames of each sampled flow that arrived at the server.
    pub fn arrived_by_flow(&self) -> Result<Vec<(u32, u64)>, LabError> {
        self.server_sink.samples()
    }

    /// A generator on its CPU. Called on a thread of its own, which stays in the sender's namespace.
    fn generator(&self, direction: Direction, gap: Duration) -> Result<Generator, LabError> {
        let (host, port) = match direction {
            Direction::Forward => (self.lab.client(), "outside"),
            Direction::Reply => (self.lab.server(), "inside"),
        };
        let gateway = mac_of(&self.lab.node(), port)?;
        host.enter()?;
        pin(GENERATOR_CPU)?;
        Generator::load(&self.flows, direction, gap, "eth0", gateway)
    }

    fn resolve_neighbours(&self) -> Result<(), LabError> {
        let server = &self.lab.plan().server.ipv4;
        let ping = run_in(Some(&self.lab.client()), "ping", &["-c", "3", "-i", "0.1", "-W", "2", server])?;
        if ping.success {
            return Ok(());
        }
        Err(LabError::Check(format!("{}: ping does not pass: {}", self.kind.name(), ping.stdout)))
    }

    fn set_up_flows(&self, stop: &Stop) -> Result<(), LabError> {
        for direction in [Direction::Forward, Direction::Reply] {
            stop.check()?;
            self.send_losslessly(direction, 1)?;
        }
        Ok(())
    }

    fn start_raw(&self) -> Result<RawForwarder, LabError> {
        let node = self.lab.node();
        let program = find_binary("tidegate-lab", "TIDEGATE_LAB_BIN")?;
        let port = |name: &str, host: &Netns| -> Result<String, LabError> {
            Ok(format!("{name},{},{}", mac_text(mac_of(host, "eth0")?), mac_text(mac_of(&node, name)?)))
        };
        let child = node
            .command(program)
            .args(["raw-forward", "--cpu", &FORWARDER_CPU.to_string()])
            .args([port("outside", &self.lab.client())?, port("inside", &self.lab.server())?])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|source| LabError::system("start the raw forwarder", source))?;
        let mut forwarder = RawForwarder { child, node };
        // It binds within a few milliseconds; what it does not forward by then shows in the figure.
        std::thread::sleep(Duration::from_millis(300));
        let ended = forwarder.child.try_wait().map_err(|source| LabError::system("look after it", source))?;
        match ended {
            Some(status) => Err(LabError::Check(format!("the raw forwarder ended: {status}"))),
            None => Ok(forwarder),
        }
    }
}

/// A lab with a forwarder and nothing to do, nothing pinned: for round trips.
pub fn idle_lab(kind: Kind, stop: &Stop) -> Result<Lab, LabError> {
    let (forwarder, name) = match kind {
        Kind::Tidegate => (Forwarder::Tidegate, "rt"),
        Kind::Raw | Kind::Conntrack => (Forwarder::Kernel, "rk"),
    };
    let lab = Lab::up(
        LabSpec { forwarder, ..LabSpec::new(format!("b{}-{name}", std::process::id())) },
        stop,
        |_| (),
    )?;
    if forwarder == Forwarder::Kernel {
        load_rules(&lab.node())?;
    }
    Ok(lab)
}

fn make_lab(kind: Kind, sessions: u32, stop: &Stop) -> Result<Lab, LabError> {
    let forwarder = match kind {
        Kind::Tidegate => Forwarder::Tidegate,
        Kind::Raw => Forwarder::Nobody,
        Kind::Conntrack => Forwarder::Kernel,
    };
    let short = kind.name().split('_').next().unwrap_or_default();
    let spec = LabSpec {
        forwarder,
        capacity: sessions,
        cpus: Some(vec![FORWARDER_CPU as u32]),
        ..LabSpec::new(format!("b{}-{short}", std::process::id()))
    };
    Lab::up(spec, stop, |_| ())
}

/// Rules, room for the flows, and the receiving split as Tidegate has it: one CPU takes frames off the link,
/// the other forwards.
fn prepare_conntrack(node: &Netns, sessions: u32) -> Result<Vec<Shared>, LabError> {
    load_rules(node)?;
    let tuples = u64::from(sessions) * 2;
    let shared = vec![Shared::raise(CONNTRACK_BUCKETS, tuples)?, Shared::raise(CONNTRACK_MAX, tuples)?];
    let mask = format!("{:x}", 1 << FORWARDER_CPU);
    // A flow without a reply lives 30 s by default: a million would be gone before their replies come.
    let rps = format!(
        "echo {mask} > /sys/class/net/outside/queues/rx-0/rps_cpus && \
         echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout"
    );
    let steered = run_in(Some(node), "sh", &["-c", &rps])?;
    match steered.success {
        true => Ok(shared),
        false => Err(LabError::Check(format!("steer the receive queue: {}", steered.stderr))),
    }
}

/// The default policy as nftables rules.
pub(super) fn load_rules(node: &Netns) -> Result<(), LabError> {
    let rules = std::env::temp_dir().join(format!("tidegate-bench-{}.nft", std::process::id()));
    write_file(&rules, NFT_RULES)?;
    let loaded = run_in(Some(node), "nft", &["-f", &rules.display().to_string()]);
    // The rules are in the kernel, or the error below says why not.
    let _ = std::fs::remove_file(&rules);
    let loaded = loaded?;
    if !loaded.success {
        return Err(LabError::Check(format!("nft: {}", loaded.stderr)));
    }
    Ok(())
}

/// A setting of the kernel's that all namespaces share: raised, and put back when dropped.
pub(super) struct Shared {
    path: &'static Path,
    before: Option<String>,
}

impl Shared {
    pub(super) fn raise(path: &'static str, wanted: u64) -> Result<Shared, LabError> {
        let path = Path::new(path);
        let before = read_file(path)?.trim().to_owned();
        if before.parse::<u64>().is_ok_and(|now| now >= wanted) {
            return Ok(Shared { path, before: None });
        }
        write_file(path, &wanted.to_string())?;
        Ok(Shared { path, before: Some(before) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = write_file(self.path, before)
        {
            eprintln!("tidegate-lab: {error}");
        }
    }
}

/// A raw forwarder that is killed when dropped, and the programs that it leaves on the ports taken off.
struct RawForwarder {
    child: Child,
    node: Netns,
}

impl Drop for RawForwarder {
    fn drop(&mut self) {
        // It runs until it is killed; waiting cannot fail for a child of ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for port in ["outside", "inside"] {
            // Without a program there is nothing to take off.
            let _ = self.node.ip(&format!("link set {port} xdp off"));
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
