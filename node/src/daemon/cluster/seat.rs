//! Whether this node is a member, of what, and what it enforces.

use super::Agreement;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A policy revision and the SHA-256 of its text.
pub type Key = (u32, [u8; 32]);

/// What the member enforces, as the follower sees it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// What it is to enforce; `None`: nothing, everything is denied.
    pub agreed: Option<Key>,
    /// What all of its engines enforce.
    pub enforced: Option<Key>,
    /// Why the agreed one cannot come in force here.
    pub error: Option<String>,
}

/// The node's place in a cluster, if it has one.
pub struct Seat {
    agreement: watch::Sender<Option<Arc<dyn Agreement>>>,
    view: Mutex<View>,
}

impl Default for Seat {
    fn default() -> Self {
        Seat { agreement: watch::channel(None).0, view: Mutex::default() }
    }
}

impl Seat {
    /// The cluster, if the node is a member.
    pub fn cluster(&self) -> Option<Arc<dyn Agreement>> {
        self.agreement.borrow().clone()
    }

    /// The cluster as it changes.
    pub(in crate::daemon) fn watch(&self) -> watch::Receiver<Option<Arc<dyn Agreement>>> {
        self.agreement.subscribe()
    }

    /// Takes the seat, or leaves it.
    pub fn take(&self, agreement: Option<Arc<dyn Agreement>>) {
        self.agreement.send_replace(agreement);
    }

    /// What the member enforces.
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn see(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
