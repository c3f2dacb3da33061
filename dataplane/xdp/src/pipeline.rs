//! What a worker feeds: the engine, or a stand-in of a test.

use crate::area::PortFrame;
use arrayvec::ArrayVec;
use tidegate_dataplane::drops::DropReason;
use tidegate_dataplane::engine::{BATCH_MAX, Engine, Event, Outbox, Verdict};
use tidegate_dataplane::fragment::Settled;
use tidegate_dataplane::time::Now;

/// What a pipeline says after it has talked to other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchanged {
    /// Whether there was anything to do.
    pub worked: bool,
    /// Within how many milliseconds it wants to be asked again; `u32::MAX`: when something comes.
    pub again_ms: u32,
}

impl Exchanged {
    /// Nothing done, nothing waited for.
    pub const NOTHING: Exchanged = Exchanged { worked: false, again_ms: u32::MAX };
}

/// Batch in, verdicts out. See [`Engine`] for what each call means.
pub trait Pipeline: Send + 'static {
    /// Decides about a batch: one verdict for each frame, in order.
    fn process(&mut self, frames: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, now: Now);
    /// Ages; called after batches, and at least as often as the idle sleep of the worker is long.
    fn sweep(&mut self, now: Now);
    /// Packets of its own.
    fn outbox(&mut self) -> &mut Outbox;
    /// Hands over what the control side must hear of.
    fn take_events(&mut self, each: &mut dyn FnMut(Event));
    /// Takes one datagram whose waiting fragments may go on, or must be dropped.
    fn next_settled(&mut self) -> Option<Settled>;
    /// Counts a frame that the worker dropped.
    fn count_drop(&mut self, reason: DropReason);
    /// Hears of a frame whose next hop did not answer in time; the worker frees it.
    fn neighbour_failed(&mut self, frame: &PortFrame, now: Now);
    /// Talks to other nodes; called at the end of each pass. Bounded.
    fn exchange(&mut self, now: Now) -> Exchanged {
        let _ = now;
        Exchanged::NOTHING
    }
    /// Whether something has come from other nodes since: looked at right before the worker sleeps. Who puts
    /// something there rings the worker's bell ([`crate::workers::Workers::ring`]).
    fn has_mail(&self) -> bool {
        false
    }
}

impl Pipeline for Engine {
    fn process(&mut self, frames: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, now: Now) {
        Engine::process(self, frames, verdicts, now);
    }

    fn sweep(&mut self, now: Now) {
        Engine::sweep(self, now);
    }

    fn outbox(&mut self) -> &mut Outbox {
        Engine::outbox(self)
    }

    fn take_events(&mut self, each: &mut dyn FnMut(Event)) {
        Engine::take_events(self, each);
    }

    fn next_settled(&mut self) -> Option<Settled> {
        Engine::next_settled(self)
    }

    fn count_drop(&mut self, reason: DropReason) {
        Engine::count_drop(self, reason);
    }

    fn neighbour_failed(&mut self, frame: &PortFrame, now: Now) {
        Engine::neighbour_failed(self, frame, now);
    }
}
