//! The records of rules with `log = true`: on stderr as structured events, and to every configured
//! syslog server, each at its own bounded rate.

use super::bound::RateBound;
use super::record::{self, Clock};
use super::send::Target;
use super::syslog::{Encoder, Kind};
use crate::api::FlowRecord;
use crate::config::Config;
use crate::control::view::NamesView;
use crate::daemon::policy::PolicyStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tidegate_dataplane::engine::{Event, Happened};
use tidegate_dataplane::policy::Action;
use tokio::task::JoinSet;

/// Everything that takes records.
pub(crate) struct Logs {
    node: String,
    ports: Vec<String>,
    stderr: RateBound,
    stderr_sent: AtomicU64,
    stderr_left_out: AtomicU64,
    servers: Vec<Target>,
}

/// What a taker of records counted since start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogNumbers {
    /// `stderr`, or the server's address.
    pub(crate) target: String,
    /// Records handed over.
    pub(crate) sent: u64,
    /// Records left out by the rate bound or a full queue.
    pub(crate) left_out: u64,
    /// Records that the network refused.
    pub(crate) failed: u64,
}

impl Logs {
    /// Takers as configured; starts a task for each server.
    pub(crate) fn start(config: &Config, tasks: &mut JoinSet<()>) -> Logs {
        Logs {
            node: config.name.clone(),
            ports: config.ports.iter().map(|p| p.name.clone()).collect(),
            stderr: RateBound::new(config.log_rate_per_s),
            stderr_sent: AtomicU64::new(0),
            stderr_left_out: AtomicU64::new(0),
            servers: config
                .syslog
                .iter()
                .map(|s| Target::start(s, Encoder::new(&config.name, s), tasks))
                .collect(),
        }
    }

    /// What each taker counted.
    pub(crate) fn numbers(&self) -> Vec<LogNumbers> {
        let stderr = LogNumbers {
            target: "stderr".to_owned(),
            sent: self.stderr_sent.load(Ordering::Relaxed),
            left_out: self.stderr_left_out.load(Ordering::Relaxed),
            failed: 0,
        };
        std::iter::once(stderr).chain(self.servers.iter().map(Target::numbers)).collect()
    }

    /// So many events were lost before anybody saw whether they were to be logged.
    pub(super) fn left_out(&self, count: u64) {
        self.stderr.add_left_out(count);
        self.stderr_left_out.fetch_add(count, Ordering::Relaxed);
        self.servers.iter().for_each(|s| s.left_out(count));
    }

    /// Says how many records were left out, where a second of it is over.
    pub(super) fn owed(&self, now: Instant) {
        if let Some(left_out) = self.stderr.owed(now) {
            tracing::info!(left_out, "flow records were left out");
        }
        self.servers.iter().for_each(|s| s.owed(now));
    }

    /// Takes an event: one that is to be logged becomes a record, if anybody may have one more.
    pub(super) fn pass(&self, event: &Event, policy: &PolicyStore, clock: Clock, now: Instant) {
        let kind = match event {
            Event::Session(e) if e.logged => match e.what {
                Happened::Created => Kind::Create,
                Happened::Ended(_) => Kind::Close,
                Happened::Changed { .. } => return,
            },
            Event::Refused(e) if e.action == Action::Reject => Kind::Reject,
            Event::Refused(_) => Kind::Deny,
            _ => return,
        };
        let stderr = self.stderr.admit(now);
        if stderr.is_none() {
            self.stderr_left_out.fetch_add(1, Ordering::Relaxed);
        }
        let servers = self.servers.iter().filter_map(|s| s.admit(now).map(|left_out| (s, left_out)));
        let servers: Vec<_> = servers.collect();
        if stderr.is_none() && servers.is_empty() {
            return;
        }
        let names = NamesView {
            names: policy.names(),
            ports: self.ports.clone(),
            node: self.node.clone(),
            nodes: Default::default(),
            view: None,
            told: None,
        };
        let record = match event {
            Event::Session(e) => record::session(e, &names, clock),
            Event::Refused(e) => record::refused(e, &names, clock),
            _ => return,
        };
        if let Some(left_out) = stderr {
            self.stderr_sent.fetch_add(1, Ordering::Relaxed);
            print(kind, &record, left_out);
        }
        for (server, left_out) in servers {
            server.send(kind, &record, left_out);
        }
    }
}

/// A record on stderr, in the format that is configured.
fn print(kind: Kind, r: &FlowRecord, left_out: u64) {
    tracing::info!(
        target: "tidegate::flow",
        event = kind.name(),
        session = r.id,
        reason = r.reason,
        start = r.started_at,
        end = (kind == Kind::Close).then_some(r.time.as_str()),
        duration_s = r.duration_s,
        protocol = r.protocol,
        source = r.source,
        source_port = r.source_port,
        destination = r.destination,
        destination_port = r.destination_port,
        from_zone = r.from_zone,
        to_zone = r.to_zone,
        ingress_port = r.ingress_port,
        egress_port = r.egress_port,
        policy = r.policy,
        application = r.application,
        state = r.state,
        packets = r.packets,
        bytes = r.bytes,
        reply_packets = r.reply_packets,
        reply_bytes = r.reply_bytes,
        left_out = (left_out > 0).then_some(left_out),
        "{}",
        kind.words()
    );
}
