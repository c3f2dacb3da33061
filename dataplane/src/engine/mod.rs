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
//! | `fragments` | fragments: whose they are, and with which ports |
//! | `errors` | ICMP errors that pass through, and what the engine writes itself |
//! | `sweep` | ageing, and judging live sessions again after a policy change |
//! | `inspect`, `filter` | list, show, summary, clear |
//! | `park`, `hold`, `room` | packets that wait: for a session from another node, for others to hold one |
//! | `replica` | what is told to other nodes, and what they tell |
//! | `tell` | what becomes of sessions, for watchers and logs |

mod counters;
mod errors;
mod filter;
mod fragments;
mod hold;
mod inspect;
mod io;
mod limit;
mod park;
mod process;
mod replica;
mod room;
mod setup;
mod sweep;
mod tell;
mod track;

pub use counters::Counters;
pub use filter::{Bounds, Detail, Outline, PortRange, SessionFilter, Whose};
pub use inspect::{SessionView, Summary, Tally, WingView};
pub use io::*;
pub use limit::RateLimit;
pub use park::WaitingCounters;
pub use process::shard_of;
pub use replica::*;
pub use tell::{Happened, SessionEvent};

use crate::drops::DropReason;
use crate::fragment::{FragmentCache, FragmentConfig};
use crate::names::{ClassId, RuleId};
use crate::policy::Policy;
use crate::route::Snapshot;
use crate::session::EndReason;
use crate::session::owner::View;
use crate::table::{PolicyStamp, SlotId, Table, TableError};
use crate::time::Now;
use hold::Hold;
use park::Park;
use replica::Replica;
use std::sync::Arc;

/// Most events that wait for the worker; further ones are left out and counted. What one pass of a
/// worker can make: four commands that end 1,024 sessions each, a call of the sweep, a batch.
const EVENTS_MAX: usize = 5_504;
/// Of these, places that events about sessions and flows leave free for others.
const EVENTS_RESERVED: usize = 128;

/// Bits of the hot line's flags that belong to the engine.
mod hot_flag {
    /// The policy changed since the session's rule and timeout were looked up: its next packet does
    /// that (F7).
    pub(super) const REFRESH: u8 = 1 << 2;
    /// The session counts against the cap of `never` (F6).
    pub(super) const NEVER: u8 = 1 << 3;
    /// The rule wants the session's end logged.
    pub(super) const LOG: u8 = 1 << 4;
    /// Another node holds the session too, as far as it told, or made it.
    pub(super) const SHARED: u8 = 1 << 5;
    /// Policy keeps the session to this node.
    pub(super) const UNSYNCED: u8 = 1 << 6;
    /// Its first packet waits until peers hold it; further ones queue behind.
    pub(super) const HELD: u8 = 1 << 7;
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
    /// Incomplete datagrams that this shard checks the fragments of.
    pub fragments: FragmentConfig,
}

/// Why an engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The session table.
    #[error("cannot allocate the session table: {0}")]
    Table(#[from] TableError),
    /// The fragment cache.
    #[error(
        "cannot allocate the fragment cache for {datagrams} datagrams ({source}): lower fragments.datagrams"
    )]
    Fragments {
        /// Datagrams that it was to hold.
        datagrams: u32,
        /// What the allocator said.
        source: std::collections::TryReserveError,
    },
}

/// One shard: its table, the policy and routes it works by, its counters.
pub struct Engine {
    config: EngineConfig,
    table: Table,
    policy: Option<Arc<Policy>>,
    /// Policies put in force, or taken away, so far.
    policies: u32,
    stamp: PolicyStamp,
    /// Idle time in ms after which a session of a class is expired, by class number.
    cutoffs_ms: Vec<u32>,
    /// When lookups take a session for expired, by class: one of this node alone, and one that is shared.
    expiries_ms: Vec<[u32; 2]>,
    /// Nothing ages until this node has applied what waits.
    held: bool,
    replica: Option<Box<Replica>>,
    /// Early packets; none while it does not replicate, and while one of them is decided about.
    park: Option<Box<Park>>,
    /// First packets that wait for peers; none likewise.
    hold: Option<Box<Hold>>,
    view: Option<Arc<View>>,
    routes: Arc<Snapshot>,
    counters: Counters,
    rule_hits: Vec<u64>,
    default_hits: u64,
    sessions_made: u64,
    icmp_limit: RateLimit,
    fragments: FragmentCache,
    outbox: Outbox,
    /// Allocated once with room for [`EVENTS_MAX`]; never longer.
    events: Vec<Event>,
    /// Events about sessions and flows left out since the worker last asked.
    session_events_left_out: u64,
    /// Whether every session is told of.
    watched: bool,
    /// The `now` of the running call.
    clock: Now,
    sweep_next: u32,
    sweep_last: Now,
    /// Slots times ms that the sweep owes.
    sweep_debt: u64,
}

