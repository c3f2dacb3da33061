//! A client, a node and a server in network namespaces of their own, joined by veth pairs, and a
//! plain two-port router to run in the workers.

#![allow(dead_code, unreachable_pub, missing_docs)]

use arrayvec::ArrayVec;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_dataplane::addr::Mac;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{BATCH_MAX, Event, Frame, Outbox, Verdict};
use tidegate_dataplane::fragment::Settled;
use tidegate_dataplane::packet::{self, ParseOptions};
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::time::Now;
use tidegate_xdp::area::{AreaConfig, PortFrame};
use tidegate_xdp::pipeline::Pipeline;
use tidegate_xdp::port::{PortSelector, PortSpec};
use tidegate_xdp::ports::Ports;
use tidegate_xdp::socket::{RingSizes, XskQueue};
use tidegate_xdp::workers::{Workers, WorkersConfig};
use tidegate_xdp::{EventSink, Idle};

pub const OUTSIDE: PortId = PortId(0);
pub const INSIDE: PortId = PortId(1);
pub const RINGS: RingSizes = RingSizes { rx: 512, tx: 512, fill: 512 };

/// Runs `ip` with the words of `args`; panics with its words when it fails.
pub fn ip(args: &str) {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("iproute2 is installed");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Runs a shell command in a namespace; its success and output.
pub fn shell(netns: &str, command: &str) -> (bool, String) {
    let out = Command::new("ip")
        .args(["netns", "exec", netns, "sh", "-c", command])
        .output()
        .expect("iproute2 is installed");
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `f` on a thread of its own that lives in a namespace.
pub fn within<R: Send + 'static>(netns: &str, f: impl FnOnce() -> R + Send + 'static) -> R {
    spawn_within(netns, f).join().expect("no panic within the namespace")
}

pub fn spawn_within<R: Send + 'static>(
    netns: &str,
    f: impl FnOnce() -> R + Send + 'static,
) -> std::thread::JoinHandle<R> {
    let file = std::fs::File::open(format!("/run/netns/{netns}")).expect("the namespace exists");
    std::thread::spawn(move || {
        use std::os::fd::AsRawFd;
        // SAFETY: no pointer is passed; the descriptor is open until the end of this closure.
        let ret = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(ret, 0, "setns: {}", std::io::Error::last_os_error());
        f()
    })
}

/// Waits until `condition` holds; panics when it does not within a generous time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three namespaces: client - node - server.
///
/// One at a time in a test program: some tests count the descriptors and mappings of the process.
pub struct Lab {
    _one_at_a_time: MutexGuard<'static, ()>,
    pub client: String,
    pub node: String,
    pub server: String,
    queues: u32,
}

