//! The link layer: Ethernet II, 802.1Q and QinQ.

use crate::drops::DropReason;

/// Length of an Ethernet header without tags.
pub(super) const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// A provider and a customer tag: more is not QinQ.
const VLAN_TAGS_MAX: usize = 2;
const VLAN_TAG_LEN: usize = 4;

/// What the link layer says about a frame.
pub(super) struct Link {
    pub(super) l3: usize,
    pub(super) v4: bool,
    pub(super) vlan: bool,
}

/// Whether an EtherType announces a VLAN tag: 802.1Q, 802.1ad, and its older number.
fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// Reads the Ethernet header and up to two VLAN tags. A group address (multicast, broadcast) is no
/// transit; whether a unicast address is ours is the engine's question.
#[inline]
pub(super) fn parse(frame: &[u8]) -> Result<Link, DropReason> {
    let header = frame.first_chunk::<HEADER_LEN>().ok_or(DropReason::EthernetTruncated)?;
    if header[0] & 1 != 0 {
        return Err(DropReason::NotForUs);
    }
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut l3 = HEADER_LEN;
    let mut tags = 0;
    while is_vlan(ethertype) {
        let tag = frame
            .get(l3..)
            .and_then(|rest| rest.first_chunk::<VLAN_TAG_LEN>())
            .filter(|_| tags < VLAN_TAGS_MAX)
            .ok_or(DropReason::VlanMalformed)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        l3 += VLAN_TAG_LEN;
        tags += 1;
    }
    let v4 = match ethertype {
        ETHERTYPE_IPV4 => true,
        ETHERTYPE_IPV6 => false,
        _ => return Err(DropReason::UnknownEtherType),
    };
    Ok(Link { l3, v4, vlan: tags > 0 })
}
