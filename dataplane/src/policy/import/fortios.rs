//! FortiOS: `config system session-ttl` (F1, F2).

use super::super::model::Ttl;
use super::draft::{Draft, PortTtl, SessionTtl, Time};
use super::{Line, Sheet, number};

/// What FortiOS uses when `default` is not set.
const DEFAULT_S: u32 = 3600;
const TCP: u32 = 6;
const UDP: u32 = 17;
const SCTP: u32 = 132;

/// One `edit`, while it is read.
struct Entry<'t> {
    lines: Vec<Line<'t>>,
    id: Result<u32, String>,
    protocol: u32,
    start: Option<u32>,
    end: Option<u32>,
    timeout: Option<Time>,
    wrong: Option<(u32, String)>,
}

/// Where in the block a line stands.
enum Place<'t> {
    Outside,
    /// Inside another block, so many levels deep.
    Foreign(u32),
    Block,
    Ports,
    Entry(Entry<'t>),
}

pub(super) fn read(text: &str, sheet: &mut Sheet) -> Draft {
    let mut place = Place::Outside;
    let mut ttl = SessionTtl::default();
    let mut seen = false;
    for line in Line::all(text) {
        place = step(place, line, &mut ttl, &mut seen, sheet);
    }
    if let Place::Entry(entry) = place {
        finish(entry, &mut ttl, sheet);
    }
    if seen && ttl.default.is_none() {
        ttl.default = Some(Time(Ttl::Seconds(DEFAULT_S)));
    }
    Draft { session_ttl: seen.then_some(ttl), ..Draft::default() }
}

fn step<'t>(
    place: Place<'t>,
    line: Line<'t>,
    ttl: &mut SessionTtl,
    seen: &mut bool,
    sheet: &mut Sheet,
) -> Place<'t> {
    let words = line.words.clone();
    match (place, words.as_slice()) {
        (Place::Outside, ["config", "system", "session-ttl"]) => {
            *seen = true;
            sheet.taken();
            Place::Block
        }
        (Place::Outside, ["config", ..]) => foreign(1, &line, sheet),
        (Place::Outside, _) => {
            sheet.not_taken(&line, "outside of a `config system session-ttl` block");
            Place::Outside
        }
        (Place::Foreign(depth), ["config", ..]) => foreign(depth + 1, &line, sheet),
        (Place::Foreign(1), ["end"]) => {
            sheet.not_taken(&line, FOREIGN);
            Place::Outside
        }
        (Place::Foreign(depth), ["end"]) => foreign(depth - 1, &line, sheet),
        (Place::Foreign(depth), _) => foreign(depth, &line, sheet),
        (Place::Block, ["set", "default", value]) => {
            match time(value, 300) {
                Ok(time) => {
                    ttl.default = Some(time);
                    sheet.taken();
                }
                Err(reason) => sheet.not_taken(&line, reason),
            }
            Place::Block
        }
        (Place::Block, ["config", "port"]) => taken(Place::Ports, sheet),
        (Place::Block, ["end"]) => taken(Place::Outside, sheet),
        (Place::Ports, ["edit", id]) => {
            let id = number(id, 0..=65_535);
            let lines = vec![line];
            Place::Entry(Entry { lines, id, protocol: 0, start: None, end: None, timeout: None, wrong: None })
        }
        (Place::Ports, ["end"]) => taken(Place::Block, sheet),
        (Place::Entry(mut entry), ["next"]) => {
            entry.lines.push(line);
            finish(entry, ttl, sheet);
            Place::Ports
        }
        (Place::Entry(mut entry), ["end"]) => {
            entry.lines.push(line);
            finish(entry, ttl, sheet);
            Place::Block
        }
        (Place::Entry(mut entry), words) => {
            if let Err(reason) = set(&mut entry, words) {
                entry.wrong.get_or_insert((line.number, reason));
            }
            entry.lines.push(line);
            Place::Entry(entry)
        }
        (place, _) => {
            sheet.not_taken(&line, "not known here");
            place
        }
    }
}

const FOREIGN: &str = "only `config system session-ttl` is read";

fn foreign<'t>(depth: u32, line: &Line<'_>, sheet: &mut Sheet) -> Place<'t> {
    sheet.not_taken(line, FOREIGN);
    Place::Foreign(depth)
}

fn taken<'t>(place: Place<'t>, sheet: &mut Sheet) -> Place<'t> {
    sheet.taken();
    place
}

fn time(text: &str, least: u32) -> Result<Time, String> {
    if text == "never" {
        return Ok(Time(Ttl::Never));
    }
    let ours = number(text, least..=2_764_800).map_err(|e| format!("{e}, nor `never`"))?;
    Ok(Time(Ttl::Seconds(ours)))
}

fn set(entry: &mut Entry<'_>, words: &[&str]) -> Result<(), String> {
    match words {
        ["set", "protocol", n] => entry.protocol = number(n, 0..=255)?,
        ["set", "start-port", n] => entry.start = Some(number(n, 0..=65_535)?),
        ["set", "end-port", n] => entry.end = Some(number(n, 0..=65_535)?),
        ["set", "timeout", t] => entry.timeout = Some(time(t, 1)?),
        ["set", "refresh-direction", "both"] => {}
        ["set", "refresh-direction", ..] => {
            return Err("any packet of either direction restarts a session's timeout here".into());
        }
        _ => return Err("not known in a port entry".into()),
    }
    Ok(())
}

/// Takes an entry over, or lists all of its lines.
fn finish(entry: Entry<'_>, ttl: &mut SessionTtl, sheet: &mut Sheet) {
    match judge(&entry, ttl) {
        Ok(port) => {
            ttl.port.push(port);
            entry.lines.iter().for_each(|_| sheet.taken());
        }
        Err((at, reason)) => {
            for line in &entry.lines {
                let here = line.number == at;
                let why =
                    if here { reason.clone() } else { format!("its entry is left out: line {at}, {reason}") };
                sheet.not_taken(line, why);
            }
        }
    }
}

fn judge(entry: &Entry<'_>, ttl: &SessionTtl) -> Result<PortTtl, (u32, String)> {
    let at = entry.lines[0].number;
    if let Some(wrong) = &entry.wrong {
        return Err(wrong.clone());
    }
    let id = entry.id.clone().map_err(|reason| (at, reason))?;
    if ttl.port.iter().any(|p| p.id == id) {
        return Err((at, format!("id {id} is there already")));
    }
    let has_ports = [0, TCP, UDP, SCTP].contains(&entry.protocol);
    // Both 0 is the vendor's way to say nothing about ports.
    let (start, end) = match (entry.start.unwrap_or(0), entry.end.unwrap_or(0)) {
        (0, 0) => (None, None),
        _ if !has_ports => return Err((at, format!("protocol {} has no ports", entry.protocol))),
        (start, end) if start > end => {
            return Err((at, format!("start-port {start} is above end-port {end}")));
        }
        (start, end) => (Some(start), Some(end)),
    };
    Ok(PortTtl {
        id,
        protocol: Some(entry.protocol),
        start_port: start,
        end_port: end,
        timeout: entry.timeout,
    })
}
