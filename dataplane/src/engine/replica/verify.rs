//! What two nodes' copies must agree in once nothing changes: as sums over many sessions, and as fields of one
//! (`session verify`).

use super::Engine;
use crate::addr::{Tuple, proto};
use crate::names::ZoneId;
use crate::session::record::SessionId;
use crate::session::tcp::fact;
use crate::table::SlotId;
use crate::time::Now;

/// Sessions are summed up in so many buckets, by identity.
pub const VERIFY_BUCKETS: usize = 1024;

/// For each bucket the sum of its sessions' digests, and how many they are. Sums of shards add up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifySums {
    /// Digest and number of sessions by bucket.
    pub buckets: Vec<(u64, u32)>,
}

impl Default for VerifySums {
    fn default() -> Self {
        VerifySums { buckets: vec![(0, 0); VERIFY_BUCKETS] }
    }
}

impl VerifySums {
    /// Adds another walk's sums.
    pub fn add(&mut self, other: &VerifySums) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = (mine.0.wrapping_add(theirs.0), mine.1.wrapping_add(theirs.1));
        }
    }

    /// Buckets in which two nodes differ.
    pub fn differing<'a>(&'a self, other: &'a VerifySums) -> impl Iterator<Item = usize> + 'a {
        let pairs = self.buckets.iter().zip(&other.buckets).enumerate();
        pairs.filter(|(_, (a, b))| a != b).map(|(bucket, _)| bucket)
    }
}

/// The fields of a session in which all copies must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionFields {
    /// Identity.
    pub id: SessionId,
    /// First direction.
    pub tuple: Tuple,
    /// Ingress zone of each wing.
    pub zones: [ZoneId; 2],
    /// Fact bits of each wing.
    pub bits: [u8; 2],
    /// MSS option of each wing's SYN.
    pub mss: [u16; 2],
    /// Window scale of each wing's SYN plus one.
    pub scale: [u8; 2],
    /// The session that it took the place of.
    pub supersedes: Option<SessionId>,
}

impl SessionFields {
    /// Every field with a stable name and a value that compares between nodes.
    pub fn list(&self, zone: &dyn Fn(ZoneId) -> String) -> Vec<(&'static str, String)> {
        let mut fields = vec![("id", self.id.to_string()), ("protocol", self.tuple.protocol.to_string())];
        fields.push(("source", self.tuple.src.to_string()));
        fields.push(("destination", self.tuple.dst.to_string()));
        fields.push(("source_port", self.tuple.src_port.to_string()));
        fields.push(("destination_port", self.tuple.dst_port.to_string()));
        let names = [
            ["from_zone", "first.facts", "first.mss", "first.scale"],
            ["to_zone", "reply.facts", "reply.mss", "reply.scale"],
        ];
        for (w, [zone_name, facts, mss, scale]) in names.into_iter().enumerate() {
            fields.push((zone_name, zone(self.zones[w])));
            fields.push((facts, fact_names(self.bits[w])));
            fields.push((mss, self.mss[w].to_string()));
            fields.push((scale, self.scale[w].checked_sub(1).map_or("none".into(), |s| s.to_string())));
        }
        fields.push(("supersedes", self.supersedes.map_or("none".into(), |id| id.to_string())));
        fields
    }

