//! A member with real engines and the real state machine, without network and disk.

use super::Forming;
use super::twin::TwinMember;
use crate::daemon::node::Node;
use crate::daemon::twin;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::drops::DropReason;
use tidegate_sync::cluster::{Command, Lease, NodeId, Outcome};
use tidegate_sync_net::cluster::Standing;
use tokio::task::JoinSet;

/// Nothing from outside to inside.
pub(super) const DENY: &str = "[[zone]]\nname = \"outside\"\n[[zone]]\nname = \"inside\"\n";

/// Generous: it only ends a hang.
const LONG: Duration = Duration::from_secs(30);

struct Rig {
    node: Arc<Node>,
    clusters: Arc<super::twin::TwinClusters>,
    dir: PathBuf,
    _tasks: JoinSet<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn forming() -> Forming {
    Forming {
        node: "n1".to_owned(),
        addresses: vec!["10.90.0.1:7400".parse().unwrap()],
        by: "test".to_owned(),
    }
}

impl Rig {
    fn new(name: &str, hung: &[u16]) -> Rig {
        let dir = twin::folder(name);
        let (node, clusters, tasks) = twin::member(&dir, 2, 1_000, hung);
        Rig { node, clusters, dir, _tasks: tasks }
    }

    /// A cluster of this node alone.
    async fn founded(name: &str, hung: &[u16]) -> (Rig, Arc<TwinMember>) {
        let rig = Rig::new(name, hung);
        rig.node.init("edge".to_owned(), forming()).await.unwrap();
        let member = rig.clusters.member();
        (rig, member)
    }

