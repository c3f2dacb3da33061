//! Framing: an envelope (version, kind, length) before each message, and lengths before those of a Raft
//! stream. What comes in is hostile: nothing is allocated because a peer announced it, and every length has
//! a limit.

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};

/// The envelope's version. The hello negotiates everything else; this one says how to read an envelope.
const ENVELOPE: u8 = 1;
/// Bytes of an envelope.
const HEADER: usize = 6;

/// What a message, or a stream, is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The first message of a connection between members.
    Hello,
    /// Its answer.
    HelloAnswer,
    /// A question to a member.
    Request,
    /// Its answer.
    Answer,
    /// Raft messages follow, each with its length.
    Raft,
    /// One long Raft message: a snapshot, or a long entry.
    Bulk,
    /// A join request.
    Join,
    /// Its answer.
    JoinAnswer,
    /// A request from daemon to daemon.
    Ask,
    /// How its answer begins; the rest follows as it is made.
    Reply,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Hello,
        Kind::HelloAnswer,
        Kind::Request,
        Kind::Answer,
        Kind::Raft,
        Kind::Bulk,
        Kind::Join,
        Kind::JoinAnswer,
        Kind::Ask,
        Kind::Reply,
    ];

    fn number(self) -> u8 {
        // Numbers on the wire begin at 1 and never change their meaning.
        Kind::ALL.iter().position(|kind| *kind == self).map_or(0, |at| at as u8 + 1)
    }

    fn of(number: u8) -> Option<Self> {
        Kind::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Longest message, in bytes.
    pub(crate) fn limit(self) -> usize {
        match self {
            Kind::Hello => 4 << 10,
            // With the members.
            Kind::HelloAnswer => 256 << 10,
            // A policy of the greatest length, and what is around it.
            Kind::Request => (8 << 20) + (64 << 10),
            Kind::Answer => 64 << 10,
            // The stream's header only.
            Kind::Raft => 0,
            Kind::Bulk => 256 << 20,
            Kind::Join => 64 << 10,
            Kind::JoinAnswer => 512 << 10,
            Kind::Ask => 128 << 10,
            Kind::Reply => 16,
        }
    }
}

/// Longest Raft message on the shared stream; a longer one gets a stream of its own, so that no heartbeat
/// waits behind it.
pub(crate) const RAFT_LONGEST: usize = 64 << 10;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("envelope version {0} is not known")]
    Version(u8),
    #[error("message kind {0} is not known")]
    Kind(u8),
    #[error("a message of kind {got:?} where {wanted:?} belongs")]
    Unexpected { got: Kind, wanted: Kind },
    #[error("{bytes} bytes announced; at most {limit} are taken")]
    TooLong { bytes: usize, limit: usize },
    #[error("the stream ended within a message")]
    Short,
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("{0}")]
    Codec(#[from] tidegate_sync::codec::CodecError),
}

impl FrameError {
    /// Whether the peer broke the rules, rather than that the connection ended.
    pub(crate) fn is_violation(&self) -> bool {
        !matches!(self, FrameError::Read(_) | FrameError::Write(_) | FrameError::Short)
    }
}

impl From<ReadExactError> for FrameError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => FrameError::Short,
            ReadExactError::ReadError(error) => FrameError::Read(error),
        }
    }
}

/// One message as bytes: envelope and body.
pub(crate) fn envelope(kind: Kind, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    if body.len() > kind.limit() {
        return Err(FrameError::TooLong { bytes: body.len(), limit: kind.limit() });
    }
    let mut bytes = header(kind, body.len()).to_vec();
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// An envelope alone, for a body that is written after it.
pub(crate) fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [ENVELOPE, kind.number(), length[0], length[1], length[2], length[3]]
}

fn parse_header(header: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let [version, kind, length @ ..] = header;
    if version != ENVELOPE {
        return Err(FrameError::Version(version));
    }
    let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
    let (bytes, limit) = (u32::from_le_bytes(length) as usize, kind.limit());
    match bytes <= limit {
        true => Ok((kind, bytes)),
        false => Err(FrameError::TooLong { bytes, limit }),
    }
}

/// Reads an envelope: what follows, and its length, which is within the kind's limit.
pub(crate) async fn read_header(stream: &mut RecvStream) -> Result<(Kind, usize), FrameError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    parse_header(header)
}

/// Reads a message of that kind; another kind is refused.
pub(crate) async fn read_message(stream: &mut RecvStream, wanted: Kind) -> Result<Bytes, FrameError> {
    let (got, length) = read_header(stream).await?;
    if got != wanted {
        return Err(FrameError::Unexpected { got, wanted });
    }
    read_body(stream, length).await
}

/// Reads so many bytes; takes memory only as they come.
pub(crate) async fn read_body(stream: &mut RecvStream, length: usize) -> Result<Bytes, FrameError> {
    let mut body = BytesMut::new();
    while body.len() < length {
        match stream.read_chunk(length - body.len(), true).await? {
            Some(chunk) => body.extend_from_slice(&chunk.bytes),
            None => return Err(FrameError::Short),
        }
    }
    Ok(body.freeze())
}

/// Reads the next message of a Raft stream; `None` when the peer ended it in between.
pub(crate) async fn read_raft(stream: &mut RecvStream) -> Result<Option<Bytes>, FrameError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let bytes = u32::from_le_bytes(length) as usize;
    match bytes <= RAFT_LONGEST {
        true => read_body(stream, bytes).await.map(Some),
        false => Err(FrameError::TooLong { bytes, limit: RAFT_LONGEST }),
    }
}

/// Appends a message for a Raft stream.
pub(crate) fn put_raft(batch: &mut Vec<u8>, message: &[u8]) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    batch.extend_from_slice(&length.to_le_bytes());
    batch.extend_from_slice(message);
}

/// Writes one message.
pub(crate) async fn write_message(
    stream: &mut SendStream,
    kind: Kind,
    body: &[u8],
) -> Result<(), FrameError> {
    stream.write_all(&envelope(kind, body)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_read_as_written_and_others_refused() {
        // Red without the checks of version, kind and limit in `parse_header`.
        for kind in Kind::ALL {
            assert!(matches!(parse_header(header(kind, 0)), Ok((k, 0)) if k == kind), "{kind:?}");
            let above = parse_header(header(kind, kind.limit() + 1));
            assert!(matches!(above, Err(FrameError::TooLong { .. })), "{kind:?}");
        }
        assert!(matches!(parse_header([2, 1, 0, 0, 0, 0]), Err(FrameError::Version(2))));
        assert!(matches!(parse_header([1, 0, 0, 0, 0, 0]), Err(FrameError::Kind(0))));
        assert!(matches!(parse_header([1, 99, 0, 0, 0, 0]), Err(FrameError::Kind(99))));
        assert!(matches!(envelope(Kind::Hello, &[0; 5_000]), Err(FrameError::TooLong { .. })));
    }
}
