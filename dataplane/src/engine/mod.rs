//! One shard of the dataplane: batch in, verdicts out.
//!
//! An [`Engine`] is pure: it never blocks, allocates or logs per packet, and knows time only as
//! `now`. A worker owns one and calls [`Engine::process`], then [`Engine::sweep`]; the control side
//! reaches it only through closures that the worker runs between batches, each bounded.
//!
//! | file | holds |
//! |---|---|
//! | `io` | the border: frames, verdicts, outbox, events |
//! | `process` | the batch pipeline and the way of an established session's packet |
//! | `setup` | a flow's first packet: route, policy, session |
//! | `track` | what a packet does to its session's state and timeout |
//! | `errors` | ICMP errors that pass through, and what the engine writes itself |
//! | `sweep` | ageing, and judging live sessions again after a policy change |
//! | `inspect`, `filter` | list, show, summary, clear |

mod counters;
mod errors;
mod filter;
mod inspect;
mod io;
mod limit;
mod process;
mod setup;
mod sweep;
mod track;

pub use counters::Counters;
pub use filter::{PortRange, SessionFilter};
pub use inspect::{SessionView, Summary, WingView};
pub use io::*;
pub use limit::RateLimit;
pub use process::shard_of;

use crate::drops::DropReason;
use crate::names::RuleId;
use crate::policy::Policy;
use crate::route::Snapshot;
use crate::session::EndReason;
use crate::table::{Revision24, SlotId, Table, TableError};
use crate::time::Now;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Most events that wait for the worker; further ones are left out and counted.
const EVENTS_MAX: usize = 128;

/// Bits of the hot line's flags that belong to the engine.
mod hot_flag {
    /// The policy changed since the session's rule and timeout were looked up: its next packet does
    /// that (F7).
    pub(super) const REFRESH: u8 = 1 << 2;
    /// The session counts against the cap of `never` (F6).
    pub(super) const NEVER: u8 = 1 << 3;
}

/// What an engine is made with.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Number of this shard, `0..shards`.
    pub shard: u16,
    /// How many shards (workers) the node has, at least 1.
    pub shards: u16,
    /// Sessions that this shard holds at most.
    pub capacity: u32,
    /// Key of the tuple hash: random per boot, the same for all shards of a node.
    pub hash_key: [u64; 2],
    /// The node's number, part of session identities.
    pub node_id: u16,
    /// Boot number of the node, part of session identities.
    pub boot: u32,
    /// ICMP errors and resets that this shard writes in a second, at most.
    pub icmp_errors_per_s: u32,
}

/// One shard: its table, the policy and routes it works by, its counters.
pub struct Engine {
    config: EngineConfig,
    table: Table,
    policy: Option<Arc<Policy>>,
    revision: Revision24,
    /// Idle time in ms after which a session of a class is expired, by class number.
    cutoffs_ms: Vec<u32>,
    routes: Arc<Snapshot>,
    counters: Counters,
    rule_hits: Vec<u64>,
    default_hits: u64,
    sessions_made: u64,
    icmp_limit: RateLimit,
    outbox: Outbox,
    events: ArrayVec<Event, EVENTS_MAX>,
    sweep_next: u32,
    sweep_last: Now,
    /// Slots times ms that the sweep owes.
    sweep_debt: u64,
}

impl Engine {
    /// An engine without a policy: it drops everything (`no_policy`) until it has one.
    ///
    /// # Errors
    /// When the table's memory cannot be had.
    pub fn new(config: EngineConfig, routes: Arc<Snapshot>) -> Result<Self, TableError> {
        Ok(Engine {
            table: Table::try_new(config.capacity, config.hash_key)?,
            icmp_limit: RateLimit::new(config.icmp_errors_per_s),
            config,
            policy: None,
            revision: Revision24::from(0),
            cutoffs_ms: Vec::new(),
            routes,
            counters: Counters::default(),
            rule_hits: Vec::new(),
            default_hits: 0,
            sessions_made: 0,
            outbox: Outbox::default(),
            events: ArrayVec::new(),
            sweep_next: 0,
            sweep_last: Now(0),
            sweep_debt: 0,
        })
    }

    /// Makes the session table resident (J14), so that no packet waits for memory.
    ///
    /// # Errors
    /// When the system does not have it.
    pub fn make_resident(&self) -> Result<(), TableError> {
        self.table.make_resident()
    }

    /// Puts a policy in force: the next packet, and every packet after it, sees all of it. Live
    /// sessions are judged again at their next packet, or by the sweep within about a second.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.cutoffs_ms.clear();
        // Timeouts end at 32 days (J2), so milliseconds fit; `never` is no cutoff at all (F6).
        let cutoff = |t: Option<u64>| t.map_or(u32::MAX, |ms| u32::try_from(ms).unwrap_or(u32::MAX - 1));
        self.cutoffs_ms.extend(policy.classes().iter().map(|c| cutoff(c.timeout_ms)));
        let rules = policy.rules().iter().map(|r| r.id.0 as usize + 1).max().unwrap_or(0);
        self.rule_hits.resize(rules.max(self.rule_hits.len()), 0);
        self.revision = Revision24::from(policy.revision());
        self.policy = Some(policy);
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.policy.as_ref()
    }

    /// Puts a route snapshot in force. Its generation must differ from the one before.
    pub fn set_routes(&mut self, routes: Arc<Snapshot>) {
        self.routes = routes;
    }

    /// Packets that the engine wrote during the last `process` or `sweep`; the worker sends them and
    /// clears the box.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Hands over every waiting event.
    pub fn take_events(&mut self, mut each: impl FnMut(Event)) {
        self.events.drain(..).for_each(&mut each);
    }

    /// Counts a drop that the worker decided (full rings, neighbours).
    pub fn count_drop(&mut self, reason: DropReason) {
        self.counters.drops.count(reason);
    }

    /// Everything that this engine counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// First packets that a rule decided about; `None` is the default deny.
    pub fn rule_hits(&self, rule: Option<RuleId>) -> u64 {
        match rule {
            Some(r) => self.rule_hits.get(r.0 as usize).copied().unwrap_or(0),
            None => self.default_hits,
        }
    }

    /// What this engine was made with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    fn push_event(&mut self, event: Event) {
        if self.events.try_push(event).is_err() {
            self.counters.events_left_out += 1;
        }
    }

    /// Ends a session: counted, and its slot is free at once.
    fn end(&mut self, slot: SlotId, reason: EndReason) {
        if self.table.hot(slot).flags & hot_flag::NEVER != 0 {
            self.counters.never_sessions -= 1;
        }
        self.counters.ended[reason as usize] += 1;
        self.table.remove(slot);
    }

    /// Whether a session is idle beyond the timeout of its class: lookups and the sweep ask the same
    /// question, so ageing takes effect at once and the sweep merely collects.
    #[inline]
    fn is_expired(&self, slot: SlotId, now: Now) -> bool {
        let hot = self.table.hot(slot);
        hot.idle_ms(now.ms32()) > self.cutoff_ms(hot.class.0)
    }

    #[inline]
    fn cutoff_ms(&self, class: u16) -> u32 {
        self.cutoffs_ms.get(usize::from(class)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
