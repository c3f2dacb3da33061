//! What a node plugs into the exchange: where batches go to and come from, and the heart.

use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::heartbeat::Heartbeat;
use tokio::sync::mpsc;

/// Longest batch of records, in bytes. A longer one that is announced closes the link.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Longest message on the way back (acknowledgements), in bytes.
pub const BACK_BYTES_MAX: usize = 4 << 10;
/// Most streams of a node: one for each worker.
pub const STREAMS_MAX: u16 = 64;
/// Batches that wait in each stream's queue for QUIC to take them; when it is full the worker keeps its batch and goes
/// on coalescing.
pub const QUEUE: usize = 32;
/// Messages that wait for the way back; when it is full the sender of acknowledgements waits.
pub const BACK_QUEUE: usize = 1_024;

/// What this node's exchange is.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    /// Boot number of this node's engines: grows from start to start.
    pub boot: u32,
    /// Streams that it sends on: its workers, 1 to [`STREAMS_MAX`].
    pub streams: u16,
    /// When the node's [`Now`] was 0.
    pub started: Instant,
    /// The thread of the heartbeats has this name.
    pub thread: String,
}

/// Two nodes can talk, in both directions: this node's own connection stands, and the peer's to it. When one of the
/// two breaks, the link is down and both are made anew; the link after it has another number.
pub struct Link {
    /// The boot of the peer at the other end.
    pub it: Boot,
    /// Number of this link, never used twice in this process; grows.
    pub number: u64,
    /// How many streams it sends on: its workers.
    pub streams: u16,
    /// How long that boot has been up.
    pub uptime_ms: u64,
    /// The sending ends of this node's streams to it, one for each own worker, in their order.
    pub outlets: Vec<Outlet>,
    /// The way back to it: acknowledgements of what it sends.
    pub back: BackOutlet,
}

/// Where what comes in by a link goes to.
pub struct Intakes {
    /// One for each of the peer's streams, in their order.
    pub streams: Vec<Box<dyn Intake>>,
    /// For what it says on the way back.
    pub back: Box<dyn Intake>,
}

/// Takes what comes in by one stream, in order.
pub trait Intake: Send {
    /// Takes one batch (at most [`BATCH_BYTES_MAX`] bytes; on the way back [`BACK_BYTES_MAX`]). Nothing more is read
    /// from the stream until the future is done: that is the back-pressure. It is dropped when the link goes down.
    ///
    /// # Errors
    /// The peer broke the protocol: why. The link is closed, and the refusal counted.
    fn take(&mut self, batch: Bytes) -> BoxFuture<'_, Result<(), String>>;
}

/// Hears of links. Called from the tasks of the exchange, for one peer in order: each `up` is followed by one `down` of
/// the same number before the next `up`. Must not block.
pub trait Links: Send + Sync + 'static {
    /// A link is up. What comes in by it goes to these intakes. `None`: this node cannot take the peer (no place for
    /// one more); the link is closed and tried again later.
    fn up(&self, link: Link) -> Option<Intakes>;
    /// A link is down. Its intakes are gone already, and its outlets swallow what they get.
    fn down(&self, node: u16, link: u64);
}

/// The sending end of one stream. Dropped with the link.
#[derive(Debug)]
pub struct Outlet(pub(super) mpsc::Sender<Vec<u8>>);

impl Outlet {
    /// Hands a batch over; never blocks. At most [`BATCH_BYTES_MAX`] bytes: a longer one is not sent but swallowed and
    /// counted. What is handed over after the link broke is swallowed: its end is on its way to the caller.
    ///
    /// # Errors
    /// The queue is full: the batch comes back.
    pub fn send(&self, batch: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.0.try_send(batch) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(batch)) => Err(batch),
        }
    }

    /// Whether it takes another batch now.
    pub fn has_room(&self) -> bool {
        self.0.capacity() > 0
    }
}

/// The sending end of the way back. Messages are taken in order.
#[derive(Clone, Debug)]
pub struct BackOutlet(pub(super) mpsc::Sender<Vec<u8>>);

impl BackOutlet {
    /// Hands a message over; never blocks. As [`Outlet::send`], with [`BACK_BYTES_MAX`].
    ///
    /// # Errors
    /// The queue is full: the message comes back.
    pub fn send(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.0.try_send(message) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => Err(message),
        }
    }
}

/// The heart: runs on a thread of its own, which is not niced and does nothing else. It is where the
/// [`Coordinator`](tidegate_sync::replication::coordinator::Coordinator) lives, so that what a heartbeat says is true at
/// the moment that it leaves, and a pause of the process is noticed before the first one after it. Everything here is
/// quick: no lock that others hold for long, no I/O.
pub trait Heart: Send + 'static {
    /// A heartbeat came: its seal is right, and it is new.
    fn heard(&mut self, it: &Heartbeat, now: Now);
    /// Called several times in each interval, and before each `say`: the place to take in what workers and links have
    /// to tell, and to let time pass.
    fn tick(&mut self, now: Now);
    /// What this node says of itself now; `from` is filled in already.
    fn say(&mut self, into: &mut Heartbeat, now: Now);
    /// The interval between heartbeats in ms, by the policy in force. Each leaves [`COPIES`] times in it, evenly spread,
    /// so that the loss of some costs nothing.
    fn interval_ms(&self) -> u32;
}

/// How often a heartbeat leaves in an interval. With 30 % loss, five in a row are missed once a minute (one in each 100 ms);
/// fifteen in a row once in a month.
pub const COPIES: u32 = 3;

/// What the exchange is plugged into.
pub struct Wiring {
    /// Hears of links.
    pub links: Arc<dyn Links>,
    /// The heart.
    pub heart: Box<dyn Heart>,
}
