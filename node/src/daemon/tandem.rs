//! An engine, and beside it what tells other nodes of its sessions: what a worker runs.

use arrayvec::ArrayVec;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{BATCH_MAX, Engine, Event, Outbox, Verdict};
use tidegate_dataplane::fragment::Settled;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::ShardStatus;
use tidegate_xdp::area::PortFrame;
use tidegate_xdp::pipeline::{Exchanged, Pipeline};

/// Talks to other nodes for one engine, in its worker.
pub trait Replica: Send + 'static {
    /// Called first in each pass, before anything ages: notices a pause of the worker.
    fn watch(&mut self, engine: &mut Engine, now: Now);
    /// Takes in what has come, and gives out what there is to tell. Bounded.
    fn run(&mut self, engine: &mut Engine, now: Now) -> Exchanged;
    /// Whether something has come since.
    fn has_mail(&self) -> bool;
    /// What there is to show.
    fn status(&self, engine: &Engine) -> ShardStatus;
}

/// Both. The replica comes with the first membership.
pub struct Tandem {
    /// The engine.
    pub engine: Engine,
    /// What speaks to other nodes for it.
    pub replica: Option<Box<dyn Replica>>,
}

impl From<Engine> for Tandem {
    fn from(engine: Engine) -> Self {
        Tandem { engine, replica: None }
    }
}

impl Pipeline for Tandem {
    fn process(&mut self, frames: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, now: Now) {
        self.engine.process(frames, verdicts, now);
    }

    fn sweep(&mut self, now: Now) {
        if let Some(replica) = &mut self.replica {
            replica.watch(&mut self.engine, now);
        }
        self.engine.sweep(now);
    }

    fn outbox(&mut self) -> &mut Outbox {
        self.engine.outbox()
    }

    fn take_events(&mut self, each: &mut dyn FnMut(Event)) {
        self.engine.take_events(each);
    }

    fn next_settled(&mut self) -> Option<Settled> {
        self.engine.next_settled()
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.engine.count_drop(reason);
    }

    fn neighbour_failed(&mut self, frame: &PortFrame, now: Now) {
        self.engine.neighbour_failed(frame, now);
    }

    fn exchange(&mut self, now: Now) -> Exchanged {
        match &mut self.replica {
            Some(replica) => replica.run(&mut self.engine, now),
            None => Exchanged::NOTHING,
        }
    }

    fn has_mail(&self) -> bool {
        self.replica.as_ref().is_some_and(|r| r.has_mail())
    }
}
