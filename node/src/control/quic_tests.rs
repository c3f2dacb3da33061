//! Two nodes over the control socket with everything real but the network interfaces: QUIC on the loopback,
//! Raft stores on disk, engines.

use super::tests::{Rig, list, query};
use crate::api::*;
use crate::client::with_query;
use crate::daemon::cluster::QuicClusters;
use crate::daemon::node::Node;
use crate::daemon::twin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DENY: &str = "[[zone]]\nname = \"outside\"\n[[zone]]\nname = \"inside\"\n";
/// Generous: it only ends a hang.
const LONG: Duration = Duration::from_secs(60);

fn rig(name: &str) -> Rig {
    rig_with(name).0
}

fn rig_with(name: &str) -> (Rig, Arc<Node>) {
    let dir = twin::folder(name);
    let (node, tasks) = twin::seated(&dir, 1, 1_000, &[], Arc::new(QuicClusters::new(Vec::new())));
    (Rig::serving(dir, node.clone(), Arc::default(), tasks), node)
}

/// Two members of one cluster.
async fn pair(a: &Rig, b: &Rig) -> Joined {
    let init = InitRequest { name: "edge".into(), node: Some("fw-1".into()), addresses: here() };
    let _: Joined = a.client.post("/v1/cluster/init", &init).await.unwrap();
    let request = TokenRequest { ttl_ms: 60_000, role: "node".into() };
    let created: TokenCreated = a.client.post("/v1/cluster/tokens", &request).await.unwrap();
    let join = JoinRequest { token: created.token, node: Some("fw-2".into()), addresses: here() };
    b.client.post("/v1/cluster/join", &join).await.unwrap()
}

fn here() -> Vec<String> {
    vec!["127.0.0.1:0".to_owned()]
}

