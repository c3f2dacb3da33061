//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and the sums that TCP, UDP
//! and ICMPv6 add for their pseudo-header.
//!
//! Every payload byte of every packet passes through [`sum`], so it adds wide: native 64-bit words
//! split into two 32-bit lanes, which the compiler turns into vector adds. One's complement addition
//! does not care for byte order (RFC 1071 section 2B): only the result is turned round.
//!
//! Sums are `u32` values that hold at most a few folded 16-bit sums, so adding some dozens of them
//! never overflows. A sum over anything but zero bytes never folds to 0.

use crate::addr::Addr;

const LOW_LANE: u64 = 0xffff_ffff;

/// One's complement sum of the bytes as big-endian 16-bit words, folded to 16 bits. An odd last byte
/// counts as the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<32>();
    let mut total = if blocks.is_empty() { 0 } else { sum_blocks(blocks) };
    let (words, rest) = tail.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    total += match *rest {
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c] => u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0])),
        _ => 0,
    };
    to_network_order(total)
}

/// The same for the fixed part of an IPv4 header: five words, no loop.
#[inline]
pub fn sum_header(header: &[u8; 20]) -> u32 {
    let (words, _) = header.as_chunks::<4>();
    to_network_order(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum())
}

/// Native sum of whole blocks, folded to some 36 bits.
fn sum_blocks(blocks: &[[u8; 32]]) -> u64 {
    let mut even = [0u64; 4];
    let mut odd = [0u64; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (i, word) in words.iter().enumerate() {
            let word = u64::from_ne_bytes(*word);
            even[i] += word & LOW_LANE;
            odd[i] += word >> 32;
        }
    }
    even.iter().chain(&odd).map(|lane| fold64(*lane)).sum()
}

/// Folds a native sum to 16 bits and turns it round.
#[inline]
fn to_network_order(total: u64) -> u32 {
    let total = fold64(total);
    let folded = fold((total & 0xffff) as u32 + (total >> 16) as u32);
    u32::from(u16::from_be(folded))
}

/// Folds a 64-bit sum to at most 33 bits, the value modulo 0xffff unchanged.
#[inline]
fn fold64(lane: u64) -> u64 {
    (lane & LOW_LANE) + (lane >> 32)
}

/// Folds the carries of a sum into its low 16 bits.
#[inline]
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    twice as u16
}

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) of an upper-layer packet of
/// `len` bytes.
#[inline]
pub fn pseudo_header(src: Addr, dst: Addr, protocol: u8, len: u32) -> u32 {
    addr_sum(src) + addr_sum(dst) + u32::from(protocol) + (len & 0xffff) + (len >> 16)
}

#[inline]
fn addr_sum(addr: Addr) -> u32 {
    match addr.to_v4() {
        Some([a, b, c, d]) => u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d])),
        None => {
            let bits = addr.0;
            let half = (bits >> 64) as u64;
            let pairs = fold64(half) + fold64(bits as u64);
            let pairs = (pairs & 0xffff) + ((pairs >> 16) & 0xffff) + (pairs >> 32);
            u32::from(fold(pairs as u32))
        }
    }
}

/// The checksum field over bytes and sums that count the field itself as 0.
#[inline]
pub fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum field after one 16-bit word that it covers changed from `old` to `new` (RFC 1624,
/// equation 3).
#[inline]
pub fn update(field: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!field) + u32::from(!old) + u32::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as it is written: one 16-bit word after the other.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0u64;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    proptest! {
        // Red when a lane, a tail length or a carry is lost.
        #[test]
        fn rfc1071_wide_sum_equals_the_plain_one(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(fold(sum(&bytes)), plain(&bytes));
            if let Some(header) = bytes.first_chunk::<20>() {
                prop_assert_eq!(fold(sum_header(header)), plain(header));
            }
        }

        // Red when `update` uses equation 2 of RFC 1624, or forgets a complement.
        #[test]
        fn rfc1624_update_equals_a_new_sum(mut words in prop::array::uniform20(any::<u8>()), new: [u8; 2]) {
            // A header is never all zero.
            words[0] |= 1;
            let before = finish(sum(&words));
            let old = [words[8], words[9]];
            words[8..10].copy_from_slice(&new);
            let updated = update(before, u16::from_be_bytes(old), u16::from_be_bytes(new));
            prop_assert_eq!(updated, finish(sum(&words)));
        }

        // Red when the address sum loses a carry or a half.
        #[test]
        fn pseudo_header_equals_its_bytes(src: u128, dst: u128, protocol: u8, len in 0u32..70_000, v4: bool) {
            let (src, dst) = if v4 {
                (Addr::from_v4((src as u32).to_be_bytes()), Addr::from_v4((dst as u32).to_be_bytes()))
            } else {
                (Addr(src), Addr(dst))
            };
            prop_assume!(src.is_v4() == v4 && dst.is_v4() == v4);
            let mut bytes = Vec::new();
            for addr in [src, dst] {
                match addr.to_v4() {
                    Some(b) => bytes.extend(b),
                    None => bytes.extend(addr.0.to_be_bytes()),
                }
            }
            bytes.extend(len.to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            prop_assert_eq!(fold(pseudo_header(src, dst, protocol, len)), plain(&bytes));
        }
    }

    #[test]
    fn rfc1071_extremes() {
        assert_eq!(fold(sum(&[])), 0);
        assert_eq!(fold(sum(&[0; 64])), 0);
        assert_eq!(fold(sum(&[0xff; 65_535])), plain(&[0xff; 65_535]));
    }
}
