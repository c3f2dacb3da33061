//! What a coordinator wants done.

use std::fmt;
use std::sync::Arc;
use tidegate_dataplane::session::owner::{Boot, View};

/// Something to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// To all shards: who is there.
    View(Arc<View>),
    /// To all shards: that boot is dead, what it told lately is told on.
    Died {
        /// Which.
        it: Boot,
    },
    /// To all shards: send that peer everything that this node owns, under this number, which grows from order to
    /// order.
    Resync {
        /// The peer.
        node: u16,
        /// Number of the resync.
        number: u64,
    },
    /// To that peer, by the way back: send everything that you own.
    AskResync {
        /// The peer.
        node: u16,
        /// Why.
        why: AskWhy,
    },
    /// To all shards: ageing may go on.
    Resume,
    /// For the log.
    Event(Event),
}

/// Why a node asks a peer to send everything again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AskWhy {
    /// It was paused, and the peer took it for dead meanwhile.
    Paused,
    /// It was cut off, and fewer nodes were on its side.
    CutOff,
}

/// Something that an operator wants to find in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A node is alive.
    Alive {
        /// Which.
        it: Boot,
    },
    /// A node is alive no more.
    Down {
        /// Which.
        it: Boot,
    },
    /// This node is in sync.
    InSync,
    /// This node is not in sync any more, because it was cut off with fewer nodes than are on the other side.
    CutOff,
    /// This process was stopped for that long.
    Paused {
        /// How long, in ms.
        ms: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Alive { it } => write!(f, "node {} (boot {}) is alive", it.node, it.boot),
            Event::Down { it } => write!(f, "node {} (boot {}) is down", it.node, it.boot),
            Event::InSync => f.write_str("this node is in sync"),
            Event::CutOff => f.write_str(
                "this node was cut off with fewer nodes than are on the other side: it is in sync again when they have sent what it missed",
            ),
            Event::Paused { ms } => write!(
                f,
                "this process was stopped for {ms} ms: nothing ages here until what was missed has come"
            ),
        }
    }
}
