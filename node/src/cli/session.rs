//! `session list|show|summary|clear`.

use super::Output;
use super::output::{
    bytes, duration, note_unanswered, or_dash, print_facts, print_json, print_table, write_failure,
};
use crate::api::{
    ClearReply, ClearRequest, ListEnd, ListLine, NodeSummary, RawListLine, Session, SessionQuery,
    SessionSummary, UnansweredNode, Wing, WingTcp,
};
use crate::client::{Client, with_query};
use crate::exit::{Exit, Failure};
use std::io::{self, BufWriter, IsTerminal, Write};

/// Rows whose widths set the columns of a streamed table; later rows may be wider.
const SAMPLE_ROWS: usize = 200;

/// How much a list yields to others (see nice(2)).
const LIST_NICE: i32 = 10;

/// `session list`: streams; neither side ever holds more than a batch.
pub(super) async fn list(client: &Client, output: Output, query: SessionQuery) -> Result<Exit, Failure> {
    // A million sessions are a second's work: packets come first. If it is refused, nothing is lost.
    let _ = rustix::process::nice(LIST_NICE);
    let mut lines = client.lines(&with_query("/v1/sessions", &query)?).await?;
    let mut printer = Printer::new(output);
    printer.begin().map_err(write_failure)?;
    let mut end: Option<ListEnd> = None;
    while let Some(line) = lines.next().await? {
        let ended = if output == Output::Json {
            match serde_json::from_slice(&line).map_err(not_understood)? {
                RawListLine::Session(json) => printer.json(json.get()).map(|()| None),
                RawListLine::End(e) => Ok(Some(e)),
            }
        } else {
            match serde_json::from_slice(&line).map_err(not_understood)? {
                ListLine::Session(session) => printer.session(&session).map(|()| None),
                ListLine::End(e) => Ok(Some(e)),
            }
        };
        end = ended.map_err(write_failure)?;
    }
    printer.end().map_err(write_failure)?;
    match end {
        Some(end) => {
            if let Some(matched) = end.matched.filter(|m| *m > end.listed) {
                eprintln!("tidegate: the first {} of {matched} sessions; --limit shows more", end.listed);
            }
            Ok(note_silent(&end.unanswered_workers, &end.unanswered_nodes))
        }
        None => Err(Failure::error("the listing was cut off before its end; see the daemon's log")),
    }
}

fn not_understood(e: serde_json::Error) -> Failure {
    Failure::error(format!("the daemon's answer is not understood: {e}; is it of another version?"))
}

/// Writes sessions as they come: a JSON array with one session a line, or table rows.
struct Printer {
    out: BufWriter<io::Stdout>,
    output: Output,
    count: u64,
    sample: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl Printer {
    fn new(output: Output) -> Self {
        let out = BufWriter::with_capacity(64 * 1024, io::stdout());
        Printer { out, output, count: 0, sample: Vec::new(), widths: None }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.output {
            Output::Json => self.out.write_all(b"["),
            _ => {
                self.sample.push(header(self.output).iter().map(|h| (*h).to_owned()).collect());
                Ok(())
            }
        }
    }

    fn json(&mut self, session: &str) -> io::Result<()> {
        self.count += 1;
        self.out.write_all(if self.count == 1 { b"\n" } else { b",\n" })?;
        self.out.write_all(session.as_bytes())
    }

    fn session(&mut self, session: &Session) -> io::Result<()> {
        let row = row(session, self.output);
        if self.widths.is_some() {
            return self.write_row(&row);
        }
        self.sample.push(row);
        if self.sample.len() > SAMPLE_ROWS { self.write_sample() } else { Ok(()) }
    }

    fn write_sample(&mut self) -> io::Result<()> {
        let sample = std::mem::take(&mut self.sample);
        let columns = sample.first().map_or(0, Vec::len);
        let width = |c: usize| sample.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        self.widths = Some((0..columns).map(width).collect());
        sample.iter().try_for_each(|row| self.write_row(row))
    }

    fn write_row(&mut self, row: &[String]) -> io::Result<()> {
        let widths = self.widths.as_deref().unwrap_or_default();
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        writeln!(self.out, "{}", cells.join("  ").trim_end())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.output == Output::Json {
            self.out.write_all(if self.count == 0 { b"]\n" } else { b"\n]\n" })?;
        } else if self.widths.is_none() {
            self.write_sample()?;
        }
        self.out.flush()
    }
}

fn header(output: Output) -> &'static [&'static str] {
    match output {
        Output::Wide => &[
            "ID",
            "PROTO",
            "STATE",
            "SOURCE",
            "DESTINATION",
            "FROM",
            "TO",
            "POLICY",
            "APPLICATION",
            "TIMEOUT",
            "REMAINING",
            "SET BY",
            "PACKETS",
            "BYTES",
            "REPLY PACKETS",
            "REPLY BYTES",
            "AGE",
            "OWNER",
            "REPLICAS",
            "ORIGIN",
            "WORKER",
        ],
        _ => &[
            "ID",
            "PROTO",
            "STATE",
            "SOURCE",
            "DESTINATION",
            "POLICY",
            "REMAINING",
            "PACKETS",
            "BYTES",
            "OWNER",
        ],
    }
}

