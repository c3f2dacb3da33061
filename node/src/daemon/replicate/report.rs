//! What is shown of replication.

use super::{Replication, lock};
use crate::api::{SyncPeer, SyncStatus, ViewNode};
use crate::daemon::node::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_dataplane::session::owner::View;
use tidegate_sync::replication::coordinator::{CoordinatorStatus, PeerReport};
use tidegate_sync::replication::detect::State;
use tidegate_sync::replication::{Doubt, PeerStatus, ResyncWhy, ShardStatus};

/// Names of nodes by number, former ones too.
pub(crate) fn node_names(node: &Node) -> BTreeMap<u16, String> {
    let mut names = BTreeMap::new();
    let mut put = |id: u64, name: &str| {
        if let Ok(id) = u16::try_from(id) {
            names.insert(id, name.to_owned());
        }
    };
    match node.seat.cluster() {
        Some(cluster) => {
            let state = cluster.state().borrow().clone();
            state.removed.iter().for_each(|(id, name)| put(id.0, name));
            state.members.iter().for_each(|(id, m)| put(id.0, &m.name));
        }
        None => put(node.id().into(), &node.name()),
    }
    names
}

fn name(names: &BTreeMap<u16, String>, node: u16) -> String {
    names.get(&node).cloned().unwrap_or_else(|| node.to_string())
}

/// `sync status`; `None` while the node is in no cluster, or has just come into one.
pub(crate) async fn status(node: &Node) -> Option<SyncStatus> {
    let replication = &node.replication;
    let coordinator = replication.status.load_full()?;
    let view = replication.view()?;
    let look = |tandem: &mut crate::daemon::tandem::Tandem, _| {
        let shard = tandem.replica.as_ref().map(|r| r.status(&tandem.engine));
        let counted = tandem.engine.counters();
        (shard, (counted.replication.fields(), counted.waiting.fields()), tandem.engine.waiting())
    };
    let answers = node.workers.all_tandems(look).await;
    let silent = (0..node.workers.count()).filter(|w| answers.iter().all(|(answered, _)| answered != w));
    let shards: Vec<&ShardStatus> = answers.iter().filter_map(|(_, (shard, ..))| shard.as_ref()).collect();
    let counters = sums(answers.iter().flat_map(|(_, (_, (replication, _), _))| replication));
    let waited_packets = sums(answers.iter().flat_map(|(_, (_, (_, waited), _))| waited));
    let names = node_names(node);
    Some(SyncStatus {
        node: node.name(),
        node_id: coordinator.me.node,
        boot: coordinator.me.boot,
        in_sync: coordinator.in_sync,
        waiting: coordinator.waiting.map(|w| w.name().to_owned()),
        missing: coordinator.missing.iter().map(|n| name(&names, *n)).collect(),
        no_room: coordinator.no_room,
        pauses: coordinator.pauses,
        workers_held: shards.iter().filter(|s| s.held).count() as u16,
        asking: shards.iter().map(|s| s.asking).sum(),
        parked_packets: answers.iter().map(|(_, (.., (parked, _)))| u64::from(*parked)).sum(),
        held_packets: answers.iter().map(|(_, (.., (_, held)))| u64::from(*held)).sum(),
        waited_packets,
        detection_ms: view.detection_ms,
        view: view_nodes(&view, &names),
        peers: coordinator.peers.iter().map(|p| replication.peer(p, &shards, &names)).collect(),
        counters,
        unanswered_workers: silent.collect(),
    })
}

/// Counts of all workers, by name.
fn sums<'a>(counts: impl Iterator<Item = &'a (&'static str, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    counts.for_each(|(name, count)| *sums.entry((*name).to_owned()).or_default() += count);
    sums
}

fn view_nodes(view: &Arc<View>, names: &BTreeMap<u16, String>) -> Vec<ViewNode> {
    let alive = view.alive().iter();
    let node = alive.map(|b| ViewNode {
        node_id: b.node,
        node: name(names, b.node),
        boot: b.boot,
        alive: true,
        in_sync: view.in_sync().contains(b),
    });
    node.collect()
}

