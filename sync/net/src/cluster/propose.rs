//! Proposals and reads: at whatever node leads, over changes of the leader.

use super::counters::count;
use super::shared::{Shared, unix_ms};
use super::thread::Input;
use super::{ProposeError, ReadError, Standing};
use crate::quic::rpc::{self, Answer, Request};
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{ClusterState, Command, NodeId, Outcome, Proposal, RequestId};
use tidegate_sync::raft;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Pause before a call that was not taken is tried again.
const AGAIN: Duration = Duration::from_millis(25);
/// A proposal that was taken but not answered is sent again after so long: the log takes it once.
const RESEND: Duration = Duration::from_secs(2);
/// A read that was not answered is asked again after so long.
const READ_AGAIN: Duration = Duration::from_millis(300);
/// Longest name of who asks.
pub(crate) const BY_LONGEST: usize = 256;

/// What one attempt came to.
enum Attempt {
    Answered(Outcome),
    /// Surely not in anybody's log by this attempt.
    NotTaken(String),
    /// Perhaps in somebody's log.
    Unknown(String),
    /// It is of no use to try again.
    Never(String),
}

/// Proposes until it is answered or the time is over.
pub(crate) async fn propose(
    shared: &Arc<Shared>,
    command: Command,
    by: &str,
    within: Duration,
) -> Result<Outcome, ProposeError> {
    count(&shared.counting.proposals);
    let by = crate::quic::hello::printable(by, BY_LONGEST);
    let proposal =
        Proposal { id: RequestId(rand::random()), by, via: shared.id, at_unix_ms: unix_ms(), command };
    let (start, mut leader_seen) = (Instant::now(), Instant::now());
    let (end, mut taken, mut why) = (start + within, false, "no leader is heard".to_owned());
    let mut state = shared.state.subscribe();
    loop {
        // Applied here in the meantime, whoever put it into the log.
        if let Some(outcome) = state.borrow_and_update().answer(&proposal.id) {
            return Ok(outcome.clone());
        }
        standing(shared).map_err(ProposeError::Standing)?;
        let now = Instant::now();
        let (leader, quorum) = {
            let status = shared.status.borrow();
            // One that is silent takes nothing, and nobody could say that it did not.
            (status.leader.filter(|_| status.has_quorum), status.has_quorum)
        };
        if quorum {
            leader_seen = now;
        }
        let patience = (now - leader_seen) >= shared.options.leader_patience && !taken;
        if now >= end || patience {
            return Err(match taken {
                true => ProposeError::OutcomeUnknown { id: proposal.id, within },
                false => ProposeError::NoQuorum(no_quorum(shared, &why)),
            });
        }
        let left = (end - now).min(RESEND + on_the_way(&proposal.command));
        let attempt = match leader {
            None => Attempt::NotTaken("no leader is heard".to_owned()),
            Some(id) if id == shared.id => at_home(shared, &proposal, left).await,
            Some(id) => at_peer(shared, id, &proposal, left).await,
        };
        match attempt {
            Attempt::Answered(outcome) => return Ok(outcome),
            Attempt::Never(why) if !taken => return Err(ProposeError::Invalid(why)),
            Attempt::Never(reason) | Attempt::NotTaken(reason) => why = reason,
            Attempt::Unknown(reason) => (taken, why) = (true, reason),
        }
        let _ = timeout(AGAIN, state.changed()).await;
    }
}

/// How long a long policy may travel: 256 KiB a second are slow for a sync network.
fn on_the_way(command: &Command) -> Duration {
    match command {
        Command::ApplyPolicy { text, .. } => Duration::from_secs(text.len() as u64 >> 18),
        _ => Duration::ZERO,
    }
}

fn standing(shared: &Shared) -> Result<(), Standing> {
    match shared.standing() {
        Standing::Member => Ok(()),
        other => Err(other),
    }
}

/// Why there is no quorum, in words: who is missing.
fn no_quorum(shared: &Shared, why: &str) -> String {
    let state = shared.state();
    let peers = shared.peers.health(shared.id, &state);
    let missing: Vec<_> = peers
        .iter()
        .filter(|p| !p.connected && state.members.get(&p.id).is_some_and(|m| m.voter))
        .map(|p| p.name.as_str())
        .collect();
    match missing.is_empty() {
        true => why.to_owned(),
        false => format!("{why}; not reached: {}", missing.join(", ")),
    }
}

