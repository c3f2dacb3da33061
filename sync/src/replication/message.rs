//! What replicating nodes say to each other, as bytes: an envelope (version, kind, length), then bincode with
//! fixed integers and a limit.
//!
//! A batch is its number and then items to its end. Copies and ends, which are nearly all of them, are blocks of
//! fixed layout ([`super::record`]): bincode takes several times as long for as many fields. Names travel once a
//! stream, before their first use, and are numbers from then on. What is read here has a known *shape* and nothing
//! more: [`super::Inlet`] judges it.

use super::record::{CopyRecord, EndRecord, QuestionRecord, block};
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use zerocopy::IntoBytes;

/// Version of everything here; another one is not understood.
pub const VERSION: u8 = 1;
/// Bytes of an envelope.
pub const ENVELOPE_BYTES: usize = 6;
/// Longest body of a frame.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest name; a rule's is three names of a policy and two slashes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most questions in one [`WireItem::Ask`].
pub const QUESTIONS_MAX: usize = 256;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A batch of items, on a worker's stream.
    Batch = 1,
    /// One [`Back`], on the stream of acknowledgements.
    Back = 2,
}

/// Why a frame cannot be read. Its link is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Another version of the protocol.
    #[error("version {0} of the replication protocol, not {VERSION}: bring both nodes to one release")]
    Version(u8),
    /// No such kind of frame.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than anything that is sent.
    #[error("a frame of {0} bytes; at most {BODY_BYTES_MAX} are sent")]
    Length(u32),
    /// An item of unknown kind.
    #[error("an item of unknown kind {0}")]
    Item(u8),
    /// The bytes end in the middle of an item.
    #[error("a frame ends in the middle of an item")]
    Short,
    /// A record says something of its own form that no record does.
    #[error("a record of unknown form {0:#x}")]
    Form(u8),
    /// The bytes are none of such a value.
    #[error("not a valid item: {0}")]
    Decode(#[from] DecodeError),
    /// Bytes were left after the value.
    #[error("{0} bytes are left after the message")]
    Left(usize),
}

/// The envelope of a body of that many bytes.
pub fn envelope(kind: Kind, length: usize) -> [u8; ENVELOPE_BYTES] {
    let [a, b, c, d] = (length as u32).to_le_bytes();
    [VERSION, kind as u8, a, b, c, d]
}

/// Kind of a frame and length of its body.
///
/// # Errors
/// Another version, kind, or length than what is sent.
pub fn read_envelope(bytes: &[u8; ENVELOPE_BYTES]) -> Result<(Kind, usize), FrameError> {
    let [version, kind, a, b, c, d] = *bytes;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = match kind {
        1 => Kind::Batch,
        2 => Kind::Back,
        other => return Err(FrameError::Kind(other)),
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length as usize > BODY_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    Ok((kind, length as usize))
}

/// A whole frame: its kind and its body.
///
/// # Errors
/// As [`read_envelope`], and when the body has another length than the envelope says.
pub fn open(frame: &[u8]) -> Result<(Kind, &[u8]), FrameError> {
    let (head, body) = frame.split_first_chunk().ok_or(FrameError::Short)?;
    let (kind, length) = read_envelope(head)?;
    match body.len().checked_sub(length) {
        Some(0) => Ok((kind, body)),
        Some(left) => Err(FrameError::Left(left)),
        None => Err(FrameError::Short),
    }
}

/// Why a node wants a resync.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResyncWhy {
    /// Sender: the first link to that boot of the peer, or it was away for too long.
    Joined,
    /// Sender: the peer was so slow that changes left the log before they were told to it.
    FellOut,
    /// Sender: the link broke in the middle of a resync.
    Interrupted,
    /// Receiver: the two nodes did not believe the same of who is in sync, so nothing could be removed.
    ViewsDiffered,
    /// Receiver: births were refused because their origin, who tells them itself, was there; now it is dead.
    OriginDied,
    /// Receiver: there was no room for all of the peer's sessions, and now there is.
    RoomReturned,
    /// Receiver: it stood still, and was taken for dead meanwhile.
    Paused,
    /// Receiver: it was cut off, with fewer nodes than were on the other side.
    CutOff,
    /// An operator asked for it (`sync resync`).
    Operator,
}

impl ResyncWhy {
    /// Every reason.
    pub const ALL: [ResyncWhy; 9] = [
        ResyncWhy::Joined,
        ResyncWhy::FellOut,
        ResyncWhy::Interrupted,
        ResyncWhy::ViewsDiffered,
        ResyncWhy::OriginDied,
        ResyncWhy::RoomReturned,
        ResyncWhy::Paused,
        ResyncWhy::CutOff,
        ResyncWhy::Operator,
    ];

    /// Whether it is the receiver that misses something: the peer is to send it ([`Back::Wants`]), rather than
    /// this node.
    pub fn asks_peer(self) -> bool {
        use ResyncWhy::*;
        match self {
            ViewsDiffered | OriginDied | RoomReturned | Paused | CutOff => true,
            Joined | FellOut | Interrupted | Operator => false,
        }
    }

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            ResyncWhy::Joined => "joined",
            ResyncWhy::FellOut => "fell_out",
            ResyncWhy::Interrupted => "interrupted",
            ResyncWhy::ViewsDiffered => "views_differed",
            ResyncWhy::OriginDied => "origin_died",
            ResyncWhy::RoomReturned => "room_returned",
            ResyncWhy::Paused => "paused",
            ResyncWhy::CutOff => "cut_off",
            ResyncWhy::Operator => "operator",
        }
    }
}

