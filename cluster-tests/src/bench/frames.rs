//! Generator and sink of frames: the two ends of every forwarding bench.
//!
//! Both are XDP programs (`bpf/bench.bpf.c`) that live in a host's namespace, on a thread of their own. The
//! generator needs no NIC and no socket: `BPF_PROG_TEST_RUN` with live frames puts them on the veth pair at more
//! than a million a second.

use std::net::Ipv4Addr;
use std::time::Duration;

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::LabError;
use crate::sys::Netns;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));
/// Size of a frame without its check sequence.
const FRAME_BYTES: usize = 60;
/// Frames that the kernel makes before it hands them over together.
const BATCH: u32 = 64;
/// Frames of one burst when nothing may be lost: half of a socket's receive ring. Each call costs a wait for the
/// kernel's readers (its page pool is made and unmade), so small bursts would take minutes for a million flows.
const BURST: u32 = 1024;
/// Flows whose frames the sink counts one by one, spread evenly over all.
const SAMPLES: u32 = 16;
/// Flows that share one client address; the same number stands in `bpf/bench.bpf.c`.
const FLOWS_PER_ADDRESS: u32 = 1 << 14;
const FIRST_PORT: u16 = 1024;

/// The flows of a bench: UDP tuples between many clients and one server port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flows {
    /// How many.
    pub count: u32,
    /// First client address; 16,384 flows share each.
    pub client_base: Ipv4Addr,
    /// Server address.
    pub server: Ipv4Addr,
    /// Server port.
    pub server_port: u16,
}

impl Flows {
    /// Client address and port of a flow.
    pub fn client(&self, number: u32) -> (Ipv4Addr, u16) {
        let address = u32::from(self.client_base) + number / FLOWS_PER_ADDRESS;
        (address.into(), FIRST_PORT + (number % FLOWS_PER_ADDRESS) as u16)
    }

    /// The flows that a sink counts one by one.
    pub fn sampled(&self) -> impl Iterator<Item = u32> + '_ {
        (0..SAMPLES.min(self.count)).map(|slot| slot * self.sample_every())
    }

    fn sample_every(&self) -> u32 {
        self.count.div_ceil(SAMPLES).max(1)
    }
}

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the clients to the server.
    Forward,
    /// Replies of the server.
    Reply,
}

/// Puts frames on a link. Made and used on a thread inside the sending host's namespace.
pub struct Generator {
    program: Ebpf,
    frame: [u8; FRAME_BYTES],
}

impl Generator {
    /// Loads the generator for an interface of the namespace that the calling thread is in. With a gap, frames come
    /// so much time apart, in the kernel's batches of 64; without, as fast as can be.
    pub fn load(
        flows: &Flows,
        direction: Direction,
        gap: Duration,
        ifname: &str,
        destination_mac: [u8; 6],
    ) -> Result<Generator, LabError> {
        let ifindex = nix::net::if_::if_nametoindex(ifname)
            .map_err(|errno| LabError::system(format!("find {ifname}"), errno))?;
        let reverse = u32::from(direction == Direction::Reply);
        let mut loader = EbpfLoader::new();
        let (base, server) = (u32::from(flows.client_base), u32::from(flows.server));
        let server_port = u32::from(flows.server_port);
        let gap_ns = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
        let (to, from) = (mac_number(destination_mac), mac_number(own_mac(ifname)?));
        loader
            .override_global("CLIENT_BASE", &base, true)
            .override_global("SERVER", &server, true)
            .override_global("SERVER_PORT", &server_port, true)
            .override_global("FLOWS", &flows.count, true)
            .override_global("REVERSE", &reverse, true)
            .override_global("GAP_NS", &gap_ns, true)
            .override_global("IFINDEX", &ifindex, true)
            .override_global("DESTINATION_MAC", &to, true)
            .override_global("SOURCE_MAC", &from, true);
        let mut program = loader.load(OBJECT).map_err(bpf)?;
        xdp(&mut program, "generate")?.load().map_err(bpf)?;
        Ok(Generator { program, frame: [0; FRAME_BYTES] })
    }

    /// Makes each call cheap, for those who make many: a call enters the program into the kernel's XDP dispatcher and
    /// takes it out again, and waits for all readers each time (tens of milliseconds), unless it is there already. So
    /// it is attached, to the one interface of the host that carries nothing.
    pub fn stay_ready(&mut self) -> Result<(), LabError> {
        xdp(&mut self.program, "generate")?.attach("lo", XdpMode::Skb).map(drop).map_err(bpf)
    }

    /// Puts so many frames on the link, as fast as this CPU can, and returns when all were handed over.
    pub fn send(&mut self, frames: u32) -> Result<(), LabError> {
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        xdp(&mut self.program, "generate")?.test_run(options).map(drop).map_err(bpf)
    }

