//! What two nodes tell each other of themselves when a connection for session records begins, right after the hello.

use super::wiring::STREAMS_MAX;
use crate::quic::frame::{FrameError, read_body};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tidegate_sync::codec;

/// Longest greeting.
const LONGEST: usize = 1_024;
/// Most addresses for heartbeats: as many as a member has.
pub(super) const ADDRESSES_MAX: usize = 8;

/// How a node replicates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// Boot number of its engines.
    pub(crate) boot: u32,
    /// Streams that it sends on: its workers.
    pub(crate) streams: u16,
    /// How long it has been up.
    pub(crate) uptime_ms: u64,
    /// Where it takes heartbeats.
    pub(crate) heartbeats: Vec<SocketAddr>,
}

/// Why a greeting was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a greeting of {0} bytes; at most {LONGEST} are taken")]
    TooLong(usize),
    #[error("a greeting with {0} streams; a node has 1 to {STREAMS_MAX}")]
    Streams(u16),
    #[error("a greeting with addresses that cannot be reached")]
    Addresses,
}

impl GreetingError {
    /// Whether the peer broke the rules, rather than that the connection ended.
    pub(crate) fn is_violation(&self) -> bool {
        !matches!(self, GreetingError::Frame(error) if !error.is_violation())
    }
}

impl Greeting {
    pub(crate) async fn write(&self, stream: &mut SendStream) -> Result<(), GreetingError> {
        let body = codec::encode(self);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let bytes = [&length.to_le_bytes()[..], &body].concat();
        stream.write_all(&bytes).await.map_err(FrameError::from)?;
        Ok(())
    }

    pub(crate) async fn read(stream: &mut RecvStream) -> Result<Greeting, GreetingError> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.map_err(FrameError::from)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(GreetingError::TooLong(length));
        }
        let body = read_body(stream, length).await?;
        codec::decode::<Greeting, LONGEST>(&body).map_err(FrameError::from)?.check()
    }

    fn check(self) -> Result<Greeting, GreetingError> {
        if !(1..=STREAMS_MAX).contains(&self.streams) {
            return Err(GreetingError::Streams(self.streams));
        }
        let bad = |a: &SocketAddr| a.ip().is_unspecified() || a.ip().is_multicast() || a.port() == 0;
        let count = self.heartbeats.len();
        match count == 0 || count > ADDRESSES_MAX || self.heartbeats.iter().any(bad) {
            true => Err(GreetingError::Addresses),
            false => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_greetings_are_refused() {
        let good =
            Greeting { boot: 1, streams: 2, uptime_ms: 3, heartbeats: vec!["127.0.0.1:4".parse().unwrap()] };
        assert_eq!(good.clone().check().unwrap(), good);
        let streams = |streams| Greeting { streams, ..good.clone() }.check();
        assert!(matches!(streams(0), Err(GreetingError::Streams(0))));
        assert!(matches!(streams(65), Err(GreetingError::Streams(65))));
        let at = |list: Vec<&str>| {
            let heartbeats = list.iter().map(|a| a.parse().unwrap()).collect();
            Greeting { heartbeats, ..good.clone() }.check()
        };
        for list in [vec![], vec!["0.0.0.0:1"], vec!["224.0.0.1:1"], vec!["127.0.0.1:0"], vec!["[::1]:1"; 9]]
        {
            assert!(matches!(at(list.clone()), Err(GreetingError::Addresses)), "{list:?}");
        }
    }
}
