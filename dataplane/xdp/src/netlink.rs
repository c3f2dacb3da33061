//! The few questions to the kernel's routing socket that opening a port needs, asked synchronously:
//! which interfaces there are, what XDP program one has, and setting it.
//!
//! A program attached this way belongs to the device, not to a file descriptor of ours: it outlives
//! the process. (aya attaches by a bpf_link, which does not.)

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How a program is attached: by the driver, or by the generic path that every device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver (`XDP_FLAGS_DRV_MODE`): fast.
    Driver,
    /// After the kernel has built its own packet (`XDP_FLAGS_SKB_MODE`): for drivers without XDP.
    Generic,
}

impl XdpMode {
    fn flags(self) -> u32 {
        match self {
            XdpMode::Driver => 1 << 2,
            XdpMode::Generic => 1 << 1,
        }
    }
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Kernel's number of the program.
    pub(crate) id: u32,
    /// Where; `None` for hardware, or several at once.
    pub(crate) mode: Option<XdpMode>,
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) ethernet: bool,
    pub(crate) loopback: bool,
    pub(crate) kind: Option<String>,
    pub(crate) num_rx_queues: u32,
    pub(crate) xdp: Option<Attached>,
}

/// Every interface of this network namespace.
pub(crate) fn links() -> io::Result<Vec<Link>> {
    let answers = request(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|m| match m {
            Message::NewLink(link) => Some(describe(&link)),
            _ => None,
        })
        .collect())
}

/// One interface, if it exists.
pub(crate) fn link(ifindex: u32) -> io::Result<Option<Link>> {
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    match request(Message::GetLink(question), 0) {
        Ok(answers) => Ok(answers.into_iter().find_map(|m| match m {
            Message::NewLink(link) => Some(describe(&link)),
            _ => None,
        })),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Every address of this network namespace, with its interface.
pub(crate) fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let answers = request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|m| match m {
            Message::NewAddress(a) => {
                let find = |local: bool| {
                    a.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Local(ip) if local => Some(*ip),
                        AddressAttribute::Address(ip) if !local => Some(*ip),
                        _ => None,
                    })
                };
                find(true).or_else(|| find(false)).map(|ip| (a.header.index, ip))
            }
            _ => None,
        })
        .collect())
}

/// Attaches a program (or, without one, removes what is there). Replaces what the same mode has.
pub(crate) fn set_xdp(ifindex: u32, program: Option<BorrowedFd<'_>>, mode: XdpMode) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let fd = program.map_or(-1, |fd| fd.as_raw_fd());
    message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(mode.flags())]));
    request(Message::SetLink(message), NLM_F_ACK).map(|_| ())
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        kind: None,
        num_rx_queues: 1,
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(n) => link.num_rx_queues = *n,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|i| match i {
                    LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(xdp) => link.xdp = attached(xdp),
            _ => {}
        }
    }
    link
}

fn attached(xdp: &[LinkXdp]) -> Option<Attached> {
    let mut mode = None;
    let mut ids = [None; 4];
    for attribute in xdp {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(XdpMode::Driver),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpMode::Generic),
            LinkXdp::ProgId(id) => ids[0] = Some(*id),
            LinkXdp::DrvProgId(id) => ids[1] = Some(*id),
            LinkXdp::SkbProgId(id) => ids[2] = Some(*id),
            LinkXdp::HwProgId(id) => ids[3] = Some(*id),
            _ => {}
        }
    }
    ids.into_iter().flatten().next().map(|id| Attached { id, mode })
}

/// Sends one request and collects its answers.
fn request(message: Message, flags: u16) -> io::Result<Vec<Message>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let acknowledged = flags & NLM_F_ACK != 0;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut buffer = vec![0; packet.header.length as usize];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while rest.len() >= 16 {
            let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if len < 16 || len > rest.len() {
                break;
            }
            // An answer that the parser does not know (a newer kernel) is left out, not fatal.
            match parse(&rest[..len]) {
                Some(NetlinkPayload::Done(_)) => return Ok(answers),
                Some(NetlinkPayload::Error(e)) => {
                    return match e.code {
                        None => Ok(answers),
                        Some(_) => Err(io::Error::from_raw_os_error(e.raw_code().abs())),
                    };
                }
                Some(NetlinkPayload::InnerMessage(inner)) => {
                    answers.push(inner);
                    if !dump && !acknowledged {
                        return Ok(answers);
                    }
                }
                Some(_) => {}
                None if !dump => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "answer not understood"));
                }
                None => {}
            }
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn parse<M: NetlinkDeserializable>(bytes: &[u8]) -> Option<NetlinkPayload<M>> {
    NetlinkMessage::<M>::deserialize(bytes).ok().map(|m| m.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Needs no privilege. Red when links or addresses are not read.
    #[test]
    fn loopback_is_there() {
        let links = links().unwrap();
        let lo = links.iter().find(|l| l.name == "lo").expect("every namespace has lo");
        assert!(lo.loopback && !lo.ethernet);
        assert_eq!(link(lo.ifindex).unwrap().unwrap().name, "lo");
        assert!(link(0x7fff_fff0).unwrap().is_none());
        assert!(addresses().is_ok());
    }
}
