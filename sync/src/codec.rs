//! The one place that turns values into bytes and back: bincode, always with a limit.
//!
//! What comes in is hostile: decoding never takes more than its limit, and refuses bytes that are left.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are none of such a value, or above the limit.
    #[error("not a valid message: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// Bytes were left after the value.
    #[error("{0} bytes are left after the message")]
    Left(usize),
}

/// The bytes of a value.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that bincode cannot write (untagged enums, maps
/// of unknown length).
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("every type that is encoded has a known shape")
}

/// The value of these bytes; reads and allocates at most `LIMIT` bytes.
///
/// # Errors
/// Bytes that are none of such a value, or more of them than it takes.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Left(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_or_too_long_is_refused() {
        // Without the check of what is left the second line passes; without the limit the third.
        let bytes = encode(&vec![7_u8; 100]);
        assert_eq!(decode::<Vec<u8>, 1024>(&bytes).unwrap(), vec![7; 100]);
        assert!(matches!(decode::<Vec<u8>, 1024>(&[&bytes[..], &[0]].concat()), Err(CodecError::Left(1))));
        assert!(decode::<Vec<u8>, 64>(&bytes).is_err());
        assert!(decode::<Vec<u8>, 1024>(&bytes[..50]).is_err());
    }
}
