//! Heartbeats: small packets of a fixed layout that say "this boot of this node is alive", and whom it hears.
//!
//! | bytes | what (little endian) |
//! |---|---|
//! | 1 | version |
//! | 1 | path: number of the pair of addresses that it takes, as its sender counts them |
//! | 2 | node |
//! | 8 | name of the key that the seal is made with |
//! | 4 | boot |
//! | 8 | sequence |
//! | 1 | flags: in sync, workers run |
//! | 1 | how many nodes it hears |
//! | 12 | sessions owned, slots used, capacity |
//! | 8 | digest of its view |
//! | 9 each | nodes that it hears: node, boot, age in ms, flags (in sync, mutual) |
//! | 16 | seal |
//!
//! The seal is made and checked where the keys are; here is only the layout. Nothing is allocated.

use arrayvec::ArrayVec;
use tidegate_dataplane::session::owner::{Boot, NODES_MAX};

/// Version of the layout.
const VERSION: u8 = 1;
/// Bytes before the list of nodes.
const HEAD: usize = 46;
/// Bytes of one node in the list.
const HEARD: usize = 9;
/// Bytes of the seal.
pub const SEAL_BYTES: usize = 16;
/// Longest heartbeat.
pub const HEARTBEAT_BYTES_MAX: usize = HEAD + NODES_MAX * HEARD + SEAL_BYTES;
/// Most pairs of addresses between two nodes.
pub const PATHS_MAX: usize = 64;

const IN_SYNC: u8 = 1;
/// In the heartbeat's flags.
const WORKERS_OK: u8 = 2;
/// In the flags of a node that is heard.
const MUTUAL: u8 = 2;

/// What the way of a heartbeat needs to know; its content is of no interest there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cover {
    /// Which pair of addresses it takes: below [`PATHS_MAX`].
    pub path: u8,
    /// Name of the key.
    pub key: u64,
    /// Grows from each heartbeat of a process to its next; the same on all paths.
    pub sequence: u64,
}

/// What a node says of itself many times a second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Who.
    pub from: Boot,
    /// Whether it holds all that it needs to take over.
    pub in_sync: bool,
    /// Whether all its workers run; if not it is down, whatever else it says.
    pub workers_ok: bool,
    /// Sessions that it owns.
    pub owned: u32,
    /// Slots of its table in use.
    pub used: u32,
    /// Slots of its table.
    pub capacity: u32,
    /// Digest of its view.
    pub view: u64,
    /// Nodes whose own heartbeats it hears, at most one boot of each.
    pub heard: ArrayVec<Heard, NODES_MAX>,
}

/// A node that another one hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Which.
    pub it: Boot,
    /// How long ago the newest heartbeat came.
    pub age_ms: u16,
    /// Its own word.
    pub in_sync: bool,
    /// Whether it hears the one who tells this, by its own word.
    pub mutual: bool,
}

/// Why bytes are no heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// Too short, too long, or not as long as its list says.
    #[error("{0} bytes: not as long as it should be")]
    Length(usize),
    /// Another layout.
    #[error("version {0} is not known")]
    Version(u8),
    /// A value that cannot be.
    #[error("{0} cannot be")]
    Absurd(&'static str),
}

impl Heartbeat {
    /// Writes all but the seal, whose place is at the end; the whole length.
    pub fn write(&self, cover: Cover, to: &mut [u8; HEARTBEAT_BYTES_MAX]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            to[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[VERSION, cover.path]);
        put(&self.from.node.to_le_bytes());
        put(&cover.key.to_le_bytes());
        put(&self.from.boot.to_le_bytes());
        put(&cover.sequence.to_le_bytes());
        put(&[flags(self.in_sync, IN_SYNC) | flags(self.workers_ok, WORKERS_OK), self.heard.len() as u8]);
        for number in [self.owned, self.used, self.capacity] {
            put(&number.to_le_bytes());
        }
        put(&self.view.to_le_bytes());
        for heard in &self.heard {
            put(&heard.it.node.to_le_bytes());
            put(&heard.it.boot.to_le_bytes());
            put(&heard.age_ms.to_le_bytes());
            put(&[flags(heard.in_sync, IN_SYNC) | flags(heard.mutual, MUTUAL)]);
        }
        at + SEAL_BYTES
    }

    /// Reads the cover of a packet: who says that it sent it, by which key and way. Nothing is proven yet.
    ///
    /// # Errors
    /// It is none of this version, or not as long as it says.
    pub fn cover(bytes: &[u8]) -> Result<(u16, Cover), HeartbeatError> {
        let length = HeartbeatError::Length(bytes.len());
        if bytes.len() < HEAD + SEAL_BYTES || bytes.len() > HEARTBEAT_BYTES_MAX {
            return Err(length);
        }
        if bytes[0] != VERSION {
            return Err(HeartbeatError::Version(bytes[0]));
        }
        if bytes.len() != HEAD + usize::from(bytes[25]) * HEARD + SEAL_BYTES {
            return Err(length);
        }
        if usize::from(bytes[1]) >= PATHS_MAX {
            return Err(HeartbeatError::Absurd("such a path"));
        }
        let mut it = Bytes(&bytes[2..]);
        let node = it.u16();
        let key = it.u64();
        it.u32();
        Ok((node, Cover { path: bytes[1], key, sequence: it.u64() }))
    }

