//! What workers report: missing neighbours go to the resolver, the rest into the log at a bounded rate.

use super::policy::PolicyStore;
use crate::control::view::{protocol_name, shown_port};
use crate::netlink::Resolver;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_dataplane::engine::{Event, FlowEvent};
use tidegate_dataplane::names::AppId;
use tidegate_dataplane::policy::Action;

/// Lines about flows (rules with `log = true`) in one second; more are counted and left out.
const FLOW_LINES_PER_S: u32 = 200;
/// Lines about a full table in one second (J14).
const TABLE_FULL_LINES_PER_S: u32 = 1;

/// Takes workers' events. Shared by all of them.
pub struct Events {
    resolver: Resolver,
    policy: Arc<PolicyStore>,
    flows: RateBound,
    table_full: RateBound,
    lines_left_out: AtomicU64,
}

impl Events {
    /// Events of a node.
    pub fn new(resolver: Resolver, policy: Arc<PolicyStore>) -> Self {
        Events {
            resolver,
            policy,
            flows: RateBound::new(FLOW_LINES_PER_S),
            table_full: RateBound::new(TABLE_FULL_LINES_PER_S),
            lines_left_out: AtomicU64::new(0),
        }
    }

    /// Log lines left out because of the bound, since start.
    pub fn lines_left_out(&self) -> u64 {
        self.lines_left_out.load(Ordering::Relaxed)
    }

    /// Handles one.
    pub fn handle(&self, event: Event) {
        match event {
            Event::NeighbourMissing { port, next_hop } => self.resolver.missing(port, next_hop),
            Event::Flow(flow) => match self.flows.admit(Instant::now()) {
                Some(left_out) => self.log_flow(&flow, left_out),
                None => self.left_out(),
            },
            Event::TableFull { tuple } => match self.table_full.admit(Instant::now()) {
                Some(left_out) => tracing::warn!(
                    protocol = protocol_name(tuple.protocol),
                    source = %tuple.src,
                    source_port = shown_port(&tuple, tuple.src_port),
                    destination = %tuple.dst,
                    destination_port = shown_port(&tuple, tuple.dst_port),
                    left_out,
                    "the session table is full: new sessions are refused (table.capacity)"
                ),
                None => self.left_out(),
            },
        }
    }

    fn left_out(&self) {
        self.lines_left_out.fetch_add(1, Ordering::Relaxed);
    }

    fn log_flow(&self, flow: &FlowEvent, left_out: u64) {
        let names = self.policy.names();
        let action = match flow.action {
            Action::Permit => "permit",
            Action::Deny => "deny",
            Action::Reject => "reject",
        };
        let t = &flow.tuple;
        tracing::info!(
            action,
            protocol = protocol_name(t.protocol),
            source = %t.src,
            source_port = shown_port(t, t.src_port),
            destination = %t.dst,
            destination_port = shown_port(t, t.dst_port),
            from = names.zone_name(flow.from),
            to = names.zone_name(flow.to),
            rule = flow.rule.map_or("default", |r| names.rule_name(r)),
            application = (flow.application != AppId(0)).then(|| names.application_name(flow.application)),
            left_out,
            "flow"
        );
    }
}

/// At most so many a second; counts what it refuses.
#[derive(Debug)]
struct RateBound {
    per_s: u32,
    state: Mutex<(Option<Instant>, u32, u64)>,
}

impl RateBound {
    fn new(per_s: u32) -> Self {
        RateBound { per_s, state: Mutex::new((None, 0, 0)) }
    }

    /// Whether one more is within the bound; if so, how many were refused since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (begin, used, left_out) = &mut *state;
        if begin.is_none_or(|b| now.saturating_duration_since(b) >= Duration::from_secs(1)) {
            *begin = Some(now);
            *used = 0;
        }
        if *used >= self.per_s {
            *left_out += 1;
            return None;
        }
        *used += 1;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j14_lines_are_bounded_and_what_was_left_out_is_told() {
        // Without the bound all four are admitted; without the count the last one says 0.
        let bound = RateBound::new(2);
        let t = Instant::now();
        assert_eq!(bound.admit(t), Some(0));
        assert_eq!(bound.admit(t), Some(0));
        assert_eq!(bound.admit(t), None);
        assert_eq!(bound.admit(t), None);
        assert_eq!(bound.admit(t + Duration::from_secs(1)), Some(2));
    }
}