impl Replication {
    fn peer(&self, report: &PeerReport, shards: &[&ShardStatus], names: &BTreeMap<u16, String>) -> SyncPeer {
        let mut peer = SyncPeer {
            node_id: report.node,
            node: name(names, report.node),
            connected: report.link.is_some(),
            alive: report.alive,
            in_sync: report.in_sync,
            boot: report.boot,
            heartbeat: state_name(report.state).to_owned(),
            indirect: report.indirect,
            last_heartbeat_age_ms: report.last_heartbeat_age_ms,
            has_no_room: report.is_full,
            caught_up: report.caught_up,
            ..SyncPeer::default()
        };
        let place = lock(&self.places).iter().position(|n| *n == report.node);
        let parts = shards.iter().flat_map(|s| &s.peers);
        parts.filter(|p| Some(usize::from(p.peer.0)) == place).for_each(|part| add(&mut peer, part));
        let exchange = lock(&self.exchange).as_ref().map(|e| e.health());
        if let Some(way) = exchange.and_then(|e| e.peers.into_iter().find(|p| p.node == report.node)) {
            (peer.bytes_sent, peer.bytes_received) = (way.bytes_sent, way.bytes_received);
            (peer.rtt_us, peer.problem) = (way.rtt_us, way.last_error);
            peer.address = way.address.map(|a| a.to_string());
        }
        if let Some(counted) = lock(&self.counted).get(&report.node) {
            let doubts = Doubt::ALL.iter().zip(counted.refused).filter(|(_, n)| *n > 0);
            doubts.for_each(|(doubt, n)| {
                *peer.refused_by_reason.entry(doubt.name().to_owned()).or_default() += n
            });
        }
        peer
    }
}

fn add(sum: &mut SyncPeer, part: &PeerStatus) {
    sum.lag_entries += part.lag_entries;
    sum.pending_bytes += part.pending_bytes;
    sum.pending_batches += part.batches_unacked;
    let (s, r) = (&part.sent, &part.received);
    let sent = [("changes", s.changes), ("resync", s.resync), ("ends", s.ends), ("questions", s.questions)];
    let received = [
        ("new", r.new),
        ("merged", r.merged),
        ("unchanged", r.unchanged),
        ("answered", r.answered),
        ("ends", r.ends),
        ("no_room", r.no_room),
        ("refused", r.refused),
        ("questions", r.questions),
    ];
    sent.into_iter().for_each(|(kind, n)| *sum.records_sent.entry(kind.to_owned()).or_default() += n);
    received.into_iter().for_each(|(kind, n)| *sum.records_received.entry(kind.to_owned()).or_default() += n);
    // Every shard needs the same resyncs: one is one for the node.
    for (why, n) in ResyncWhy::ALL.iter().zip(part.resyncs) {
        let count = sum.resyncs_by_reason.entry(why.name().to_owned()).or_default();
        *count = (*count).max(n);
    }
    for (reason, n) in &part.refused {
        *sum.refused_by_reason.entry((*reason).to_owned()).or_default() += n;
    }
    if let Some((_, _, sessions)) = part.resync_out {
        *sum.resync_sent_sessions.get_or_insert(0) += sessions;
    }
    sum.resync_coming |= part.resync_in.is_some();
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::OneWay => "one_way",
        State::Hung => "hung",
        State::Alive => "alive",
        State::Silent => "silent",
    }
}

/// What of replication should work and does not.
pub(crate) fn degraded(s: &SyncStatus) -> Vec<String> {
    let mut why: Vec<String> = not_in_sync(s).into_iter().collect();
    for p in &s.peers {
        if !p.alive {
            why.push(format!("node {} is down: its sessions are carried on by the others", p.node));
        } else if !p.connected {
            why.push(format!(
                "node {} is alive, but records of sessions cannot flow between it and this node",
                p.node
            ));
        } else if p.has_no_room {
            why.push(format!(
                "node {} has no room for all sessions of this node (table.capacity there)",
                p.node
            ));
        } else if !p.in_sync {
            why.push(format!("node {} is not in sync yet", p.node));
        }
    }
    why
}

/// Why this node could not take over for another one.
pub(crate) fn not_in_sync(s: &SyncStatus) -> Option<String> {
    if s.in_sync {
        return None;
    }
    Some(if s.no_room {
        "not in sync: the session table has no room for the sessions of other nodes (table.capacity)"
            .to_owned()
    } else if s.missing.is_empty() {
        let why = match s.waiting.as_deref() {
            Some("paused") => "it was stopped for a while, and what it missed may still be on its way",
            Some("cut_off") => "it was cut off from the other nodes",
            _ => "other members may still be reached",
        };
        format!("not in sync: {why}")
    } else {
        format!("not in sync: sessions of {} are still to come", s.missing.join(", "))
    })
}

/// The same, without asking the workers.
pub(crate) fn quick(node: &Node) -> Option<String> {
    let Some(c) = node.replication.status.load_full() else {
        return node.replication.is_wanted().then(|| "not in sync: replication has just begun".to_owned());
    };
    let names = node_names(node);
    not_in_sync(&brief(&c, &names))
}

fn brief(c: &CoordinatorStatus, names: &BTreeMap<u16, String>) -> SyncStatus {
    SyncStatus {
        in_sync: c.in_sync,
        waiting: c.waiting.map(|w| w.name().to_owned()),
        missing: c.missing.iter().map(|n| name(names, *n)).collect(),
        no_room: c.no_room,
        ..SyncStatus::default()
    }
}
