//! Two nodes between a client and a server, each of which holds what the other has set up: ours, or the kernel's
//! connection tracking with conntrackd. Both stand in the same kind of lab: the same segments, addresses and frames.
//!
//! Frames are addressed to the node that they are to go through; nothing has to be routed for that. Bridges know
//! every station and nodes know both hosts from the beginning, so that nothing is flooded or resolved meanwhile.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::bed::{CLIENTS, CONNTRACK_BUCKETS, CONNTRACK_MAX, GENERATOR_CPU, Shared, load_rules};
use super::super::frames::{Direction, Flows, Generator, Pass, Sink, mac_of};
use super::super::http::Connection;
use super::super::new_flows::{conntrack_count, flush_conntrack};
use super::conntrackd::Conntrackd;
use super::cpu::pin_process;
use super::probe::Probe;
use crate::LabError;
use crate::lab::{DEFAULT_POLICY, Forwarder, Lab, LabSpec, set_kernel_forwarding};
use crate::sys::{Netns, Stop, pin, run, run_in};

/// Frames that are handed over at once when they are to come evenly.
const BURST: u32 = 1024;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);
/// Sessions of other traffic that a node may have.
pub(super) const OTHERS: u64 = 16;
/// How long emptying both nodes may take.
const EMPTY_MAX: Duration = Duration::from_secs(120);
/// Idle sessions live longer than any bench.
const LONG_TIMEOUTS: &str = "\n[timeouts]\nudp = 3600\n";

/// Who forwards and replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Two nodes of a cluster.
    Tidegate,
    /// nf_conntrack and conntrackd (FTFW).
    Conntrackd,
}

/// What a pair is to be like.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairSpec {
    /// Who.
    pub(super) who: Who,
    /// Whether one node tells the other; without, the two know nothing of each other.
    pub(super) replicating: bool,
    /// Sessions that each node has room for.
    pub(super) room: u32,
    /// Whether idle sessions outlive the bench; with the policy's default otherwise.
    pub(super) long_timeouts: bool,
    /// The CPU of each daemon's workers.
    pub(super) worker_cpu: Option<u32>,
}

/// A pair, ready to measure.
pub(super) struct Pair {
    spec: PairSpec,
    conntrackd: Option<Conntrackd>,
    // Programs go before the interfaces that they are on.
    server_sink: Sink,
    _client_sink: Sink,
    _passes: Vec<Pass>,
    _shared: Vec<Shared>,
    lab: Lab,
}

/// The flows of every pair: UDP from many clients to one port of the server.
pub(super) fn flows(count: u32) -> Flows {
    Flows {
        count,
        client_base: Ipv4Addr::new(10, 82, 0, 0),
        server: Ipv4Addr::new(10, 81, 2, 10),
        server_port: 5000,
    }
}

