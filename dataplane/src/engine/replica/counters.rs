//! What replication counts in one engine.

use super::{Applied, Refusal};

/// Counters of one engine's replication, since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationCounters {
    /// Changes logged: births, facts, refreshes, answers, ends.
    pub logged: u64,
    /// Of these, refreshes that the sweep found due.
    pub refreshes: u64,
    /// Copies and ends of sessions that were not known here.
    pub new: u64,
    /// Copies and ends that added to what was known.
    pub merged: u64,
    /// Copies and ends that were known already.
    pub unchanged: u64,
    /// Copies and ends that were answered, because this node knew better.
    pub answered: u64,
    /// Copies that found no room in the table.
    pub no_room: u64,
    /// Refused: births of another that is there itself.
    pub refused_birth_of_another: u64,
    /// Refused: births of this boot that it never made.
    pub refused_never_made: u64,
    /// Refused: values that no honest node tells.
    pub refused_absurd: u64,
    /// Refused: sessions that the policy in force here keeps to their node.
    pub refused_not_synced: u64,
    /// Refused: ends by age from a node that does not own the session.
    pub refused_not_owner: u64,
    /// Refused: sessions of another shard, or told while replication is off.
    pub refused_misled: u64,
    /// Two births of one tuple met.
    pub collisions: u64,
    /// Sessions that lived again because a younger copy beat an end by age.
    pub rebirths: u64,
    /// Ends by age that a younger copy here refused.
    pub claims_refused: u64,
    /// Questions whether a shared session is idle everywhere.
    pub asked: u64,
    /// Replicas let go beyond the staleness bound.
    pub let_go: u64,
    /// Sessions removed because their owner no longer has them (mark and sweep).
    pub swept: u64,
    /// Sessions told to an owner that lacks them (mark and sweep).
    pub returned: u64,
    /// Sessions and ends told on after the death of the node that told them.
    pub echoed: u64,
    /// Tombstones overwritten before every connected peer had them.
    pub tombstones_lost: u64,
}

/// Counters by name, listed once.
macro_rules! named {
    ($($name:ident),* $(,)?) => {
        /// How many counters there are.
        const COUNTERS: usize = [$(stringify!($name)),*].len();

        impl ReplicationCounters {
            /// Every counter with its name.
            pub fn fields(&self) -> [(&'static str, u64); COUNTERS] {
                // Destructured in full, so that a new counter cannot be forgotten.
                let ReplicationCounters { $($name),* } = self;
                [$((stringify!($name), *$name)),*]
            }

            fn fields_mut(&mut self) -> [&mut u64; COUNTERS] {
                let ReplicationCounters { $($name),* } = self;
                [$($name),*]
            }
        }
    };
}

named!(
    logged,
    refreshes,
    new,
    merged,
    unchanged,
    answered,
    no_room,
    refused_birth_of_another,
    refused_never_made,
    refused_absurd,
    refused_not_synced,
    refused_not_owner,
    refused_misled,
    collisions,
    rebirths,
    claims_refused,
    asked,
    let_go,
    swept,
    returned,
    echoed,
    tombstones_lost,
);

impl ReplicationCounters {
    /// Adds another engine's counts.
    pub fn add(&mut self, other: &ReplicationCounters) {
        self.fields_mut().into_iter().zip(other.fields()).for_each(|(mine, (_, theirs))| *mine += theirs);
    }

    pub(super) fn count(&mut self, applied: Applied) {
        let counter = match applied {
            Applied::New => &mut self.new,
            Applied::Merged => &mut self.merged,
            Applied::Unchanged => &mut self.unchanged,
            Applied::Answered => &mut self.answered,
            Applied::NoRoom => &mut self.no_room,
            Applied::Refused(Refusal::BirthOfAnother) => &mut self.refused_birth_of_another,
            Applied::Refused(Refusal::NeverMade) => &mut self.refused_never_made,
            Applied::Refused(Refusal::Absurd(_)) => &mut self.refused_absurd,
            Applied::Refused(Refusal::NotSynced) => &mut self.refused_not_synced,
            Applied::Refused(Refusal::NotOwner) => &mut self.refused_not_owner,
            Applied::Refused(Refusal::WrongShard | Refusal::NotReplicating) => &mut self.refused_misled,
        };
        *counter += 1;
    }
}
