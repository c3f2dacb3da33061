//! The node's metrics for Prometheus; [`super::declared`] names them.
//!
//! Nothing is counted here. The numbers live in the engines and workers; a scrape asks for them,
//! writes them down, and renders. Scrapes that come together share one answer.

use super::dataplane::DataplaneNumbers;
use super::declared::DECLARED;
use super::declared::Kind::{Counter, Gauge};
use super::node::Node;
use crate::api::PortList;
use metrics::{Label, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_dataplane::drops::DropCounters;
use tidegate_dataplane::session::EndReason;
use tokio::sync::Mutex;
use tokio::time::Instant;

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
            cluster(node, &status);
            status.sync.iter().for_each(sync);
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

fn cluster(node: &Node, status: &crate::api::Status) {
    let (Some(agreement), Some(s)) = (node.seat.cluster(), &status.cluster) else { return };
    let yes = |b: bool| f64::from(u8::from(b));
    let health = agreement.health();
    set("cluster_member", &[], yes(s.standing == "member"));
    set("cluster_generation", &[], f64::from(s.generation));
    set("cluster_members", &[], s.members.len() as f64);
    set("cluster_voters", &[], s.members.iter().filter(|m| m.votes).count() as f64);
    set("cluster_quorum", &[], yes(s.quorum));
    for peer in &health.peers {
        let labels = [("peer", peer.name.as_str())];
        set("cluster_peer_connected", &labels, yes(peer.connected));
        if let Some(ms) = peer.rtt_ms {
            set("cluster_peer_rtt_seconds", &labels, ms / 1e3);
        }
    }
    let p = &s.policy;
    set("cluster_policy_agreed_revision", &[], f64::from(p.agreed_revision.unwrap_or(0)));
    set("cluster_policy_enforced_revision", &[], f64::from(p.enforced_revision.unwrap_or(0)));
    set("cluster_policy_pending_seconds", &[], p.pending.as_ref().map_or(0.0, |p| p.remaining_s));
    let c = &health.counters;
    for (name, value) in [
        ("cluster_handshakes_refused_total", c.handshakes_refused),
        ("cluster_hellos_refused_total", c.hellos_refused),
        ("cluster_joins_refused_total", c.joins_refused),
        ("cluster_messages_refused_total", c.messages_refused),
        ("cluster_messages_dropped_total", c.messages_dropped),
        ("raft_term", s.term),
        ("raft_commit_index", s.commit_index),
        ("raft_applied_index", s.applied_index),
        ("raft_proposals_total", c.proposals),
        ("raft_elections_total", c.elections),
    ] {
        set(name, &[], value as f64);
    }
    set("raft_leader", &[], yes(s.leader_id == Some(s.node_id)));
    set("certificate_expiry_timestamp_seconds", &[], health.certificate_not_after_unix_s as f64);
}

fn sync(s: &crate::api::SyncStatus) {
    let yes = |b: bool| f64::from(u8::from(b));
    set("sync_in_sync", &[], yes(s.in_sync));
    let in_sync = s.view.iter().filter(|n| n.in_sync).count();
    set("sync_view_nodes", &[("state", "in_sync")], in_sync as f64);
    set("sync_view_nodes", &[("state", "not_in_sync")], (s.view.len() - in_sync) as f64);
    set("sync_detection_seconds", &[], f64::from(s.detection_ms) / 1e3);
    set("sync_pauses_total", &[], s.pauses as f64);
    set("sync_asking_sessions", &[], s.asking as f64);
    set("sync_parked_packets", &[], s.parked_packets as f64);
    set("sync_held_packets", &[], s.held_packets as f64);
    for (what, count) in &s.counters {
        set("sync_engine_total", &[("what", what)], *count as f64);
    }
    for p in &s.peers {
        let peer = ("peer", p.node.as_str());
        for (name, value) in [
            ("sync_peer_connected", yes(p.connected)),
            ("sync_peer_alive", yes(p.alive)),
            ("sync_peer_in_sync", yes(p.in_sync)),
            ("sync_peer_lag_changes", p.lag_entries as f64),
            ("sync_peer_pending_bytes", p.pending_bytes as f64),
            ("sync_peer_sent_bytes_total", p.bytes_sent as f64),
            ("sync_peer_received_bytes_total", p.bytes_received as f64),
        ] {
            set(name, &[peer], value);
        }
        for (name, label, counts) in [
            ("sync_peer_records_sent_total", "kind", &p.records_sent),
            ("sync_peer_records_received_total", "result", &p.records_received),
            ("sync_peer_records_refused_total", "reason", &p.refused_by_reason),
            ("sync_peer_resyncs_total", "reason", &p.resyncs_by_reason),
        ] {
            for (value, count) in counts {
                set(name, &[peer, (label, value)], *count as f64);
            }
        }
        if let Some(age) = p.last_heartbeat_age_ms {
            set("sync_peer_heartbeat_age_seconds", &[peer], age as f64 / 1e3);
        }
        if let Some(us) = p.rtt_us {
            set("sync_peer_rtt_seconds", &[peer], us as f64 / 1e6);
        }
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
        for (result, packets) in c.waiting.fields() {
            let labels = [("worker", label.as_str()), ("result", result)];
            set("waiting_packets_total", &labels, packets as f64);
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
