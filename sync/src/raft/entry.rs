//! Proposals as log entries.
//!
//! An ordinary proposal is the data of a normal entry. One that changes the membership is the context of
//! a `ConfChangeV2` entry, whose own content is a marker: what changes is what applying the proposal
//! changed in the state, so that a refused one changes nothing in Raft either.

use super::replica::ReadId;
use crate::cluster::{ClusterState, Command, NodeId, PolicyLog, Proposal};
use crate::codec;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};
use std::collections::BTreeMap;

/// Longest proposal in bytes: the longest policy, and room for who asked.
pub(super) const LONGEST: usize = PolicyLog::LONGEST + (64 << 10);

/// What an entry is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing: a new leader's first entry.
    Empty,
    /// An ordinary proposal.
    Ordinary(Proposal),
    /// A membership change.
    Membership(Proposal),
    /// The end of a joint membership change.
    LeaveJoint,
}

/// Whether a command changes who is in the cluster, or who votes.
pub(super) fn is_membership(command: &Command) -> bool {
    matches!(command, Command::Redeem { .. } | Command::Remove { .. } | Command::SetVoters { .. })
}

/// What a membership change's entry says to raft-rs: only that it is not the end of a joint one.
pub(super) fn change_marker() -> ConfChangeV2 {
    let mut nobody = ConfChangeSingle::default();
    nobody.set_change_type(ConfChangeType::AddNode);
    ConfChangeV2 { changes: vec![nobody], ..ConfChangeV2::default() }
}

/// Reads an entry; none if it is not one of ours.
pub(super) fn read(entry: &Entry) -> Option<Kind> {
    let proposal = |bytes| codec::decode::<Proposal, LONGEST>(bytes).ok();
    match EntryType::from_i32(entry.entry_type)? {
        EntryType::EntryNormal if !entry.context.is_empty() => None,
        EntryType::EntryNormal if entry.data.is_empty() => Some(Kind::Empty),
        EntryType::EntryNormal => {
            proposal(&entry.data).filter(|p| !is_membership(&p.command)).map(Kind::Ordinary)
        }
        EntryType::EntryConfChange => None,
        EntryType::EntryConfChangeV2 => {
            let change = ConfChangeV2::decode(entry.data.as_slice()).ok()?;
            if change == ConfChangeV2::default() && entry.context.is_empty() {
                return Some(Kind::LeaveJoint);
            }
            let proposal = proposal(&entry.context).filter(|p| is_membership(&p.command))?;
            (change == change_marker()).then_some(Kind::Membership(proposal))
        }
    }
}

/// Members and whether each votes.
pub(super) fn votes(state: &ClusterState) -> BTreeMap<NodeId, bool> {
    state.members.iter().map(|(id, m)| (*id, m.voter)).collect()
}

/// The change of Raft's configuration that leads from one membership to the other; none if they are the
/// same. More than one step makes it a joint one.
pub(super) fn difference(
    before: &BTreeMap<NodeId, bool>,
    after: &BTreeMap<NodeId, bool>,
) -> Option<ConfChangeV2> {
    let gone = before.keys().filter(|id| !after.contains_key(id)).map(|id| (id, None));
    let new = after.iter().filter(|(id, votes)| before.get(id) != Some(votes)).map(|(id, v)| (id, Some(*v)));
    let changes: Vec<_> = gone
        .chain(new)
        .map(|(id, votes)| {
            let mut single = ConfChangeSingle { node_id: id.0, ..ConfChangeSingle::default() };
            single.set_change_type(match votes {
                None => ConfChangeType::RemoveNode,
                Some(true) => ConfChangeType::AddNode,
                Some(false) => ConfChangeType::AddLearnerNode,
            });
            single
        })
        .collect();
    (!changes.is_empty()).then(|| ConfChangeV2 { changes, ..ConfChangeV2::default() })
}

/// What names a read in messages: unlike those of other nodes and of this node's earlier runs.
pub(super) fn read_context(node: NodeId, run: u64, read: ReadId) -> Vec<u8> {
    [node.0, run, read.0].iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// The read of such a name, and whose it is.
pub(super) fn parse_context(bytes: &[u8]) -> Option<(NodeId, u64, ReadId)> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    let [node, run, read] = words else { return None };
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    Some((NodeId(word(node)), word(run), ReadId(word(read))))
}
