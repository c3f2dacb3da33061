//! What runs in a worker beside its engine: the shard, and its ends of the channels.

use super::heart::ToHeart;
use crate::daemon::tandem::Replica;
use crate::daemon::workers::Workers;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::Sender;
use tidegate_dataplane::engine::{Engine, PEERS_MAX, Peer};
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::{Back, FromNode, News, Shard, ShardConfig, ShardStatus, Wire};
use tidegate_sync_net::replicate::{BackOutlet, Outlet};
use tidegate_xdp::pipeline::Exchanged;
use tokio::sync::mpsc;

/// Batches' parts that wait for a worker; at the bound nothing more is read from the streams that they come by.
const ITEMS: usize = 64;
/// While anything is under way: how soon a worker looks again.
const SOON_MS: u32 = 1;

/// Rare messages for a worker.
pub(super) enum Control {
    /// A link is up: where this worker's batches go, and acknowledgements of the peer's.
    Link { peer: Peer, link: u64, outlet: Outlet, back: BackOutlet, applied: Arc<Applied> },
    /// For the shard.
    Node(FromNode),
}

/// The I/O side's end of the way to one worker.
pub(super) struct Tap {
    worker: u16,
    workers: Workers,
    control: mpsc::UnboundedSender<Control>,
    items: mpsc::Sender<FromNode>,
    /// Whether the worker is to be woken for an acknowledgement.
    waits_for_acks: Arc<AtomicBool>,
}

impl Tap {
    /// Sends what is rare; never waits.
    pub(super) fn control(&self, control: Control) {
        // Without its worker the process ends.
        let _ = self.control.send(control);
        self.workers.ring(self.worker);
    }

    /// Sends a part of a batch; waits while the worker has enough to do.
    pub(super) async fn items(&self, items: FromNode) {
        let _ = self.items.send(items).await;
        self.workers.ring(self.worker);
    }

    /// Sends an acknowledgement. The worker is not woken unless something there waits for it, or too many do: its next
    /// pass is never far.
    pub(super) async fn acked(&self, acked: FromNode) {
        let _ = self.items.send(acked).await;
        // The worker says that it waits, then looks for mail, then sleeps: either it sees this or this sees that.
        fence(Ordering::SeqCst);
        if self.waits_for_acks.load(Ordering::SeqCst) || self.items.capacity() <= ITEMS / 2 {
            self.workers.ring(self.worker);
        }
    }
}

/// How far each worker has come with each of a link's streams.
pub(super) struct Applied {
    workers: usize,
    /// Of stream `s` and worker `w`: the last batch whose part it has applied, at `s * workers + w`.
    numbers: Box<[AtomicU64]>,
    /// Of each stream: the last batch that was acknowledged.
    acked: Box<[AtomicU64]>,
}

impl Applied {
    pub(super) fn new(streams: u16, workers: u16) -> Arc<Applied> {
        let zeros = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        let (streams, workers) = (usize::from(streams), usize::from(workers));
        Arc::new(Applied { workers, numbers: zeros(streams * workers), acked: zeros(streams) })
    }

    fn note(&self, stream: u16, worker: u16, number: u64) {
        let at = usize::from(stream) * self.workers + usize::from(worker);
        if let Some(last) = self.numbers.get(at) {
            // Of two workers that finish together at least one sees the other's number.
            last.fetch_max(number, Ordering::SeqCst);
        }
    }

    /// The batch up to which a stream can be acknowledged, if it was not yet.
    fn due(&self, stream: u16) -> Option<u64> {
        let from = usize::from(stream) * self.workers;
        let all = self.numbers.get(from..from + self.workers)?;
        let number = all.iter().map(|n| n.load(Ordering::SeqCst)).min()?;
        (number > self.acked.get(usize::from(stream))?.load(Ordering::SeqCst)).then_some(number)
    }

    fn acknowledged(&self, stream: u16, number: u64) {
        if let Some(acked) = self.acked.get(usize::from(stream)) {
            acked.fetch_max(number, Ordering::SeqCst);
        }
    }
}

/// A link as its worker sees it.
struct Linked {
    link: u64,
    outlet: Outlet,
    back: BackOutlet,
    applied: Arc<Applied>,
    /// Streams of the peer of which something was applied since the last acknowledgement, one bit each.
    touched: u64,
}

/// The worker's ends of the channels.
pub(super) struct Ends {
    worker: u16,
    control: mpsc::UnboundedReceiver<Control>,
    items: mpsc::Receiver<FromNode>,
    links: [Option<Linked>; PEERS_MAX],
    heart: Sender<ToHeart>,
    /// An acknowledgement found the way back full.
    owes: bool,
    waits_for_acks: Arc<AtomicBool>,
}