/// What flows back, on a stream of its own: never queued behind data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Back {
    /// Every shard here has applied this batch and all before it.
    Ack {
        /// Stream of the batch: number of the shard that sent it.
        stream: u16,
        /// Its number.
        number: u64,
    },
    /// Some of your sessions found no room here.
    NoRoom,
    /// A resync of yours was applied, and there was room for all of it.
    Room,
    /// Send everything that you own.
    Wants {
        /// Why.
        why: ResyncWhy,
    },
}

impl Back {
    /// The frame, envelope included.
    ///
    /// # Panics
    /// Never: the type has a known shape.
    pub fn frame(&self) -> Vec<u8> {
        let body = bincode::encode_to_vec(self, config()).expect("the type has a known shape");
        [&envelope(Kind::Back, body.len())[..], &body].concat()
    }

    /// Reads the body of a frame of kind [`Kind::Back`].
    ///
    /// # Errors
    /// Bytes that are none of these, or more of them than it takes.
    pub fn read(body: &[u8]) -> Result<Back, FrameError> {
        let (back, used) = bincode::decode_from_slice(body, config())?;
        if used == body.len() { Ok(back) } else { Err(FrameError::Left(body.len() - used)) }
    }
}

pub(super) fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<BODY_BYTES_MAX>()
}

/// What a name is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum NameKind {
    Zone = 0,
    Rule = 1,
    Application = 2,
}

impl NameKind {
    pub(super) const ALL: [NameKind; 3] = [NameKind::Zone, NameKind::Rule, NameKind::Application];
}

/// One item of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum WireItem<'a> {
    /// From now on `number` means this name on this stream.
    Name {
        kind: u8,
        number: u32,
        text: &'a str,
    },
    Copy4(CopyRecord<[u8; 4]>),
    Copy6(CopyRecord<[u8; 16]>),
    End4(EndRecord<[u8; 4]>),
    End6(EndRecord<[u8; 16]>),
    ResyncBegin {
        number: u64,
        view: u64,
    },
    ResyncEnd {
        number: u64,
        view: u64,
    },
    Ask {
        number: u64,
        questions: Vec<QuestionRecord>,
    },
    Answered {
        shard: u16,
        number: u64,
        count: u32,
    },
}

/// Numbers of the items' kinds on the wire.
mod tag {
    pub(super) const NAME: u8 = 1;
    pub(super) const COPY4: u8 = 2;
    pub(super) const COPY6: u8 = 3;
    pub(super) const END4: u8 = 4;
    pub(super) const END6: u8 = 5;
    pub(super) const RESYNC_BEGIN: u8 = 6;
    pub(super) const RESYNC_END: u8 = 7;
    pub(super) const ASK: u8 = 8;
    pub(super) const ANSWERED: u8 = 9;
}

impl WireItem<'_> {
    /// Appends the item's bytes.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match self {
            WireItem::Name { kind, number, text } => put(to, &(tag::NAME, *kind, *number, *text)),
            WireItem::Copy4(copy) => copy.write(tag::COPY4, to),
            WireItem::Copy6(copy) => copy.write(tag::COPY6, to),
            WireItem::End4(end) => end.write(tag::END4, to),
            WireItem::End6(end) => end.write(tag::END6, to),
            WireItem::ResyncBegin { number, view } => put(to, &(tag::RESYNC_BEGIN, *number, *view)),
            WireItem::ResyncEnd { number, view } => put(to, &(tag::RESYNC_END, *number, *view)),
            WireItem::Ask { number, questions } => {
                put(to, &(tag::ASK, *number, questions.len() as u32));
                questions.iter().for_each(|question| to.extend_from_slice(question.as_bytes()));
            }
            WireItem::Answered { shard, number, count } => put(to, &(tag::ANSWERED, *shard, *number, *count)),
        }
    }
}

fn put<T: Encode>(to: &mut Vec<u8>, value: &T) {
    // A vector takes whatever is written; the types have a known shape.
    let _ = bincode::encode_into_std_write(value, to, config());
}

/// Reads the item at the front of `bytes`, and moves on behind it.
pub(super) fn read_item<'a>(bytes: &mut &'a [u8]) -> Result<WireItem<'a>, FrameError> {
    let (tag, rest) = bytes.split_first().ok_or(FrameError::Short)?;
    *bytes = rest;
    Ok(match *tag {
        tag::NAME => {
            let (kind, number) = take(bytes)?;
            let (text, used) = bincode::borrow_decode_from_slice::<&str, _>(bytes, config())?;
            *bytes = &bytes[used..];
            WireItem::Name { kind, number, text }
        }
        tag::COPY4 => WireItem::Copy4(CopyRecord::read(bytes)?),
        tag::COPY6 => WireItem::Copy6(CopyRecord::read(bytes)?),
        tag::END4 => WireItem::End4(block(bytes)?),
        tag::END6 => WireItem::End6(block(bytes)?),
        tag::RESYNC_BEGIN => {
            let (number, view) = take(bytes)?;
            WireItem::ResyncBegin { number, view }
        }
        tag::RESYNC_END => {
            let (number, view) = take(bytes)?;
            WireItem::ResyncEnd { number, view }
        }
        tag::ASK => {
            let (number, count): (_, u32) = take(bytes)?;
            // As many as there are bytes for, whatever the count says.
            let questions = (0..count).map(|_| block(bytes)).collect::<Result<_, _>>()?;
            WireItem::Ask { number, questions }
        }
        tag::ANSWERED => {
            let (shard, number, count) = take(bytes)?;
            WireItem::Answered { shard, number, count }
        }
        other => return Err(FrameError::Item(other)),
    })
}

/// Reads a value at the front of `bytes`, and moves on behind it.
pub(super) fn take<T: Decode<()>>(bytes: &mut &[u8]) -> Result<T, FrameError> {
    let (value, used) = bincode::decode_from_slice(bytes, config())?;
    *bytes = &bytes[used..];
    Ok(value)
}
