//! What the session table would be without an index of its own: hashbrown over whole sessions.

use hashbrown::HashTable;
use tidegate_dataplane::addr::Key;
use tidegate_dataplane::session::record::Cold;
use tidegate_dataplane::table::{HotLine, TupleHasher};

/// A session as in our slab, its lines beside each other.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Session {
    pub(super) hot: HotLine,
    pub(super) cold: Cold,
}

const _: () = assert!(size_of::<Session>() == 192);

/// hashbrown as a session table: reserved for `capacity`, never grown.
pub(super) struct Peer {
    table: HashTable<Session>,
    hasher: TupleHasher,
}

impl Peer {
    pub(super) fn new(capacity: u32, hash_key: [u64; 2]) -> Self {
        Peer { table: HashTable::with_capacity(capacity as usize), hasher: TupleHasher::new(hash_key) }
    }

    pub(super) fn insert(&mut self, key: &Key) -> &mut Session {
        let hasher = self.hasher;
        let hot = HotLine {
            low: key.low,
            high: key.high,
            low_port: key.low_port,
            high_port: key.high_port,
            protocol: key.protocol,
            flags: tidegate_dataplane::table::flag::IN_USE,
            ..HotLine::default()
        };
        let session = Session { hot, cold: Cold::default() };
        let hash = hasher.hash(key);
        self.table.insert_unique(hash, session, |s| hasher.hash(&s.hot.key())).into_mut()
    }

    #[inline]
    pub(super) fn find_mut(&mut self, key: &Key) -> Option<&mut Session> {
        self.table.find_mut(self.hasher.hash(key), |session| session.hot.holds(key))
    }
}
