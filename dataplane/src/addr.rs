//! Addresses, ports and tuples: the identity of a flow as the packet path sees it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv4 or IPv6 address in one 128-bit value; IPv4 is held v4-mapped (`::ffff:a.b.c.d`, RFC 4291
/// section 2.5.5.2). A packet that carries a v4-mapped address in an IPv6 header is refused by the
/// parser, so the family can be told from the value.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Addr(pub u128);

const V4_MAPPED: u128 = 0xffff << 32;

impl Addr {
    /// From the four bytes of an IPv4 header field.
    #[inline]
    pub fn from_v4(bytes: [u8; 4]) -> Self {
        Addr(V4_MAPPED | u128::from(u32::from_be_bytes(bytes)))
    }

    /// From the sixteen bytes of an IPv6 header field.
    #[inline]
    pub fn from_v6(bytes: [u8; 16]) -> Self {
        Addr(u128::from_be_bytes(bytes))
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// The IPv4 bytes, if this is an IPv4 address.
    #[inline]
    pub fn to_v4(self) -> Option<[u8; 4]> {
        self.is_v4().then_some((self.0 as u32).to_be_bytes())
    }

    /// The address as the standard library's type.
    pub fn to_ip(self) -> IpAddr {
        match self.to_v4() {
            Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Addr::from_v4(v4.octets()),
            IpAddr::V6(v6) => Addr::from_v6(v6.octets()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Internet protocol numbers that have a meaning of their own here (IANA registry).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// IPsec encapsulating security payload.
    pub const ESP: u8 = 50;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The port that stands on the far side of an ICMP query's tuple. With the identifier on the near
/// side it makes the key hold the direction: a ping from A to B and one from B to A with the same
/// identifier are two sessions, not one.
pub const ICMP_QUERY_PORT: u16 = 0xffff;

/// One direction of a flow, as read from a packet.
///
/// Ports are 0 for protocols without them. An ICMP query (echo, timestamp, ...) has
/// `src_port = identifier, dst_port = ICMP_QUERY_PORT`; its reply has the two the other way round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or 0.
    pub src_port: u16,
    /// Destination port, or 0.
    pub dst_port: u16,
    /// Upper-layer protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The same flow seen from the other end.
    #[inline]
    pub fn reversed(self) -> Self {
        Tuple { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    /// The direction-free key, and whether this tuple runs from the key's low end to its high end.
    #[inline]
    pub fn canonical(self) -> (Key, bool) {
        let forward = (self.src, self.src_port) <= (self.dst, self.dst_port);
        let t = if forward { self } else { self.reversed() };
        (
            Key {
                low: t.src,
                high: t.dst,
                low_port: t.src_port,
                high_port: t.dst_port,
                protocol: t.protocol,
            },
            forward,
        )
    }
}

/// The canonical key of a session: both of its wings have the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Key {
    /// The lower of the two (address, port) ends.
    pub low: Addr,
    /// The higher end.
    pub high: Addr,
    /// Port of the lower end.
    pub low_port: u16,
    /// Port of the higher end.
    pub high_port: u16,
    /// Upper-layer protocol number.
    pub protocol: u8,
}

impl Key {
    /// The tuple that runs from the low end to the high end (`forward`), or back.
    #[inline]
    pub fn tuple(self, forward: bool) -> Tuple {
        let t = Tuple {
            src: self.low,
            dst: self.high,
            src_port: self.low_port,
            dst_port: self.high_port,
            protocol: self.protocol,
        };
        if forward { t } else { t.reversed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> Addr {
        s.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn both_wings_have_one_key_and_keep_their_direction() {
        let t = Tuple { src: addr("10.0.0.9"), dst: addr("10.0.0.1"), src_port: 1, dst_port: 2, protocol: 6 };
        let (k1, f1) = t.canonical();
        let (k2, f2) = t.reversed().canonical();
        assert_eq!(k1, k2);
        assert_ne!(f1, f2);
        assert_eq!(k1.tuple(f1), t);
        assert_eq!(k2.tuple(f2), t.reversed());
    }

    #[test]
    fn families_do_not_mix() {
        assert!(addr("1.2.3.4").is_v4());
        assert!(!addr("::1").is_v4());
        assert_eq!(addr("1.2.3.4").to_ip().to_string(), "1.2.3.4");
    }
}