fn row(s: &Session, output: Output) -> Vec<String> {
    let first = [
        s.id.clone(),
        s.protocol.clone(),
        s.state.clone(),
        end(&s.forward.source, s.forward.source_port),
        end(&s.forward.destination, s.forward.destination_port),
    ];
    let rest = match output {
        Output::Wide => vec![
            s.from_zone.clone(),
            s.to_zone.clone(),
            s.policy.clone(),
            or_dash(s.application.as_deref()),
            duration(s.timeout_s),
            duration(s.remaining_s),
            s.timeout_source.clone(),
            s.forward.packets.to_string(),
            s.forward.bytes.to_string(),
            s.reply.packets.to_string(),
            s.reply.bytes.to_string(),
            duration(Some(s.age_s)),
            s.owner.clone(),
            replicas(s),
            s.origin.clone(),
            s.worker.to_string(),
        ],
        _ => vec![
            s.policy.clone(),
            duration(s.remaining_s),
            (s.forward.packets + s.reply.packets).to_string(),
            bytes(s.forward.bytes + s.reply.bytes),
            s.owner.clone(),
        ],
    };
    first.into_iter().chain(rest).collect()
}

fn replicas(s: &Session) -> String {
    or_dash((!s.replicas.is_empty()).then(|| s.replicas.join(" ")))
}