    /// Reads the content of a packet whose cover was read and whose seal is right.
    ///
    /// # Errors
    /// It holds what cannot be.
    pub fn read(bytes: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        Heartbeat::cover(bytes)?;
        let mut it = Bytes(&bytes[2..]);
        let node = it.u16();
        it.u64();
        let boot = it.u32();
        it.u64();
        let (flags, count) = (it.u8(), it.u8());
        let (owned, used, capacity) = (it.u32(), it.u32(), it.u32());
        let view = it.u64();
        if owned > used || used > capacity {
            return Err(HeartbeatError::Absurd("more sessions than slots"));
        }
        let mut heard = ArrayVec::new();
        for _ in 0..count {
            let node = Boot { node: it.u16(), boot: it.u32() };
            let (age_ms, flags) = (it.u16(), it.u8());
            let repeated = heard.iter().any(|h: &Heard| h.it.node == node.node);
            if repeated || node.node == 0 {
                return Err(HeartbeatError::Absurd("such a list of nodes"));
            }
            let one = Heard { it: node, age_ms, in_sync: flags & IN_SYNC != 0, mutual: flags & MUTUAL != 0 };
            heard.try_push(one).map_err(|_| HeartbeatError::Length(bytes.len()))?;
        }
        let (in_sync, workers_ok) = (flags & IN_SYNC != 0, flags & WORKERS_OK != 0);
        let from = Boot { node, boot };
        Ok(Heartbeat { from, in_sync, workers_ok, owned, used, capacity, view, heard })
    }

    /// Whether it says that it hears that boot.
    pub fn hears(&self, it: Boot) -> bool {
        self.heard.iter().any(|h| h.it == it)
    }
}

fn flags(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Reads numbers from bytes whose length was checked; what is not there reads as 0.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => [0; N],
        }
    }

    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// What has come by each path under one key: an old heartbeat said again proves nothing.
#[derive(Clone, Debug)]
pub struct Newest([u64; PATHS_MAX]);

impl Default for Newest {
    fn default() -> Self {
        Newest([0; PATHS_MAX])
    }
}

impl Newest {
    /// Whether a heartbeat is newer than all before it by that path; and how many in between are missing.
    pub fn admit(&mut self, cover: Cover) -> Option<u64> {
        let newest = self.0.get_mut(usize::from(cover.path))?;
        if cover.sequence <= *newest {
            return None;
        }
        let missing = if *newest == 0 { 0 } else { cover.sequence - *newest - 1 };
        *newest = cover.sequence;
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Heartbeat {
        let heard = |n: u16| Heard {
            it: Boot { node: n + 1, boot: u32::from(n) * 7 },
            age_ms: n * 100,
            in_sync: n.is_multiple_of(2),
            mutual: n.is_multiple_of(3),
        };
        Heartbeat {
            from: Boot { node: 300, boot: 9 },
            in_sync: true,
            workers_ok: false,
            owned: 5,
            used: 6,
            capacity: 7,
            view: u64::MAX - 1,
            heard: (0..NODES_MAX as u16).map(heard).collect(),
        }
    }

    const COVER: Cover = Cover { path: 63, key: 0x1122_3344_5566_7788, sequence: 1 << 40 };

    #[test]
    fn heartbeats_are_read_as_written() {
        let mut few = full();
        few.heard.truncate(2);
        (few.in_sync, few.workers_ok) = (false, true);
        for it in [full(), few] {
            let mut bytes = [0; HEARTBEAT_BYTES_MAX];
            let length = it.write(COVER, &mut bytes);
            assert_eq!(Heartbeat::cover(&bytes[..length]), Ok((300, COVER)));
            assert_eq!(Heartbeat::read(&bytes[..length]), Ok(it));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_nothing_panics() {
        let mut bytes = [0; HEARTBEAT_BYTES_MAX];
        let length = full().write(COVER, &mut bytes);
        // Every length but the right one, every first byte but the version.
        for short in 0..length {
            assert!(Heartbeat::read(&bytes[..short]).is_err(), "{short}");
        }
        assert!(Heartbeat::read(&[&bytes[..length], &[0]].concat()).is_err());
        let changed = |at: usize, to: u8| {
            let mut changed = bytes;
            changed[at] = to;
            Heartbeat::read(&changed[..length])
        };
        assert_eq!(changed(0, 2), Err(HeartbeatError::Version(2)));
        assert_eq!(changed(1, 64), Err(HeartbeatError::Absurd("such a path")));
        // A count that the length does not bear, also one whose product would be huge.
        assert_eq!(changed(25, 255), Err(HeartbeatError::Length(length)));
        // owned > used; a node twice; node 0.
        assert_eq!(changed(26, 9), Err(HeartbeatError::Absurd("more sessions than slots")));
        assert_eq!(changed(HEAD, 2), Err(HeartbeatError::Absurd("such a list of nodes")));
        assert_eq!(changed(HEAD, 0), Err(HeartbeatError::Absurd("such a list of nodes")));
    }

    #[test]
    fn an_old_one_is_refused_on_its_path_only() {
        let mut newest = Newest::default();
        let mut admit = |path, sequence| newest.admit(Cover { path, key: 0, sequence });
        assert_eq!(admit(0, 5), Some(0));
        assert_eq!(admit(0, 5), None);
        assert_eq!(admit(0, 4), None);
        // The same one by another path is no replay.
        assert_eq!(admit(1, 5), Some(0));
        assert_eq!(admit(0, 9), Some(3));
        assert_eq!(admit(0, 0), None);
        assert_eq!(admit(PATHS_MAX as u8, 10), None);
    }
}
