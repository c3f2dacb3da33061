//! The text of a join token.

use super::ids::TokenId;
use super::state::Role;
use crate::codec;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;

const PREFIX: &str = "tidegate-join-1-";
/// Longest token in bytes before it becomes text.
const LIMIT: usize = 1_024;

/// What a joining node is given: whom to ask, how to know that it is the right cluster, and a secret
/// that is good once. Whoever has it can join: hand it over as one hands over a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the CA certificate (DER): checked before the secret is shown.
    pub ca_sha256: [u8; 32],
    /// Its public part.
    pub token: TokenId,
    /// Its secret part.
    pub secret: [u8; 16],
    /// What may join with it.
    pub role: Role,
    /// Members to ask, in this order.
    pub addresses: Vec<SocketAddr>,
}

/// Why a text is no join token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error("not a join token: it begins with `{PREFIX}`; `tidegate cluster token create` prints one")]
    Prefix,
    /// It was cut or mistyped.
    #[error(
        "the join token is damaged: copy it whole, or create a new one with `tidegate cluster token create`"
    )]
    Damaged,
}

impl JoinToken {
    /// SHA-256 of the secret: what the cluster knows of it.
    pub fn secret_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// The text is none, or was damaged on its way: a checksum is part of it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?.to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if *sum != checksum(body) {
            return Err(TokenError::Damaged);
        }
        codec::decode::<JoinToken, LIMIT>(body).map_err(|_| TokenError::Damaged)
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = Sha256::digest(bytes);
    [sum[0], sum[1], sum[2], sum[3]]
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

/// Without the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("token", &self.token).field("addresses", &self.addresses).finish()
    }
}
