//! Identities: of clusters, nodes, stores, requests and join tokens.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A node's number in its cluster, from 1; also its Raft id. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl $name {
            /// Reads what `Display` writes: hexadecimal digits.
            pub fn parse(text: &str) -> Option<Self> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
                Some($name(bytes.try_into().ok()?))
            }
        }
    };
}

random_id!(
    /// A cluster, for its whole life: drawn at random when it is founded.
    ClusterId,
    16
);
random_id!(
    /// One Raft store. A node that comes back with another store is not the one that joined.
    StoreId,
    16
);
random_id!(
    /// One proposal, so that it takes effect once however often it is sent.
    RequestId,
    16
);
random_id!(
    /// A join token's public part.
    TokenId,
    8
);
