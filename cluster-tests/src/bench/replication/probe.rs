//! Replies of random flows, sent through one node: whether it has the sessions is seen by what arrives.
//!
//! Policy lets nothing new in from the servers' side, so a reply passes only where its session is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::super::bed::GENERATOR_CPU;
use super::super::frames::{Flows, mac_of};
use crate::LabError;
use crate::lab::Lab;
use crate::sys::{Netns, pin};
use crate::traffic::Wire;

/// Begins the payload; the benches' own sinks pass frames that do not carry their mark.
const MAGIC: [u8; 4] = *b"TGpr";
/// Room for frames that arrive.
const ROOM_BYTES: usize = 8 << 20;
/// Frames that are sent before what has arrived is read.
const BURST: usize = 32;
/// How long answers are waited for before what is missing is sent again.
const AGAIN: Duration = Duration::from_millis(4);
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;

/// Two ends of the wire around a node, and a reply of each flow that is asked for.
pub(super) struct Probe {
    to_node: Wire,
    client: Wire,
    frames: BTreeMap<u32, Vec<u8>>,
}

impl Probe {
    /// Opens both ends; `node` is the MAC of the node's inside port, `numbers` are those of the flows. Frames are sent
    /// from the switch's socket for the node, as if they had come from the server: from there on, what they cost is the
    /// node's.
    pub(super) fn open(
        lab: &Lab,
        (switch, socket): (&Netns, &str),
        node: [u8; 6],
        flows: Flows,
        numbers: &[u32],
    ) -> Result<Probe, LabError> {
        let (to_node, client) = (Wire::open_to_send(switch, socket)?, Wire::open(&lab.client(), "eth0")?);
        // A node that was held up for a moment sends them all at once.
        client.widen(ROOM_BYTES)?;
        let macs = [node, mac_of(&lab.server(), "eth0")?].concat();
        let frames = numbers.iter().map(|number| (*number, frame(&flows, &macs, *number))).collect();
        Ok(Probe { to_node, client, frames })
    }

    /// Sends a reply of each flow, again and again, until one of each has arrived. Returns when the last did.
    pub(super) fn until_all_pass(&self, patience: Duration) -> Result<Instant, LabError> {
        // What the kernel wakes for a frame it likes to wake on the CPU that sent it, where it would wait.
        let pinned = || pin(GENERATOR_CPU).and_then(|()| self.send_until_all_pass(patience));
        let ended = std::thread::scope(|scope| scope.spawn(pinned).join());
        ended.map_err(|_| LabError::Check("the probe's thread panicked".to_owned()))?
    }

    fn send_until_all_pass(&self, patience: Duration) -> Result<Instant, LabError> {
        let mut missing: BTreeSet<u32> = self.frames.keys().copied().collect();
        let deadline = Instant::now() + patience;
        loop {
            self.one_pass(&mut missing)?;
            let now = Instant::now();
            if missing.is_empty() {
                return Ok(now);
            }
            if now >= deadline {
                return Err(LabError::Check(format!(
                    "{} of {} flows do not pass after {} s",
                    missing.len(),
                    self.frames.len(),
                    patience.as_secs()
                )));
            }
        }
    }

    /// Sends what is missing once, and takes from it what arrives.
    fn one_pass(&self, missing: &mut BTreeSet<u32>) -> Result<(), LabError> {
        let fail = |source| LabError::system("send and receive frames", source);
        let wanted = self.frames.iter().filter(|(number, _)| missing.contains(*number));
        let frames: Vec<&[u8]> = wanted.map(|(_, frame)| frame.as_slice()).collect();
        for burst in frames.chunks(BURST) {
            self.to_node.send_all(burst.iter().copied()).map_err(fail)?;
            self.collect(missing).map_err(fail)?;
        }
        let end = Instant::now() + AGAIN;
        loop {
            let is_last = Instant::now() >= end;
            self.collect(missing).map_err(fail)?;
            if missing.is_empty() || is_last {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn collect(&self, missing: &mut BTreeSet<u32>) -> std::io::Result<()> {
        let mut buffer = [0; 128];
        while let Some(length) = self.client.try_receive(&mut buffer)? {
            if let Some(number) = number_of(buffer.get(..length).unwrap_or_default()) {
                missing.remove(&number);
            }
        }
        Ok(())
    }
}

/// A reply of a flow, between two MACs.
fn frame(flows: &Flows, macs: &[u8], number: u32) -> Vec<u8> {
    let (client, client_port) = flows.client(number);
    let payload = [MAGIC, number.to_be_bytes()].concat();
    let packet = datagram((flows.server, flows.server_port), (client, client_port), &payload);
    [macs, &[0x08, 0x00], &packet].concat()
}

/// The flow that a frame of ours carries.
fn number_of(frame: &[u8]) -> Option<u32> {
    let number = frame.get(HEADERS..)?.strip_prefix(&MAGIC)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*number))
}

/// An IPv4 packet with one UDP datagram.
fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let udp_length = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_length).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from.0.octets());
    ip.extend(to.0.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = Vec::new();
    udp.extend(from.1.to_be_bytes());
    udp.extend(to.1.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let pseudo = [&[0, 17][..], &udp_length.to_be_bytes()[..]].concat();
    // A sum of zero is sent as all ones (RFC 768).
    let sum = match checksum(&[&ip[12..20], &pseudo, &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    ip.extend(udp);
    ip
}

/// The Internet checksum over pieces of even length (the last may be odd).
fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// So many different flows out of the first `among`, by chance; another seed gives others.
pub(super) fn random_flows(count: u32, among: u32, seed: u64) -> Vec<u32> {
    let mut picked = BTreeSet::new();
    let mut state = seed;
    while picked.len() < count.min(among) as usize {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        picked.insert(((z ^ (z >> 31)) % u64::from(among)) as u32);
    }
    picked.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when a checksum is wrong: a sum over a packet with a right one is zero.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        let (from, to) = ((Ipv4Addr::new(10, 81, 2, 10), 5000), (Ipv4Addr::new(10, 82, 0, 3), 1031));
        let packet = datagram(from, to, b"TGprabcd");
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [0, 17, 0, 16];
        assert_eq!(checksum(&[&packet[12..20], &pseudo, &packet[20..]]), 0);
    }

    #[test]
    fn a_frame_tells_its_flow_and_others_tell_none() {
        let packet = datagram((Ipv4Addr::LOCALHOST, 1), (Ipv4Addr::LOCALHOST, 2), b"TGpr\0\0\x01\x02");
        let frame = [vec![0; 14], packet].concat();
        assert_eq!(number_of(&frame), Some(0x102));
        assert_eq!(number_of(&frame[..45]), None);
        assert_eq!(number_of(&[0; 60]), None);
    }

    #[test]
    fn random_flows_are_different_and_exist() {
        assert_eq!(random_flows(1000, 1000, 7), (0..1000).collect::<Vec<_>>());
        let some = random_flows(1000, 1_000_000, 7);
        assert_eq!(some.len(), 1000);
        assert!(some.iter().all(|number| *number < 1_000_000));
        assert_ne!(some, random_flows(1000, 1_000_000, 8));
    }
}
