//! Every metric of the node, declared in one place: name, kind, unit, meaning.
//!
//! Nothing is counted here. The numbers live in the engines and workers; a scrape asks for them,
//! writes them down, and renders. Scrapes that come together share one answer.

use super::dataplane::DataplaneNumbers;
use super::node::Node;
use crate::api::PortList;
use metrics::{Label, Unit, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_dataplane::drops::DropCounters;
use tidegate_dataplane::session::EndReason;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
}
use Kind::{Counter, Gauge};

/// A metric's name (without the prefix `tidegate_`), kind, unit and meaning.
type Declared = (&'static str, Kind, Unit, &'static str);

/// All of them. Setting one that is not declared here is a bug that a test finds.
const DECLARED: &[Declared] = &[
    ("info", Gauge, Unit::Count, "Always 1; version and node name as labels"),
    ("uptime_seconds", Gauge, Unit::Seconds, "Time since the daemon started"),
    ("degraded", Gauge, Unit::Count, "Things that should work and do not (see tidegate status)"),
    ("policy_revision", Gauge, Unit::Count, "Number of the policy in force; 0 without one"),
    ("table_capacity_sessions", Gauge, Unit::Count, "Sessions that the table can hold (J14)"),
    ("table_in_use_sessions", Gauge, Unit::Count, "Sessions in the table"),
    ("sessions_created_total", Counter, Unit::Count, "Sessions set up"),
    ("sessions_failed_total", Counter, Unit::Count, "New sessions refused because the table was full (J14)"),
    ("sessions_ended_total", Counter, Unit::Count, "Sessions that ended, by cause"),
    ("sessions_never", Gauge, Unit::Count, "Live sessions without a timeout (F6)"),
    (
        "sessions_never_capped_total",
        Counter,
        Unit::Count,
        "Sessions that were refused `never` by its cap (F6)",
    ),
    ("forwarded_packets_total", Counter, Unit::Count, "Packets forwarded"),
    ("forwarded_bytes_total", Counter, Unit::Bytes, "IP bytes forwarded"),
    ("dropped_packets_total", Counter, Unit::Count, "Packets dropped, by reason"),
    (
        "tcp_ignored_segments_total",
        Counter,
        Unit::Count,
        "TCP segments forwarded without effect on their session",
    ),
    (
        "tcp_relearned_segments_total",
        Counter,
        Unit::Count,
        "TCP segments forwarded while a bound of their window was learned (again) and not enforced",
    ),
    ("icmp_errors_sent_total", Counter, Unit::Count, "ICMP errors written by the node"),
    ("icmp_errors_limited_total", Counter, Unit::Count, "ICMP errors left out by their rate limit"),
    ("tcp_resets_sent_total", Counter, Unit::Count, "TCP resets written for `reject` and `tcp_rst`"),
    ("fragmented_packets_total", Counter, Unit::Count, "IPv4 packets fragmented for a smaller MTU"),
    (
        "fragments_capacity_datagrams",
        Gauge,
        Unit::Count,
        "Incomplete datagrams that the fragment cache can hold",
    ),
    ("fragments_in_use_datagrams", Gauge, Unit::Count, "Incomplete datagrams in the fragment cache"),
    (
        "fragments_datagrams_total",
        Counter,
        Unit::Count,
        "Fragmented datagrams, by what became of them: completed, refused, expired, evicted",
    ),
    (
        "handovers_total",
        Counter,
        Unit::Count,
        "Packets that a worker handed to another, whose shard they belong to",
    ),
    ("sweep_passes_total", Counter, Unit::Count, "Full passes of the ageing sweep"),
    ("events_left_out_total", Counter, Unit::Count, "Events that the control side did not hear of"),
    (
        "log_records_total",
        Counter,
        Unit::Count,
        "Records of flows, by target and result (sent, left_out by rate or queue, failed)",
    ),
    ("watch_events_left_out_total", Counter, Unit::Count, "Events that `session watch` did not keep up with"),
    ("log_lines_left_out_total", Counter, Unit::Count, "Log lines left out by their rate bound"),
    ("worker_alive", Gauge, Unit::Count, "1 if the worker answered at the last look"),
    ("worker_heartbeats_total", Counter, Unit::Count, "Passes of the worker's loop"),
    ("worker_batches_total", Counter, Unit::Count, "Batches given to the engine"),
    ("worker_sleeps_total", Counter, Unit::Count, "Times that the worker slept for want of packets"),
    ("worker_commands_total", Counter, Unit::Count, "Commands of the control side carried out"),
    ("worker_held_frames", Gauge, Unit::Count, "Frames that wait for a neighbour"),
    (
        "worker_held_fragments",
        Gauge,
        Unit::Count,
        "Frames that wait for the first fragment of their datagram",
    ),
    (
        "worker_pool_empty_total",
        Counter,
        Unit::Count,
        "Times that a worker's frame pool was empty when frames were wanted",
    ),
    (
        "worker_outbox_dropped_total",
        Counter,
        Unit::Count,
        "Packets of the node's own that found no frame or no room",
    ),
    (
        "worker_events_left_out_total",
        Counter,
        Unit::Count,
        "Events that found no room on their way to the control side",
    ),
    (
        "worker_transmit_for_others_total",
        Counter,
        Unit::Count,
        "Frames sent for workers without a queue of the port",
    ),
    ("handovers_received_total", Counter, Unit::Count, "Packets that a worker got from another"),
    (
        "handovers_refused_total",
        Counter,
        Unit::Count,
        "Packets dropped because the ring to the other worker was full",
    ),
    ("frames", Gauge, Unit::Count, "Frames of packet memory, by where they are; their sum never changes"),
    ("port_up", Gauge, Unit::Count, "1 if the port carries traffic"),
    ("port_opened_total", Counter, Unit::Count, "Times that the port was opened"),
    ("port_receive_packets_total", Counter, Unit::Count, "Packets received by the dataplane"),
    ("port_receive_bytes_total", Counter, Unit::Bytes, "Bytes received by the dataplane"),
    ("port_transmit_packets_total", Counter, Unit::Count, "Packets sent by the dataplane"),
    ("port_transmit_bytes_total", Counter, Unit::Bytes, "Bytes sent by the dataplane"),
    (
        "port_kernel_events_total",
        Counter,
        Unit::Count,
        "What kernel and XDP program counted on the port, by cause",
    ),
    ("wall_kernel_forwarding_off", Gauge, Unit::Count, "1 if kernel forwarding is off everywhere"),
    ("wall_settings_wrong", Gauge, Unit::Count, "Kernel settings that are wrong and cannot be set right"),
    (
        "wall_settings_repaired_total",
        Counter,
        Unit::Count,
        "Kernel settings that were found wrong and set right",
    ),
    ("wall_xdp_program_attached", Gauge, Unit::Count, "1 if every open port has the XDP program"),
    ("route_generation", Gauge, Unit::Count, "Generation of the route snapshot in force"),
    ("routes", Gauge, Unit::Count, "Routes in the snapshot"),
    ("neighbours", Gauge, Unit::Count, "Resolved neighbours in the snapshot"),
    (
        "route_resyncs_total",
        Counter,
        Unit::Count,
        "Times that all kernel tables were read again after lost events",
    ),
    ("route_audit_finds_total", Counter, Unit::Count, "Times that the periodic audit found an untold change"),
    ("neighbour_requests_total", Counter, Unit::Count, "Neighbour requests, by what became of them"),
];

