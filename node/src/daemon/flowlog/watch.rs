//! `session watch`: hands events to each watcher that means them, as far as it keeps up.

use crate::daemon::workers::Workers;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_dataplane::engine::{SessionEvent, SessionFilter};
use tokio::sync::mpsc;

/// Events that wait for one watcher; then they are left out for it, and counted.
const QUEUE: usize = 4_096;
/// How soon a watcher hears that something was left out when nothing follows.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Most watchers at a time.
pub(crate) const WATCHERS_MAX: usize = 32;

struct Watcher {
    filter: SessionFilter,
    queue: mpsc::Sender<SessionEvent>,
    left_out: Arc<AtomicU64>,
}

/// All watchers.
pub(crate) struct Hub {
    workers: Workers,
    watchers: Mutex<Vec<Watcher>>,
    /// Held while the engines are told to start or stop telling, so that the last word is the right one.
    arming: tokio::sync::Mutex<()>,
    left_out: AtomicU64,
}

/// One watcher's end.
pub(crate) struct Watch {
    queue: mpsc::Receiver<SessionEvent>,
    left_out: Arc<AtomicU64>,
    /// Workers that were not told to tell.
    pub(crate) unanswered_workers: Vec<u16>,
}

/// What a watcher hears.
pub(crate) enum Heard {
    /// Something happened.
    Event(SessionEvent),
    /// So many were left out since the last one.
    LeftOut(u64),
}

impl Hub {
    pub(crate) fn new(workers: Workers) -> Arc<Hub> {
        Arc::new(Hub {
            workers,
            watchers: Mutex::default(),
            arming: tokio::sync::Mutex::default(),
            left_out: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new watcher, or `None` when there are too many. From its return on every event is told.
    pub(crate) async fn watch(&self, filter: SessionFilter) -> Option<Watch> {
        let _arming = self.arming.lock().await;
        let (sender, queue) = mpsc::channel(QUEUE);
        let left_out = Arc::new(AtomicU64::new(0));
        {
            let mut watchers = self.lock();
            if watchers.len() >= WATCHERS_MAX {
                return None;
            }
            watchers.push(Watcher { filter, queue: sender, left_out: left_out.clone() });
        }
        let (_, unanswered_workers) = self.workers.all(|engine, _| engine.set_watched(true)).await;
        Some(Watch { queue, left_out, unanswered_workers })
    }

    /// Events left out for watchers since start.
    pub(crate) fn events_left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// So many events were lost before they could be filtered.
    pub(super) fn left_out(&self, count: u64) {
        for watcher in self.lock().iter() {
            self.count(watcher, count);
        }
    }

    fn count(&self, watcher: &Watcher, count: u64) {
        watcher.left_out.fetch_add(count, Ordering::Relaxed);
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Hands an event to every watcher that means it.
    pub(super) fn pass(&self, event: &SessionEvent) {
        for watcher in self.lock().iter().filter(|w| w.filter.fits_event(event)) {
            if let Err(mpsc::error::TrySendError::Full(_)) = watcher.queue.try_send(*event) {
                self.count(watcher, 1);
            }
        }
    }

    /// Forgets watchers that went away; with the last one the engines stop telling.
    pub(super) fn tidy(self: &Arc<Self>) {
        let mut watchers = self.lock();
        let before = watchers.len();
        watchers.retain(|w| !w.queue.is_closed());
        if before > 0 && watchers.is_empty() {
            let hub = self.clone();
            tokio::spawn(async move {
                let _arming = hub.arming.lock().await;
                if hub.lock().is_empty() {
                    hub.workers.all(|engine, _| engine.set_watched(false)).await;
                }
            });
        }
    }
}

impl Watch {
    /// The next event, or how many were left out before it. `None` when the node ends.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(lost) = self.lost() {
                return Some(lost);
            }
            // A count that comes while nothing else does is told too, a moment later.
            if let Ok(event) = tokio::time::timeout(LOST_AFTER, self.queue.recv()).await {
                return event.map(Heard::Event);
            }
        }
    }

    /// The next event, if one waits.
    pub(crate) fn try_next(&mut self) -> Option<Heard> {
        self.lost().or_else(|| self.queue.try_recv().ok().map(Heard::Event))
    }

    fn lost(&self) -> Option<Heard> {
        match self.left_out.swap(0, Ordering::Relaxed) {
            0 => None,
            n => Some(Heard::LeftOut(n)),
        }
    }
}
