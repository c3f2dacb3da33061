//! What the seeds really contained.

use super::tally::counts;

counts! {
    /// Seconds of virtual time.
    virtual_seconds: 4_000,
    /// Leaders that took office.
    elections: 800,
    /// Terms in which nobody did.
    terms_without_leader: 200,
    /// Handed-over leads that were asked for.
    leader_transfers: 80,
    /// Logs that became snapshots.
    compactions: 2_500,
    /// Snapshots that a peer took from its leader.
    snapshots_installed: 900,
    /// Nodes that were admitted.
    joins: 700,
    /// Nodes that were removed.
    removals: 300,
    /// Joint changes of the voters.
    joint_changes: 200,
    /// Nodes that lost their power.
    crashes: 2_000,
    /// Of those in the middle of a transaction.
    crashes_while_writing: 300,
    /// Of those after a write and before what it allowed to send.
    crashes_before_sending: 300,
    /// Of those right after a vote was given.
    crashes_of_voters: 500,
    /// Power failures of all nodes at once.
    blackouts: 150,
    /// Writes that a crash undid.
    writes_lost: 2_000,
    /// Writes of which a crash left a part.
    writes_torn: 130,
    /// Networks in two parts.
    partitions_full: 200,
    /// Nodes heard that hear nobody, or the reverse.
    partitions_one_way: 200,
    /// Networks in two parts with one node in both.
    partitions_bridge: 200,
    /// Of those, with that one down for a while: two candidates need its vote.
    duels: 120,
    /// Leaders that were cut off.
    leaders_isolated: 130,
    /// Messages that were lost.
    messages_lost: 60_000,
    /// Messages that came twice.
    messages_twice: 10_000,
    /// Messages that were refused as senseless.
    messages_refused: 0,
    /// Policies that were acknowledged.
    policies: 4_000,
    /// Leases that ended unconfirmed.
    leases_expired: 400,
    /// Policies that were confirmed.
    confirmations: 1_000,
    /// Policies that were rolled back.
    rollbacks: 400,
    /// Reads that were answered.
    reads: 15_000,
    /// Requests that were refused, such as on a revision that had moved.
    refusals: 8_000,
    /// Requests whose outcome stayed unknown.
    unknown: 2_000,
    /// States compared with another node's at the same index.
    digests_compared: 10_000,
}
