//! Whole frames on an interface of a namespace, past the host's own stack: what a test needs to send packets
//! that no kernel would send, and to see exactly what arrives.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, bind, recv, send,
    sendmmsg, setsockopt, socket, sockopt,
};

use crate::LabError;
use crate::sys::Netns;

/// Longest frame that is received; the rest of a longer one is cut off.
const FRAME_MAX: usize = 65_600;

/// An open end of the wire: an AF_PACKET socket bound to one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl Wire {
    /// Opens it. Frames that come in from then on are kept for [`Wire::receive`].
    ///
    /// # Errors
    /// When the namespace has no such interface, or the socket cannot be made (root only).
    pub fn open(netns: &Netns, ifname: &str) -> Result<Wire, LabError> {
        Wire::open_for(netns, ifname, Some(SockProtocol::EthAll))
    }

    /// Opens it to send only: nothing that comes in or goes out there is kept, which costs each frame less.
    ///
    /// # Errors
    /// As [`Wire::open`].
    pub fn open_to_send(netns: &Netns, ifname: &str) -> Result<Wire, LabError> {
        Wire::open_for(netns, ifname, None)
    }

    fn open_for(netns: &Netns, ifname: &str, protocol: Option<SockProtocol>) -> Result<Wire, LabError> {
        let opened = netns.run(|| open_here(ifname, protocol))?;
        opened.map_err(|errno| LabError::system(format!("open {ifname} in {}", netns.name()), errno))
    }

    /// The interface's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends a frame, from the destination MAC on.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Sends frames one after the other, in as few calls as it takes.
    pub fn send_all<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        let frames: Vec<_> = frames.into_iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
        let nowhere_else = vec![None; frames.len()];
        let mut left = frames.as_slice();
        while !left.is_empty() {
            let fd = self.socket.as_raw_fd();
            let sent = sendmmsg(fd, &mut headers, left, &nowhere_else[..left.len()], [], MsgFlags::empty())?;
            left = &left[sent.count()..];
        }
        Ok(())
    }

    /// Makes room for bursts.
    pub fn widen(&self, bytes: usize) -> Result<(), LabError> {
        setsockopt(&self.socket, sockopt::RcvBufForce, &bytes)
            .map_err(|errno| LabError::system("make room for frames", errno))
    }

    /// The next frame that waits, if one does: its length, or as much of it as fits.
    pub fn take(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next frame that came in (not one that this host sent), or `None` after `patience`.
    #[allow(clippy::disallowed_methods, reason = "real traffic takes real time")]
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let end = Instant::now() + patience;
        let mut buffer = vec![0; FRAME_MAX];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], wait)? == 0 {
                return Ok(None);
            }
            if let Some(length) = self.try_receive(&mut buffer)? {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
        }
    }

    /// The next frame that came in, if one has, without waiting: as much of it as `buffer` takes, and how much that is.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length >= 14 && buffer[6..12] != self.mac => return Ok(Some(length)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open_here(ifname: &str, protocol: Option<SockProtocol>) -> nix::Result<Wire> {
    let address = packet_address(ifname)?;
    let mac = address.addr().unwrap_or_default();
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // An address without a protocol keeps the socket's own.
    bind(socket.as_raw_fd(), &address)?;
    Ok(Wire { socket, mac })
}

fn packet_address(ifname: &str) -> nix::Result<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    let found = all.find_map(|interface| {
        if interface.interface_name == ifname { interface.address?.as_link_addr().copied() } else { None }
    });
    found.ok_or(Errno::ENODEV)
}
