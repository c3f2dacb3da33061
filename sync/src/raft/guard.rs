//! What a peer may say. raft-rs trusts its messages and panics on some; those stop here.

use super::entry;
use super::replica::Replica;
use super::snapshot::{SnapshotError, state_of};
use super::store::{Store, StoreError};
use crate::cluster::NodeId;
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, StateRole};

/// No index or term comes near; sums of two do not overflow.
const CEILING: u64 = 1 << 62;
/// Terms are elections: nobody is that many ahead.
const TERMS_AHEAD: u64 = 1 << 32;

/// Why a message is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StepError {
    /// Not such a message at all.
    #[error("not a Raft message")]
    Decode,
    /// It names another sender than the connection's.
    #[error("node {from} sent a message in the name of node {named}")]
    Sender {
        /// Whose connection it is.
        from: NodeId,
        /// Who it says it is of.
        named: u64,
    },
    /// It is for somebody else.
    #[error("a message for node {0}")]
    Addressee(u64),
    /// The sender is no member any more.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// Such messages do not travel.
    #[error("a message of kind {0}, which no node sends")]
    Kind(i32),
    /// Its numbers contradict each other, or what is here.
    #[error("a message that makes no sense: {0}")]
    Absurd(&'static str),
    /// The leader remembers that this node held more.
    #[error(
        "the leader counts on entries up to {counted}, but the store ends at {last}: it has lost what it acknowledged; remove this node and join again with an empty directory"
    )]
    Lost {
        /// What was acknowledged once.
        counted: u64,
        /// What is there.
        last: u64,
    },
    /// An entry that this version cannot apply.
    #[error("entry {0} is of a kind that this version does not know: upgrade this node")]
    NotUnderstood(u64),
    /// A snapshot that cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A snapshot of another cluster, or of another generation of this one.
    #[error("a snapshot of another cluster, or of another generation of this one")]
    Foreign,
    /// Something must be written first; the message counts as lost.
    #[error("busy writing")]
    Busy,
    /// The store failed before.
    #[error("this node has stopped taking part: {0}")]
    Stopped(StoreError),
}

/// The message, if raft-rs can be given it.
pub(super) fn check<S: Store>(
    replica: &Replica<S>,
    bytes: &[u8],
    from: NodeId,
) -> Result<Message, StepError> {
    let message = Message::decode(bytes).map_err(|_| StepError::Decode)?;
    if message.from != from.0 || message.from == INVALID_ID || message.from == replica.id().0 {
        return Err(StepError::Sender { from, named: message.from });
    }
    if message.to != replica.id().0 {
        return Err(StepError::Addressee(message.to));
    }
    if replica.state().is_some_and(|s| s.removed.contains_key(&from)) {
        return Err(StepError::Removed(from));
    }
    let kind = MessageType::from_i32(message.msg_type).ok_or(StepError::Kind(message.msg_type))?;
    numbers(replica, &message, kind)?;
    match kind {
        MessageType::MsgAppend => append(&message)?,
        MessageType::MsgHeartbeat => heartbeat(replica, &message)?,
        MessageType::MsgSnapshot => snapshot(replica, &message)?,
        MessageType::MsgAppendResponse => append_response(replica, &message)?,
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => read(replica, &message, kind)?,
        // Such a node would campaign at once.
        MessageType::MsgTimeoutNow if replica.has_unwritten() => return Err(StepError::Busy),
        MessageType::MsgTimeoutNow
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => {}
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return Err(StepError::Kind(message.msg_type)),
    }
    if !matches!(kind, MessageType::MsgAppend | MessageType::MsgReadIndex | MessageType::MsgReadIndexResp)
        && !message.entries.is_empty()
    {
        return Err(StepError::Absurd("entries where none belong"));
    }
    Ok(message)
}

fn numbers<S: Store>(replica: &Replica<S>, m: &Message, kind: MessageType) -> Result<(), StepError> {
    let all = [m.index, m.commit, m.log_term, m.commit_term, m.reject_hint, m.term];
    if all.iter().any(|n| *n > CEILING) || m.term > replica.node.raft.term.saturating_add(TERMS_AHEAD) {
        return Err(StepError::Absurd("a number out of reach"));
    }
    // To raft-rs a message of term 0 is one of its own.
    match (kind, m.term) {
        (MessageType::MsgReadIndex, 0) => Ok(()),
        (MessageType::MsgReadIndex, _) | (_, 0) => Err(StepError::Absurd("its term")),
        _ if m.request_snapshot != 0 => Err(StepError::Absurd("a request that no node makes")),
        _ => Ok(()),
    }
}

/// Entries follow each other; the one before them exists in every log, since every cluster begins with a
/// snapshot.
fn append(m: &Message) -> Result<(), StepError> {
    if m.index == 0 || m.log_term == 0 || m.log_term > m.term {
        return Err(StepError::Absurd("entries after no entry"));
    }
    let (mut index, mut term) = (m.index, m.log_term);
    for e in &m.entries {
        if e.index != index + 1 || e.term < term || e.term > m.term {
            return Err(StepError::Absurd("entries out of order"));
        }
        if entry::read(e).is_none() {
            return Err(StepError::NotUnderstood(e.index));
        }
        (index, term) = (e.index, e.term);
    }
    Ok(())
}

fn heartbeat<S: Store>(replica: &Replica<S>, m: &Message) -> Result<(), StepError> {
    let raft = &replica.node.raft;
    let last = raft.raft_log.last_index();
    match m.term >= raft.term && m.commit > last {
        true => Err(StepError::Lost { counted: m.commit, last }),
        false => Ok(()),
    }
}

fn snapshot<S: Store>(replica: &Replica<S>, m: &Message) -> Result<(), StepError> {
    let snapshot = m.snapshot.as_ref().ok_or(StepError::Absurd("no snapshot"))?;
    let meta = snapshot.get_metadata();
    if meta.term > m.term || meta.index > CEILING {
        return Err(StepError::Absurd("a snapshot of the future"));
    }
    let theirs = state_of(snapshot)?;
    let ours = replica.state();
    let same = |ours: &_| same_cluster(ours, &theirs);
    if ours.is_some_and(|ours| !same(ours)) {
        return Err(StepError::Foreign);
    }
    Ok(())
}

fn same_cluster(ours: &crate::cluster::ClusterState, theirs: &crate::cluster::ClusterState) -> bool {
    ours.cluster == theirs.cluster && ours.generation == theirs.generation
}

/// A follower cannot hold more than its leader.
fn append_response<S: Store>(replica: &Replica<S>, m: &Message) -> Result<(), StepError> {
    let raft = &replica.node.raft;
    let last = raft.raft_log.last_index();
    let ours = raft.state == StateRole::Leader && m.term == raft.term;
    match ours && ((!m.reject && m.index > last) || m.commit > last || m.reject_hint > last) {
        true => Err(StepError::Absurd("an answer beyond the log")),
        false => Ok(()),
    }
}

/// A question names its sender's read, an answer one of this node's present run.
fn read<S: Store>(replica: &Replica<S>, m: &Message, kind: MessageType) -> Result<(), StepError> {
    let [entry] = m.entries.as_slice() else { return Err(StepError::Absurd("not one read")) };
    let Some((node, run, _)) = entry::parse_context(&entry.data) else {
        return Err(StepError::Absurd("no read's name"));
    };
    let right = match kind {
        MessageType::MsgReadIndex => node.0 == m.from,
        _ => node == replica.id() && run == replica.config.seed,
    };
    if right { Ok(()) } else { Err(StepError::Absurd("another node's read")) }
}
