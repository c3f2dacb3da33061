//! Two nodes over the control socket with everything real but the network interfaces: QUIC on the loopback,
//! Raft stores on disk, engines.

use super::tests::Rig;
use crate::api::*;
use crate::daemon::cluster::QuicClusters;
use crate::daemon::twin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DENY: &str = "[[zone]]\nname = \"outside\"\n[[zone]]\nname = \"inside\"\n";
/// Generous: it only ends a hang.
const LONG: Duration = Duration::from_secs(60);

fn rig(name: &str) -> Rig {
    let dir = twin::folder(name);
    let (node, tasks) = twin::seated(&dir, 1, 1_000, &[], Arc::new(QuicClusters::new(Vec::new())));
    Rig::serving(dir, node, Arc::default(), tasks)
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
    let init = InitRequest { name: "edge".into(), node: Some("fw-1".into()), addresses: here() };
    let _: Joined = a.client.post("/v1/cluster/init", &init).await.unwrap();
    let request = TokenRequest { ttl_ms: 60_000, role: "node".into() };
    let created: TokenCreated = a.client.post("/v1/cluster/tokens", &request).await.unwrap();
    let join = JoinRequest { token: created.token, node: Some("fw-2".into()), addresses: here() };
    let joined: Joined = b.client.post("/v1/cluster/join", &join).await.unwrap();
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
