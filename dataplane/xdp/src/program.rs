//! The XDP program on a port: the wall that stays when the process goes.
//!
//! It is attached through netlink, so the device keeps it, its maps and the last known local
//! addresses after the process has died or ended: the node's own ARP, neighbour discovery and
//! addresses go on, transit finds no socket and is dropped. An orderly stop leaves it there too
//! (fail closed); [`detach`] removes it on request. On start a leftover of ours is replaced in one
//! step; a program that is not ours is an error that says how to remove it.

use crate::error::PortError;
use crate::netlink::{self, Attached, XdpMode};
use crate::port::PortInfo;
use crate::stats::ProgramStats;
use crate::sys;
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::{ProgramFd, ProgramInfo, Xdp};
use aya::{Ebpf, EbpfLoader};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// The object that build.rs compiled from bpf/tidegate.bpf.c.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate.bpf.o"));
/// Its one program, by which a leftover is known as ours.
const PROGRAM: &str = "tidegate_xdp";
/// Receive queues that its table of sockets has places for (`QUEUES_MAX` there).
pub const QUEUES_MAX: u32 = 64;
/// Most addresses of this node that the program knows (`LOCAL_MAX` there).
pub const LOCAL_ADDRESSES_MAX: usize = 1024;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Order of the program's `enum counter`.
#[derive(Clone, Copy)]
enum Counter {
    PassLocal,
    PassArp,
    PassLinkLocal,
    PassLinkControl,
    DropNoSocket,
}

/// A loaded and attached program with its maps. Dropping it leaves the program on the device.
#[derive(Debug)]
pub struct Program {
    bpf: Ebpf,
    mode: XdpMode,
    local: BTreeSet<IpAddr>,
    /// What it replaced, until it is to stay.
    before: Option<(ProgramFd, XdpMode)>,
}

impl Program {
    /// Loads a program for a port, fills in the local addresses, and puts it on the device in place of
    /// a leftover.
    pub fn attach(port: &PortInfo, local: &BTreeSet<IpAddr>) -> Result<Program, PortError> {
        let leftover = leftover(port)?;
        let mut program = Program::load(local)?;
        program.before = leftover.and_then(|a| Some((loaded(a.id)?.fd().ok()?, a.mode?)));
        program.mode = program.put(port, leftover)?;
        Ok(program)
    }

    /// It stays: what it replaced is let go.
    pub fn keep(&mut self) {
        self.before = None;
    }

    /// It was put there in vain: what it replaced, which may be another daemon's, is put back. Without
    /// such it stays, and drops transit.
    pub fn put_back(self, port: &PortInfo) -> Result<(), PortError> {
        let Some((fd, mode)) = &self.before else { return Ok(()) };
        netlink::set_xdp(port.ifindex, Some(fd.as_fd()), *mode)
            .map_err(|source| PortError::Attach { name: port.name.clone(), source })
    }

    /// Loads a program without putting it anywhere.
    pub fn load(local: &BTreeSet<IpAddr>) -> Result<Program, PortError> {
        let mut bpf = EbpfLoader::new().load(OBJECT).map_err(|e| load_error(&e))?;
        load(&mut bpf)?;
        let mut program = Program { bpf, mode: XdpMode::Driver, local: BTreeSet::new(), before: None };
        program.set_local(local)?;
        Ok(program)
    }

    /// Has the kernel run the program on a frame that came from nowhere (`BPF_PROG_TEST_RUN`); whether
    /// it would pass it to the kernel's stack. There is no socket on such a run, so everything else is
    /// dropped. Counts as any frame does.
    pub fn would_pass(&self, frame: &[u8]) -> io::Result<bool> {
        let program = self.program().ok_or_else(|| io::Error::other("no program"))?;
        let fd = program.fd().map_err(io::Error::other)?;
        match sys::run_xdp(fd.as_fd(), frame)? {
            XDP_PASS => Ok(true),
            XDP_DROP => Ok(false),
            other => Err(io::Error::other(format!("the XDP program answered {other}"))),
        }
    }

    /// How it is attached.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Replaces the set of this node's addresses. New ones first, so that none is missing meanwhile,
    /// unless both together would not fit. More than [`LOCAL_ADDRESSES_MAX`] of a family are refused as
    /// a whole.
    pub fn set_local(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), PortError> {
        let v4 = addresses.iter().filter(|a| a.is_ipv4()).count();
        let most = v4.max(addresses.len() - v4);
        if most > LOCAL_ADDRESSES_MAX {
            return Err(PortError::Addresses { count: most, most: LOCAL_ADDRESSES_MAX });
        }
        let added: Vec<IpAddr> = addresses.difference(&self.local).copied().collect();
        let removed: Vec<IpAddr> = self.local.difference(addresses).copied().collect();
        let first_add = self.local.len() + added.len() <= LOCAL_ADDRESSES_MAX;
        let (add, remove) = ((added, true), (removed, false));
        let order = if first_add { [add, remove] } else { [remove, add] };
        for (list, present) in order {
            for address in list {
                self.change(address, present)?;
            }
        }
        Ok(())
    }

