//! Which interface a port is, and what the rest needs to know of it.
//!
//! A container's interfaces are not named in the order of its configuration, so a port is selected
//! by name, by one of its addresses, or by the prefix that an address of it lies in.

use crate::area::HEADROOM;
use crate::error::PortError;
use crate::netlink::{self, Link};
use crate::sys;
use ipnet::IpNet;
use std::net::IpAddr;
use std::str::FromStr;
use tidegate_dataplane::route::PortId;

/// How the configuration names a port's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSelector {
    /// By name.
    Name(String),
    /// By an address of it.
    Address(IpAddr),
    /// By a prefix that exactly one interface has an address in.
    Prefix(IpNet),
}

impl FromStr for PortSelector {
    type Err = std::convert::Infallible;

    /// `10.0.0.1`, `10.0.0.0/24`, or a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if let Ok(address) = text.parse() {
            PortSelector::Address(address)
        } else if let Ok(prefix) = text.parse() {
            PortSelector::Prefix(prefix)
        } else {
            PortSelector::Name(text.into())
        })
    }
}

impl std::fmt::Display for PortSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortSelector::Name(name) => f.write_str(name),
            PortSelector::Address(address) => write!(f, "with address {address}"),
            PortSelector::Prefix(prefix) => write!(f, "with an address in {prefix}"),
        }
    }
}

/// Whether frames of a port may carry partial checksums (a local stack's, which leaves the sum to
/// hardware that a veth does not have).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartialChecksums {
    /// On virtual interfaces whose peer is a local stack (veth, tun/tap, virtio), off on others.
    #[default]
    Auto,
    /// As told.
    Set(bool),
}

impl PartialChecksums {
    /// What holds for a port.
    pub fn resolve(self, info: &PortInfo) -> bool {
        match self {
            PartialChecksums::Set(value) => value,
            PartialChecksums::Auto => info.local_peer,
        }
    }
}

/// A port, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number.
    pub id: PortId,
    /// Its interface.
    pub selector: PortSelector,
}

/// An interface that can be a port, as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Kernel's number; a new one when the interface is made again.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// `veth`, ...; `None` for hardware.
    pub kind: Option<String>,
    /// The other end may be a stack on this machine, which sends partial checksums.
    pub local_peer: bool,
}

impl PortInfo {
    /// Finds a port's interface in this network namespace.
    pub fn find(selector: &PortSelector) -> Result<PortInfo, PortError> {
        let links = netlink::links()
            .map_err(|source| PortError::Kernel { what: "cannot list interfaces".into(), source })?;
        let chosen: Vec<Link> = match selector {
            PortSelector::Name(name) => links.into_iter().filter(|l| l.name == *name).collect(),
            PortSelector::Address(_) | PortSelector::Prefix(_) => {
                let addresses = netlink::addresses()
                    .map_err(|source| PortError::Kernel { what: "cannot list addresses".into(), source })?;
                let fits = |ip: &IpAddr| match selector {
                    PortSelector::Address(wanted) => ip == wanted,
                    PortSelector::Prefix(prefix) => prefix.contains(ip),
                    PortSelector::Name(_) => false,
                };
                let on = |l: &Link| addresses.iter().any(|(index, ip)| *index == l.ifindex && fits(ip));
                links.into_iter().filter(|l| !l.loopback && on(l)).collect()
            }
        };
        match <[Link; 1]>::try_from(chosen) {
            Ok([link]) => PortInfo::of(link),
            Err(none) if none.is_empty() => Err(PortError::NotFound { selector: selector.to_string() }),
            Err(several) => Err(PortError::Ambiguous {
                selector: selector.to_string(),
                names: several.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn of(link: Link) -> Result<PortInfo, PortError> {
        let unsuitable = |what| PortError::Unsuitable { name: link.name.clone(), what };
        if link.loopback {
            return Err(unsuitable("the loopback interface"));
        }
        if !link.ethernet {
            return Err(unsuitable("no Ethernet interface"));
        }
        let mac = link.mac.ok_or_else(|| unsuitable("without a MAC address"))?;
        let (rx_queues, tx_queues) = sys::channels(&link.name).unwrap_or_else(|| {
            let n = link.num_rx_queues.max(1);
            (n, n)
        });
        let virtio = std::fs::read_link(format!("/sys/class/net/{}/device/driver", link.name))
            .is_ok_and(|driver| driver.ends_with("virtio_net"));
        let local_peer = virtio || matches!(link.kind.as_deref(), Some("veth" | "tun"));
        Ok(PortInfo {
            ifindex: link.ifindex,
            mac,
            mtu: link.mtu,
            up: link.up,
            rx_queues: rx_queues.max(1),
            tx_queues: tx_queues.max(1),
            kind: link.kind,
            local_peer,
            name: link.name,
        })
    }

    /// Whether its largest packet fits into a frame.
    pub(crate) fn check_mtu(&self, frame_bytes: u32) -> Result<(), PortError> {
        let fits = frame_bytes - HEADROOM as u32 - 14;
        if self.mtu <= fits {
            return Ok(());
        }
        Err(PortError::MtuTooLarge { name: self.name.clone(), mtu: self.mtu, frame_bytes, fits })
    }
}

/// Every address of this network namespace: what the XDP program passes to the kernel.
pub fn local_addresses() -> Result<std::collections::BTreeSet<IpAddr>, PortError> {
    let all = netlink::addresses()
        .map_err(|source| PortError::Kernel { what: "cannot list addresses".into(), source })?;
    Ok(all.into_iter().map(|(_, ip)| ip).filter(|ip| !ip.is_loopback()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Red when a prefix or an address is taken for a name, or the other way round.
    #[test]
    fn selectors_are_told_apart() {
        let of = |text: &str| text.parse::<PortSelector>().unwrap();
        assert_eq!(of("eth0"), PortSelector::Name("eth0".into()));
        assert_eq!(of("10.0.0.1"), PortSelector::Address("10.0.0.1".parse().unwrap()));
        assert_eq!(of("fd00::/64"), PortSelector::Prefix("fd00::/64".parse().unwrap()));
    }

    // Red when the loopback is taken for a port, or a missing interface is not said by its selector.
    #[test]
    fn unusable_interfaces_are_refused_by_name() {
        let e = PortInfo::find(&PortSelector::Name("lo".into())).unwrap_err();
        assert!(e.to_string().contains("loopback"), "{e}");
        let e = PortInfo::find(&PortSelector::Prefix("203.0.113.0/24".parse().unwrap())).unwrap_err();
        assert!(e.to_string().contains("203.0.113.0/24"), "{e}");
    }

    // Red when a packet could be larger than a frame: the kernel would drop it without a word.
    #[test]
    fn an_mtu_beyond_a_frame_is_refused() {
        let info = PortInfo {
            ifindex: 1,
            name: "x".into(),
            mac: [2; 6],
            mtu: 1779,
            up: true,
            rx_queues: 1,
            tx_queues: 1,
            kind: None,
            local_peer: false,
        };
        assert!(info.check_mtu(2048).is_err());
        assert!(info.check_mtu(4096).is_ok());
        assert!(PortInfo { mtu: 1778, ..info }.check_mtu(2048).is_ok());
    }
}