impl Ends {
    fn linked(&mut self, peer: Peer, link: u64) -> Option<&mut Linked> {
        self.links.get_mut(usize::from(peer.0))?.as_mut().filter(|l| l.link == link)
    }

    /// Acknowledges what all workers have applied. Where the way back is full it is tried again in the next pass.
    fn acknowledge(&mut self) {
        self.owes = false;
        for linked in self.links.iter_mut().flatten().filter(|l| l.touched != 0) {
            for stream in 0..u64::BITS as u16 {
                if linked.touched >> stream & 1 == 0 {
                    continue;
                }
                if let Some(number) = linked.applied.due(stream) {
                    if linked.back.send(Back::Ack { stream, number }.frame()).is_err() {
                        self.owes = true;
                        continue;
                    }
                    linked.applied.acknowledged(stream, number);
                }
                linked.touched &= !(1 << stream);
            }
        }
    }
}

impl Wire for Ends {
    fn next(&mut self) -> Option<FromNode> {
        // Links come before what comes by them.
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Link { peer, link, outlet, back, applied } => {
                    if let Some(place) = self.links.get_mut(usize::from(peer.0)) {
                        *place = Some(Linked { link, outlet, back, applied, touched: 0 });
                    }
                }
                Control::Node(message) => {
                    if let FromNode::Down { peer, link } = &message
                        && self.linked(*peer, *link).is_some()
                    {
                        self.links[usize::from(peer.0)] = None;
                    }
                    return Some(message);
                }
            }
        }
        self.items.try_recv().ok()
    }

    fn send(&mut self, peer: Peer, link: u64, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.linked(peer, link) {
            Some(linked) => linked.outlet.send(frame),
            // Its end is on its way to the shard.
            None => Ok(()),
        }
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Applied { peer, link, stream, number } => {
                let worker = self.worker;
                if let Some(linked) = self.linked(peer, link) {
                    linked.applied.note(stream, worker, number);
                    linked.touched |= 1u64.checked_shl(stream.into()).unwrap_or(0);
                }
            }
            news => {
                let _ = self.heart.send(ToHeart::News(self.worker, news));
            }
        }
    }
}

/// The shard of one worker, and its ends.
pub(super) struct Beside {
    shard: Shard,
    ends: Ends,
}

/// A worker's part, and the way to it.
pub(super) fn pair(worker: u16, workers: &Workers, heart: Sender<ToHeart>) -> (Beside, Tap) {
    let (control, control_end) = mpsc::unbounded_channel();
    let (items, items_end) = mpsc::channel(ITEMS);
    let waits_for_acks = Arc::new(AtomicBool::new(true));
    let ends = Ends {
        worker,
        control: control_end,
        items: items_end,
        links: Default::default(),
        heart,
        owes: false,
        waits_for_acks: waits_for_acks.clone(),
    };
    let beside = Beside { shard: Shard::new(ShardConfig::default()), ends };
    (beside, Tap { worker, workers: workers.clone(), control, items, waits_for_acks })
}

impl Replica for Beside {
    fn watch(&mut self, engine: &mut Engine, now: Now) {
        self.shard.watch(engine, now, &mut self.ends);
    }

    fn run(&mut self, engine: &mut Engine, now: Now) -> Exchanged {
        self.shard.run(engine, now, &mut self.ends);
        self.ends.acknowledge();
        let waits = self.shard.waits_for_acks(engine);
        if self.ends.waits_for_acks.load(Ordering::Relaxed) != waits {
            // One that came before this is mail, and is seen before the worker sleeps.
            self.ends.waits_for_acks.store(waits, Ordering::SeqCst);
        }
        let again_ms = if self.shard.is_busy() || self.ends.owes { SOON_MS } else { u32::MAX };
        Exchanged { worked: self.shard.has_more(engine), again_ms }
    }

    fn has_mail(&self) -> bool {
        !self.ends.control.is_empty() || !self.ends.items.is_empty()
    }

    fn status(&self, engine: &Engine) -> ShardStatus {
        self.shard.status(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_acknowledged_when_the_last_worker_has_applied_it() {
        // Acknowledge with the first, and what the others have not applied yet counts as held.
        let applied = Applied::new(2, 3);
        applied.note(1, 0, 5);
        applied.note(1, 2, 4);
        assert_eq!((applied.due(0), applied.due(1)), (None, None));
        applied.note(1, 1, 7);
        assert_eq!(applied.due(1), Some(4));
        applied.acknowledged(1, 4);
        assert_eq!(applied.due(1), None);
        applied.note(1, 2, 9);
        assert_eq!((applied.due(0), applied.due(1)), (None, Some(5)));
        // A stream that the peer does not have.
        applied.note(2, 0, 1);
        assert_eq!(applied.due(2), None);
    }
}