    async fn enforces(&self, revision: Option<u32>) {
        let look = async {
            while self.node.seat.view().enforced.map(|(r, _)| r) != revision {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let view = || self.node.seat.view();
        tokio::time::timeout(LONG, look).await.unwrap_or_else(|_| panic!("not {revision:?}: {:?}", view()));
        let (have, _) = self.node.workers.all(|e, _| e.policy().map(|p| p.revision())).await;
        assert!(have.iter().all(|(_, r)| *r == revision), "{have:?}");
    }

    async fn drops(&self, reason: DropReason) -> u64 {
        let (numbers, _) = self.node.numbers().await;
        let all = numbers.iter().flat_map(|(_, n)| n.counters.drops.iter());
        all.filter(|(r, _)| *r == reason).map(|(_, n)| n).sum()
    }
}

fn apply(member: &TwinMember, base: u32, text: &str, lease: Option<Lease>) -> u32 {
    match member.agree(Command::ApplyPolicy { base, text: text.into(), lease }, "test") {
        Outcome::Revision { number, .. } => number,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_commit_is_told_as_enforced_once_no_worker_forwards_by_the_old_policy() {
    // Say it before the workers have answered, and the packet after it passes; keep the old numbering, and the
    // session of the policy file's revision 1 is not judged by the cluster's.
    let (rig, member) = Rig::founded("commit", &[]).await;
    rig.enforces(Some(1)).await;
    twin::ssh(&rig.node).await;
    assert_eq!(apply(&member, 1, DENY, None), 2);
    let all = super::Agreement::wait_enforced(&*member, 2, LONG).await;
    assert_eq!(all[0].result, Ok(()));
    twin::ssh(&rig.node).await;
    assert_eq!(rig.drops(DropReason::PolicyRevoked).await, 1);
    rig.enforces(Some(2)).await;
    assert_eq!(rig.node.policy.current().unwrap().source, "cluster edge");
}

#[tokio::test]
async fn a_hung_worker_keeps_a_revision_from_being_told_as_enforced() {
    // Take the send for the answer, and this node lies to the operator who waits for it.
    let (rig, member) = Rig::founded("hung-member", &[1]).await;
    apply(&member, 1, DENY, None);
    let all = super::Agreement::wait_enforced(&*member, 2, Duration::from_secs(3)).await;
    assert!(all[0].result.is_err());
    assert_eq!(rig.node.seat.view().enforced, None);
    let probe = rig.node.readyz();
    assert!(probe.problems.iter().any(|p| p.contains("revision 2")), "{:?}", probe.problems);
}

#[tokio::test]
async fn of_commits_that_come_fast_the_newest_is_enforced_in_the_end() {
    // Stop at the first that was overtaken, or lose the last, and this waits in vain.
    let (rig, member) = Rig::founded("fast", &[]).await;
    for n in 0..300_u32 {
        let text = format!("# {n}\n{}", if n % 2 == 0 { DENY } else { twin::POLICY });
        apply(&member, n + 1, &text, None);
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    rig.enforces(Some(301)).await;
}

#[tokio::test]
async fn a_revision_that_nobody_confirmed_gives_way_to_the_one_before() {
    // Wait for a higher number only, and the older revision never comes back to the engines.
    let (rig, member) = Rig::founded("trial", &[]).await;
    let lease = Lease { within_ms: 60_000, deadline_unix_ms: u64::MAX };
    apply(&member, 1, DENY, Some(lease));
    rig.enforces(Some(2)).await;
    member.agree(Command::ExpirePolicy { revision: 2 }, "the cluster");
    rig.enforces(Some(1)).await;
    twin::ssh(&rig.node).await;
    assert_eq!(rig.node.numbers().await.0.iter().map(|(_, n)| n.counters.created).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_removed_node_denies_everything_and_says_why() {
    // Leave the policy in force, and a node that nobody counts on any more forwards by it for ever.
    let (rig, member) = Rig::founded("removed", &[]).await;
    rig.enforces(Some(1)).await;
    twin::ssh(&rig.node).await;
    member.stand(Standing::Removed { told_by: Some(NodeId(2)) });
    rig.enforces(None).await;
    twin::ssh(&rig.node).await;
    assert_eq!(rig.drops(DropReason::PolicyRevoked).await, 1);
    let status = rig.node.status().await;
    assert_eq!(status.policy_revision, None);
    assert!(status.degraded.iter().any(|d| d.contains("removed from the cluster")), "{:?}", status.degraded);
    assert!(!rig.node.readyz().ok);
}

#[tokio::test]
async fn a_policy_that_this_node_cannot_compile_is_told_and_the_old_one_stays() {
    // Withdraw the old one, or tell the new one as enforced, and one of these fails.
    let (rig, member) = Rig::founded("strange", &[]).await;
    rig.enforces(Some(1)).await;
    apply(&member, 1, "of_a_later_release = true\n", None);
    let said = async {
        while rig.node.seat.view().error.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, said).await.unwrap();
    rig.enforces(Some(1)).await;
    let status = rig.node.status().await;
    let told = status.degraded.iter().find(|d| d.contains("revision 2")).expect("not told");
    assert!(told.contains("of_a_later_release"), "{told}");
    apply(&member, 2, DENY, None);
    rig.enforces(Some(3)).await;
    assert_eq!(rig.node.seat.view().error, None);
}

#[tokio::test]
async fn a_node_that_joins_takes_the_clusters_policy_and_its_number_there() {
    // Judge sessions by a revision's number, and its own revision 1 passes for the cluster's; keep the
    // configured number, and its sessions' ids are those of the first member.
    let rig = Rig::new("joins", &[]);
    twin::fill(&rig.node, 1).await;
    let token = tidegate_sync::cluster::JoinToken {
        ca_sha256: [1; 32],
        token: tidegate_sync::cluster::TokenId([1; 8]),
        secret: [2; 16],
        role: tidegate_sync::cluster::Role::Node,
        addresses: vec!["10.90.0.1:7400".parse().unwrap()],
    };
    rig.node.join(&token.to_string(), Forming { node: "n2".to_owned(), ..forming() }).await.unwrap();
    rig.enforces(Some(1)).await;
    assert_eq!((rig.node.name().as_str(), rig.node.id()), ("n2", 2));
    twin::fill(&rig.node, 1).await;
    let (ids, _) = rig.node.workers.all(|engine, _| engine.config().node_id).await;
    assert!(ids.iter().all(|(_, id)| *id == 2), "{ids:?}");
    let refused = rig.node.reload().await.unwrap_err().to_string();
    assert!(refused.contains("cluster other") && refused.contains("policy apply"), "{refused}");
}

#[tokio::test]
async fn a_recovery_needs_the_loss_of_the_quorum_and_goes_on_forwarding() {
    // Allow it while changes are possible, and one keystroke throws healthy members out.
    let (rig, member) = Rig::founded("recover", &[]).await;
    member.admit("n2", tidegate_sync::cluster::Role::Node);
    rig.enforces(Some(1)).await;
    let refused = rig.node.recover("test").await.err().expect("there is a quorum").to_string();
    assert!(refused.contains("n2"), "{refused}");
    member.quorum.store(false, std::sync::atomic::Ordering::Relaxed);
    let (cluster, generation) = rig.node.recover("test").await.unwrap();
    assert_eq!((generation, cluster.state().borrow().members.len()), (2, 1));
    rig.enforces(Some(1)).await;
    apply(&rig.clusters.member(), 1, DENY, None);
    rig.enforces(Some(2)).await;
}
