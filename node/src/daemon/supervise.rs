//! Looks every second whether the workers live, and every few seconds whether both walls stand.

use super::node::Node;
use crate::api::Walls;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tidegate_dataplane::route::PortId;

/// How often workers are asked for a sign of life, and how long one may take.
const LIFE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the walls are looked at.
const WALL_INTERVAL: Duration = Duration::from_secs(3);

/// How long the port of a deleted interface may still count as open.
const FLAP_GRACE: Duration = Duration::from_millis(500);

/// Keeps `node.alive` true to the facts.
pub(super) async fn workers(node: Arc<Node>) {
    let mut tick = tokio::time::interval(LIFE_INTERVAL);
    loop {
        tick.tick().await;
        let looks = (0..node.workers.count()).map(|worker| {
            let node = node.clone();
            async move {
                let lives = node.workers.call_within(LIFE_INTERVAL, worker, |_, _| ()).await.is_ok();
                let lived = node.alive[usize::from(worker)].swap(lives, Ordering::Relaxed);
                match (lived, lives) {
                    (true, false) => {
                        tracing::error!(worker, "a worker does not answer; its sessions stand still")
                    }
                    (false, true) => tracing::info!(worker, "the worker answers again"),
                    _ => {}
                }
            }
        });
        futures::future::join_all(looks).await;
    }
}

/// Keeps `node.walls` true to the facts, and the first wall standing.
pub(super) async fn walls(node: Arc<Node>) {
    let mut tick = tokio::time::interval(WALL_INTERVAL);
    let mut said = Vec::new();
    loop {
        tick.tick().await;
        let before = node.walls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let looked = look(&node, before.settings_repaired).await;
        if looked.wrong_settings != said {
            for setting in &looked.wrong_settings {
                tracing::error!("FAIL CLOSED IS NOT ASSURED: {setting}");
            }
            said.clone_from(&looked.wrong_settings);
        }
        if before.xdp_program_attached && !looked.xdp_program_attached {
            tracing::error!("FAIL CLOSED IS NOT ASSURED: the XDP program is gone from an open port");
        }
        *node.walls.lock().unwrap_or_else(PoisonError::into_inner) = looked;
    }
}

async fn look(node: &Arc<Node>, repaired_before: u64) -> Walls {
    let mut walls = look_once(node, repaired_before).await;
    if !walls.xdp_program_attached {
        // An interface that was deleted a moment ago is no hole: its port is about to be closed.
        tokio::time::sleep(FLAP_GRACE).await;
        walls = look_once(node, walls.settings_repaired).await;
    }
    walls
}

async fn look_once(node: &Arc<Node>, repaired_before: u64) -> Walls {
    let interfaces: Vec<String> = {
        let update = node.mirror.updates().borrow().clone();
        update.derived.ports.iter().filter_map(|p| p.link.as_ref().map(|l| l.name.clone())).collect()
    };
    let open: Vec<PortId> =
        node.port_table.iter().filter(|e| e.value().open.is_some()).map(|e| *e.key()).collect();
    let ports = node.ports.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut walls = first_wall(&interfaces, repaired_before);
        walls.xdp_program_attached = open.into_iter().all(|id| ports.is_sound(id));
        walls
    });
    looked.await.unwrap_or_default()
}

/// Checks the first wall, sets right what can be, and says what was wrong.
pub(super) fn first_wall(interfaces: &[String], repaired_before: u64) -> Walls {
    let report = tidegate_xdp::sysctl::enforce(interfaces.iter().map(String::as_str));
    if !report.fixed.is_empty() {
        let settings: Vec<String> = report.fixed.iter().map(ToString::to_string).collect();
        tracing::warn!(count = settings.len(), "kernel settings set right: {}", settings.join("; "));
    }
    Walls {
        kernel_forwarding_off: !report.unfixable.iter().any(|u| u.name.contains("forward")),
        wrong_settings: report.unfixable.iter().map(ToString::to_string).collect(),
        settings_repaired: repaired_before + report.fixed.len() as u64,
        xdp_program_attached: true,
    }
}
