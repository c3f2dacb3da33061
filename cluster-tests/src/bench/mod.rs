//! Benches: what is measured, against what, and the report that all of them write.

pub mod bed;
pub mod connect_rate;
pub mod etcd;
pub mod forward;
pub mod frames;
pub mod http;
pub mod inproc;
pub mod listing;
pub mod new_flows;
pub mod policy_apply;
pub mod policy_commit;
pub mod raw;
pub mod replication;
pub mod report;
pub mod rtt;
pub mod rule_match;

use std::path::Path;
use std::time::Duration;

use crate::LabError;
use crate::sys::{Stop, require_root};
use report::{REPORT_PATH, Report, Row};

/// Names of what `--only` takes.
pub const NAMES: [&str; 14] = [
    forward::NAME,
    new_flows::NAME,
    connect_rate::NAME,
    listing::NAME,
    rtt::NAME,
    "inproc",
    rule_match::NAME,
    policy_commit::NAME,
    policy_apply::NAME,
    replication::REPLICATED_SETUPS,
    replication::REPLICATION_CPU,
    replication::FIRST_SYNC,
    replication::TAKEOVER,
    replication::FORWARD_REPLICATING,
];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Alternating runs.
    pub rounds: u32,
    /// How long each run of a forwarding bench is.
    pub window: Duration,
    /// Round trips of each run.
    pub round_trips: usize,
    /// TCP connections of each run.
    pub connections: u64,
    /// Whether gates are judged: a quick run only shows that the benches work.
    pub gated: bool,
}

impl Scale {
    /// The real thing, or a quick look.
    pub fn new(quick: bool) -> Scale {
        match quick {
            false => Scale {
                rounds: 5,
                window: Duration::from_secs(3),
                round_trips: 20_000,
                connections: 20_000,
                gated: true,
            },
            true => Scale {
                rounds: 1,
                window: Duration::from_secs(1),
                round_trips: 2_000,
                connections: 2_000,
                gated: false,
            },
        }
    }

    /// Numbers of flows, by name.
    fn flows(&self) -> Vec<(&'static str, u32)> {
        let all = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)];
        all.into_iter().take(if self.gated { 3 } else { 2 }).collect()
    }
}

/// Runs the benches, or one of them, writes the report, and prints the table. A missed gate is reported as missed,
/// and is no error.
pub fn run(quick: bool, only: Option<&str>, stop: &Stop) -> Result<(), LabError> {
    require_root()?;
    let scale = Scale::new(quick);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let say = |text: &str| eprintln!("bench: {text}");
    let mut rows: Vec<Row> = Vec::new();
    if wanted(forward::NAME) {
        rows.extend(forward::run(&scale, stop, say)?);
    }
    if wanted(new_flows::NAME) {
        rows.extend(new_flows::run(&scale, stop, say)?);
    }
    if wanted(connect_rate::NAME) {
        rows.extend(connect_rate::run(&scale, stop, say)?);
    }
    if wanted(listing::NAME) {
        rows.extend(listing::run(&scale, stop, say)?);
    }
    if wanted(rtt::NAME) {
        rows.extend(rtt::run(&scale, stop, say)?);
    }
    if wanted("inproc") {
        say("in process: table_lookup, table_insert, sweep, bytes_per_session");
        rows.extend(inproc::run(quick));
    }
    if wanted(rule_match::NAME) {
        rows.extend(rule_match::run(&scale, say));
    }
    if wanted(policy_commit::NAME) {
        rows.extend(policy_commit::run(&scale, stop, say)?);
    }
    if wanted(policy_apply::NAME) {
        rows.extend(policy_apply::run(&scale, stop, say)?);
    }
    for name in replication::NAMES.into_iter().filter(|name| wanted(name)) {
        rows.extend(replication::run(name, &scale, stop, say)?);
    }
    // A quick look leaves the real report alone.
    let path = Path::new(REPORT_PATH).with_file_name(if quick { "quick.json" } else { "report.json" });
    let report = Report::update(&path, rows).map_err(|error| LabError::Check(error.to_string()))?;
    print!("{}", report.markdown());
    say(&format!("written to {}", path.display()));
    for row in report.missed() {
        say(&format!("gate missed: {} {} against {}: {:.2}", row.name, row.case, row.peer, row.ratio));
    }
    Ok(())
}
