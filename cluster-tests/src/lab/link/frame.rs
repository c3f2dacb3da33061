//! Ethernet frames, as far as a switch that makes trouble looks into them.

use super::switch::Chance;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;
const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;

/// The sender's address.
pub(super) fn source(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(6..12)?.try_into().ok()
}

/// The receiver's address, unless the frame is for many.
pub(super) fn destination(frame: &[u8]) -> Option<[u8; 6]> {
    let mac: [u8; 6] = frame.get(0..6)?.try_into().ok()?;
    (mac[0] & 1 == 0).then_some(mac)
}

/// Changes one bit behind the IP header. In UDP it is one of the payload, and the checksum is made right again; other
/// protocols' receivers find out by theirs. Returns whether it did: not in frames of other kinds.
pub(super) fn corrupt(frame: &mut [u8], chance: &mut Chance) -> bool {
    let Some((at, is_udp)) = transport(frame) else { return false };
    if is_udp {
        return frame.get_mut(at..).is_some_and(|udp| corrupt_udp(udp, chance));
    }
    match frame.len().saturating_sub(at) {
        0 => false,
        length => {
            frame[at + chance.below(length)] ^= chance.bit();
            true
        }
    }
}

/// Where the IP payload begins, and whether it is a whole UDP datagram.
fn transport(frame: &[u8]) -> Option<(usize, bool)> {
    let ip = frame.get(ETHERNET_BYTES..)?;
    let kind: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
    match kind {
        IPV4 => {
            let header = usize::from(ip.first()? & 15) * 4;
            let is_whole = ip.get(6)? & 0x3f == 0 && *ip.get(7)? == 0;
            Some((ETHERNET_BYTES + header, *ip.get(9)? == UDP && is_whole))
        }
        IPV6 => Some((ETHERNET_BYTES + 40, *ip.get(6)? == UDP)),
        _ => None,
    }
}

fn corrupt_udp(udp: &mut [u8], chance: &mut Chance) -> bool {
    let Some(head) = udp.first_chunk::<UDP_BYTES>() else { return false };
    let length = usize::from(u16::from_be_bytes([head[4], head[5]])).min(udp.len());
    let sum = u16::from_be_bytes([head[6], head[7]]);
    let Some(payload @ 1..) = length.checked_sub(UDP_BYTES) else { return false };
    let at = UDP_BYTES + chance.below(payload);
    let word = at & !1;
    let before = word_at(udp, word, length);
    udp[at] ^= chance.bit();
    if sum != 0 {
        // RFC 1624 equation 3. Zero would say that there is no checksum.
        let sum = fold(u32::from(!sum) + u32::from(!before) + u32::from(word_at(udp, word, length)));
        let sum = if sum == 0xffff { 0xffff } else { !sum };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// A word of the datagram, as its checksum reads it: the last byte of an odd length is followed by a zero.
fn word_at(udp: &[u8], at: usize, length: usize) -> u16 {
    u16::from_be_bytes([udp[at], if at + 1 < length { udp[at + 1] } else { 0 }])
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match v6 {
            false => ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            true => ethernet.ipv6([1; 16], [2; 16], 64),
        };
        let mut frame = Vec::new();
        ip.udp(7, 9).write(&mut frame, payload).unwrap();
        frame
    }

    /// Red when a changed datagram differs elsewhere than in one bit of its payload and its checksum, or when the
    /// receiver's kernel would drop it.
    #[test]
    fn a_corrupted_datagram_differs_in_one_bit_and_has_a_right_checksum() {
        let mut chance = Chance::new(1);
        for (v6, length) in (1..40).flat_map(|length| [(false, length), (true, length)]) {
            let before = datagram(v6, &vec![0xa7; length]);
            let mut after = before.clone();
            assert!(corrupt(&mut after, &mut chance));
            let payload = before.len() - length;
            let bits = |range: std::ops::Range<usize>| -> u32 {
                before[range.clone()].iter().zip(&after[range]).map(|(a, b)| (a ^ b).count_ones()).sum()
            };
            assert_eq!((bits(0..payload - 2), bits(payload..before.len())), (0, 1));
            let packet = SlicedPacket::from_ethernet(&after).unwrap();
            let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("UDP") };
            let right = match packet.net.as_ref().unwrap() {
                etherparse::NetSlice::Ipv4(ip) => udp.to_header().calc_checksum_ipv4_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                etherparse::NetSlice::Ipv6(ip) => udp.to_header().calc_checksum_ipv6_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                etherparse::NetSlice::Arp(_) => panic!("IP"),
            };
            assert_eq!(udp.checksum(), right.unwrap(), "{length}");
        }
    }

    /// Red when a neighbour could be learned wrong, or a cut-off frame makes it panic.
    #[test]
    fn what_is_not_ip_or_is_cut_off_stays_as_it_is() {
        let mut chance = Chance::new(1);
        let arp = [[0xff; 6].as_slice(), &[4; 6], &[8, 6], &[1; 28]].concat();
        let mut same = arp.clone();
        assert!(!corrupt(&mut same, &mut chance));
        assert_eq!(same, arp);
        let whole = datagram(false, &[1; 9]);
        for length in 0..whole.len() {
            corrupt(&mut whole[..length].to_vec(), &mut chance);
        }
    }
}
