//! Questions to all members at the same time.

use super::shared::Shared;
use super::{Enforcement, NodeReport, answer, renew};
use crate::quic::rpc::{self, Answer, Request};
use futures::future::join_all;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidegate_sync::cluster::{Member, NodeId, Role};

/// What a peer has beyond the time that its question gives it, for the way.
const WAY: Duration = Duration::from_millis(500);

/// Asks every member for which `wanted` says so; this node is asked by `own`.
async fn all<T, F: Future<Output = T>>(
    shared: &Arc<Shared>,
    wanted: impl Fn(&Member) -> bool,
    ask: impl Fn(NodeId) -> F,
) -> Vec<(NodeId, String, T)> {
    let state = shared.state();
    let members = state.members.iter().filter(|(_, m)| wanted(m));
    join_all(members.map(|(id, member)| {
        let answer = ask(*id);
        async move { (*id, member.name.clone(), answer.await) }
    }))
    .await
}

/// One question to one peer; waits for its connection for as long as for its answer.
async fn ask(shared: &Arc<Shared>, id: NodeId, request: Request, within: Duration) -> Result<Answer, String> {
    let start = tokio::time::Instant::now();
    let connection = shared.peers.connected(id, within).await?;
    let left = (within + WAY).saturating_sub(start.elapsed());
    match rpc::call(&connection, &request, left).await {
        Ok(Answer::Invalid(why)) => Err(why),
        Ok(answer) => Ok(answer),
        Err(error) => Err(error.to_string()),
    }
}

fn senseless<T>(_: Answer) -> Result<T, String> {
    Err("the answer makes no sense".to_owned())
}

/// Which full members enforce a revision.
pub(crate) async fn wait_enforced(shared: &Arc<Shared>, revision: u32, within: Duration) -> Vec<Enforcement> {
    let known = shared.state.borrow().policy.get(revision).map(|r| r.sha256);
    let sha256 = match known {
        Some(sha256) => sha256,
        // The answer to the proposal may be here before the entry is applied.
        None => {
            let mut state = shared.state.subscribe();
            let applied = state.wait_for(|s| s.policy.get(revision).is_some());
            match tokio::time::timeout(within, applied).await {
                Ok(Ok(state)) => state.policy.get(revision).map(|r| r.sha256).unwrap_or_default(),
                _ => [0; 32],
            }
        }
    };
    let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let found = all(
        shared,
        |m| m.role == Role::Node,
        |id| async move {
            if id == shared.id {
                return answer::wait_enforced(shared, revision, sha256, within).await;
            }
            match ask(shared, id, Request::WaitEnforced { revision, sha256, timeout_ms }, within).await? {
                Answer::Enforced(result) => result,
                other => senseless(other),
            }
        },
    );
    found.await.into_iter().map(|(node, name, result)| Enforcement { node, name, result }).collect()
}

/// What each member says of itself.
pub(crate) async fn reports(
    shared: &Arc<Shared>,
    within: Duration,
) -> Vec<(NodeId, String, Result<NodeReport, String>)> {
    all(
        shared,
        |_| true,
        |id| async move {
            if id == shared.id {
                return Ok(shared.report());
            }
            match ask(shared, id, Request::Report, within).await? {
                Answer::Report(report) => Ok(report),
                other => senseless(other),
            }
        },
    )
    .await
}

/// New certificates for all members.
pub(crate) async fn rotate_all(
    shared: &Arc<Shared>,
    by: &str,
    within: Duration,
) -> Vec<(NodeId, String, Result<u64, String>)> {
    let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    all(
        shared,
        |_| true,
        |id| async move {
            if id == shared.id {
                return renew::renew(shared, by, within).await.map_err(|e| e.to_string());
            }
            match ask(shared, id, Request::Rotate { by: by.to_owned(), timeout_ms }, within).await? {
                Answer::Rotated(result) => result,
                other => senseless(other),
            }
        },
    )
    .await
}
