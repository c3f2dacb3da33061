//! Batches and what is said on the way back, as bytes of streams.
//!
//! | stream | begins with | then |
//! |---|---|---|
//! | records, opened by the dialler, one for each of its workers | `R`, version, number of the stream (2 bytes) | batches, each after its length (4 bytes) |
//! | way back, opened by the acceptor | `B`, version, 0, 0 | messages, each after its length (4 bytes) |
//!
//! What is in a batch is of no interest here. What comes in is hostile: every length has a limit, and memory is taken
//! only as bytes come.

use super::counters::PeerCounters;
use super::wiring::{BACK_BYTES_MAX, BATCH_BYTES_MAX, Intake};
use crate::cluster::counters::count;
use crate::quic::frame::{FrameError, read_body};
use bytes::Bytes;
use quinn::{Connection, ReadExactError, RecvStream, SendStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

const VERSION: u8 = 1;
/// Messages that go into one write.
const TOGETHER: usize = 32;
/// How long a stream's first bytes may take once it is there.
const BEGIN: Duration = Duration::from_secs(5);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    /// With its connection, or by its peer.
    #[error("{0}")]
    Closed(String),
    /// The peer broke the protocol.
    #[error("{0}")]
    Violation(String),
}

impl From<FrameError> for StreamEnd {
    fn from(error: FrameError) -> Self {
        match error.is_violation() {
            true => StreamEnd::Violation(error.to_string()),
            false => StreamEnd::Closed(error.to_string()),
        }
    }
}

fn closed(error: impl std::fmt::Display) -> StreamEnd {
    StreamEnd::Closed(error.to_string())
}

/// Counts what goes through one kind of stream.
pub(super) struct Meter {
    counters: Arc<PeerCounters>,
    of: fn(&PeerCounters) -> (&AtomicU64, Option<&AtomicU64>),
}

impl Meter {
    pub(super) fn batches_out(counters: &Arc<PeerCounters>) -> Self {
        Meter { counters: counters.clone(), of: |c| (&c.batches_sent, Some(&c.bytes_sent)) }
    }

    pub(super) fn batches_in(counters: &Arc<PeerCounters>) -> Self {
        Meter { counters: counters.clone(), of: |c| (&c.batches_received, Some(&c.bytes_received)) }
    }

    pub(super) fn backs_out(counters: &Arc<PeerCounters>) -> Self {
        Meter { counters: counters.clone(), of: |c| (&c.backs_sent, None) }
    }

    pub(super) fn backs_in(counters: &Arc<PeerCounters>) -> Self {
        Meter { counters: counters.clone(), of: |c| (&c.backs_received, None) }
    }

    fn note(&self, length: usize) {
        let (messages, bytes) = (self.of)(&self.counters);
        count(messages);
        if let Some(bytes) = bytes {
            bytes.fetch_add(length as u64, Relaxed);
        }
    }
}

/// What a stream is for.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Records of that worker.
    Records(u16),
    /// The way back.
    Back,
}

impl Use {
    fn head(self) -> [u8; 4] {
        match self {
            Use::Records(number) => {
                let [low, high] = number.to_le_bytes();
                [b'R', VERSION, low, high]
            }
            Use::Back => [b'B', VERSION, 0, 0],
        }
    }

    fn longest(self) -> usize {
        match self {
            Use::Records(_) => BATCH_BYTES_MAX,
            Use::Back => BACK_BYTES_MAX,
        }
    }
}

