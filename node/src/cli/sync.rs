//! `sync status|resync`, `session verify`.

use super::Output;
use super::output::{bytes, note_unanswered, or_dash, print_facts, print_json, print_table};
use crate::api::{ResyncBegun, ResyncRequest, SyncPeer, SyncStatus, Verification, ViewNode};
use crate::client::Client;
use crate::daemon::replicate::report;
use crate::exit::{Exit, Failure};
use std::collections::BTreeMap;

/// `sync status`; anything that is not as it should be is exit code 5.
pub(super) async fn status(client: &Client, output: Output) -> Result<Exit, Failure> {
    let s: SyncStatus = client.get("/v1/sync").await?;
    let degraded = report::degraded(&s);
    let exit = if degraded.is_empty() { Exit::Ok } else { Exit::Degraded };
    if output == Output::Json {
        print_json(&s)?;
        return Ok(exit.max(note_unanswered(&s.unanswered_workers)));
    }
    let mut facts = facts(&s);
    facts.push(("packets waiting", waiting(&s)));
    if output == Output::Wide {
        facts.push(("sessions waiting", format!("{} for other nodes' word before they end", s.asking)));
        facts.push(("pauses", s.pauses.to_string()));
        facts.push(("counted", counts(&s.counters)));
    }
    facts.extend(degraded.into_iter().map(|reason| ("degraded", reason)));
    print_facts(&facts)?;
    if s.peers.is_empty() {
        return Ok(exit.max(note_unanswered(&s.unanswered_workers)));
    }
    super::output::print("\n")?;
    let mut header =
        vec!["PEER", "CONNECTED", "ALIVE", "IN SYNC", "LAG", "PENDING", "SENT", "RECEIVED", "HEARTBEAT"];
    if output == Output::Wide {
        header.extend([
            "BOOT",
            "ROUND TRIP",
            "RECORDS SENT",
            "RECORDS RECEIVED",
            "RESYNCS",
            "REFUSED",
            "PROBLEM",
        ]);
    }
    print_table(&header, s.peers.iter().map(|p| row(p, output)))?;
    Ok(exit.max(note_unanswered(&s.unanswered_workers)))
}

/// What `status` shows of replication.
pub(super) fn facts(s: &SyncStatus) -> Vec<(&'static str, String)> {
    let state = if s.in_sync { "in sync" } else { "not in sync" };
    let node = |n: &ViewNode| if n.in_sync { n.node.clone() } else { format!("{} (not in sync)", n.node) };
    let alive: Vec<String> = s.view.iter().filter(|n| n.alive).map(node).collect();
    vec![
        ("replication", format!("{state}; a dead node is noticed within {} ms", s.detection_ms)),
        ("nodes alive", alive.join(", ")),
    ]
}

/// Early packets and first packets of flows: those that wait now, and what became of all that waited.
fn waiting(s: &SyncStatus) -> String {
    let now = format!("{} early, {} first ones", s.parked_packets, s.held_packets);
    match s.waited_packets.values().any(|n| *n > 0) {
        true => format!("{now}; so far {}", counts(&s.waited_packets)),
        false => now,
    }
}

fn counts(map: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = map.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{k} {n}")).collect();
    or_dash((!parts.is_empty()).then(|| parts.join(", ")))
}

fn row(p: &SyncPeer, output: Output) -> Vec<String> {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let heartbeat = match p.last_heartbeat_age_ms {
        Some(age) if p.heartbeat == "alive" => format!("{age} ms ago"),
        Some(age) => format!("{}, {age} ms ago", p.heartbeat),
        None => "never".to_owned(),
    };
    let in_sync = if p.has_no_room { "no room".to_owned() } else { yes(p.in_sync) };
    let mut row = vec![
        p.node.clone(),
        yes(p.connected),
        yes(p.alive),
        in_sync,
        p.lag_entries.to_string(),
        bytes(p.pending_bytes),
        bytes(p.bytes_sent),
        bytes(p.bytes_received),
        heartbeat,
    ];
    if output == Output::Wide {
        row.extend([
            or_dash(p.boot),
            or_dash(p.rtt_us.map(|us| format!("{us} us"))),
            counts(&p.records_sent),
            counts(&p.records_received),
            counts(&p.resyncs_by_reason),
            counts(&p.refused_by_reason),
            or_dash(p.problem.as_deref()),
        ]);
    }
    row
}

