//! Keys of the heartbeats: from the TLS exporter of the connections for session records, so whoever could not make the
//! handshake cannot make a heartbeat.
//!
//! Each connection has one key, for the direction from its dialler to its acceptor. A key outlives its connection: when
//! QUIC is cut, heartbeats go on. It ends with the eighth after it of the same boot, with a newer boot, or with membership.

use super::counters::PeerCounters;
use arc_swap::ArcSwap;
use quinn::Connection;
use ring::hmac;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_dataplane::session::owner::Boot;
use tidegate_sync::cluster::NodeId;
use tidegate_sync::replication::heartbeat::{PATHS_MAX, SEAL_BYTES};

/// The exporter's label; the context says from whom to whom.
const LABEL: &[u8] = b"EXPORTER-tidegate-heartbeat";

/// One key and its name, which heartbeats carry.
pub(crate) struct Seal {
    pub(crate) name: u64,
    key: hmac::Key,
}

impl Seal {
    /// The key of a connection for heartbeats from its dialler to its acceptor.
    pub(crate) fn of(connection: &Connection, dialler: NodeId, acceptor: NodeId) -> Result<Seal, String> {
        let mut secret = [0; 40];
        let context = [dialler.0.to_be_bytes(), acceptor.0.to_be_bytes()].concat();
        connection
            .export_keying_material(&mut secret, LABEL, &context)
            .map_err(|_| "no key could be drawn from the connection".to_owned())?;
        Ok(Seal::new(secret))
    }