impl Engine {
    /// An engine without a policy: it drops everything (`no_policy`) until it has one.
    ///
    /// # Errors
    /// When the memory of the table or of the fragment cache cannot be had.
    pub fn new(config: EngineConfig, routes: Arc<Snapshot>) -> Result<Self, EngineError> {
        let fragments = FragmentCache::try_new(config.fragments)
            .map_err(|source| EngineError::Fragments { datagrams: config.fragments.datagrams, source })?;
        Ok(Engine {
            table: Table::try_new(config.capacity, config.hash_key)?,
            icmp_limit: RateLimit::new(config.icmp_errors_per_s),
            fragments,
            config,
            policy: None,
            policies: 0,
            stamp: PolicyStamp::from(0),
            cutoffs_ms: Vec::new(),
            expiries_ms: Vec::new(),
            held: false,
            replica: None,
            park: None,
            hold: None,
            view: None,
            routes,
            counters: Counters::default(),
            rule_hits: Vec::new(),
            default_hits: 0,
            sessions_made: 0,
            outbox: Outbox::default(),
            events: Vec::with_capacity(EVENTS_MAX),
            session_events_left_out: 0,
            watched: false,
            clock: Now(0),
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
    ///
    /// Returns the policy before: a large one takes milliseconds to free, which is nothing for a
    /// worker to do.
    pub fn set_policy(&mut self, policy: Arc<Policy>) -> Option<Arc<Policy>> {
        self.cutoffs_ms.clear();
        // Timeouts end at 32 days (J2), so milliseconds fit; `never` is no cutoff at all (F6).
        let cutoff = |t: Option<u64>| t.map_or(u32::MAX, |ms| u32::try_from(ms).unwrap_or(u32::MAX - 1));
        self.cutoffs_ms.extend(policy.classes().iter().map(|c| cutoff(c.timeout_ms)));
        self.rule_hits.resize(policy.rule_ids_end().max(self.rule_hits.len()), 0);
        self.next_stamp();
        let before = self.policy.replace(policy);
        self.set_parking();
        self.set_min_age();
        self.set_expiries();
        before
    }

    /// Takes the policy away: from the next packet on everything is dropped, live sessions included.
    ///
    /// Returns the policy before, as [`Engine::set_policy`] does.
    pub fn withdraw_policy(&mut self) -> Option<Arc<Policy>> {
        self.next_stamp();
        self.policy.take()
    }

    fn next_stamp(&mut self) {
        self.policies = self.policies.wrapping_add(1);
        self.stamp = PolicyStamp::from(self.policies);
    }

    /// The node's number in its cluster, for the ids of sessions from now on.
    pub fn set_node_id(&mut self, node_id: u16) {
        self.config.node_id = node_id;
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

    /// Hands over every waiting event, and says first how many about sessions had to be left out.
    pub fn take_events(&mut self, mut each: impl FnMut(Event)) {
        if self.session_events_left_out > 0 {
            each(Event::LeftOut(std::mem::take(&mut self.session_events_left_out)));
        }
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

    /// Sessions in the table, and how many it has room for.
    pub fn occupancy(&self) -> (u32, u32) {
        (self.table.len(), self.table.capacity())
    }

    /// What this engine was made with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.counters.events_left_out += 1;
        }
    }

    fn push_session_event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX - EVENTS_RESERVED {
            self.events.push(event);
        } else {
            self.counters.events_left_out += 1;
            self.session_events_left_out += 1;
        }
    }

    /// Ends a session: counted, and its slot is free at once.
    fn end(&mut self, slot: SlotId, reason: EndReason) {
        self.log_end(slot, reason);
        self.tell_end(slot, reason);
        self.counters.ended[reason as usize] += 1;
        self.free(slot);
    }

    /// Takes a session out of the table. Who only does this has not decided anything.
    fn free(&mut self, slot: SlotId) {
        if self.table.hot(slot).flags & hot_flag::NEVER != 0 {
            self.counters.never_sessions -= 1;
        }
        self.forget_side(slot);
        self.table.remove(slot);
    }

    /// Whether a session is idle beyond the timeout of its class: lookups and the sweep ask the same
    /// question, so ageing takes effect at once and the sweep merely collects. What is shared with other
    /// nodes matches for the staleness bound longer: another may have seen a packet.
    #[inline]
    fn is_expired(&self, slot: SlotId, now: Now) -> bool {
        let hot = self.table.hot(slot);
        let shared = usize::from(hot.flags & hot_flag::SHARED != 0);
        hot.idle_ms(now.ms32()) > self.expiry_ms(hot.class)[shared]
    }

    /// A class that no policy has set yet ages by nothing but what its owner says.
    #[inline]
    fn expiry_ms(&self, class: ClassId) -> [u32; 2] {
        self.expiries_ms.get(usize::from(class.0)).copied().unwrap_or([0, u32::MAX])
    }

    #[inline]
    fn cutoff_ms(&self, class: u16) -> u32 {
        self.cutoffs_ms.get(usize::from(class)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