impl Rig {
    async fn cluster(&self) -> ClusterStatus {
        self.client.get("/v1/cluster").await.unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        let end = Instant::now() + LONG;
        loop {
            let status = self.cluster().await;
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_form_a_cluster_and_enforce_what_either_is_told() {
    // Answer for the asked node alone, follow only one's own changes, or lose the way between them, and the
    // engines of the two differ.
    let (a, b) = (rig("quic-a"), rig("quic-b"));
    let joined = pair(&a, &b).await;
    assert_eq!((joined.cluster.as_str(), joined.node_id, joined.node.as_str()), ("edge", 2, "fw-2"));
    assert_eq!(joined.policy_revision, Some(1));
    b.until("the policy comes", |s| s.policy.enforced_revision == Some(1)).await;
    let apply = ApplyRequest {
        file: "p.toml".into(),
        text: DENY.into(),
        base: None,
        dry_run: false,
        confirm_within_ms: None,
    };
    let applied: PolicyApplied = b.client.post("/v1/policy/apply", &apply).await.unwrap();
    assert_eq!((applied.revision, applied.unchanged), (2, false));
    let nodes: Vec<_> = applied.nodes.iter().map(|n| (n.node.as_str(), n.enforced)).collect();
    assert_eq!(nodes, [("fw-1", true), ("fw-2", true)], "{applied:?}");
    for rig in [&a, &b] {
        let shown: PolicyShow = rig.client.get("/v1/policy").await.unwrap();
        assert_eq!((shown.revision, &shown.sha256), (2, &applied.sha256));
        let s = rig.until("both are connected", |s| s.members.iter().all(|m| m.connected)).await;
        let told: Vec<_> =
            s.members.iter().map(|m| (m.node_id, m.votes, m.enforced_revision, m.this_node)).collect();
        let own = s.node_id;
        assert_eq!(told, [(1, true, Some(2), own == 1), (2, false, Some(2), own == 2)]);
        assert!(s.quorum && s.changes_refused.is_none() && s.certificate_remaining_s > 0, "{s:?}");
    }
    let audit: History = a.client.get("/v1/cluster/history").await.unwrap();
    assert!(audit.entries.iter().any(|e| e.what == "apply policy" && e.via == "fw-2"), "{audit:?}");
    let removed: Removal = a
        .client
        .post("/v1/cluster/remove", &RemoveRequest { node: "fw-2".into(), preview: false })
        .await
        .unwrap();
    assert_eq!(removed.member.node, "fw-2");
    b.until("its policy is withdrawn", |s| s.standing == "removed" && s.policy.enforced_revision.is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j10_j11_whichever_node_is_asked_all_answer_for_what_they_own() {
    // Answer for the asked node alone, or for copies too, or lose a node's part, and a sum is wrong.
    let ((a, first), (b, second)) = (rig_with("quic-all-a"), rig_with("quic-all-b"));
    pair(&a, &b).await;
    for rig in [&a, &b] {
        rig.until("both are connected and enforce", |s| {
            s.policy.enforced_revision == Some(1)
                && s.members.len() == 2
                && s.members.iter().all(|m| m.connected)
        })
        .await;
    }
    twin::fill(&first, 300).await;
    twin::fill(&second, 20).await;
    for rig in [&a, &b] {
        let (sessions, end) = list(rig, &SessionQuery::default()).await;
        assert_eq!((sessions.len(), end.listed, end.unanswered_nodes.len()), (320, 320, 0), "{end:?}");
        let of = |origin: &str| sessions.iter().filter(|s| s.id.starts_with(origin)).count();
        assert_eq!((of("1-"), of("2-")), (300, 20));
        let (few, end) = list(rig, &query(|q| q.limit = Some(310))).await;
        assert_eq!((few.len(), end.listed), (310, 310));
        let sort = query(|q| (q.sort, q.limit) = (Some("source-port:desc".into()), Some(50)));
        let (sorted, end) = list(rig, &sort).await;
        assert_eq!((sorted.len(), end.matched), (50, Some(320)));
        let ports: Vec<_> = sorted.iter().map(|s| s.forward.source_port).collect();
        assert!(ports.is_sorted_by(|x, y| x >= y), "{ports:?}");
        let (one, _) = list(rig, &query(|q| q.node = Some("fw-2".into()))).await;
        assert!(one.len() == 20 && one.iter().all(|s| s.owner == "fw-2"), "{}", one.len());
        let sum: SessionSummary = rig.client.get("/v1/sessions/summary").await.unwrap();
        let nodes: Vec<_> = sum.nodes.iter().map(|n| (n.node.as_str(), n.valid)).collect();
        assert_eq!((sum.valid, nodes), (320, vec![("fw-1", 300), ("fw-2", 20)]));
        let id = query(|q| q.id = Some(one[0].id.clone()));
        let shown: Session = rig.client.get(&with_query("/v1/session", &id).unwrap()).await.unwrap();
        assert_eq!((shown.id.as_str(), shown.owner.as_str()), (one[0].id.as_str(), "fw-2"));
    }
    assert_eq!(list(&a, &query(|q| q.local = true)).await.0.len(), 300);
    let mut watch = b.client.lines("/v1/sessions/watch").await.unwrap();
    let watching: WatchLine = serde_json::from_slice(&watch.next().await.unwrap().unwrap()).unwrap();
    assert!(matches!(&watching, WatchLine::Watching { nodes, .. } if nodes.len() == 2), "{watching:?}");
    let request =
        ClearRequest { query: query(|q| q.source_port = Some("1024-1033".into())), ..Default::default() };
    let cleared: ClearReply = b.client.post("/v1/sessions/clear", &request).await.unwrap();
    let nodes: Vec<_> = cleared.nodes.iter().map(|n| (n.node.as_str(), n.cleared)).collect();
    assert_eq!((cleared.cleared, nodes), (20, vec![("fw-1", 10), ("fw-2", 10)]));
    assert_eq!(list(&a, &SessionQuery::default()).await.0.len(), 300);
}
