//! `session watch`: prints what happens to sessions until Ctrl-C.

use super::Output;
use super::output::{duration, note_unanswered, write_failure};
use super::session::end;
use crate::api::{FlowRecord, SessionQuery, WatchLine};
use crate::client::{Client, with_query};
use crate::exit::{Exit, Failure};
use std::io::{self, Write};

/// Streams until Ctrl-C, which is no error, or until the daemon ends, which is one.
pub(super) async fn watch(client: &Client, output: Output, query: SessionQuery) -> Result<Exit, Failure> {
    let mut exit = Exit::Ok;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let path = with_query("/v1/sessions/watch", &query)?;
    let mut lines = tokio::select! {
        lines = client.lines(&path) => lines?,
        _ = &mut interrupted => return Ok(exit),
    };
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            _ = &mut interrupted => return Ok(exit),
        };
        let Some(line) = line else {
            return Err(Failure::new(Exit::Unreachable, "the daemon ended; nothing is watched any more"));
        };
        let heard: WatchLine = serde_json::from_slice(&line).map_err(|e| {
            Failure::error(format!("the daemon's answer is not understood: {e}; is it of another version?"))
        })?;
        if let WatchLine::Watching { unanswered_workers, unanswered_nodes, .. } = &heard {
            exit = note_unanswered(unanswered_workers);
            for node in unanswered_nodes {
                eprintln!("tidegate: node {} did not answer: {}; it is asked again", node.node, node.why);
                exit = Exit::Degraded;
            }
        }
        let text = match output {
            Output::Json => String::from_utf8_lossy(&line).into_owned(),
            _ => text(&heard),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(write_failure)?;
    }
}

/// A line for people.
fn text(line: &WatchLine) -> String {
    match line {
        WatchLine::Watching { node, nodes, .. } => {
            let all = if nodes.is_empty() { node.clone() } else { nodes.join(", ") };
            format!("watching the sessions of {all}; Ctrl-C ends it")
        }
        WatchLine::Lost(node) => format!("... nothing is heard of {} any more: {}", node.node, node.why),
        WatchLine::Found { node } => format!("... {node} is heard again"),
        WatchLine::LeftOut { count } => format!("... {count} events left out"),
        WatchLine::Created(r) => row(r, "created", r.policy.clone()),
        WatchLine::Changed(r) => {
            let before = r.previous_state.as_deref().unwrap_or("?");
            row(r, "changed", format!("{before} -> {}", r.state.as_deref().unwrap_or("?")))
        }
        WatchLine::Ended(r) => {
            let reason = r.reason.as_deref().unwrap_or("?");
            let (packets, bytes) = (r.packets + r.reply_packets, r.bytes + r.reply_bytes);
            let after = duration(Some(r.duration_s.unwrap_or_default()));
            row(r, "ended", format!("{reason} after {after}, {packets} packets, {bytes} bytes"))
        }
    }
}

fn row(r: &FlowRecord, event: &str, detail: String) -> String {
    format!(
        "{}  {event:7}  {}  {}  {} -> {}  {detail}",
        r.time,
        r.id.as_deref().unwrap_or("-"),
        r.protocol,
        end(&r.source, r.source_port),
        end(&r.destination, r.destination_port),
    )
}