impl Pair {
    /// Makes it, and waits until both nodes are ready.
    pub(super) fn make(spec: PairSpec, stop: &Stop) -> Result<Pair, LabError> {
        if spec.who == Who::Conntrackd {
            Conntrackd::require()?;
        }
        let lab = Lab::up(lab_spec(&spec), stop, |_| ())?;
        know_each_other(&lab)?;
        let passes = [("outside", "client"), ("inside", "server")]
            .map(|(segment, socket)| Pass::attach(&segment_netns(&lab, segment)?, socket));
        let [outside, inside] = passes;
        let (any, mut shared, mut conntrackd) = (flows(1), Vec::new(), None);
        if spec.who == Who::Conntrackd {
            let tuples = u64::from(spec.room) * 2;
            shared = vec![Shared::raise(CONNTRACK_BUCKETS, tuples)?, Shared::raise(CONNTRACK_MAX, tuples)?];
            for node in lab.members().map(|member| member.netns()) {
                load_rules(&node)?;
                node.set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "3600")?;
            }
            if spec.replicating {
                conntrackd = Some(Conntrackd::start(&lab, stop)?);
            }
        }
        Ok(Pair {
            spec,
            conntrackd,
            server_sink: Sink::attach(&lab.server(), "eth0", &any)?,
            _client_sink: Sink::attach(&lab.client(), "eth0", &any)?,
            _passes: vec![outside?, inside?],
            _shared: shared,
            lab,
        })
    }

    /// Who forwards here.
    pub(super) fn who(&self) -> Who {
        self.spec.who
    }

    /// The lab.
    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The peer's daemons.
    pub(super) fn conntrackd(&mut self) -> Result<&mut Conntrackd, LabError> {
        self.conntrackd.as_mut().ok_or_else(|| LabError::Check("no conntrackd runs here".into()))
    }

    /// Gives each node a CPU of its own: its daemon, and what it receives from the other.
    pub(super) fn pin_nodes(&self, cpus: [usize; 2]) -> Result<(), LabError> {
        for (member, cpu) in self.lab.members().zip(cpus) {
            let daemon = match &self.conntrackd {
                Some(conntrackd) => conntrackd.pid(member.number()),
                None => member.pid(),
            };
            if let Some(pid) = daemon {
                pin_process(pid, cpu)?;
            }
            let steer = format!("echo {:x} > /sys/class/net/sync/queues/rx-0/rps_cpus", 1 << cpu);
            let steered = run_in(Some(&member.netns()), "sh", &["-c", &steer])?;
            if !steered.success {
                return Err(LabError::Check(format!("steer the receive queue: {}", steered.stderr)));
            }
        }
        Ok(())
    }

    /// Sends the first frame of each of so many flows through a node, evenly, and returns when the first and the last
    /// were sent. The generator sleeps in between, so that a CPU that it shares is free for others.
    pub(super) fn offer(
        &self,
        count: u32,
        per_s: u32,
        via: u32,
        stop: &Stop,
    ) -> Result<[Instant; 2], LabError> {
        self.with_generator(count, Duration::ZERO, via, |generator| {
            let start = Instant::now();
            let mut sent = 0;
            while sent < count {
                stop.check()?;
                let due = (start.elapsed().as_secs_f64() * f64::from(per_s)) as u32;
                let now = due.min(count).saturating_sub(sent).min(BURST);
                if now > 0 {
                    generator.send(now)?;
                    sent += now;
                }
                // Who is behind does not rest.
                if now < BURST {
                    std::thread::sleep(TICK);
                }
            }
            Ok([start, Instant::now()])
        })
    }

    /// Runs `work` while frames of so many flows go through a node, one after `gap` or as fast as can be, on a CPU
    /// that does little else.
    pub(super) fn while_sending<T>(
        &self,
        count: u32,
        gap: Duration,
        via: u32,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let frames = if gap.is_zero() { 400_000 } else { (0.5 / gap.as_secs_f64()).ceil() as u32 };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let generating = scope.spawn(|| {
                self.with_generator(count, gap, via, |generator| {
                    while !done.load(Ordering::Relaxed) {
                        generator.send(frames)?;
                    }
                    Ok(())
                })
            });
            let worked = work();
            done.store(true, Ordering::Relaxed);
            let generated = generating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            generated.and(worked)
        })
    }

    fn with_generator<T: Send>(
        &self,
        count: u32,
        gap: Duration,
        via: u32,
        work: impl FnOnce(&mut Generator) -> Result<T, LabError> + Send,
    ) -> Result<T, LabError> {
        let gateway = mac_of(&self.lab.at(via).netns(), "outside")?;
        self.lab.client().run(|| {
            pin(GENERATOR_CPU)?;
            let mut generator = Generator::load(&flows(count), Direction::Forward, gap, "eth0", gateway)?;
            generator.stay_ready()?;
            work(&mut generator)
        })?
    }

    /// Frames that have arrived at the server so far.
    pub(super) fn arrived(&self) -> Result<u64, LabError> {
        self.server_sink.frames()
    }

    /// Two ends of the wire around a node, for those numbers among the first so many flows.
    pub(super) fn probe(&self, via: u32, count: u32, numbers: &[u32]) -> Result<Probe, LabError> {
        let node = self.lab.at(via);
        let switch = segment_netns(&self.lab, "inside")?;
        let mac = mac_of(&node.netns(), "inside")?;
        Probe::open(&self.lab, (&switch, node.name()), mac, flows(count), numbers)
    }

    /// A way to ask again and again how many sessions a node holds: its own, or told by the other.
    pub(super) fn held(&self, number: u32) -> Result<Held<'_>, LabError> {
        let control = match self.spec.who {
            Who::Tidegate => Some(Connection::control(&self.lab.at(number).plan().control)?),
            Who::Conntrackd => None,
        };
        Ok(Held { pair: self, number, control })
    }

    /// Ends every session at both nodes, and sees that none is left.
    pub(super) fn empty(&mut self, stop: &Stop) -> Result<(), LabError> {
        match self.spec.who {
            Who::Tidegate => {
                for member in self.lab.members() {
                    member.must(&["--yes", "session", "clear", "--all"])?;
                }
            }
            Who::Conntrackd => {
                // Begun anew, the daemons have nothing to tell of what is flushed.
                drop(self.conntrackd.take());
                for member in self.lab.members() {
                    member.netns().run(flush_conntrack)??;
                }
                if self.spec.replicating {
                    self.conntrackd = Some(Conntrackd::start(&self.lab, stop)?);
                }
            }
        }
        let deadline = Instant::now() + EMPTY_MAX;
        for number in [1, 2] {
            let mut held = self.held(number)?;
            while held.now()? > OTHERS {
                if Instant::now() >= deadline {
                    return Err(LabError::Check(format!(
                        "{} sessions are left at node {number}",
                        held.now()?
                    )));
                }
                stop.sleep(Duration::from_millis(20))?;
            }
        }
        Ok(())
    }
}

