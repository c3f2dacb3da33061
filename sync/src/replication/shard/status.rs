//! What a shard says of itself and its peers.

use super::ResyncWhy;
use tidegate_dataplane::engine::Peer;
use tidegate_dataplane::session::owner::Boot;

/// Numbers of records by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Copies told because something changed.
    pub changes: u64,
    /// Copies told in resyncs.
    pub resync: u64,
    /// Ends.
    pub ends: u64,
    /// Questions asked.
    pub questions: u64,
    /// Frames that they were in.
    pub batches: u64,
    /// Bytes of these frames.
    pub bytes: u64,
}

/// Numbers of records that came, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Sessions that were not here before.
    pub new: u64,
    /// Copies that added something.
    pub merged: u64,
    /// Copies and ends that said nothing new.
    pub unchanged: u64,
    /// Copies and ends that were answered, because this node knows better.
    pub answered: u64,
    /// Ends that ended a session here.
    pub ends: u64,
    /// Copies that found no room.
    pub no_room: u64,
    /// Copies and ends that the engine refused.
    pub refused: u64,
    /// Questions that were answered.
    pub questions: u64,
    /// Batches with a part for this shard.
    pub batches: u64,
}

/// What one shard says of one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer's place.
    pub peer: Peer,
    /// The boot that is, or was last, connected.
    pub it: Boot,
    /// Number of the link while there is one.
    pub link: Option<u64>,
    /// Log entries not yet sent.
    pub lag_entries: u64,
    /// Bytes made, and not yet acknowledged.
    pub pending_bytes: u64,
    /// Batches sent, and not yet acknowledged.
    pub batches_unacked: u64,
    /// Log number below which everything is acknowledged.
    pub acked: u64,
    /// While this shard sends a resync: its number, when it began (ms of [`tidegate_dataplane::time::Now`]),
    /// sessions sent so far.
    pub resync_out: Option<(u64, u64, u64)>,
    /// While the peer's resync is on its way in: its number, when it began, whether it is being swept.
    pub resync_in: Option<(u64, u64, bool)>,
    /// Whether this shard waits for a resync, and why.
    pub wants: Option<ResyncWhy>,
    /// Whether sessions of the peer lack room here.
    pub no_room: bool,
    /// Sent so far, over all links.
    pub sent: Sent,
    /// Received so far, over all links.
    pub received: Received,
    /// Refused by the engine, by the reason's stable name.
    pub refused: Vec<(&'static str, u64)>,
    /// Resyncs wanted so far, by the reason's number in [`ResyncWhy::ALL`].
    pub resyncs: [u64; ResyncWhy::ALL.len()],
}

/// What one shard says of replication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardStatus {
    /// Every peer that was ever connected, by place.
    pub peers: Vec<PeerStatus>,
    /// Log number that the next change gets.
    pub log_head: u64,
    /// Whether ageing is held after a pause.
    pub held: bool,
    /// Pauses noticed so far.
    pub pauses: u64,
    /// Sessions whose end waits for answers of peers.
    pub asking: u64,
    /// Messages of a link that is no more, left unread.
    pub stale: u64,
}
