//! The cluster's verbs over the control socket: real engines, the real state machine, no network.

use super::tests::{Rig, list, query};
use crate::api::*;
use crate::daemon::twin;
use crate::exit::Exit;
use std::sync::atomic::Ordering;

const DENY: &str = "[[zone]]\nname = \"outside\"\n[[zone]]\nname = \"inside\"\n";

async fn founded(name: &str) -> Rig {
    let rig = Rig::new(name, 2, 1_000, 0, &[]).await;
    let init = InitRequest { name: "edge".into(), node: None, addresses: vec!["10.90.0.1".into()] };
    let joined: Joined = rig.client.post("/v1/cluster/init", &init).await.unwrap();
    assert_eq!((joined.cluster.as_str(), joined.node_id, joined.node.as_str()), ("edge", 1, "n1"));
    assert_eq!(joined.policy_revision, Some(1));
    rig
}

fn apply(text: &str) -> ApplyRequest {
    ApplyRequest {
        file: "p.toml".into(),
        text: text.into(),
        base: None,
        dry_run: false,
        confirm_within_ms: None,
    }
}

impl Rig {
    async fn apply(&self, request: &ApplyRequest) -> Result<PolicyApplied, crate::exit::Failure> {
        self.client.post("/v1/policy/apply", request).await
    }
}

#[tokio::test]
async fn a_policy_is_applied_once_and_history_says_who_asked() {
    // Lose the peer's credentials, number an unchanged text, or answer before the engines, and a line fails.
    let rig = founded("apply").await;
    let applied = rig.apply(&apply(DENY)).await.unwrap();
    assert_eq!((applied.revision, applied.unchanged, applied.confirm_within_s), (2, false, None));
    let nodes: Vec<_> = applied.nodes.iter().map(|n| (n.node.as_str(), n.enforced)).collect();
    assert_eq!(nodes, [("n1", true)]);
    let again = rig.apply(&apply(DENY)).await.unwrap();
    assert_eq!((again.revision, again.unchanged, again.sha256), (2, true, applied.sha256.clone()));
    let shown: PolicyShow = rig.client.get("/v1/policy").await.unwrap();
    assert_eq!((shown.revision, &shown.sha256, shown.source.as_str()), (2, &applied.sha256, "cluster edge"));
    let history: PolicyHistory = rig.client.get("/v1/policy/history").await.unwrap();
    let told: Vec<_> =
        history.revisions.iter().map(|r| (r.revision, r.in_force, r.source.as_str())).collect();
    assert_eq!((told, history.current), (vec![(1, false, "init"), (2, true, "apply")], true));
    let uid = rustix::process::geteuid().as_raw();
    assert!(history.revisions[1].by.starts_with(&format!("uid {uid}")), "{}", history.revisions[1].by);
    let audit: History = rig.client.get("/v1/cluster/history").await.unwrap();
    assert_eq!(audit.entries.last().unwrap().outcome, "unchanged: revision 2");
    // An earlier revision: its rules without hits, and its text.
    let first: PolicyShow = rig.client.get("/v1/policy?revision=1").await.unwrap();
    assert_eq!((first.revision, first.rules[0].hits, first.default_deny_hits), (1, None, None));
    let text: PolicyText = rig.client.get("/v1/policy/text?revision=1").await.unwrap();
    assert_eq!(text.text, twin::POLICY);
    let none = rig.client.get::<PolicyText>("/v1/policy/text?revision=9").await.unwrap_err();
    assert!(none.message.contains("policy history"), "{none}");
}