/// Scrapes within this time share one answer.
const SHARED_FOR: Duration = Duration::from_millis(100);

/// Renders the node's numbers.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    last: Mutex<Option<(Instant, String)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Metrics { recorder, handle, last: Mutex::new(None) }
    }
}

impl Metrics {
    /// The numbers in Prometheus text form.
    pub async fn render(&self, node: &Node) -> String {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < SHARED_FOR
        {
            return text.clone();
        }
        let status = node.status().await;
        let (numbers, _) = node.numbers().await;
        let below = node.dataplane_numbers().await;
        let list = node.port_list(&below);
        with_local_recorder(&self.recorder, || {
            describe();
            whole(node, &status);
            engines(node, &numbers);
            ports(&list);
            dataplane(&below);
        });
        let text = self.handle.render();
        *last = Some((Instant::now(), text.clone()));
        text
    }
}

fn describe() {
    for (name, kind, unit, text) in DECLARED {
        let name = format!("tidegate_{name}");
        match kind {
            Counter => metrics::describe_counter!(name, *unit, *text),
            Gauge => metrics::describe_gauge!(name, *unit, *text),
        }
    }
}

/// Sets a declared metric.
fn set(name: &'static str, labels: &[(&'static str, &str)], value: f64) {
    let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
    let Some((_, kind, ..)) = DECLARED.iter().find(|(n, ..)| *n == name) else {
        debug_assert!(false, "metric {name} is not declared");
        return;
    };
    let full = format!("tidegate_{name}");
    match kind {
        Counter => metrics::counter!(full, labels).absolute(value as u64),
        Gauge => metrics::gauge!(full, labels).set(value),
    }
}