/// `sync resync`.
pub(super) async fn resync(client: &Client, output: Output, peer: Option<String>) -> Result<Exit, Failure> {
    let begun: ResyncBegun = client.post("/v1/sync/resync", &ResyncRequest { peer }).await?;
    let exit = if begun.unconnected.is_empty() { Exit::Ok } else { Exit::Degraded };
    if output == Output::Json {
        print_json(&begun)?;
        return Ok(exit);
    }
    let mut text = match begun.peers.is_empty() {
        true => "no peer to exchange sessions with\n".to_owned(),
        false => format!(
            "all sessions are exchanged with {}; see `tidegate sync status`\n",
            begun.peers.join(", ")
        ),
    };
    if !begun.unconnected.is_empty() {
        text.push_str(&format!("not connected: {}\n", begun.unconnected.join(", ")));
    }
    super::output::print(&text)?;
    Ok(exit)
}

/// `session verify`: 5 when sessions differ, 3 when a node does not answer.
pub(super) async fn verify(client: &Client, output: Output) -> Result<Exit, Failure> {
    let v: Verification = client.get("/v1/sessions/verify").await?;
    let exit = match (v.agree, v.unanswered_nodes.is_empty()) {
        (false, _) => Exit::Degraded,
        (true, false) => Exit::Unreachable,
        (true, true) => Exit::Ok,
    };
    for node in &v.unanswered_nodes {
        eprintln!("tidegate: node {} did not answer: {}; it was not compared", node.node, node.why);
    }
    if output == Output::Json {
        print_json(&v)?;
        return Ok(exit);
    }
    let node = |n: &crate::api::VerifiedNode| format!("{} {}", n.node, n.sessions);
    let nodes: Vec<String> = v.nodes.iter().map(node).collect();
    let mut text = format!("sessions that all are to hold: {}\n", nodes.join(", "));
    if v.agree {
        text.push_str(if v.nodes.len() > 1 {
            "all of them agree\n"
        } else {
            "there is nobody to compare with\n"
        });
    }
    for session in &v.differing {
        if !session.missing_on.is_empty() {
            text.push_str(&format!("{}: missing on {}\n", session.id, session.missing_on.join(", ")));
        }
        for (field, values) in &session.fields {
            let values: Vec<String> =
                values.iter().map(|(node, value)| format!("{value} on {node}")).collect();
            text.push_str(&format!("{}: {field} is {}\n", session.id, values.join(", ")));
        }
    }
    if !v.agree {
        text.push_str(&format!(
            "{} sessions differ, in {} of 1024 buckets\n  help: `tidegate sync resync` exchanges all sessions anew\n",
            v.differing.len(),
            v.differing_buckets
        ));
    }
    super::output::print(&text)?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_wait_and_what_became_of_them_are_told() {
        // Goes red when one of the two kinds is left out, or counts of nothing are told.
        let mut s = SyncStatus { parked_packets: 2, held_packets: 3, ..SyncStatus::default() };
        let zero = ["parked", "setup_held", "setup_timeouts"].map(|name| (name.to_owned(), 0));
        s.waited_packets = BTreeMap::from(zero);
        assert_eq!(waiting(&s), "2 early, 3 first ones");
        s.waited_packets.extend([("parked".to_owned(), 7), ("setup_held".to_owned(), 4)]);
        assert_eq!(waiting(&s), "2 early, 3 first ones; so far parked 7, setup_held 4");
    }
}