    /// Puts so many frames on the link, a burst at a time with a pause after each, so that none is lost.
    pub fn send_gently(&mut self, mut frames: u32, pause: Duration) -> Result<(), LabError> {
        while frames > 0 {
            let now = frames.min(BURST);
            self.send(now)?;
            frames -= now;
            std::thread::sleep(pause);
        }
        Ok(())
    }
}

/// Counts and drops the generator's frames at the other end.
pub struct Sink {
    program: Ebpf,
    flows: Flows,
}

impl Sink {
    /// Attaches a sink to an interface of a namespace; it goes when this is dropped.
    pub fn attach(netns: &Netns, ifname: &str, flows: &Flows) -> Result<Sink, LabError> {
        let every = flows.sample_every();
        netns.run(|| {
            let mut loader = EbpfLoader::new();
            let mut program =
                loader.override_global("SAMPLE_EVERY", &every, true).load(OBJECT).map_err(bpf)?;
            attach(&mut program, "sink", ifname)?;
            Ok(Sink { program, flows: *flows })
        })?
    }

    /// Frames that arrived so far.
    pub fn frames(&self) -> Result<u64, LabError> {
        let map = self.program.map("frames").ok_or_else(|| missing("frames"))?;
        let counts: PerCpuArray<&MapData, u64> = map.try_into().map_err(bpf)?;
        Ok(counts.get(&0, 0).map_err(bpf)?.iter().sum())
    }

    /// Frames of each sampled flow that arrived so far.
    pub fn samples(&self) -> Result<Vec<(u32, u64)>, LabError> {
        let map = self.program.map("samples").ok_or_else(|| missing("samples"))?;
        let counts: Array<&MapData, u64> = map.try_into().map_err(bpf)?;
        let slots = self.flows.sampled().enumerate();
        slots.map(|(slot, flow)| Ok((flow, counts.get(&(slot as u32), 0).map_err(bpf)?))).collect()
    }
}

/// An XDP program that passes everything: with it a veth end takes live frames for the kernel's stack.
pub struct Pass {
    _program: Ebpf,
}

impl Pass {
    /// Attaches to an interface of a namespace; goes when this is dropped.
    pub fn attach(netns: &Netns, ifname: &str) -> Result<Pass, LabError> {
        netns.run(|| {
            let mut program = EbpfLoader::new().load(OBJECT).map_err(bpf)?;
            attach(&mut program, "pass", ifname)?;
            Ok(Pass { _program: program })
        })?
    }
}

fn attach(program: &mut Ebpf, name: &str, ifname: &str) -> Result<(), LabError> {
    let program = xdp(program, name)?;
    program.load().map_err(bpf)?;
    program.attach(ifname, XdpMode::Driver).map(drop).map_err(bpf)
}

fn xdp<'a>(program: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, LabError> {
    program.program_mut(name).ok_or_else(|| missing(name))?.try_into().map_err(bpf)
}

/// The MAC of an interface, as `ip link` prints it.
pub fn mac_of(netns: &Netns, ifname: &str) -> Result<[u8; 6], LabError> {
    netns.run(|| own_mac(ifname))?
}

fn own_mac(ifname: &str) -> Result<[u8; 6], LabError> {
    let addresses =
        nix::ifaddrs::getifaddrs().map_err(|errno| LabError::system("list the interfaces", errno))?;
    addresses
        .filter(|address| address.interface_name == ifname)
        .find_map(|address| address.address?.as_link_addr()?.addr())
        .ok_or_else(|| LabError::Check(format!("{ifname} has no MAC")))
}

fn mac_number(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn bpf(error: impl std::error::Error) -> LabError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    LabError::Check(format!("BPF: {text}"))
}

fn missing(name: &str) -> LabError {
    LabError::Check(format!("the bench object has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(count: u32) -> Flows {
        Flows {
            count,
            client_base: Ipv4Addr::new(10, 82, 0, 0),
            server: Ipv4Addr::new(10, 81, 2, 10),
            server_port: 5000,
        }
    }

    #[test]
    fn every_flow_has_a_tuple_of_its_own() {
        let flows = flows(100_000);
        let tuples: std::collections::BTreeSet<_> = (0..flows.count).map(|n| flows.client(n)).collect();
        assert_eq!(tuples.len(), 100_000);
        assert_eq!(flows.client(16_384), (Ipv4Addr::new(10, 82, 0, 1), 1024));
    }

    #[test]
    fn samples_are_flows_that_exist() {
        for count in [1, 5, 16, 1000, 1_000_000] {
            let flows = flows(count);
            assert!(flows.sampled().all(|number| number < count), "{count}");
        }
    }
}