/// Writes what comes out of a queue to a stream of its own until the connection ends.
pub(super) async fn write(
    connection: Connection,
    what: Use,
    mut queue: Receiver<Vec<u8>>,
    meter: Meter,
) -> Result<(), StreamEnd> {
    let mut stream = connection.open_uni().await.map_err(closed)?;
    // So that the other side knows of the stream before the first batch.
    stream.write_all(&what.head()).await.map_err(closed)?;
    let mut together: Vec<Vec<u8>> = Vec::with_capacity(TOGETHER);
    let mut chunks: Vec<Bytes> = Vec::with_capacity(2 * TOGETHER);
    while queue.recv_many(&mut together, TOGETHER).await > 0 {
        for message in together.drain(..) {
            if message.is_empty() || message.len() > what.longest() {
                count(&meter.counters.swallowed);
                continue;
            }
            meter.note(message.len());
            chunks.push(Bytes::copy_from_slice(&(message.len() as u32).to_le_bytes()));
            chunks.push(Bytes::from(message));
        }
        write_chunks(&mut stream, &mut chunks).await?;
    }
    // The sender is gone, the link is not: the stream stays open, for its end would be the link's.
    std::future::pending().await
}

async fn write_chunks(stream: &mut SendStream, chunks: &mut Vec<Bytes>) -> Result<(), StreamEnd> {
    stream.write_all_chunks(chunks).await.map_err(closed)?;
    chunks.clear();
    Ok(())
}

/// Takes the peer's streams of records, each of its workers' one, and reads them until the connection ends.
pub(super) async fn read_records(
    connection: Connection,
    intakes: Vec<Box<dyn Intake>>,
    counters: Arc<PeerCounters>,
) -> Result<(), StreamEnd> {
    let mut intakes: Vec<Option<Box<dyn Intake>>> = intakes.into_iter().map(Some).collect();
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let mut stream = stream.map_err(closed)?;
                let number = usize::from(records_head(&mut stream).await?);
                let Some(intake) = intakes.get_mut(number).and_then(Option::take) else {
                    return Err(StreamEnd::Violation(format!("stream {number} is one too many")));
                };
                readers.spawn(read(stream, Use::Records(0), intake, Meter::batches_in(&counters)));
            }
            Some(ended) = readers.join_next() => {
                ended.map_err(closed)??;
            }
        }
    }
}

async fn records_head(stream: &mut RecvStream) -> Result<u16, StreamEnd> {
    match head(stream).await? {
        [b'R', VERSION, low, high] => Ok(u16::from_le_bytes([low, high])),
        other => Err(StreamEnd::Violation(format!("a stream begins with {other:?}"))),
    }
}

async fn head(stream: &mut RecvStream) -> Result<[u8; 4], StreamEnd> {
    let mut head = [0; 4];
    match timeout(BEGIN, stream.read_exact(&mut head)).await {
        Ok(read) => read.map_err(FrameError::from)?,
        Err(_) => return Err(StreamEnd::Violation("a stream without a beginning".to_owned())),
    }
    Ok(head)
}

/// Takes the peer's way back and reads it until the connection ends.
pub(super) async fn read_back(
    connection: Connection,
    intake: Box<dyn Intake>,
    counters: Arc<PeerCounters>,
) -> Result<(), StreamEnd> {
    let mut stream = connection.accept_uni().await.map_err(closed)?;
    match head(&mut stream).await? {
        [b'B', VERSION, 0, 0] => read(stream, Use::Back, intake, Meter::backs_in(&counters)).await,
        other => Err(StreamEnd::Violation(format!("the way back begins with {other:?}"))),
    }
}

/// Reads messages and hands them over, one at a time: nothing is read while the receiver is busy.
async fn read(
    mut stream: RecvStream,
    what: Use,
    mut intake: Box<dyn Intake>,
    meter: Meter,
) -> Result<(), StreamEnd> {
    loop {
        let mut length = [0; 4];
        match stream.read_exact(&mut length).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(_)) => return Err(closed("the peer ended a stream")),
            Err(ReadExactError::ReadError(error)) => return Err(closed(error)),
        }
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length > what.longest() {
            let limit = what.longest();
            return Err(StreamEnd::Violation(format!("{length} bytes announced; 1 to {limit} are taken")));
        }
        let message = read_body(&mut stream, length).await?;
        meter.note(length);
        intake.take(message).await.map_err(StreamEnd::Violation)?;
    }
}