#[tokio::test]
async fn a_dry_run_and_a_policy_with_errors_change_nothing() {
    // Propose first and check later, and the history has a revision that no node can enforce.
    let rig = founded("dry").await;
    let dry = rig.apply(&ApplyRequest { dry_run: true, ..apply(DENY) }).await.unwrap();
    assert!(dry.dry_run && !dry.unchanged && dry.revision == 1 && dry.nodes.is_empty());
    assert!(dry.diff.unwrap().contains("-action = \"permit\""));
    let same = rig.apply(&ApplyRequest { dry_run: true, ..apply(twin::POLICY) }).await.unwrap();
    assert!(same.unchanged && same.diff.unwrap().is_empty());
    let failed = rig.apply(&apply("nonsense = 1\n")).await.unwrap_err();
    assert!(failed.exit == Exit::Usage && failed.message.contains("p.toml:1:1"), "{failed}");
    let history: PolicyHistory = rig.client.get("/v1/policy/history").await.unwrap();
    assert_eq!(history.revisions.len(), 1);
}

#[tokio::test]
async fn who_saw_another_revision_is_told_that_it_moved() {
    // Take whichever revision is in force as the base, and the second of two operators undoes the first's work.
    let rig = founded("moved").await;
    rig.apply(&apply(DENY)).await.unwrap();
    let late = ApplyRequest { base: Some(1), ..apply(&format!("# late\n{DENY}")) };
    let refused = rig.apply(&late).await.unwrap_err();
    assert!(refused.exit == Exit::Error && refused.message.contains("moved from 1 to 2"), "{refused}");
}

#[tokio::test]
async fn a_trial_is_confirmed_and_a_rollback_is_a_new_revision() {
    // Confirm without saying which, or roll back without a text, and nothing would be right.
    let rig = founded("lease").await;
    let trial = ApplyRequest { confirm_within_ms: Some(60_000), ..apply(DENY) };
    let applied = rig.apply(&trial).await.unwrap();
    assert!(applied.confirm_within_s.is_some_and(|s| s > 0.0 && s <= 60.0), "{applied:?}");
    let status: Status = rig.client.get("/v1/status").await.unwrap();
    let pending = status.cluster.unwrap().policy.pending.unwrap();
    assert_eq!((pending.revision, pending.fallback_revision), (2, Some(1)));
    let confirm = ConfirmRequest { revision: None };
    let kept: PolicyApplied = rig.client.post("/v1/policy/confirm", &confirm).await.unwrap();
    assert_eq!((kept.revision, kept.confirm_within_s), (2, None));
    let nothing = rig.client.post::<PolicyApplied>("/v1/policy/confirm", &confirm).await.unwrap_err();
    assert!(nothing.message.contains("no revision waits"), "{nothing}");
    let back = RollbackRequest { revision: 1, base: None, confirm_within_ms: None };
    let back: PolicyApplied = rig.client.post("/v1/policy/rollback", &back).await.unwrap();
    assert_eq!((back.revision, back.unchanged), (3, false));
    let text: PolicyText = rig.client.get("/v1/policy/text").await.unwrap();
    assert_eq!((text.revision, text.text.as_str()), (3, twin::POLICY));
    let short = ApplyRequest { confirm_within_ms: Some(1), ..apply(DENY) };
    assert_eq!(rig.apply(&short).await.unwrap_err().exit, Exit::Usage);
}

#[tokio::test]
async fn without_a_quorum_changes_end_with_3_and_reads_say_how_old_they_are() {
    // Map it to an ordinary error, and a script cannot tell a refused policy from a cluster that cannot agree.
    let rig = founded("noquorum").await;
    let member = rig.clusters.member();
    member.admit("n2", tidegate_sync::cluster::Role::Node);
    member.quorum.store(false, Ordering::Relaxed);
    let refused = rig.apply(&apply(DENY)).await.unwrap_err();
    assert!(refused.exit == Exit::Unreachable && refused.message.contains("no quorum"), "{refused}");
    let token = TokenRequest { ttl_ms: 60_000, role: "node".into() };
    let refused = rig.client.post::<TokenCreated>("/v1/cluster/tokens", &token).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Unreachable);
    let members: Members = rig.client.get("/v1/cluster/members").await.unwrap();
    assert_eq!((members.current, members.members.len()), (false, 2));
    assert!(!members.members[1].connected && members.members[1].problem.is_some());
    let status: Status = rig.client.get("/v1/status").await.unwrap();
    let cluster = status.cluster.unwrap();
    assert!(!cluster.quorum && cluster.changes_refused.is_some());
    assert!(status.degraded.iter().any(|d| d.contains("last agreed policy")), "{:?}", status.degraded);
    assert!(status.degraded.iter().any(|d| d.contains("node n2 is not connected")), "{:?}", status.degraded);
    let metrics = rig.client.text("/metrics").await.unwrap();
    assert!(metrics.contains("tidegate_cluster_quorum 0"), "{metrics}");
    assert!(metrics.contains("tidegate_cluster_peer_connected{peer=\"n2\"} 0"), "{metrics}");
}

