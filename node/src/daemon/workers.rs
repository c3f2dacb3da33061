//! The way to the engines: closures that a worker runs between two batches, each bounded in time,
//! each answered or given up on.

use super::tandem::Tandem;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::engine::Engine;
use tidegate_dataplane::time::Now;
use tokio::sync::oneshot;

/// What a worker is asked to do.
pub type Command = Box<dyn FnOnce(&mut Tandem, Now) + Send>;

/// How long a worker may take to answer; one that takes longer is reported as hung.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Pause before a full command queue is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// A command that was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The worker's command queue is full: try again.
    Busy,
    /// The worker has ended.
    Stopped,
}

/// Takes commands to workers. Implemented by the AF_XDP pool, and in tests by a plain thread.
pub trait CommandSink: Send + Sync + 'static {
    /// How many workers there are.
    fn count(&self) -> u16;
    /// Queues a command for a worker. Never blocks. A refused command is lost: its maker tries again.
    fn submit(&self, worker: u16, command: Command) -> Result<(), Refused>;
    /// Wakes a worker that was left something elsewhere than in its queue of commands.
    fn ring(&self, _worker: u16) {}
    /// Passes through each worker's loop so far; empty where that cannot be seen.
    fn heartbeats(&self) -> Vec<u64> {
        Vec::new()
    }
}

/// A worker did not answer in time, or has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("worker {0} did not answer")]
pub struct NoAnswer(pub u16);

/// All workers of the node.
#[derive(Clone)]
pub struct Workers {
    sink: Arc<dyn CommandSink>,
}

impl Workers {
    /// The workers behind that sink.
    pub fn new(sink: Arc<dyn CommandSink>) -> Self {
        Workers { sink }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.sink.count()
    }

    /// Wakes a worker that was left something elsewhere than in its queue of commands.
    pub fn ring(&self, worker: u16) {
        self.sink.ring(worker);
    }

    /// Passes through each worker's loop so far; empty where that cannot be seen.
    pub fn heartbeats(&self) -> Vec<u64> {
        self.sink.heartbeats()
    }

    /// Has one worker run `ask`, and waits for the answer.
    pub async fn call<T, F>(&self, worker: u16, ask: F) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine, Now) -> T + Send + Clone + 'static,
    {
        self.call_within(ANSWER_MAX, worker, ask).await
    }

    /// The same with another patience.
    pub async fn call_within<T, F>(&self, patience: Duration, worker: u16, ask: F) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine, Now) -> T + Send + Clone + 'static,
    {
        self.call_tandem(patience, worker, move |tandem, now| ask(&mut tandem.engine, now)).await
    }

    /// The same for what concerns more than the engine.
    pub async fn call_tandem<T, F>(&self, patience: Duration, worker: u16, ask: F) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tandem, Now) -> T + Send + Clone + 'static,
    {
        let exchange = async {
            loop {
                let (sender, receiver) = oneshot::channel();
                let ask = ask.clone();
                let command: Command = Box::new(move |tandem, now| {
                    // Nobody waits any more when the verb was broken off: nothing to do about it.
                    let _ = sender.send(ask(tandem, now));
                });
                match self.sink.submit(worker, command) {
                    Ok(()) => return receiver.await.map_err(|_| NoAnswer(worker)),
                    Err(Refused::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                    Err(Refused::Stopped) => return Err(NoAnswer(worker)),
                }
            }
        };
        tokio::time::timeout(patience, exchange).await.unwrap_or(Err(NoAnswer(worker)))
    }

    /// Asks all workers at once for what concerns more than the engine: their answers.
    pub async fn all_tandems<T, F>(&self, ask: F) -> Vec<(u16, T)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tandem, Now) -> T + Send + Clone + 'static,
    {
        let calls = (0..self.count()).map(|w| {
            let ask = ask.clone();
            async move { self.call_tandem(ANSWER_MAX, w, ask).await.ok().map(|answer| (w, answer)) }
        });
        futures::future::join_all(calls).await.into_iter().flatten().collect()
    }

    /// Asks all workers at once: their answers, and the workers that gave none.
    pub async fn all<T, F>(&self, ask: F) -> (Vec<(u16, T)>, Vec<u16>)
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine, Now) -> T + Send + Clone + 'static,
    {
        let calls = (0..self.count()).map(|w| {
            let ask = ask.clone();
            async move { (w, self.call(w, ask).await) }
        });
        let mut answers = Vec::new();
        let mut silent = Vec::new();
        for (worker, answer) in futures::future::join_all(calls).await {
            match answer {
                Ok(answer) => answers.push((worker, answer)),
                Err(NoAnswer(worker)) => silent.push(worker),
            }
        }
        (answers, silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::twin::Twin;

    #[tokio::test]
    async fn a_hung_worker_is_named_and_the_others_answer() {
        // Without the timeout this test would not end; without naming it, the silence is invisible.
        let workers = Workers::new(Arc::new(Twin::start(3, 1000, &[1])));
        let calls = (0..3).map(|w| {
            let workers = workers.clone();
            async move { workers.call(w, |e, _| e.config().shard).await }
        });
        let answers = futures::future::join_all(calls).await;
        assert_eq!(answers, [Ok(0), Err(NoAnswer(1)), Ok(2)]);
    }
}