    /// A fixed hash over all fields, zones by the hash of their names.
    fn digest(&self, zone: &dyn Fn(ZoneId) -> u64) -> u64 {
        let (t, other) = (&self.tuple, self.supersedes.unwrap_or_default());
        let words = [
            u64::from(self.id.origin) << 32 | u64::from(self.id.boot),
            self.id.counter,
            t.src.0 as u64,
            (t.src.0 >> 64) as u64,
            t.dst.0 as u64,
            (t.dst.0 >> 64) as u64,
            u64::from(t.src_port) << 32 | u64::from(t.dst_port) << 8 | u64::from(t.protocol),
            zone(self.zones[0]),
            zone(self.zones[1]),
            u64::from(self.bits[0]) << 8 | u64::from(self.bits[1]),
            u64::from(self.mss[0]) << 16 | u64::from(self.mss[1]),
            u64::from(self.scale[0]) << 8 | u64::from(self.scale[1]),
            u64::from(other.origin) << 32 | u64::from(other.boot),
            other.counter,
        ];
        words.iter().fold(0x7665_7269_6679, |sum, word| mix(sum ^ word))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): the same on every node and in every version.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The bucket of a session.
fn bucket(id: SessionId) -> usize {
    let identity = mix(u64::from(id.origin) << 32 | u64::from(id.boot)) ^ id.counter;
    (mix(identity) % VERIFY_BUCKETS as u64) as usize
}

fn fact_names(bits: u8) -> String {
    let names = [
        (fact::SYN, "syn"),
        (fact::SYN_ACKED, "syn_acked"),
        (fact::FIN, "fin"),
        (fact::FIN_ACKED, "fin_acked"),
        (fact::RST, "rst"),
        (fact::MID, "seen"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".into() } else { set.join("+") }
}

impl Engine {
    /// Adds the digests of the sessions that others are to have, among the next `scan_max` slots from `cursor`. What
    /// is idle beyond its timeout is left out: its copies go one by one. `zone` is a hash of a zone's
    /// name. Returns the cursor to go on with, or `None` at the end of the table.
    pub fn verify_sums(
        &self,
        cursor: u32,
        scan_max: u32,
        now: Now,
        zone: &dyn Fn(ZoneId) -> u64,
        sums: &mut VerifySums,
    ) -> Option<u32> {
        self.verify_walk(cursor, scan_max, now, &mut |fields, live| {
            if !live {
                return;
            }
            let (sum, count) = &mut sums.buckets[bucket(fields.id)];
            *sum = sum.wrapping_add(fields.digest(zone));
            *count += 1;
        })
    }

    /// Appends the fields of the sessions of one bucket, likewise; to `idle` those that are left out, for they are here
    /// all the same: how long one was idle may be known a little later here than elsewhere.
    pub fn verify_bucket(
        &self,
        wanted: usize,
        cursor: u32,
        scan_max: u32,
        now: Now,
        out: &mut Vec<SessionFields>,
        idle: &mut Vec<SessionId>,
    ) -> Option<u32> {
        self.verify_walk(cursor, scan_max, now, &mut |fields, live| match bucket(fields.id) == wanted {
            true if live => out.push(fields),
            true => idle.push(fields.id),
            false => (),
        })
    }

    fn verify_walk(
        &self,
        cursor: u32,
        scan_max: u32,
        now: Now,
        each: &mut dyn FnMut(SessionFields, bool),
    ) -> Option<u32> {
        let (end, next) = self.slice(cursor, scan_max);
        for slot in (cursor..end).map(SlotId) {
            let hot = self.table.hot(slot);
            if self.is_tellable(slot) {
                let live = hot.idle_ms(now.ms32()) <= self.cutoff_ms(hot.class.0);
                each(self.fields_of(slot), live);
            }
        }
        next
    }

    fn fields_of(&self, slot: SlotId) -> SessionFields {
        let (hot, cold) = (self.table.hot(slot), self.table.cold(slot));
        let tcp = hot.protocol == proto::TCP;
        SessionFields {
            id: cold.id(),
            tuple: self.first_tuple(slot),
            zones: hot.zone,
            bits: self.facts(slot).map(|f| f.bits & fact::ALL),
            mss: cold.wings.map(|f| if tcp { f.mss } else { 0 }),
            scale: cold.wings.map(|f| if tcp { f.scale_plus_1 } else { 0 }),
            supersedes: self.replica.as_ref().and_then(|r| r.sides.line(slot).supersedes()),
        }
    }
}

/// A field that a test may falsify in one session (feature `corrupt`).
#[cfg(feature = "corrupt")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Corruption {
    /// A counter of the identity.
    Id,
    /// The zone of a wing.
    Zone(usize),
    /// The fact bits of a wing.
    Facts(usize),
    /// The MSS of a wing.
    Mss(usize),
    /// The window scale of a wing.
    Scale(usize),
    /// The session that it took the place of.
    Supersedes,
}

#[cfg(feature = "corrupt")]
impl Corruption {
    /// The field of that name, as [`SessionFields::list`] has it.
    pub fn named(name: &str) -> Option<Corruption> {
        Some(match name {
            "id" => Corruption::Id,
            "from_zone" => Corruption::Zone(0),
            "to_zone" => Corruption::Zone(1),
            "first.facts" => Corruption::Facts(0),
            "reply.facts" => Corruption::Facts(1),
            "first.mss" => Corruption::Mss(0),
            "reply.mss" => Corruption::Mss(1),
            "first.scale" => Corruption::Scale(0),
            "reply.scale" => Corruption::Scale(1),
            "supersedes" => Corruption::Supersedes,
            _ => return None,
        })
    }
}

#[cfg(feature = "corrupt")]
impl Engine {
    /// Falsifies one field of one session in this node's memory. `false` when it is not here.
    pub fn corrupt(&mut self, id: SessionId, what: Corruption) -> bool {
        let all = (0..self.table.slots_used()).map(SlotId);
        let is_it = |slot: &SlotId| self.table.hot(*slot).in_use() && self.table.cold(*slot).id() == id;
        let Some(slot) = all.into_iter().find(is_it) else { return false };
        let tcp = self.table.hot(slot).protocol == proto::TCP;
        let (hot, cold) = self.table.both_mut(slot);
        match what {
            Corruption::Id => cold.id_counter ^= 1 << 40,
            Corruption::Zone(w) => hot.zone[w & 1].0 ^= 1,
            Corruption::Facts(w) if tcp => cold.wings[w & 1].bits ^= fact::FIN,
            Corruption::Facts(_) => cold.wings[1].bits ^= fact::MID,
            Corruption::Mss(w) => cold.wings[w & 1].mss ^= 1,
            Corruption::Scale(w) => cold.wings[w & 1].scale_plus_1 ^= 1,
            Corruption::Supersedes => {
                let Some(r) = &mut self.replica else { return false };
                let side = r.sides.line_mut(slot);
                let other = side.supersedes().map_or(Some(id), |_| None);
                side.set_supersedes(other);
            }
        }
        true
    }
}
