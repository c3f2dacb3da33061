//! The keyed hash of a flow: SipHash-1-3 over its canonical key.
//!
//! Tuples are chosen by attackers. With an unkeyed or merely mixing hash they could fill one bucket
//! or flood one worker; SipHash with a key that is random per boot gives them nothing to aim at,
//! and is what hash tables have used against flooding since 2012 (Aumasson and Bernstein,
//! "SipHash: a fast short-input PRF").

use crate::addr::Key;
use siphasher::sip::SipHasher13;

/// Hashes canonical keys; the index and the steering between workers share one.
#[derive(Clone, Copy, Debug)]
pub struct TupleHasher {
    sip: SipHasher13,
}

/// Length of a hashed IPv4 key; differs from [`V6_BYTES`], and SipHash mixes the length in, so the
/// families cannot collide by construction.
const V4_BYTES: usize = 13;
const V6_BYTES: usize = 37;

impl TupleHasher {
    /// A hasher under that key, which must be random for each boot.
    pub fn new(hash_key: [u64; 2]) -> Self {
        TupleHasher { sip: SipHasher13::new_with_keys(hash_key[0], hash_key[1]) }
    }

    /// The keyed hash of a flow, the same for both of its wings. All 64 bits are good.
    #[inline]
    pub fn hash(&self, key: &Key) -> u64 {
        if key.low.is_v4() & key.high.is_v4() {
            let mut bytes = [0; V4_BYTES];
            bytes[0..4].copy_from_slice(&(key.low.0 as u32).to_le_bytes());
            bytes[4..8].copy_from_slice(&(key.high.0 as u32).to_le_bytes());
            bytes[8..10].copy_from_slice(&key.low_port.to_le_bytes());
            bytes[10..12].copy_from_slice(&key.high_port.to_le_bytes());
            bytes[12] = key.protocol;
            self.sip.hash(&bytes)
        } else {
            let mut bytes = [0; V6_BYTES];
            bytes[0..16].copy_from_slice(&key.low.0.to_le_bytes());
            bytes[16..32].copy_from_slice(&key.high.0.to_le_bytes());
            bytes[32..34].copy_from_slice(&key.low_port.to_le_bytes());
            bytes[34..36].copy_from_slice(&key.high_port.to_le_bytes());
            bytes[36] = key.protocol;
            self.sip.hash(&bytes)
        }
    }

    /// Hashes a batch: `hashes[i]` becomes the hash of `keys[i]`. The hashes do not wait for each
    /// other, so the processor works on several at once.
    #[inline]
    pub fn hash_batch(&self, keys: &[Key], hashes: &mut [u64]) {
        for (key, hash) in keys.iter().zip(hashes) {
            *hash = self.hash(key);
        }
    }

    /// Which of `shards` workers owns a flow. Mixed anew, so that the flows of one shard still
    /// spread over all buckets of its table.
    #[inline]
    pub fn shard(hash: u64, shards: u16) -> u16 {
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((mixed * u64::from(shards)) >> 32) as u16
    }
}