#[tokio::test]
async fn tokens_are_shown_once_and_taken_back() {
    // Put the secret into the list, or keep a revoked token, and whoever reads the list can join.
    let rig = founded("tokens").await;
    let request = TokenRequest { ttl_ms: 60_000, role: "witness".into() };
    let created: TokenCreated = rig.client.post("/v1/cluster/tokens", &request).await.unwrap();
    assert!(created.token.starts_with("tidegate-join-1-"));
    let list: TokenList = rig.client.get("/v1/cluster/tokens").await.unwrap();
    let told: Vec<_> = list.tokens.iter().map(|t| (&t.id, t.role.as_str(), t.state.as_str())).collect();
    assert_eq!(told, [(&created.id, "witness", "open")]);
    let revoke = RevokeRequest { id: created.id.clone() };
    let Nothing {} = rig.client.post("/v1/cluster/tokens/revoke", &revoke).await.unwrap();
    let gone = rig.client.post::<Nothing>("/v1/cluster/tokens/revoke", &revoke).await.unwrap_err();
    assert!(gone.message.contains("not known"), "{gone}");
    for (ttl_ms, role) in [(0, "node"), (60_000, "king")] {
        let wrong = TokenRequest { ttl_ms, role: role.into() };
        let refused = rig.client.post::<TokenCreated>("/v1/cluster/tokens", &wrong).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
    }
}

#[tokio::test]
async fn a_member_is_removed_by_name_or_number_after_a_look_at_it() {
    // Remove at the preview, or take an unknown name for somebody, and the wrong node goes for good.
    let rig = founded("remove").await;
    rig.clusters.member().admit("n2", tidegate_sync::cluster::Role::Node);
    let ask = |node: &str, preview| RemoveRequest { node: node.into(), preview };
    let look: Removal = rig.client.post("/v1/cluster/remove", &ask("2", true)).await.unwrap();
    assert_eq!((look.member.node.as_str(), look.member.this_node), ("n2", false));
    let removed: Removal = rig.client.post("/v1/cluster/remove", &ask("n2", false)).await.unwrap();
    assert_eq!(removed.member.node_id, 2);
    let again = rig.client.post::<Removal>("/v1/cluster/remove", &ask("n2", false)).await.unwrap_err();
    assert!(again.message.contains("cluster members"), "{again}");
    let last = rig.client.post::<Removal>("/v1/cluster/remove", &ask("n1", false)).await.unwrap_err();
    assert!(last.message.contains("last that may vote"), "{last}");
    let members: Members = rig.client.get("/v1/cluster/members").await.unwrap();
    assert_eq!(members.removed, [FormerMember { node_id: 2, node: "n2".into() }]);
}

