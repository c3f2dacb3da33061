//! What workers report beyond sessions: missing neighbours go to the resolver, a full table into the log
//! at a bounded rate.

use super::flowlog::RateBound;
use crate::control::view::{protocol_name, shown_port};
use crate::netlink::Resolver;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tidegate_dataplane::engine::Event;

/// Lines about a full table in one second (J14).
const TABLE_FULL_LINES_PER_S: u32 = 1;

/// Takes workers' events. Shared by all of them.
pub struct Events {
    resolver: Resolver,
    table_full: RateBound,
    lines_left_out: AtomicU64,
}

impl Events {
    /// Events of a node.
    pub fn new(resolver: Resolver) -> Self {
        Events {
            resolver,
            table_full: RateBound::new(TABLE_FULL_LINES_PER_S),
            lines_left_out: AtomicU64::new(0),
        }
    }

    /// Log lines left out because of the bound, since start.
    pub fn lines_left_out(&self) -> u64 {
        self.lines_left_out.load(Ordering::Relaxed)
    }

    /// Handles one. Those about sessions and flows go another way.
    pub fn handle(&self, event: Event) {
        match event {
            Event::NeighbourMissing { port, next_hop } => self.resolver.missing(port, next_hop),
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
                None => {
                    self.lines_left_out.fetch_add(1, Ordering::Relaxed);
                }
            },
            Event::Session(_) | Event::Refused(_) | Event::LeftOut(_) => {}
        }
    }
}
