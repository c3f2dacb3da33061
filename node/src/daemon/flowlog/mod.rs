//! What workers tell of sessions and refused flows, on its way to watchers and logs.
//!
//! Each worker fills a ring that was allocated once; a task empties the rings many times a second. So
//! a worker wakes nobody, and neither a watcher that does not read nor a log server that does not
//! answer can slow it or make memory grow: what finds no room is counted, and the count is told.

mod bound;
mod logs;
mod record;
mod send;
mod syslog;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use bound::RateBound;
pub(crate) use logs::Logs;
pub(crate) use record::{Clock, watch_line};
pub(crate) use watch::{Heard, Hub, Watch};

use super::policy::PolicyStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate_dataplane::engine::Event;

/// Events that wait in one worker's ring. At the pace of [`PAUSE`], over 300,000 a second.
const RING: usize = 8_192;
/// Between two looks at the rings.
const PAUSE: Duration = Duration::from_millis(25);

/// A worker's end: takes events about sessions and flows. `false`: no room.
pub(crate) struct Inlet {
    ring: rtrb::Producer<Event>,
    left_out: Arc<AtomicU64>,
}

impl Inlet {
    /// Takes an event. Never blocks, allocates or wakes.
    pub(crate) fn push(&mut self, event: Event) -> bool {
        let lost = match event {
            Event::LeftOut(n) => n,
            event if self.ring.push(event).is_ok() => return true,
            _ => 1,
        };
        self.left_out.fetch_add(lost, Ordering::Relaxed);
        // What the engine had left out itself is in its own counter already.
        matches!(event, Event::LeftOut(_))
    }
}

/// The other end of all rings.
pub(crate) struct Outlet {
    rings: Vec<rtrb::Consumer<Event>>,
    left_out: Arc<AtomicU64>,
}

/// A ring for each worker.
pub(crate) fn rings(workers: u16) -> (Vec<Inlet>, Outlet) {
    let left_out = Arc::new(AtomicU64::new(0));
    let (inlets, rings) = (0..workers)
        .map(|_| {
            let (ring, consumer) = rtrb::RingBuffer::new(RING);
            (Inlet { ring, left_out: left_out.clone() }, consumer)
        })
        .unzip();
    (inlets, Outlet { rings, left_out })
}

impl Outlet {
    /// Empties the rings into hub and logs, for ever.
    pub(crate) async fn run(
        mut self,
        hub: Arc<Hub>,
        logs: Arc<Logs>,
        policy: Arc<PolicyStore>,
        clock: Clock,
    ) {
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.pass(&hub, &logs, &policy, clock);
        }
    }

    /// Empties the rings once: at most what they hold now.
    pub(crate) fn pass(&mut self, hub: &Arc<Hub>, logs: &Logs, policy: &PolicyStore, clock: Clock) {
        let now = Instant::now();
        let lost = self.left_out.swap(0, Ordering::Relaxed);
        if lost > 0 {
            hub.left_out(lost);
            logs.left_out(lost);
        }
        logs.owed(now);
        // Watchers read on other threads: what one of them leaves out shows in its next line.
        for ring in &mut self.rings {
            for _ in 0..ring.slots() {
                let Ok(event) = ring.pop() else { break };
                if let Event::Session(session) = &event {
                    hub.pass(session);
                }
                logs.pass(&event, policy, clock, now);
            }
        }
        hub.tidy();
    }
}