/// How many sessions a node holds. Of the kernel's, node 2 holds what its daemon was told by node 1.
pub(super) struct Held<'a> {
    pair: &'a Pair,
    number: u32,
    control: Option<Connection>,
}

impl Held<'_> {
    /// Now.
    pub(super) fn now(&mut self) -> Result<u64, LabError> {
        if let Some(control) = &mut self.control {
            let status = control.get("/v1/status")?;
            let held = status["table"]["in_use"].as_u64();
            return held.ok_or_else(|| LabError::Check(format!("no table in {status}")));
        }
        match (&self.pair.conntrackd, self.number) {
            (Some(conntrackd), 2) => conntrackd.external(2),
            (_, number) => self.pair.lab.at(number).netns().run(conntrack_count)?,
        }
    }
}

fn lab_spec(spec: &PairSpec) -> LabSpec {
    let (forwarder, short) = match spec.who {
        Who::Tidegate => (Forwarder::Tidegate, "t"),
        Who::Conntrackd => (Forwarder::Kernel, "k"),
    };
    let name = format!("b{}-{short}{}", std::process::id(), if spec.replicating { "on" } else { "off" });
    LabSpec {
        forwarder,
        nodes: 2,
        clustered: spec.replicating,
        capacity: spec.room,
        cpus: spec.worker_cpu.map(|cpu| vec![cpu]),
        policy: spec.long_timeouts.then(|| format!("{DEFAULT_POLICY}{LONG_TIMEOUTS}")),
        ..LabSpec::new(name)
    }
}

/// Tells bridges, nodes and hosts where everybody is.
fn know_each_other(lab: &Lab) -> Result<(), LabError> {
    let plan = lab.plan();
    // Addresses of the flows are nobody's: a host that forwards would send what comes for them back to a node.
    set_kernel_forwarding(&lab.client(), false)?;
    set_kernel_forwarding(&lab.server(), false)?;
    let hosts = [
        ("outside", "client", lab.client(), &plan.client.ipv4),
        ("inside", "server", lab.server(), &plan.server.ipv4),
    ];
    for (segment, socket, host, address) in hosts {
        let switch = segment_netns(lab, segment)?;
        let mac = mac_text(mac_of(&host, "eth0")?);
        station(&switch, socket, &mac)?;
        for member in lab.members() {
            let node = member.netns();
            station(&switch, member.name(), &mac_text(mac_of(&node, segment)?))?;
            node.ip(&format!("neigh replace {address} lladdr {mac} dev {segment} nud permanent"))?;
            if segment == "outside" {
                node.ip(&format!("route add {CLIENTS} via {address} dev outside"))?;
            }
        }
    }
    Ok(())
}

/// A station behind a socket of a bridge, known for good.
fn station(switch: &Netns, socket: &str, mac: &str) -> Result<(), LabError> {
    run("bridge", &["-n", switch.name(), "fdb", "replace", mac, "dev", socket, "master", "static"]).map(drop)
}

fn segment_netns(lab: &Lab, name: &str) -> Result<Netns, LabError> {
    let found = lab.plan().segments.iter().find(|segment| segment.name == name);
    found
        .map(|segment| Netns::new(&segment.netns))
        .ok_or_else(|| LabError::Check(format!("no segment {name}")))
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