    /// Changes one address in the program's map, and then in what is known to be there.
    fn change(&mut self, address: IpAddr, present: bool) -> Result<(), PortError> {
        let result = match address {
            IpAddr::V4(v4) => {
                let mut map: HashMap<&mut MapData, [u8; 4], u8> = self.map("local_v4")?;
                if present { map.insert(v4.octets(), 1, 0) } else { map.remove(&v4.octets()) }
            }
            IpAddr::V6(v6) => {
                let mut map: HashMap<&mut MapData, [u8; 16], u8> = self.map("local_v6")?;
                if present { map.insert(v6.octets(), 1, 0) } else { map.remove(&v6.octets()) }
            }
        };
        let result = match result {
            Err(aya::maps::MapError::KeyNotFound) if !present => Ok(()),
            Err(aya::maps::MapError::SyscallError(e))
                if !present && e.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            other => other.map_err(|e| PortError::Kernel {
                what: format!("cannot tell the XDP program about the local address {address}"),
                source: io::Error::other(e),
            }),
        };
        result.map(|()| {
            if present {
                self.local.insert(address);
            } else {
                self.local.remove(&address);
            }
        })
    }

    fn map<'a, T>(&'a mut self, name: &'static str) -> Result<T, PortError>
    where
        T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        self.bpf
            .map_mut(name)
            .ok_or_else(|| PortError::Load { reason: format!("it has no map {name}"), permission: false })
            .and_then(|m| {
                T::try_from(m).map_err(|e| PortError::Load { reason: e.to_string(), permission: false })
            })
    }

    /// What it has counted, over all CPUs.
    pub fn stats(&self) -> ProgramStats {
        let Some(map) = self.bpf.map("counters") else { return ProgramStats::default() };
        let Ok(counters) = PerCpuArray::<_, u64>::try_from(map) else { return ProgramStats::default() };
        let sum = |which: Counter| {
            counters.get(&(which as u32), 0).map_or(0, |values| values.iter().copied().sum::<u64>())
        };
        ProgramStats {
            pass_local: sum(Counter::PassLocal),
            pass_arp: sum(Counter::PassArp),
            pass_link_local: sum(Counter::PassLinkLocal),
            pass_link_control: sum(Counter::PassLinkControl),
            drop_no_socket: sum(Counter::DropNoSocket),
        }
    }

    /// Whether it is still what the device runs. (An operator may have removed it by hand.)
    pub fn is_attached(&self, ifindex: u32) -> bool {
        let ours = self.program().and_then(|p| p.info().ok()).map(|i| i.id());
        let there = netlink::link(ifindex).ok().flatten().and_then(|l| l.xdp).map(|a| a.id);
        ours.is_some() && ours == there
    }

    fn program(&self) -> Option<&Xdp> {
        self.bpf.program(PROGRAM).and_then(|p| p.try_into().ok())
    }

    /// Puts it on the device: where a leftover is, in its mode and in one step; otherwise in the driver
    /// if that knows XDP.
    fn put(&self, port: &PortInfo, leftover: Option<Attached>) -> Result<XdpMode, PortError> {
        let fd = self.program().and_then(|p| p.fd().ok()).ok_or_else(|| PortError::Load {
            reason: "the program is not loaded".into(),
            permission: false,
        })?;
        let set = |mode| netlink::set_xdp(port.ifindex, Some(fd.as_fd()), mode);
        let first = leftover.and_then(|a| a.mode).unwrap_or(XdpMode::Driver);
        let result = match set(first) {
            Err(e)
                if first == XdpMode::Driver
                    && matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) =>
            {
                set(XdpMode::Generic).map(|()| XdpMode::Generic)
            }
            other => other.map(|()| first),
        };
        result.map_err(|source| PortError::Attach { name: port.name.clone(), source })
    }
}

/// Takes our program off a device, for an operator who wants the kernel to forward by itself again.
/// Whether there was one; somebody else's is left alone and reported.
pub fn detach(port: &PortInfo) -> Result<bool, PortError> {
    match leftover(port)? {
        Some(Attached { mode: Some(mode), .. }) => netlink::set_xdp(port.ifindex, None, mode)
            .map(|()| true)
            .map_err(|source| PortError::Attach { name: port.name.clone(), source }),
        _ => Ok(false),
    }
}

/// What is on the device already, if it is ours.
fn leftover(port: &PortInfo) -> Result<Option<Attached>, PortError> {
    let link = netlink::link(port.ifindex).map_err(|source| PortError::Kernel {
        what: format!("cannot read the state of {}", port.name),
        source,
    })?;
    let Some(attached) = link.and_then(|l| l.xdp) else { return Ok(None) };
    let name = program_name(attached.id);
    if name.as_deref() == Some(PROGRAM) && attached.mode.is_some() {
        return Ok(Some(attached));
    }
    Err(PortError::ForeignProgram {
        name: port.name.clone(),
        program: name.unwrap_or_else(|| "?".into()),
        id: attached.id,
    })
}

fn program_name(id: u32) -> Option<String> {
    loaded(id)?.name_as_str().map(str::to_owned)
}

fn loaded(id: u32) -> Option<ProgramInfo> {
    aya::programs::loaded_programs().filter_map(Result::ok).find(|p| p.id() == id)
}

fn load(bpf: &mut Ebpf) -> Result<(), PortError> {
    let program: &mut Xdp = bpf
        .program_mut(PROGRAM)
        .ok_or_else(|| PortError::Load { reason: format!("no program {PROGRAM}"), permission: false })?
        .try_into()
        .map_err(|e: aya::programs::ProgramError| load_error(&e))?;
    program.load().map_err(|e| load_error(&e))
}

/// Flattens aya's error: the reason is a few sources down.
fn load_error(e: &(dyn std::error::Error + 'static)) -> PortError {
    let mut reason = e.to_string();
    let mut permission = false;
    let mut source = Some(e);
    while let Some(e) = source {
        let text = e.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        if let Some(io) = e.downcast_ref::<io::Error>() {
            permission |= matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        }
        source = e.source();
    }
    PortError::Load { reason, permission }
}
