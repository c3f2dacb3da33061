//! Questions between members: one bidirectional stream each.

use super::frame::{FrameError, Kind, read_body, read_message, write_message};
use super::hello::printable;
use crate::cluster::NodeReport;
use quinn::Connection;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate_sync::cluster::{NodeId, Outcome, Proposal};
use tidegate_sync::codec;

/// A question to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Put this into the log, and say what became of it. Only the leader does.
    Propose(Proposal),
    /// Say when your engines enforce this revision, or a newer one.
    WaitEnforced {
        /// Which revision.
        revision: u32,
        /// SHA-256 of its text.
        sha256: [u8; 32],
        /// How long to wait for it.
        timeout_ms: u64,
    },
    /// Say how you are.
    Report,
    /// Take a new key and certificate.
    Rotate {
        /// Who asked for it.
        by: String,
        /// How long that may take.
        timeout_ms: u64,
    },
    /// Sign a certificate for the asking member.
    Sign {
        /// The request, DER.
        csr: Vec<u8>,
    },
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It was applied.
    Outcome(Outcome),
    /// Ask that one. The proposal was not taken.
    NotLeader(Option<NodeId>),
    /// Ask again in a moment. The proposal was not taken.
    Busy,
    /// It cannot be done, whoever is asked. Nothing was taken.
    Invalid(String),
    /// The proposal was taken, but its answer did not come in time.
    Lost,
    /// Whether it is enforced; otherwise what is.
    Enforced(Result<(), String>),
    /// How the member is.
    Report(NodeReport),
    /// End of the new certificate, Unix time in seconds.
    Rotated(Result<u64, String>),
    /// The new certificate, DER.
    Signed(Result<Vec<u8>, String>),
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It may have been asked.
    #[error("{0}")]
    Broken(String),
    /// It may have been asked.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Asks, and waits for the answer.
pub(crate) async fn call(
    connection: &Connection,
    request: &Request,
    timeout: Duration,
) -> Result<Answer, CallError> {
    match tokio::time::timeout(timeout, exchange(connection, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::Broken(error.to_string())),
        Err(_) => Err(CallError::TimedOut(timeout)),
    }
}

async fn exchange(connection: &Connection, request: &Request) -> Result<Answer, FrameError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(quinn::ReadError::from)?;
    write_message(&mut send, Kind::Request, &codec::encode(request)).await?;
    let _ = send.finish();
    let body = read_message(&mut receive, Kind::Answer).await?;
    let answer = codec::decode::<Answer, { 64 << 10 }>(&body)?;
    Ok(answer.printable())
}

impl Answer {
    /// A peer's words go into messages and logs.
    fn printable(self) -> Self {
        let fit = |text: String| printable(&text, 400);
        match self {
            Answer::Invalid(text) => Answer::Invalid(fit(text)),
            Answer::Enforced(Err(text)) => Answer::Enforced(Err(fit(text))),
            Answer::Rotated(Err(text)) => Answer::Rotated(Err(fit(text))),
            Answer::Signed(Err(text)) => Answer::Signed(Err(fit(text))),
            Answer::Report(mut report) => {
                report.build = printable(&report.build, super::hello::BUILD_LONGEST);
                Answer::Report(report)
            }
            other => other,
        }
    }
}

/// Reads a question whose envelope was read.
pub(crate) async fn read_request(
    stream: &mut quinn::RecvStream,
    length: usize,
) -> Result<Request, FrameError> {
    let body = read_body(stream, length).await?;
    Ok(codec::decode::<Request, { (8 << 20) + (64 << 10) }>(&body)?)
}

/// Writes its answer.
pub(crate) async fn write_answer(stream: &mut quinn::SendStream, answer: &Answer) -> Result<(), FrameError> {
    write_message(stream, Kind::Answer, &codec::encode(answer)).await?;
    let _ = stream.finish();
    Ok(())
}