/// Puts it into this node's own log and waits for its answer, or for the end of this node's lead.
async fn at_home(shared: &Arc<Shared>, proposal: &Proposal, within: Duration) -> Attempt {
    let (reply, taken) = oneshot::channel();
    let term = shared.status.borrow().term;
    let input = Input::Propose { proposal: Box::new(proposal.clone()), reply };
    if !shared.input(input) {
        return Attempt::NotTaken("this node is busy".to_owned());
    }
    match taken.await {
        Ok(Ok(())) => {}
        Ok(Err(raft::ProposeError::NotLeader { .. })) => {
            return Attempt::NotTaken("the leader changed".to_owned());
        }
        Ok(Err(error @ raft::ProposeError::TooLong { .. })) => return Attempt::Never(error.to_string()),
        Ok(Err(error)) => return Attempt::NotTaken(error.to_string()),
        // The thread ended with it, taken or not.
        Err(_) => return Attempt::Unknown("this node stopped taking part".to_owned()),
    }
    let (mut state, mut status) = (shared.state.subscribe(), shared.status.subscribe());
    let answered = async {
        let state = state.wait_for(|s| s.answer(&proposal.id).is_some()).await;
        state.ok().and_then(|s| s.answer(&proposal.id).cloned())
    };
    let deposed = status.wait_for(|s| s.leader != Some(shared.id) || s.term != term);
    tokio::select! {
        biased;
        outcome = timeout(within, answered) => match outcome {
            Ok(Some(outcome)) => Attempt::Answered(outcome),
            _ => Attempt::Unknown("the leader has no quorum".to_owned()),
        },
        _ = deposed => Attempt::Unknown("the leader changed before it was agreed on".to_owned()),
    }
}

async fn at_peer(shared: &Arc<Shared>, leader: NodeId, proposal: &Proposal, within: Duration) -> Attempt {
    let connection = match shared.peers.connection(leader) {
        Ok(connection) => connection,
        Err(why) => return Attempt::NotTaken(format!("the leader (node {leader}) is not reached: {why}")),
    };
    let request = Request::Propose(proposal.clone());
    // The answer may as well come through the log: then the caller's loop sees it.
    let mut state = shared.state.subscribe();
    let applied = async {
        let state = state.wait_for(|s| s.answer(&proposal.id).is_some()).await;
        state.ok().and_then(|s| s.answer(&proposal.id).cloned())
    };
    let answer = tokio::select! {
        answer = rpc::call(&connection, &request, within) => answer,
        Some(outcome) = applied => return Attempt::Answered(outcome),
    };
    match answer {
        Ok(Answer::Outcome(outcome)) => Attempt::Answered(outcome),
        Ok(Answer::NotLeader(_)) => Attempt::NotTaken("the leader changed".to_owned()),
        Ok(Answer::Busy) => Attempt::NotTaken("the leader is busy with another change".to_owned()),
        Ok(Answer::Invalid(why)) => Attempt::Never(why),
        Ok(_) => Attempt::Unknown("the leader changed before it was agreed on".to_owned()),
        Err(error) => Attempt::Unknown(format!("the leader (node {leader}): {error}")),
    }
}

/// As the leader: answers a peer's proposal. `Busy` and `NotLeader` mean that it is not in the log.
pub(crate) async fn for_peer(shared: &Arc<Shared>, proposal: &Proposal) -> Answer {
    /// Above the time after which the peer sends it again.
    const WAIT: Duration = Duration::from_secs(4);
    if let Some(outcome) = shared.state.borrow().answer(&proposal.id) {
        return Answer::Outcome(outcome.clone());
    }
    let leader = shared.status.borrow().leader;
    if leader != Some(shared.id) {
        return Answer::NotLeader(leader);
    }
    match at_home(shared, proposal, WAIT).await {
        Attempt::Answered(outcome) => Answer::Outcome(outcome),
        Attempt::NotTaken(_) if shared.status.borrow().leader == Some(shared.id) => Answer::Busy,
        Attempt::NotTaken(_) => Answer::NotLeader(shared.status.borrow().leader),
        Attempt::Unknown(_) => Answer::Lost,
        Attempt::Never(why) => Answer::Invalid(why),
    }
}

/// A linearizable read.
pub(crate) async fn read(shared: &Arc<Shared>, within: Duration) -> Result<Arc<ClusterState>, ReadError> {
    let (end, mut leader_seen) = (Instant::now() + within, Instant::now());
    loop {
        standing(shared).map_err(ReadError::Standing)?;
        let now = Instant::now();
        if shared.status.borrow().has_quorum {
            leader_seen = now;
        }
        if now >= end || now - leader_seen >= shared.options.leader_patience {
            return Err(ReadError::NoQuorum(no_quorum(
                shared,
                "no leader confirms that this copy is the newest",
            )));
        }
        let (reply, state) = oneshot::channel();
        if shared.input(Input::Read { reply })
            && let Ok(Ok(state)) = timeout((end - now).min(READ_AGAIN), state).await
        {
            return Ok(state);
        }
        sleep(AGAIN.min(end - now)).await;
    }
}
