//! The running member, and its end.

use super::shared::Shared;
use super::thread::Input;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tidegate_sync::raft::RaftRole;
use tokio::time::timeout;

/// Owned by all clones of the public handle; the tasks hold only what they share.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Hands the lead over, tells the peers, ends the thread; the store is released at the end.
    pub(crate) async fn shutdown(&self) {
        self.hand_over().await;
        self.end();
        if let Some(endpoints) = self.shared.endpoints.get() {
            endpoints.close().await;
        }
        let thread = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(thread) = thread {
            // A disk that hangs must not keep the daemon: it is synced or it is not.
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if timeout(std::time::Duration::from_secs(10), joined).await.is_err() {
                tracing::warn!("the Raft store did not close within 10 s");
            }
        }
    }

    async fn hand_over(&self) {
        let mut status = self.shared.status.subscribe();
        let leads = |role| role == RaftRole::Leader;
        {
            let status = status.borrow_and_update();
            if !leads(status.role) || status.voters.len() < 2 {
                return;
            }
        }
        if self.shared.input(Input::Transfer) {
            // A transfer that takes longer than an election is given up by Raft.
            let within = self.shared.options.tick * self.shared.options.election_ticks * 2;
            let _ = timeout(within, status.wait_for(|s| !leads(s.role) && s.leader.is_some())).await;
        }
    }

    fn end(&self) {
        self.shared.halt.store(true, Ordering::Release);
        self.shared.stop.send_replace(true);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
