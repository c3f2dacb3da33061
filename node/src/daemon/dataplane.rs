//! What the node needs of the AF_XDP side, as a trait, so that control and supervision can be tested
//! without a network interface; and its real form.

use super::tandem::Tandem;
use super::workers::{Command, CommandSink, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tidegate_dataplane::route::PortId;
use tidegate_xdp::error::WorkerError;
use tidegate_xdp::port::{PortSelector, PortSpec};
use tidegate_xdp::socket::XskQueue;

/// Counters of one port since the daemon started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// What the kernel and the XDP program counted, by cause.
    pub kernel: BTreeMap<&'static str, u64>,
    /// Times that it was opened.
    pub opened: u64,
}

/// Everything that the AF_XDP side counts, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataplaneNumbers {
    /// Ports that were ever open.
    pub ports: BTreeMap<PortId, PortCounters>,
    /// Each worker's numbers, by the names of the metrics that they are.
    pub workers: Vec<(u16, Vec<(&'static str, u64)>)>,
    /// Where the frames of packet memory are: their sum never changes.
    pub frames: Vec<(&'static str, u64)>,
}

/// The ports of the dataplane. Every call may block: call it where that is allowed.
pub trait Ports: Send + Sync + 'static {
    /// Opens a port on an interface: XDP program, and a socket for each queue. Returns the queues.
    fn open(&self, port: PortId, interface: &str, ifindex: u32) -> Result<u16, String>;
    /// Closes it: sockets go, the XDP program stays (and drops transit) if the interface is there.
    fn close(&self, port: PortId) -> Result<(), String>;
    /// Replaces the node's own addresses, which the XDP programs pass to the kernel.
    fn set_local(&self, addresses: BTreeSet<IpAddr>) -> Result<(), String>;
    /// Whether a port is open and its XDP program is still on the interface.
    fn is_sound(&self, port: PortId) -> bool;
    /// All numbers.
    fn numbers(&self) -> Result<DataplaneNumbers, String>;
}

/// The AF_XDP workers, with an engine each, and what tells other nodes of its sessions.
pub(super) type XdpWorkers = tidegate_xdp::workers::Workers<Tandem, XskQueue>;

/// Commands to the AF_XDP workers.
pub(super) struct XdpSink(pub Arc<XdpWorkers>);

impl CommandSink for XdpSink {
    fn count(&self) -> u16 {
        self.0.count()
    }

    fn submit(&self, worker: u16, command: Command) -> Result<(), Refused> {
        self.0.send(worker, command).map_err(|e| match e {
            WorkerError::Busy(_) => Refused::Busy,
            _ => Refused::Stopped,
        })
    }

    fn ring(&self, worker: u16) {
        self.0.ring(worker);
    }

    fn heartbeats(&self) -> Vec<u64> {
        self.0.heartbeats()
    }
}

/// The AF_XDP ports.
pub(super) struct XdpPorts(pub tidegate_xdp::ports::Ports<Tandem>);

impl Ports for XdpPorts {
    fn open(&self, port: PortId, interface: &str, ifindex: u32) -> Result<u16, String> {
        let spec = PortSpec { id: port, selector: PortSelector::Name(interface.to_owned()) };
        let info = self.0.open(&spec).map_err(|e| e.to_string())?;
        if info.ifindex != ifindex {
            // Made again while we looked: the mirror will tell the new index.
            self.close(port)?;
            return Err(format!("{interface} was made again meanwhile"));
        }
        Ok(info.rx_queues as u16)
    }

    fn close(&self, port: PortId) -> Result<(), String> {
        self.0.close(port).map(drop).map_err(|e| e.to_string())
    }

    fn set_local(&self, addresses: BTreeSet<IpAddr>) -> Result<(), String> {
        self.0.set_local_addresses(addresses).map_err(|e| e.to_string())
    }

    fn is_sound(&self, port: PortId) -> bool {
        self.0.is_sound(port)
    }

    fn numbers(&self) -> Result<DataplaneNumbers, String> {
        let (ports, _) = self.0.stats().map_err(|e| e.to_string())?;
        let (workers, _) = self.0.workers().stats().map_err(|e| e.to_string())?;
        let audit = self.0.workers().frame_audit().map_err(|e| e.to_string())?;
        let ports = ports.into_iter().map(|(id, stats)| (id, port_counters(&stats))).collect();
        let workers = workers.iter().map(|w| (w.worker, worker_numbers(w))).collect();
        let frames =
            [("free", audit.free), ("lent", audit.lent), ("rings", audit.in_rings), ("held", audit.held)]
                .map(|(place, n)| (place, u64::from(n)));
        Ok(DataplaneNumbers { ports, workers, frames: frames.to_vec() })
    }
}

/// No dataplane at all, as a witness has it: no workers, no ports.
pub(super) struct NoDataplane;

impl CommandSink for NoDataplane {
    fn count(&self) -> u16 {
        0
    }

    fn submit(&self, _: u16, _: Command) -> Result<(), Refused> {
        Err(Refused::Stopped)
    }
}

impl Ports for NoDataplane {
    fn open(&self, _: PortId, _: &str, _: u32) -> Result<u16, String> {
        Err("a witness has no ports".to_owned())
    }

    fn close(&self, _: PortId) -> Result<(), String> {
        Ok(())
    }

    fn set_local(&self, _: BTreeSet<IpAddr>) -> Result<(), String> {
        Ok(())
    }

    fn is_sound(&self, _: PortId) -> bool {
        true
    }

    fn numbers(&self) -> Result<DataplaneNumbers, String> {
        Ok(DataplaneNumbers::default())
    }
}

fn port_counters(stats: &tidegate_xdp::stats::PortStats) -> PortCounters {
    let (t, p) = (&stats.total, &stats.program);
    PortCounters {
        rx_packets: t.rx_packets,
        rx_bytes: t.rx_bytes,
        tx_packets: t.tx_packets,
        tx_bytes: t.tx_bytes,
        kernel: BTreeMap::from([
            ("transmit_full", t.tx_full),
            ("fill_empty", t.fill_empty),
            ("rx_ring_full", t.rx_ring_full),
            ("kernel_dropped", t.kernel_dropped),
            ("invalid_descriptors", t.invalid_descriptors),
            ("ledger_refused", t.ledger_refused),
            ("kick_errors", t.kick_errors),
            ("pass_local", p.pass_local),
            ("pass_arp", p.pass_arp),
            ("pass_link_local", p.pass_link_local),
            ("pass_link_control", p.pass_link_control),
            ("drop_no_socket", p.drop_no_socket),
        ]),
        opened: stats.opened,
    }
}

fn worker_numbers(w: &tidegate_xdp::stats::WorkerStats) -> Vec<(&'static str, u64)> {
    vec![
        ("worker_heartbeats_total", w.heartbeat),
        ("worker_batches_total", w.batches),
        ("worker_sleeps_total", w.sleeps),
        ("worker_commands_total", w.commands),
        ("worker_held_frames", w.held),
        ("worker_held_fragments", w.held_fragments),
        ("worker_pool_empty_total", w.pool_empty),
        ("worker_outbox_dropped_total", w.outbox_dropped),
        ("worker_events_left_out_total", w.events_left_out),
        ("worker_transmit_for_others_total", w.transmit_for_others),
        ("handovers_received_total", w.handover_in),
        ("handovers_refused_total", w.handover_full),
    ]
}