    fn new(secret: [u8; 40]) -> Seal {
        let (key, name) = secret.split_at(32);
        let name = name.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Seal { name, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Fills in the seal at the end.
    pub(crate) fn seal(&self, bytes: &mut [u8]) {
        if let Some((content, seal)) = bytes.split_last_chunk_mut::<SEAL_BYTES>() {
            let tag = hmac::sign(&self.key, content);
            seal.copy_from_slice(&tag.as_ref()[..SEAL_BYTES]);
        }
    }

    /// Whether the seal at the end is right; takes the same time wherever it is not.
    pub(crate) fn is_right(&self, bytes: &[u8]) -> bool {
        let Some((content, seal)) = bytes.split_last_chunk::<SEAL_BYTES>() else { return false };
        let tag = hmac::sign(&self.key, content);
        let differ = tag.as_ref().iter().zip(seal).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

/// To a peer: its present boot, by these ways.
pub(crate) struct Speaking {
    pub(crate) it: Boot,
    pub(crate) seal: Seal,
    /// Own socket, the peer's address, and the path's number.
    pub(crate) paths: Vec<(usize, SocketAddr, u8)>,
    pub(crate) counters: Arc<PeerCounters>,
}

impl Speaking {
    /// By every pair of own socket and address of the peer that are of one family, at most [`PATHS_MAX`].
    pub(crate) fn new(
        it: Boot,
        seal: Seal,
        own: &[SocketAddr],
        theirs: &[SocketAddr],
        counters: Arc<PeerCounters>,
    ) -> Self {
        let pairs = own
            .iter()
            .enumerate()
            .flat_map(|(socket, own)| theirs.iter().enumerate().map(move |(at, to)| (socket, own, at, to)));
        let paths = pairs
            .filter(|(_, own, _, to)| own.is_ipv4() == to.is_ipv4())
            .map(|(socket, _, at, to)| (socket, *to, socket * theirs.len() + at))
            .filter(|(_, _, path)| *path < PATHS_MAX)
            .map(|(socket, to, path)| (socket, to, path as u8))
            .collect();
        Speaking { it, seal, paths, counters }
    }
}

/// From a peer's boot.
pub(crate) struct Hearing {
    pub(crate) it: Boot,
    pub(crate) seal: Seal,
    pub(crate) counters: Arc<PeerCounters>,
}

/// All keys in use. Small: read with each heartbeat, replaced with each connection.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    pub(crate) speaking: Vec<Arc<Speaking>>,
    pub(crate) hearing: Vec<Arc<Hearing>>,
}

/// The keys as they change.
#[derive(Default)]
pub(crate) struct KeyRing(ArcSwap<Keys>);

/// Keys of one boot that are taken. More than one: a peer that dialled again goes on with the key before until it has got
/// the answer, which may be lost, several times over.
const KEPT: usize = 8;

impl KeyRing {
    pub(crate) fn now(&self) -> Arc<Keys> {
        self.0.load_full()
    }

    /// Speaks to a peer with this key from now on.
    pub(crate) fn speak(&self, speaking: Speaking) {
        let speaking = Arc::new(speaking);
        self.0.rcu(|keys| {
            let mut keys = Keys::clone(keys);
            keys.speaking.retain(|s| s.it.node != speaking.it.node);
            keys.speaking.push(speaking.clone());
            keys
        });
    }

    /// Takes heartbeats sealed with this key from now on; those of another boot of the node no more.
    pub(crate) fn hear(&self, hearing: Hearing) {
        let hearing = Arc::new(hearing);
        self.0.rcu(|keys| {
            let mut keys = Keys::clone(keys);
            let it = hearing.it;
            keys.hearing.retain(|h| h.it.node != it.node || h.it == it);
            // Its old boot, if there was another one, understands nothing any more.
            keys.speaking.retain(|s| s.it.node != it.node || s.it == it);
            let known = keys.hearing.iter().filter(|h| h.it == it).count();
            if known >= KEPT
                && let Some(oldest) = keys.hearing.iter().position(|h| h.it == it)
            {
                keys.hearing.remove(oldest);
            }
            keys.hearing.push(hearing.clone());
            keys
        });
    }

    /// Only of these nodes.
    pub(crate) fn retain(&self, member: impl Fn(u16) -> bool) {
        let keys = self.0.load();
        let all = keys.speaking.iter().map(|s| s.it.node).chain(keys.hearing.iter().map(|h| h.it.node));
        if all.into_iter().all(&member) {
            return;
        }
        drop(keys);
        self.0.rcu(|keys| {
            let mut keys = Keys::clone(keys);
            keys.speaking.retain(|s| member(s.it.node));
            keys.hearing.retain(|h| member(h.it.node));
            keys
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hearing(boot: u32, secret: u8) -> Hearing {
        let it = Boot { node: 2, boot };
        Hearing { it, seal: Seal::new([secret; 40]), counters: Arc::default() }
    }

    #[test]
    fn a_seal_is_right_for_its_bytes_and_key_only() {
        let (a, b) = (Seal::new([1; 40]), Seal::new([2; 40]));
        let mut bytes = [7; 62];
        a.seal(&mut bytes);
        assert!(a.is_right(&bytes) && !b.is_right(&bytes));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(!a.is_right(&changed), "byte {at}");
        }
        assert!(!a.is_right(&bytes[..10]));
    }

    #[test]
    fn the_key_before_is_still_taken_but_none_of_an_old_boot() {
        let ring = KeyRing::default();
        let names = |ring: &KeyRing| ring.now().hearing.iter().map(|h| h.seal.name).collect::<Vec<_>>();
        let name = |secret: u8| Seal::new([secret; 40]).name;
        for secret in 1..10 {
            ring.hear(hearing(5, secret));
        }
        assert_eq!(names(&ring), (2..10).map(name).collect::<Vec<_>>());
        let own = ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let theirs = ["[::1]:9".parse().unwrap(), "127.0.0.1:9".parse().unwrap()];
        let it = Boot { node: 2, boot: 5 };
        let speaking = Speaking::new(it, Seal::new([90; 40]), &own, &theirs, Arc::default());
        assert_eq!(speaking.paths, [(0, theirs[1], 1), (1, theirs[0], 2)]);
        ring.speak(speaking);
        ring.hear(hearing(6, 80));
        assert_eq!((names(&ring), ring.now().speaking.len()), (vec![name(80)], 0));
        ring.retain(|node| node != 2);
        assert!(names(&ring).is_empty());
    }
}