#[tokio::test]
async fn verbs_of_a_cluster_are_refused_outside_one_and_the_files_on_a_member() {
    // Fall back to the file on a member, and two nodes of one cluster enforce different policies.
    let rig = Rig::new("single", 1, 1_000, 0, &[]).await;
    let told = |failure: crate::exit::Failure| {
        assert!(failure.exit == Exit::Error && failure.message.contains("cluster init"), "{failure}");
    };
    told(rig.apply(&apply(DENY)).await.unwrap_err());
    told(
        rig.client
            .post::<PolicyApplied>("/v1/policy/confirm", &ConfirmRequest { revision: None })
            .await
            .unwrap_err(),
    );
    told(rig.client.get::<PolicyHistory>("/v1/policy/history").await.unwrap_err());
    told(rig.client.get::<PolicyShow>("/v1/policy?revision=1").await.unwrap_err());
    told(rig.client.get::<Members>("/v1/cluster/members").await.unwrap_err());
    let _: PolicyReload = rig.client.post("/v1/policy/reload", &()).await.unwrap();
    for (name, addresses) in [("no name", vec!["10.0.0.1"]), ("edge", vec![]), ("edge", vec!["0.0.0.0"])] {
        let addresses = addresses.into_iter().map(str::to_owned).collect();
        let wrong = InitRequest { name: name.into(), node: None, addresses };
        let refused = rig.client.post::<Joined>("/v1/cluster/init", &wrong).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Usage, "{refused}");
    }
    let init =
        InitRequest { name: "edge".into(), node: Some("fw-1".into()), addresses: vec!["10.0.0.1".into()] };
    let joined: Joined = rig.client.post("/v1/cluster/init", &init).await.unwrap();
    assert_eq!(joined.node, "fw-1");
    let refused = rig.client.post::<PolicyReload>("/v1/policy/reload", &()).await.unwrap_err();
    assert!(refused.exit == Exit::Error && refused.message.contains("policy apply"), "{refused}");
    let twice = rig.client.post::<Joined>("/v1/cluster/init", &init).await.unwrap_err();
    assert!(twice.message.contains("member of cluster edge already"), "{twice}");
    let recover = RecoverRequest { preview: false };
    let gate = rig.client.post::<Recovery>("/v1/cluster/recover", &recover).await.unwrap_err();
    assert_eq!(gate.exit, Exit::Refused);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_the_others_answer() {
    // Leave the silent node out, wait for it, or fail for its sake, and this does not hold.
    let rig = founded("silent").await;
    let member = rig.clusters.member();
    member.admit("n2", tidegate_sync::cluster::Role::Node);
    member.admit("w", tidegate_sync::cluster::Role::Witness);
    let sum: SessionSummary = rig.client.get("/v1/sessions/summary").await.unwrap();
    let silent: Vec<_> = sum.unanswered_nodes.iter().map(|n| (n.node.as_str(), n.node_id)).collect();
    assert_eq!((sum.nodes.len(), silent), (1, vec![("n2", 2)]));
    let (_, end) = list(&rig, &SessionQuery::default()).await;
    assert_eq!(end.unanswered_nodes.len(), 1, "{end:?}");
    let (_, sorted) = list(&rig, &query(|q| q.sort = Some("bytes".into()))).await;
    assert_eq!(sorted.unanswered_nodes.len(), 1, "{sorted:?}");
    let reply: ClearReply = rig.client.post("/v1/sessions/clear", &ClearRequest::default()).await.unwrap();
    assert_eq!(reply.unanswered_nodes.len(), 1, "{reply:?}");
    let verified: Verification = rig.client.get("/v1/sessions/verify").await.unwrap();
    assert_eq!((verified.agree, verified.unanswered_nodes.len()), (true, 1), "{verified:?}");
    for only_here in [query(|q| q.node = Some("n1".into())), query(|q| q.local = true)] {
        assert_eq!(list(&rig, &only_here).await.1.unanswered_nodes, []);
    }
    let unknown = list_error(&rig, &query(|q| q.node = Some("n3".into()))).await;
    assert!(unknown.contains("no such node"), "{unknown}");
}

async fn list_error(rig: &Rig, query: &SessionQuery) -> String {
    let path = crate::client::with_query("/v1/sessions", query).unwrap();
    rig.client.lines(&path).await.err().unwrap().message
}
