//! System calls that the standard library does not have, each behind a safe function.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const SOL_XDP: libc::c_int = 283;
const XDP_STATISTICS: libc::c_int = 7;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Wakes a worker that sleeps in poll.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just made this descriptor and nobody else knows it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable. A full counter is readable already, so no error matters.
    pub(crate) fn wake(&self) {
        let one = 1u64;
        // SAFETY: the pointer is to eight readable bytes, which is what an eventfd takes.
        unsafe { libc::write(self.0.as_raw_fd(), std::ptr::from_ref(&one).cast(), 8) };
    }

    /// Makes it unreadable again.
    pub(crate) fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: the pointer is to eight writable bytes, which is what an eventfd gives.
        unsafe { libc::read(self.0.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), 8) };
    }
}

/// Sleeps until one of `fds` is ready or the time is over. A signal ends it early, which is no error.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> usize {
    // SAFETY: pointer and length describe one valid, writable slice of pollfd.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(ready).unwrap_or(0)
}

/// What a kick of the transmit side found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// The kernel took everything that was in the ring.
    Drained,
    /// Something is left: kick again.
    More,
    /// The device is down or gone; the port will be closed.
    Gone,
    /// Anything else.
    Failed,
}

/// Makes the kernel send what is in a transmit ring.
pub(crate) fn kick_tx(fd: BorrowedFd<'_>) -> Kick {
    // SAFETY: a null buffer of length zero and no address: nothing is read.
    let ret =
        unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if ret >= 0 {
        return Kick::Drained;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Kick::More,
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Kick::Gone,
        _ => Kick::Failed,
    }
}

/// Makes the driver look into the fill ring.
pub(crate) fn kick_rx(fd: BorrowedFd<'_>) {
    // SAFETY: a null buffer of length zero and no address: nothing is written.
    unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// `struct xdp_statistics` of <linux/if_xdp.h>.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct XdpStatistics {
    pub(crate) rx_dropped: u64,
    pub(crate) rx_invalid_descs: u64,
    pub(crate) tx_invalid_descs: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) rx_fill_ring_empty_descs: u64,
    pub(crate) tx_ring_empty_descs: u64,
}

/// The kernel's counters of a socket; zeros where it has none.
pub(crate) fn xdp_statistics(fd: BorrowedFd<'_>) -> XdpStatistics {
    let mut stats = XdpStatistics::default();
    let mut len = size_of::<XdpStatistics>() as libc::socklen_t;
    // SAFETY: `stats` is `len` writable bytes of plain integers; the kernel writes no more than `len`,
    // and any bytes are valid integers.
    unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            SOL_XDP,
            XDP_STATISTICS,
            std::ptr::from_mut(&mut stats).cast(),
            &mut len,
        )
    };
    stats
}

/// Lets one kick send up to `frames` (32 otherwise); whether the kernel knows how. If not, the
/// caller kicks as long as something is left.
pub(crate) fn set_tx_budget(fd: BorrowedFd<'_>, frames: u32) -> bool {
    // SAFETY: the pointer is to four readable bytes and the length says so.
    let ret = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            std::ptr::from_ref(&frames).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    ret == 0
}

/// Keeps a descriptor from child processes: a socket that lives on in one would not be closed when
/// it is closed here, and its queue would stay taken.
pub(crate) fn set_cloexec(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointer is passed; a number that names no file is answered with an error.
    let ret = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs an XDP program on a frame (`BPF_PROG_TEST_RUN`) and returns its answer.
pub(crate) fn run_xdp(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    /// The `test` member of `union bpf_attr`.
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        answer: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    let mut run = TestRun {
        program: program.as_raw_fd() as u32,
        size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_in: frame.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: `run` is laid out as the kernel reads it, with zeros beyond what is used; the kernel reads
    // `size_in` bytes at `data_in`, which is `frame`, and writes into `run` alone, for there is no
    // output buffer.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, std::ptr::from_mut(&mut run), size_of::<TestRun>())
    };
    if ret == 0 { Ok(run.answer) } else { Err(io::Error::last_os_error()) }
}

/// The descriptors of this process that are AF_XDP sockets.
pub(crate) fn xdp_sockets() -> io::Result<BTreeSet<RawFd>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok()) else { continue };
        let mut domain: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `domain` is `len` writable bytes. The number may name any file or none by now: the
        // kernel answers an error then.
        let ret = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_DOMAIN,
                std::ptr::from_mut(&mut domain).cast(),
                &mut len,
            )
        };
        if ret == 0 && domain == libc::AF_XDP {
            found.insert(fd);
        }
    }
    Ok(found)
}

/// Raises the limit on locked memory as far as this process may. Failing is no error yet: newer
/// kernels charge packet memory elsewhere, and CAP_IPC_LOCK lifts the limit.
pub(crate) fn raise_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    let mut limit = unlimited;
    // SAFETY: both calls get a pointer to a valid rlimit that lives on this stack.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) == 0 {
            return;
        }
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set, `cpu` is below its size, and the call reads
    // exactly `size_of_val(&set)` bytes of it; thread 0 is the caller.
    let ret = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receive and transmit queues in use, as the driver says; `None` when it does not.
pub(crate) fn channels(name: &str) -> Option<(u32, u32)> {
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        max: [u32; 4],
        rx: u32,
        tx: u32,
        other: u32,
        combined: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut Channels,
        // `struct ifreq` is 40 bytes; the kernel copies all of them.
        rest: [u8; 16],
    }
    if name.len() >= libc::IFNAMSIZ {
        return None;
    }
    // Any socket of this network namespace will do; this kind needs no address.
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    let mut request =
        Request { name: [0; libc::IFNAMSIZ], data: std::ptr::from_mut(&mut channels), rest: [0; 16] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request has the size and layout of `struct ifreq` on this architecture, its name ends
    // with a zero, and its data points to a `struct ethtool_channels` that outlives the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    (ret == 0).then_some((channels.rx + channels.combined, channels.tx + channels.combined))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Red when a wake is lost, or a cleared eventfd still ends the sleep.
    #[test]
    fn an_eventfd_wakes_once() {
        let e = EventFd::new().unwrap();
        let mut fds = [libc::pollfd { fd: e.raw(), events: libc::POLLIN, revents: 0 }];
        assert_eq!(poll(&mut fds, 0), 0);
        e.wake();
        e.wake();
        assert_eq!(poll(&mut fds, 1000), 1);
        e.clear();
        assert_eq!(poll(&mut fds, 0), 0);
    }

    // Red when something that is no AF_XDP socket counts as one: its descriptor would be kicked.
    #[test]
    fn other_sockets_are_not_ours() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!xdp_sockets().unwrap().contains(&udp.as_raw_fd()));
    }
}
