//! What can go wrong, and what to do about it.

use std::io;

/// The memory area could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// Not a size that the kernel takes.
    #[error("frames of {0} bytes: 2048 or 4096 are possible")]
    FrameBytes(u32),
    /// None, or absurdly many.
    #[error("between 1 and 4194304 frames are possible in all")]
    Frames,
    /// No memory.
    #[error("cannot map {bytes} bytes of packet memory; use fewer frames or workers")]
    Map {
        /// Size asked for.
        bytes: u64,
    },
}

/// A port could not be found or opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No interface answers the selector.
    #[error("no interface {selector} in this network namespace (see `ip address`)")]
    NotFound {
        /// Name, address or prefix as configured.
        selector: String,
    },
    /// More than one does.
    #[error("{selector} is on several interfaces ({names}); select the port by name")]
    Ambiguous {
        /// Prefix as configured.
        selector: String,
        /// Their names.
        names: String,
    },
    /// It is a kind of interface that cannot be a port.
    #[error("{name} is {what} and cannot be a port")]
    Unsuitable {
        /// Interface.
        name: String,
        /// Why not.
        what: &'static str,
    },
    /// More receive queues than the XDP program's table of sockets has places.
    #[error(
        "{name} has {queues} receive queues, {most} at most are possible: `ethtool -L {name} combined {most}`"
    )]
    Queues {
        /// Interface.
        name: String,
        /// How many it has.
        queues: u32,
        /// How many are possible.
        most: u32,
    },
    /// More addresses than the XDP program has places for.
    #[error(
        "this node has {count} local addresses of one family; the XDP program passes {most} at most to the kernel"
    )]
    Addresses {
        /// How many.
        count: usize,
        /// How many are possible.
        most: usize,
    },
    /// Ring sizes that the kernel does not take.
    #[error("ring sizes rx {rx}, tx {tx}, fill {fill}: each must be a power of two from 64 to 2048")]
    Rings {
        /// Receive ring.
        rx: u32,
        /// Transmit ring.
        tx: u32,
        /// Fill ring.
        fill: u32,
    },
    /// Its MTU does not fit into a frame.
    #[error(
        "{name} has an MTU of {mtu}, but frames of {frame_bytes} bytes hold {fits} at most: lower it (`ip link set dev {name} mtu {fits}`) or set larger frames"
    )]
    MtuTooLarge {
        /// Interface.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// Configured frame size.
        frame_bytes: u32,
        /// Largest MTU that fits.
        fits: u32,
    },
    /// Somebody else's XDP program is there.
    #[error(
        "{name} already has the XDP program {program:?} (id {id}), which is not ours; remove it first: `ip link set dev {name} xdp off`, or its bpf_link by ending its owner"
    )]
    ForeignProgram {
        /// Interface.
        name: String,
        /// Program's name, or "?" if it cannot be read.
        program: String,
        /// Kernel's number of it.
        id: u32,
    },
    /// The program did not load.
    #[error("cannot load the XDP program: {reason}{advice}", advice = capability_advice(*permission))]
    Load {
        /// aya's words, verifier's included.
        reason: String,
        /// Whether the kernel said "not permitted".
        permission: bool,
    },
    /// The program did not attach.
    #[error("cannot attach the XDP program to {name}: {source}{advice}", advice = capability_advice(is_permission(source)))]
    Attach {
        /// Interface.
        name: String,
        /// Kernel's answer.
        source: io::Error,
    },
    /// The packet memory was refused.
    #[error("cannot register packet memory for {name}: {source}{advice}", advice = memlock_advice(source))]
    Umem {
        /// Interface.
        name: String,
        /// Kernel's answer.
        source: io::Error,
    },
    /// The socket was refused.
    #[error("cannot bind an AF_XDP socket to {name} queue {queue}: {source}{advice}", advice = socket_advice(source))]
    Socket {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// Kernel's answer.
        source: io::Error,
    },
    /// A question to the kernel failed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked.
        what: String,
        /// Kernel's answer.
        source: io::Error,
    },
    /// The port is open already.
    #[error("port {name} is open already")]
    AlreadyOpen {
        /// Interface.
        name: String,
    },
    /// The workers have stopped.
    #[error("the workers have stopped")]
    Stopped,
}

/// The workers could not be started, or no longer answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The memory area.
    #[error(transparent)]
    Area(#[from] AreaError),
    /// A thread or eventfd.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// Worker.
        worker: u16,
        /// Kernel's answer.
        source: io::Error,
    },
    /// The number of engines is not the number of workers.
    #[error("{pipelines} engines for {workers} workers")]
    Pipelines {
        /// Engines given.
        pipelines: usize,
        /// Workers configured.
        workers: u16,
    },
    /// Too many.
    #[error("{0} workers: between 1 and 64 are possible")]
    Workers(u16),
    /// A command found its queue full.
    #[error("worker {0} has too many commands waiting")]
    Busy(u16),
    /// A command found its worker stopped.
    #[error("worker {0} has stopped")]
    Stopped(u16),
    /// Frames were lost: a bug, and the numbers that show it.
    #[error("packet memory: {0:?}")]
    Audit(crate::stats::FrameAudit),
}

fn is_permission(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

fn socket_advice(e: &io::Error) -> &'static str {
    if e.raw_os_error() == Some(libc::EBUSY) {
        "\nAnother process has an AF_XDP socket on that queue (`ss --xdp -p` shows it); end it"
    } else {
        capability_advice(is_permission(e))
    }
}

fn capability_advice(permission: bool) -> &'static str {
    if permission {
        "\nRun as root, or with the capabilities NET_ADMIN, NET_RAW, BPF and SYS_ADMIN \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_SYS_ADMIN)"
    } else {
        ""
    }
}

fn memlock_advice(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "\nThe limit on locked memory is too low: raise it (`ulimit -l unlimited`, systemd: \
             LimitMEMLOCK=infinity) or give the capability IPC_LOCK"
        }
        Some(libc::EAFNOSUPPORT) => "\nThis kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        _ => capability_advice(is_permission(e)),
    }
}
