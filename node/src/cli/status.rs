//! `status`, `port list`, `drops`.

use super::Output;
use super::output::{bytes, duration, note_unanswered, or_dash, print_facts, print_json, print_table};
use crate::api::{Drops, Port, PortList, Status};
use crate::client::Client;
use crate::exit::{Exit, Failure};

/// `status`; degraded is exit code 5.
pub(super) async fn status(client: &Client, output: Output) -> Result<Exit, Failure> {
    let s: Status = client.get("/v1/status").await?;
    let exit = if s.degraded.is_empty() { Exit::Ok } else { Exit::Degraded };
    if output == Output::Json {
        print_json(&s)?;
        return Ok(exit);
    }
    let walls = match (s.walls.kernel_forwarding_off, s.walls.xdp_program_attached) {
        (true, true) => "kernel forwarding off, XDP program attached".to_owned(),
        (forwarding_off, attached) => {
            let a = if forwarding_off { "" } else { "KERNEL FORWARDING IS ON" };
            let b = if attached { "" } else { "XDP PROGRAM MISSING" };
            format!("{a}{}{b}", if forwarding_off || attached { "" } else { ", " })
        }
    };
    let policy = s.policy_revision.map_or("none loaded".to_owned(), |r| format!("revision {r}"));
    let table =
        format!("{} of {} sessions ({:.1} %)", s.table.in_use, s.table.capacity, s.table.occupancy_percent);
    let f = &s.fragments;
    let fragments = format!(
        "{} of {} incomplete datagrams, {} given up for want of room",
        f.in_use, f.capacity, f.evicted
    );
    let state = if s.degraded.is_empty() { "ok" } else { "degraded" };
    let role = if s.role == "node" { String::new() } else { format!(", {}", s.role) };
    let mut facts = vec![
        ("state", state.to_owned()),
        ("node", format!("{} (id {}{role})", s.node, s.node_id)),
        ("version", s.version.clone()),
        ("up", format!("{} (pid {})", duration(Some(s.uptime_s)), s.pid)),
    ];
    facts.extend(s.cluster.iter().flat_map(super::cluster::facts));
    facts.extend(s.sync.iter().flat_map(super::sync::facts));
    let dataplane = [
        ("policy", policy),
        ("ports", format!("{} of {} up", s.ports_up, s.ports_configured)),
        ("workers", format!("{} of {} alive", s.workers_alive, s.workers_started)),
        ("table", table),
        ("fragments", fragments),
        ("walls", walls),
        (
            "routes",
            format!(
                "{} routes, {} neighbours (generation {})",
                s.routes.routes, s.routes.neighbours, s.routes.generation
            ),
        ),
    ];
    let forwards = s.role == "node";
    if forwards {
        facts.extend(dataplane);
    }
    if forwards && output == Output::Wide {
        facts.push(("settings repaired", s.walls.settings_repaired.to_string()));
        facts.push(("route resyncs", s.routes.resyncs.to_string()));
    }
    facts.extend(s.degraded.iter().map(|reason| ("degraded", reason.clone())));
    print_facts(&facts)?;
    Ok(exit)
}

/// `port list`.
pub(super) async fn ports(client: &Client, output: Output) -> Result<Exit, Failure> {
    let list: PortList = client.get("/v1/ports").await?;
    match output {
        Output::Json => print_json(&list)?,
        Output::Table => print_table(
            &["PORT", "ZONE", "INTERFACE", "STATE", "ADDRESSES", "RX PACKETS", "TX PACKETS"],
            list.ports.iter().map(|p| {
                vec![
                    p.name.clone(),
                    p.zone.clone(),
                    or_dash(p.interface.as_deref()),
                    p.problem.as_ref().map_or_else(|| p.state.clone(), |why| format!("{}: {why}", p.state)),
                    or_dash(Some(p.addresses.join(" ")).filter(|a| !a.is_empty())),
                    p.rx_packets.to_string(),
                    p.tx_packets.to_string(),
                ]
            }),
        )?,
        Output::Wide => print_table(
            &[
                "PORT",
                "ID",
                "ZONE",
                "INTERFACE",
                "INDEX",
                "STATE",
                "PROBLEM",
                "SELECT",
                "MAC",
                "MTU",
                "QUEUES",
                "PARTIAL",
                "ADDRESSES",
                "RX PACKETS",
                "RX",
                "TX PACKETS",
                "TX",
                "OPENED",
                "KERNEL",
            ],
            list.ports.iter().map(wide_row),
        )?,
    }
    Ok(Exit::Ok)
}

fn wide_row(p: &Port) -> Vec<String> {
    let drops: Vec<String> =
        p.kernel_counters.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{k} {n}")).collect();
    vec![
        p.name.clone(),
        p.id.to_string(),
        p.zone.clone(),
        or_dash(p.interface.as_deref()),
        or_dash(p.ifindex),
        p.state.clone(),
        or_dash(p.problem.as_deref()),
        p.select.clone(),
        or_dash(p.mac.as_deref()),
        or_dash(p.mtu),
        p.queues.to_string(),
        if p.partial_checksums { "yes" } else { "no" }.to_owned(),
        or_dash(Some(p.addresses.join(" ")).filter(|a| !a.is_empty())),
        p.rx_packets.to_string(),
        bytes(p.rx_bytes),
        p.tx_packets.to_string(),
        bytes(p.tx_bytes),
        p.opened.to_string(),
        or_dash(Some(drops.join(", ")).filter(|d| !d.is_empty())),
    ]
}

/// `drops`.
pub(super) async fn drops(client: &Client, output: Output, nonzero: bool) -> Result<Exit, Failure> {
    let mut drops: Drops = client.get("/v1/drops").await?;
    if nonzero {
        drops.reasons.retain(|d| d.packets > 0);
    }
    match output {
        Output::Json => print_json(&drops)?,
        _ => print_table(
            &["REASON", "PACKETS", "WHY"],
            drops
                .reasons
                .iter()
                .map(|d| vec![d.reason.clone(), d.packets.to_string(), d.description.clone()])
                .chain([vec!["total".to_owned(), drops.total.to_string(), String::new()]]),
        )?,
    }
    Ok(note_unanswered(&drops.unanswered_workers))
}