/// An address with its port, IPv6 in brackets.
pub(super) fn end(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

fn wing_text(w: &Wing) -> String {
    format!(
        "{} -> {}, zone {}, in {}, out {}, {} packets, {} bytes",
        end(&w.source, w.source_port),
        end(&w.destination, w.destination_port),
        w.zone,
        or_dash(w.ingress_port.as_deref()),
        or_dash(w.egress_port.as_deref()),
        w.packets,
        w.bytes
    )
}

/// `session show ID`.
pub(super) async fn show(client: &Client, output: Output, id: &str, local: bool) -> Result<Exit, Failure> {
    let query = SessionQuery { id: Some(id.to_owned()), local, ..SessionQuery::default() };
    let s: Session = client.get(&with_query("/v1/session", &query)?).await?;
    if output == Output::Json {
        print_json(&s)?;
        return Ok(Exit::Ok);
    }
    let mut facts = vec![
        ("session", s.id.clone()),
        ("protocol", format!("{} ({})", s.protocol, s.protocol_number)),
        ("state", s.state.clone()),
        ("forward", wing_text(&s.forward)),
        ("reply", wing_text(&s.reply)),
    ];
    facts.extend(s.forward.tcp.iter().map(|t| ("forward TCP", tcp_text(t))));
    facts.extend(s.reply.tcp.iter().map(|t| ("reply TCP", tcp_text(t))));
    facts.extend([
        ("zones", format!("{} -> {}", s.from_zone, s.to_zone)),
        ("policy", format!("{} (revision {})", s.policy, s.revision)),
        ("application", or_dash(s.application.as_deref())),
        ("timeout", format!("{}, set by {}", duration(s.timeout_s), s.timeout_source)),
        ("remaining", duration(s.remaining_s)),
        ("idle", duration(Some(s.idle_s))),
        ("started", format!("{} ({} ago)", s.started_at, duration(Some(s.age_s)))),
        ("owner", s.owner.clone()),
        ("replicas", replicas(&s)),
        ("origin", s.origin.clone()),
        ("worker", s.worker.to_string()),
    ]);
    print_facts(&facts)?;
    Ok(Exit::Ok)
}

/// What one side's TCP said so far.
fn tcp_text(t: &WingTcp) -> String {
    format!(
        "sequence {}, acknowledged {}, window {} bytes, scale {}, MSS {}",
        t.sequence_max,
        t.acknowledgement_max,
        t.window_bytes_max,
        or_dash(t.window_scale),
        or_dash(t.mss_bytes)
    )
}

/// `session summary`.
pub(super) async fn summary(client: &Client, output: Output, query: SessionQuery) -> Result<Exit, Failure> {
    let s: SessionSummary = client.get(&with_query("/v1/sessions/summary", &query)?).await?;
    if output == Output::Json {
        print_json(&s)?;
        return Ok(note_silent(&s.unanswered_workers, &s.unanswered_nodes));
    }
    let list = |m: &std::collections::BTreeMap<String, u64>| {
        let parts: Vec<String> = m.iter().map(|(k, n)| format!("{k} {n}")).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
    };
    let share = if s.maximum == 0 { 0.0 } else { s.in_use as f64 * 100.0 / s.maximum as f64 };
    let mut facts =
        vec![("maximum", s.maximum.to_string()), ("in use", format!("{} ({share:.1} %)", s.in_use))];
    if s.nodes.len() > 1 || s.copies > 0 {
        facts.push(("copies", format!("{} of sessions that another node owns", s.copies)));
    }
    if let Some(matching) = s.matching {
        facts.push(("matching", matching.to_string()));
    }
    facts.extend([
        ("unicast", s.unicast.to_string()),
        ("multicast", s.multicast.to_string()),
        ("valid", s.valid.to_string()),
        ("pending", s.pending.to_string()),
        ("invalidated", s.invalidated.to_string()),
        ("in drop", s.in_drop.to_string()),
        ("never", format!("{} ({} refused by the cap)", s.never, s.never_capped)),
        ("by protocol", list(&s.by_protocol)),
        ("by state", list(&s.by_state)),
        ("created", s.created.to_string()),
        ("failed", s.failed.to_string()),
        ("ended", list(&s.ended)),
    ]);
    print_facts(&facts)?;
    super::output::print("\n")?;
    let header =
        ["NODE", "MAXIMUM", "IN USE", "COPIES", "VALID", "PENDING", "INVALIDATED", "IN DROP", "FAILED"];
    let row = |n: &NodeSummary| {
        let numbers = [n.maximum, n.in_use, n.copies, n.valid, n.pending, n.invalidated, n.in_drop, n.failed];
        std::iter::once(n.node.clone()).chain(numbers.map(|n| n.to_string())).collect()
    };
    print_table(&header, s.nodes.iter().map(row))?;
    Ok(note_silent(&s.unanswered_workers, &s.unanswered_nodes))
}

/// `session clear` (J10).
pub(super) async fn clear(
    client: &Client,
    output: Output,
    query: SessionQuery,
    all: bool,
    yes: bool,
) -> Result<Exit, Failure> {
    if query.is_unfiltered() && !all {
        return Err(Failure::usage(
            "session clear needs to know which sessions\n  help: give a filter such as --protocol tcp, or --all (see `tidegate session clear --help`)",
        ));
    }
    let own_connection = own_connection(std::env::var("SSH_CONNECTION").ok().as_deref());
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !yes && !terminal {
        return Err(Failure::new(
            Exit::Refused,
            "session clear ends sessions at once and there is no terminal to ask at; nothing was cleared\n  help: give --yes if that is meant",
        ));
    }
    if !yes || own_connection.is_some() {
        let preview = ClearRequest { query: query.clone(), preview: true, own_connection };
        let found: ClearReply = client.post("/v1/sessions/clear", &preview).await?;
        note_nodes(&found.unanswered_nodes, "what it owns is not counted here");
        if let Some(own) = &found.own_connection {
            eprintln!(
                "tidegate: your own SSH connection is among them: session {}, {} -> {}",
                own.id,
                end(&own.forward.source, own.forward.source_port),
                end(&own.forward.destination, own.forward.destination_port)
            );
        }
        if !yes && !confirm(found.cleared)? {
            return Err(Failure::new(Exit::Refused, "nothing was cleared"));
        }
    }
    let request = ClearRequest { query, preview: false, own_connection: None };
    let reply: ClearReply = client.post("/v1/sessions/clear", &request).await?;
    match output {
        Output::Json => print_json(&reply)?,
        _ => {
            let rows = reply.nodes.iter().map(|n| format!("{}: {} sessions cleared\n", n.node, n.cleared));
            super::output::print(
                &(rows.collect::<String>() + &format!("{} sessions cleared\n", reply.cleared)),
            )?;
        }
    }
    let exit = note_unanswered(&reply.unanswered_workers);
    Ok(exit.max(note_nodes(&reply.unanswered_nodes, "what it owns may still be there")))
}

/// Says on stderr who stayed silent, and makes the verb end as degraded.
fn note_silent(workers: &[u16], nodes: &[UnansweredNode]) -> Exit {
    note_unanswered(workers).max(note_nodes(nodes, "what it owns is missing above"))
}

fn note_nodes(nodes: &[UnansweredNode], what: &str) -> Exit {
    for node in nodes {
        eprintln!(
            "tidegate: node {} did not answer: {}; {what} (see `tidegate sync status`)",
            node.node, node.why
        );
    }
    if nodes.is_empty() { Exit::Ok } else { Exit::Degraded }
}

fn confirm(count: u64) -> Result<bool, Failure> {
    eprint!("Clear {count} sessions? [y/N] ");
    io::stderr().flush().map_err(write_failure)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::error(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// SSH_CONNECTION: client address, client port, server address, server port.
fn own_connection(value: Option<&str>) -> Option<[String; 4]> {
    let parts: Vec<String> = value?.split_whitespace().map(str::to_owned).collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j10_the_operators_own_connection_is_read_from_its_four_words() {
        // Read it in another order and the daemon would look for a connection that does not exist.
        assert_eq!(
            own_connection(Some("10.0.0.9 50000 10.0.0.1 22")),
            Some(["10.0.0.9", "50000", "10.0.0.1", "22"].map(str::to_owned))
        );
        assert_eq!(own_connection(Some("junk")), None);
        assert_eq!(own_connection(None), None);
    }

    #[test]
    fn ipv6_ends_are_bracketed() {
        // Without brackets address and port cannot be told apart.
        assert_eq!(end("2001:db8::1", Some(80)), "[2001:db8::1]:80");
        assert_eq!(end("10.0.0.1", Some(80)), "10.0.0.1:80");
        assert_eq!(end("10.0.0.1", None), "10.0.0.1");
    }
}