impl Lab {
    pub fn new(queues: u32) -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let is_root = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m));
        assert_eq!(
            is_root.ok(),
            Some(0),
            "this test makes network namespaces and XDP sockets: run `make test`, which uses sudo"
        );
        let tag = format!("tg-xdp-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        static ONE: Mutex<()> = Mutex::new(());
        let _one_at_a_time = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab {
            _one_at_a_time,
            client: format!("{tag}-c"),
            node: format!("{tag}-n"),
            server: format!("{tag}-s"),
            queues,
        };
        for netns in [&lab.client, &lab.node, &lab.server] {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        lab.make_link(OUTSIDE);
        lab.make_link(INSIDE);
        lab
    }

    fn host(&self, port: PortId) -> &str {
        if port == OUTSIDE { &self.client } else { &self.server }
    }

    /// Makes the veth pair of a port, with its addresses; for the second time after [`Lab::delete_link`].
    pub fn make_link(&self, port: PortId) {
        let (node, host, q) = (&self.node, self.host(port), self.queues);
        let n = port.0;
        let net = n + 1;
        ip(&format!(
            "-n {node} link add p{n} address 02:00:00:00:0{n}:01 numrxqueues {q} numtxqueues {q} type veth \
             peer name e0 netns {host} address 02:00:00:00:0{n}:02 numrxqueues {q} numtxqueues {q}"
        ));
        ip(&format!("-n {node} addr add 10.77.{net}.1/24 dev p{n}"));
        ip(&format!("-n {node} addr add fd77:{net}::1/64 dev p{n} nodad"));
        ip(&format!("-n {host} addr add 10.77.{net}.2/24 dev e0"));
        ip(&format!("-n {host} addr add fd77:{net}::2/64 dev e0 nodad"));
        ip(&format!("-n {node} link set p{n} up"));
        ip(&format!("-n {host} link set e0 up"));
        ip(&format!("-n {host} route add default via 10.77.{net}.1"));
        ip(&format!("-n {host} -6 route add default via fd77:{net}::1"));
    }

    pub fn delete_link(&self, port: PortId) {
        ip(&format!("-n {} link del p{}", self.node, port.0));
    }

    pub fn spec(port: PortId) -> PortSpec {
        PortSpec { id: port, selector: PortSelector::Name(format!("p{}", port.0)) }
    }

    /// Starts workers with a router each, in the node's namespace, and opens both ports.
    pub fn start(&self, workers: u16) -> Arc<Ports<Router>> {
        within(&self.node, move || {
            let ports = start_workers(workers);
            ports.set_local_addresses(local()).unwrap();
            ports.open(&Lab::spec(OUTSIDE)).unwrap();
            ports.open(&Lab::spec(INSIDE)).unwrap();
            ports
        })
    }

    pub fn start_without_ports(&self, workers: u16) -> Arc<Ports<Router>> {
        within(&self.node, move || start_workers(workers))
    }

    pub fn open(&self, ports: &Arc<Ports<Router>>, port: PortId) {
        let ports = Arc::clone(ports);
        within(&self.node, move || ports.open(&Lab::spec(port)).map(|_| ())).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in [&self.client, &self.node, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
    }
}

fn local() -> BTreeSet<IpAddr> {
    ["10.77.1.1", "10.77.2.1", "fd77:1::1", "fd77:2::1"].iter().map(|a| a.parse().unwrap()).collect()
}

fn start_workers(workers: u16) -> Arc<Ports<Router>> {
    let config = WorkersConfig {
        area: AreaConfig { workers, frames_per_worker: 4096, frame_bytes: 2048 },
        cpus: Vec::new(),
        idle: Idle::default(),
        start: Instant::now(),
    };
    let routers = (0..workers).map(|i| Router::new(i, workers)).collect();
    let sink = |_| -> EventSink { Box::new(|_| true) };
    let workers = Workers::<Router, XskQueue>::spawn(&config, routers, sink).unwrap();
    Arc::new(Ports::new(Arc::new(workers), RINGS))
}

/// Sends what comes in by one port out of the other. With several workers, the last byte of the two
/// addresses and the ports say whose a packet is, the same in both directions.
pub struct Router {
    index: u16,
    workers: u16,
    outbox: Outbox,
    pub forwarded: u64,
    pub drops: Vec<DropReason>,
}

impl Router {
    fn new(index: u16, workers: u16) -> Router {
        Router { index, workers, outbox: Outbox::default(), forwarded: 0, drops: Vec::new() }
    }

    fn decide(&mut self, frame: &mut PortFrame) -> Verdict {
        let options = ParseOptions { partial_checksums: true };
        let packet = match packet::parse(frame.data(), options) {
            Ok(packet) => packet,
            Err(reason) => return Verdict::Drop(reason),
        };
        let shard = (packet.tuple.src_port ^ packet.tuple.dst_port) % self.workers;
        if shard != self.index {
            return Verdict::Handover(shard);
        }
        let out = if frame.port() == OUTSIDE { INSIDE } else { OUTSIDE };
        let (source, destination) = (Mac([2, 0, 0, 0, out.0, 1]), Mac([2, 0, 0, 0, out.0, 2]));
        packet::rewrite::forward(frame.data_mut(), &packet, source, destination);
        self.forwarded += 1;
        Verdict::Transmit(out)
    }
}

impl Pipeline for Router {
    fn process(&mut self, frames: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, _: Now) {
        verdicts.clear();
        for frame in frames {
            verdicts.push(self.decide(frame));
        }
    }

    fn sweep(&mut self, _: Now) {}

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn take_events(&mut self, _: &mut dyn FnMut(Event)) {}

    fn next_settled(&mut self) -> Option<Settled> {
        None
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.drops.push(reason);
    }

    fn neighbour_failed(&mut self, _: &PortFrame, _: Now) {}
}