fn whole(node: &Node, status: &crate::api::Status) {
    set("info", &[("version", status.version.as_str()), ("node", status.node.as_str())], 1.0);
    set("uptime_seconds", &[], status.uptime_s);
    set("degraded", &[], status.degraded.len() as f64);
    set("policy_revision", &[], f64::from(status.policy_revision.unwrap_or(0)));
    set("watch_events_left_out_total", &[], node.hub.events_left_out() as f64);
    for log in node.logs.numbers() {
        for (result, count) in [("sent", log.sent), ("left_out", log.left_out), ("failed", log.failed)] {
            let labels = [("target", log.target.as_str()), ("result", result)];
            set("log_records_total", &labels, count as f64);
        }
    }
    set("log_lines_left_out_total", &[], node.events.lines_left_out() as f64);
    let w = &status.walls;
    set("wall_kernel_forwarding_off", &[], f64::from(u8::from(w.kernel_forwarding_off)));
    set("wall_settings_wrong", &[], w.wrong_settings.len() as f64);
    set("wall_settings_repaired_total", &[], w.settings_repaired as f64);
    set("wall_xdp_program_attached", &[], f64::from(u8::from(w.xdp_program_attached)));
    let r = &status.routes;
    set("route_generation", &[], f64::from(r.generation));
    set("routes", &[], r.routes as f64);
    set("neighbours", &[], r.neighbours as f64);
    set("route_resyncs_total", &[], r.resyncs as f64);
    set("route_audit_finds_total", &[], node.mirror.status().audit_finds as f64);
    let n = node.resolver.stats();
    for (what, count) in [
        ("requested", &n.requested),
        ("confirmed", &n.confirmed),
        ("left_out", &n.left_out),
        ("refused", &n.refused),
    ] {
        set("neighbour_requests_total", &[("result", what)], count.load(Ordering::Relaxed) as f64);
    }
}

fn engines(node: &Node, numbers: &[(u16, super::node::EngineNumbers)]) {
    let mut drops = DropCounters::default();
    for (worker, alive) in node.alive.iter().enumerate() {
        let label = worker.to_string();
        set("worker_alive", &[("worker", &label)], f64::from(u8::from(alive.load(Ordering::Relaxed))));
    }
    for (worker, n) in numbers {
        let label = worker.to_string();
        let labels = [("worker", label.as_str())];
        let c = &n.counters;
        drops.add(&c.drops);
        set("table_capacity_sessions", &labels, n.summary.maximum as f64);
        set("table_in_use_sessions", &labels, n.summary.in_use as f64);
        set("sessions_never", &labels, c.never_sessions as f64);
        for (name, value) in [
            ("sessions_created_total", c.created),
            ("sessions_failed_total", c.failed),
            ("sessions_never_capped_total", c.never_capped),
            ("forwarded_packets_total", c.forwarded_packets),
            ("forwarded_bytes_total", c.forwarded_bytes),
            ("tcp_ignored_segments_total", c.tcp_ignored),
            ("tcp_relearned_segments_total", c.tcp_relearned),
            ("icmp_errors_sent_total", c.icmp_errors_sent),
            ("icmp_errors_limited_total", c.icmp_errors_limited),
            ("tcp_resets_sent_total", c.resets_sent),
            ("fragmented_packets_total", c.fragmented),
            ("handovers_total", c.handovers),
            ("sweep_passes_total", c.sweep_passes),
            ("events_left_out_total", c.events_left_out),
        ] {
            set(name, &labels, value as f64);
        }
        let (in_use, capacity) = n.fragments;
        set("fragments_in_use_datagrams", &labels, f64::from(in_use));
        set("fragments_capacity_datagrams", &labels, f64::from(capacity));
        let f = &n.fragment_counters;
        for (result, count) in [
            ("completed", f.completed),
            ("refused", f.refused),
            ("expired", f.expired),
            ("evicted", f.evicted),
        ] {
            let labels = [("worker", label.as_str()), ("result", result)];
            set("fragments_datagrams_total", &labels, count as f64);
        }
        for cause in EndReason::ALL {
            let labels = [("worker", label.as_str()), ("cause", cause.name())];
            set("sessions_ended_total", &labels, c.ended[cause as usize] as f64);
        }
    }
    for (reason, packets) in drops.iter() {
        set("dropped_packets_total", &[("reason", reason.name())], packets as f64);
    }
}

fn ports(list: &PortList) {
    for port in &list.ports {
        let labels = [("port", port.name.as_str())];
        set("port_up", &labels, f64::from(u8::from(port.state == "up")));
        set("port_opened_total", &labels, port.opened as f64);
        set("port_receive_packets_total", &labels, port.rx_packets as f64);
        set("port_receive_bytes_total", &labels, port.rx_bytes as f64);
        set("port_transmit_packets_total", &labels, port.tx_packets as f64);
        set("port_transmit_bytes_total", &labels, port.tx_bytes as f64);
        for (cause, count) in &port.kernel_counters {
            let labels = [("port", port.name.as_str()), ("cause", cause.as_str())];
            set("port_kernel_events_total", &labels, *count as f64);
        }
    }
}

fn dataplane(numbers: &DataplaneNumbers) {
    for (worker, numbers) in &numbers.workers {
        let label = worker.to_string();
        for (name, value) in numbers {
            set(name, &[("worker", &label)], *value as f64);
        }
    }
    for (place, count) in &numbers.frames {
        set("frames", &[("place", place)], *count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_counters_say_total() {
        // A counter without `_total`, or a name declared twice, breaks every dashboard.
        let mut names: Vec<_> = DECLARED.iter().map(|(n, ..)| n).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DECLARED.len());
        for (name, kind, ..) in DECLARED {
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
        }
    }
}
