//! The border between a worker's [`super::Shard`] and the node's I/O side.

use crate::replication::ResyncWhy;
use std::sync::Arc;
use tidegate_dataplane::engine::{Peer, Question};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::copy::{EndNote, SessionCopy};
use tidegate_dataplane::session::owner::{Boot, View};
use tidegate_dataplane::time::Now;

/// The worker's side of its rings.
pub trait Wire {
    /// The next message of the node.
    fn next(&mut self) -> Option<FromNode>;

    /// Takes a frame (envelope included) for this worker's stream of that link.
    ///
    /// # Errors
    /// The frame itself when the ring is full: the shard keeps it, and with it everything that would follow.
    fn send(&mut self, peer: Peer, link: u64, frame: Vec<u8>) -> Result<(), Vec<u8>>;

    /// Takes news for the node. There is at most a handful for each message of [`Wire::next`] and each run; the
    /// other side must have room for them.
    fn tell(&mut self, news: News);
}

/// What a peer said, checked by the [`crate::replication::Inlet`]; this shard's part of it.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are copies.
pub enum Item {
    /// Its copy of a session.
    Copy(SessionCopy),
    /// The end of a session.
    End(EndNote),
    /// What it owns follows, between this and the end of the same number. For every shard.
    ResyncBegin {
        /// Number of the resync.
        number: u64,
        /// Digest of the view by which it chooses what it owns.
        view: u64,
    },
    /// All that the stream's sender owns has been said. For every shard.
    ResyncEnd {
        /// Number of the resync.
        number: u64,
        /// Digest of the view, or another number if the view has changed since the beginning.
        view: u64,
    },
    /// Does anybody know younger copies of these? Answered on this shard's own stream.
    Ask {
        /// Number of the asking.
        number: u64,
        /// This shard's part of the questions.
        questions: Vec<Question>,
    },
    /// This many questions of an asking of this shard are answered: what there was to say came before.
    Answered {
        /// Number of the asking.
        number: u64,
        /// How many of its questions.
        count: u32,
    },
}

/// What the node tells a shard.
pub enum FromNode {
    /// Names, before the policy and the items that use them.
    Names(Arc<Names>),
    /// Who is there.
    View(Arc<View>),
    /// Ageing may go on after a pause: links are up again, and what was queued has been handed over. It does when
    /// [`Wire::next`] has no more of that.
    Resume,
    /// A link to a peer is up; one to the same peer before it is no more.
    Up {
        /// Its place.
        peer: Peer,
        /// The boot of it at the other end.
        it: Boot,
        /// Number of the link, never used twice in this process.
        link: u64,
        /// How many streams it sends on: its shards.
        streams: u16,
        /// How long that boot has been up.
        uptime_ms: u64,
    },
    /// A link is down.
    Down {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
    },
    /// Send that peer everything that this node owns. Every shard gets this with the same number.
    Resync {
        /// The peer's place.
        peer: Peer,
        /// Number of the resync, growing through the life of this boot.
        number: u64,
    },
    /// This shard's part of a batch that came in by a stream of the peer; may be empty.
    Items {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Number of the stream: the shard at the other end.
        stream: u16,
        /// Number of the batch.
        number: u64,
        /// The items.
        items: Vec<Item>,
    },
    /// This shard's batch of that number was applied by all shards of the peer, and all before it.
    Acked {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Number of the batch.
        number: u64,
        /// When its word came.
        at: Now,
    },
    /// The peer said [`crate::replication::Back::NoRoom`] (`true`) or `Room`: while it has no room, nothing
    /// counts as acknowledged by it.
    Full {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Whether it lacks room.
        full: bool,
    },
    /// The peer's boot is dead: what it told lately is told on.
    Died {
        /// The peer's place.
        peer: Peer,
        /// Its boot.
        it: Boot,
    },
}

/// What a shard tells the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// This shard's part of a batch is applied ([`FromNode::Items`]). When all shards that got a part say so,
    /// the batch is acknowledged.
    Applied {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Number of the peer's stream.
        stream: u16,
        /// Number of the batch.
        number: u64,
    },
    /// A resync of the peer is applied here in full, and what vanished there is swept away. Said only if all
    /// views agreed from beginning to end.
    ResyncApplied {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Number of the resync.
        number: u64,
        /// Digest of the view by which it was complete.
        view: u64,
    },
    /// A resync by this shard has been applied by the peer, as far as its acknowledgements say.
    ResyncSent {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Number of the resync.
        number: u64,
    },
    /// A resync is needed: by [`ResyncWhy::asks_peer`] from the peer ([`crate::replication::Back::Wants`]), or
    /// from this node, all shards of it. Repeated with growing pauses until it has come.
    WantsResync {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
        /// Why.
        why: ResyncWhy,
        /// Since when.
        since: Now,
    },
    /// A session of the peer found no room; said once, until [`News::Room`].
    NoRoom {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
    },
    /// There was room for everything of the peer's latest resync.
    Room {
        /// The peer's place.
        peer: Peer,
        /// Number of the link.
        link: u64,
    },
    /// This worker was stopped for that long. Nothing ages here until [`FromNode::Resume`].
    Paused {
        /// How long, in milliseconds.
        ms: u64,
    },
}
