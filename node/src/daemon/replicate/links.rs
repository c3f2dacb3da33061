//! Links to peers as they come and go, and what comes in by them.

use super::beside::{Applied, Control};
use super::heart::ToHeart;
use super::{Replication, lock};
use crate::daemon::policy::Learner;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use tidegate_dataplane::engine::Peer;
use tidegate_sync::replication::message::{ENVELOPE_BYTES, read_envelope};
use tidegate_sync::replication::{Back, FromNode, Inlet, InletConfig, Kind};
use tidegate_sync_net::replicate::{BackOutlet, Intake, Intakes, Link, Links};

/// A link that is up.
pub(super) struct Standing {
    pub(super) number: u64,
    pub(super) back: BackOutlet,
}

/// The exchange's end.
pub(super) struct Door(pub(super) Arc<Replication>);

impl Links for Door {
    fn up(&self, link: Link) -> Option<Intakes> {
        let Link { it, number, streams, uptime_ms, outlets, back } = link;
        let replication = &self.0;
        let peer = replication.place(it.node)?;
        let workers = replication.workers.count();
        if outlets.len() != usize::from(workers) {
            tracing::error!(outlets = outlets.len(), workers, "a link does not fit this node's workers");
            return None;
        }
        let applied = Applied::new(streams, workers);
        for (tap, outlet) in replication.taps().iter().zip(outlets) {
            let (applied, back) = (applied.clone(), back.clone());
            tap.control(Control::Link { peer, link: number, outlet, back, applied });
            tap.control(Control::Node(FromNode::Up { peer, it, link: number, streams, uptime_ms }));
        }
        lock(&replication.links).insert(it.node, Standing { number, back });
        replication.tell(ToHeart::Up(it, number));
        let me = replication.view().map_or(it, |view| view.me);
        let config = |stream| InletConfig {
            teller: it,
            me,
            stream,
            shards: workers,
            uptime_ms,
            up_at: replication.now(),
            records_per_s_max: InletConfig::RECORDS_PER_S_MAX,
        };
        let stream = |number_of: u16| -> Box<dyn Intake> {
            Box::new(Stream {
                replication: replication.clone(),
                peer,
                node: it.node,
                link: number,
                stream: number_of,
                inlet: Inlet::new(config(number_of)),
            })
        };
        let back = WayBack { replication: replication.clone(), peer, node: it.node, link: number };
        Some(Intakes { streams: (0..streams).map(stream).collect(), back: Box::new(back) })
    }

    fn down(&self, node: u16, link: u64) {
        let replication = &self.0;
        {
            let mut links = lock(&replication.links);
            if links.get(&node).is_some_and(|l| l.number == link) {
                links.remove(&node);
            }
        }
        if let Some(peer) = replication.place(node) {
            replication.broadcast(|| FromNode::Down { peer, link });
        }
        replication.tell(ToHeart::Down(node, link));
    }
}

/// The body of a frame of that kind.
fn body(frame: &[u8], wanted: Kind) -> Result<&[u8], String> {
    let (head, body) = frame.split_first_chunk::<ENVELOPE_BYTES>().ok_or("a frame without an envelope")?;
    let (kind, length) = read_envelope(head).map_err(|e| e.to_string())?;
    match kind == wanted && length == body.len() {
        true => Ok(body),
        false => Err(format!("a frame of kind {kind:?} and {length} bytes where {wanted:?} belongs")),
    }
}

/// One of a peer's streams.
struct Stream {
    replication: Arc<Replication>,
    peer: Peer,
    node: u16,
    link: u64,
    stream: u16,
    inlet: Inlet,
}

impl Intake for Stream {
    fn take(&mut self, batch: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let Stream { replication, peer, node, link, stream, inlet } = self;
            let learned = lock(&replication.counted).entry(*node).or_default().names;
            let (decoded, learned) = {
                let mut names = Learner::new(&replication.policy, learned);
                let shard_of = |tuple: &_| replication.shard_of(tuple);
                let read = inlet.read(body(&batch, Kind::Batch)?, replication.now(), &mut names, &shard_of);
                let learned = names.keep();
                (read.map_err(|e| e.to_string())?, learned)
            };
            if decoded.learned {
                replication.tell_names();
            }
            {
                let mut counted = lock(&replication.counted);
                let counted = counted.entry(*node).or_default();
                counted.names = counted.names.max(learned);
                counted.refused.iter_mut().zip(decoded.refused).for_each(|(sum, n)| *sum += n);
            }
            let number = decoded.number;
            // Every worker gets a part, if only an empty one: the last to apply it acknowledges the batch.
            for (tap, items) in replication.taps().iter().zip(decoded.shards) {
                let (peer, link, stream) = (*peer, *link, *stream);
                tap.items(FromNode::Items { peer, link, stream, number, items }).await;
            }
            Ok(())
        }
        .boxed()
    }
}

/// What a peer says of what it was sent.
struct WayBack {
    replication: Arc<Replication>,
    peer: Peer,
    node: u16,
    link: u64,
}

impl Intake for WayBack {
    fn take(&mut self, batch: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let WayBack { replication, peer, node, link } = self;
            let (peer, link) = (*peer, *link);
            match Back::read(body(&batch, Kind::Back)?).map_err(|e| e.to_string())? {
                Back::Ack { stream, number } => {
                    let tap = replication.taps().get(usize::from(stream));
                    let tap =
                        tap.ok_or_else(|| format!("an acknowledgement of stream {stream}, which is not"))?;
                    let at = replication.now();
                    tap.acked(FromNode::Acked { peer, link, number, at }).await;
                }
                said @ (Back::NoRoom | Back::Room) => {
                    let full = said == Back::NoRoom;
                    replication.broadcast(|| FromNode::Full { peer, link, full });
                    replication.tell(ToHeart::PeerRoom(*node, !full));
                }
                Back::Wants { why } => {
                    tracing::info!(
                        node = *node,
                        why = why.name(),
                        "a peer wants everything that this node owns"
                    );
                    replication.tell(ToHeart::Resync(*node));
                }
            }
            Ok(())
        }
        .boxed()
    }
}
