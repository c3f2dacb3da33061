//! The control socket with real engines behind it and the real client before it.

use super::*;
use crate::api::*;
use crate::client::{Client, with_query};
use crate::daemon::cluster::twin::TwinClusters;
use crate::daemon::metrics::Metrics;
use crate::daemon::node::Node;
use crate::daemon::twin;
use crate::exit::Exit;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) struct Rig {
    pub(super) client: Client,
    pub(super) clusters: Arc<TwinClusters>,
    dir: PathBuf,
    _tasks: JoinSet<()>,
    _stop: watch::Sender<bool>,
    _socket: ControlSocket,
}

impl std::ops::Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Rig {
    /// A control socket for that node.
    pub(super) fn serving(
        dir: PathBuf,
        node: Arc<Node>,
        clusters: Arc<TwinClusters>,
        mut tasks: JoinSet<()>,
    ) -> Rig {
        let path = dir.join("control.sock");
        let mut socket = ControlSocket::bind(&path).unwrap();
        let listener = tokio::net::UnixListener::from_std(socket.take_listener().unwrap()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let router = control_router(node, Arc::new(Metrics::default()));
        tasks.spawn(serve(Listener::Control(listener), router, stopping));
        Rig { client: Client::new(path), clusters, dir, _tasks: tasks, _stop: stop, _socket: socket }
    }

    pub(super) async fn new(name: &str, workers: u16, capacity: u32, flows: u32, hung: &[u16]) -> Rig {
        rig_with(name, workers, capacity, flows, hung).await.0
    }
}

async fn rig(name: &str, workers: u16, capacity: u32, flows: u32, hung: &[u16]) -> Rig {
    rig_with(name, workers, capacity, flows, hung).await.0
}

async fn rig_with(name: &str, workers: u16, capacity: u32, flows: u32, hung: &[u16]) -> (Rig, Arc<Node>) {
    let dir = twin::folder(name);
    let (node, clusters, tasks) = twin::member(&dir, workers, capacity, hung);
    if flows > 0 {
        twin::fill(&node, flows).await;
    }
    (Rig::serving(dir, node.clone(), clusters, tasks), node)
}

pub(super) async fn list(rig: &Rig, query: &SessionQuery) -> (Vec<Session>, ListEnd) {
    let mut lines = rig.client.lines(&with_query("/v1/sessions", query).unwrap()).await.unwrap();
    let mut sessions = Vec::new();
    loop {
        match serde_json::from_slice(&lines.next().await.unwrap().expect("cut off")).unwrap() {
            ListLine::Session(s) => sessions.push(*s),
            ListLine::End(end) => return (sessions, end),
        }
    }
}

pub(super) fn query(change: impl FnOnce(&mut SessionQuery)) -> SessionQuery {
    let mut q = SessionQuery::default();
    change(&mut q);
    q
}

#[tokio::test]
async fn j11_every_session_is_listed_once_across_slices_and_workers() {
    // Lose a slice's cursor, a worker or the last chunk and ids are missing; restart one and they repeat.
    let rig = rig("list", 2, 20_000, 9_000, &[]).await;
    let (sessions, end) = list(&rig, &SessionQuery::default()).await;
    let mut ids: Vec<_> = sessions.iter().map(|s| s.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), end.listed, end.unanswered_workers.len()), (9_000, 9_000, 0));
    assert!(sessions.iter().any(|s| s.worker == 0) && sessions.iter().any(|s| s.worker == 1));
    let (few, end) = list(&rig, &query(|q| q.limit = Some(1_500))).await;
    assert_eq!((few.len(), end.listed), (1_500, 1_500));
}

#[tokio::test]
async fn j11_a_session_shows_both_wings_its_timeout_and_what_set_it() {
    // Swap the wings, drop a name, or take milliseconds for seconds and a field differs.
    let rig = rig("show", 1, 1_000, 3, &[]).await;
    let (found, _) = list(&rig, &query(|q| q.source_port = Some("1025".into()))).await;
    assert_eq!(found.len(), 1);
    let query = query(|q| q.id = Some(found[0].id.clone()));
    let s: Session = rig.client.get(&with_query("/v1/session", &query).unwrap()).await.unwrap();
    assert_eq!((s.protocol.as_str(), s.protocol_number, s.state.as_str()), ("udp", 17, "one_way"));
    assert_eq!((s.from_zone.as_str(), s.to_zone.as_str()), ("outside", "inside"));
    assert_eq!((s.policy.as_str(), s.application.as_deref()), ("outside/inside/in", Some("dns")));
    assert_eq!((s.forward.source.as_str(), s.forward.source_port), ("10.0.1.2", Some(1025)));
    assert_eq!((s.reply.source.as_str(), s.reply.source_port), ("10.1.0.2", Some(53)));
    assert_eq!(
        (s.forward.ingress_port.as_deref(), s.forward.egress_port.as_deref()),
        (Some("outside"), Some("inside"))
    );
    assert_eq!((s.forward.packets, s.forward.bytes, s.reply.packets), (1, 28, 0));
    assert_eq!(s.timeout_s, Some(60.0));
    assert!(s.remaining_s.unwrap() <= 60.0 && s.remaining_s.unwrap() > 0.0);
    assert!(s.forward.tcp.is_none());
    assert_eq!((s.owner.as_str(), s.replicas.len()), ("n1", 0));
}

#[tokio::test]
async fn j11_a_sorted_list_is_the_first_of_all_workers_and_says_what_it_left_out() {
    // Sort each worker's part, or each slice, by itself, and the order breaks where they meet.
    let rig = rig("sorted", 2, 20_000, 9_000, &[]).await;
    let (sessions, end) =
        list(&rig, &query(|q| (q.sort, q.limit) = (Some("source-port:desc".into()), Some(2_000)))).await;
    let ports: Vec<u16> = sessions.iter().filter_map(|s| s.forward.source_port).collect();
    assert_eq!(ports, (1024 + 7_000..1024 + 9_000).rev().collect::<Vec<u16>>());
    assert_eq!((end.listed, end.matched), (2_000, Some(9_000)));
    let (sessions, end) = list(&rig, &query(|q| q.sort = Some("source-port".into()))).await;
    assert_eq!((sessions[0].forward.source_port, end.listed, end.matched), (Some(1024), 1_000, Some(9_000)));
    let path =
        with_query("/v1/sessions", &query(|q| (q.sort, q.limit) = (Some("bytes".into()), Some(1 << 40))));
    let refused = rig.client.text(&path.unwrap()).await.unwrap_err();
    assert!(refused.exit == Exit::Usage && refused.message.contains("--limit"), "{refused}");
}

#[tokio::test]
async fn j11_watch_tells_of_births_and_ends_and_the_engines_stop_when_nobody_listens() {
    // Leave the filter out and other sessions show; never disarm and the engines tell for ever.
    let (rig, node) = rig_with("watch", 2, 1_000, 3, &[]).await;
    let path = with_query("/v1/sessions/watch", &query(|q| q.protocol = Some("tcp".into()))).unwrap();
    let mut lines = rig.client.lines(&path).await.unwrap();
    let next = async |lines: &mut crate::client::Lines| -> WatchLine {
        serde_json::from_slice(&lines.next().await.unwrap().expect("cut off")).unwrap()
    };
    let watching = WatchLine::Watching {
        node: "n1".into(),
        nodes: vec!["n1".into()],
        unanswered_workers: vec![],
        unanswered_nodes: vec![],
    };
    assert_eq!(next(&mut lines).await, watching);
    twin::ssh(&node).await;
    let WatchLine::Created(created) = next(&mut lines).await else { panic!("not created") };
    assert_eq!((created.source_port, created.destination_port), (Some(50_000), Some(22)));
    assert_eq!((created.policy.as_str(), created.state.as_deref()), ("outside/inside/in", Some("syn_sent")));
    let ask = ClearRequest { query: SessionQuery::default(), ..ClearRequest::default() };
    let _: ClearReply = rig.client.post("/v1/sessions/clear", &ask).await.unwrap();
    let WatchLine::Ended(ended) = next(&mut lines).await else { panic!("not ended") };
    assert_eq!((ended.id, ended.reason.as_deref()), (created.id, Some("cleared")));
    assert_eq!((ended.packets, ended.reply_packets), (1, 0));
    drop(lines);
    // The engines are told to stop; a session set up after that makes no event.
    loop {
        let (telling, _) = node.workers.all(|engine, _| engine.is_watched()).await;
        if telling.iter().all(|(_, watched)| !watched) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn j10_clear_takes_what_the_filter_means_and_nothing_else() {
    // Ignore the filter, or the preview flag, and the counts differ.
    let rig = rig("clear", 2, 1_000, 100, &[]).await;
    let some = query(|q| q.source_port = Some("1024-1033".into()));
    let own = Some(["10.0.1.2", "1024", "10.1.0.2", "53"].map(str::to_owned));
    let ask = ClearRequest { query: some.clone(), preview: true, own_connection: own };
    let preview: ClearReply = rig.client.post("/v1/sessions/clear", &ask).await.unwrap();
    // Not TCP, so it cannot be an SSH connection.
    assert_eq!((preview.cleared, preview.own_connection), (10, None));
    let ask = ClearRequest { query: some, ..ClearRequest::default() };
    let reply: ClearReply = rig.client.post("/v1/sessions/clear", &ask).await.unwrap();
    assert_eq!((reply.cleared, reply.nodes.len(), reply.nodes[0].cleared), (10, 1, 10));
    assert_eq!((reply.nodes[0].node.as_str(), reply.nodes[0].node_id), ("n1", 1));
    assert_eq!(list(&rig, &SessionQuery::default()).await.1.listed, 90);
    let summary: SessionSummary = rig.client.get("/v1/sessions/summary").await.unwrap();
    assert_eq!((summary.in_use, summary.created, summary.ended["cleared"]), (90, 100, 10));
    assert_eq!((summary.valid, summary.pending, summary.in_drop, summary.unicast), (90, 0, 0, 90));
    assert_eq!((summary.nodes.len(), summary.nodes[0].in_use, summary.nodes[0].maximum), (1, 90, 2_000));
    assert_eq!((summary.maximum, summary.by_protocol["udp"], summary.by_state["one_way"]), (2_000, 90, 90));
}

#[tokio::test]
async fn j10_the_operators_own_connection_is_named_only_when_it_would_go() {
    // Look for it without the filter and every clear would warn; without its tuple, none would.
    let (rig, node) = rig_with("own", 1, 1_000, 10, &[]).await;
    twin::ssh(&node).await;
    let own = ["10.0.1.9", "50000", "10.1.0.2", "22"].map(str::to_owned);
    let preview = |query| ClearRequest { query, preview: true, own_connection: Some(own.clone()) };
    let tcp = preview(query(|q| q.protocol = Some("tcp".into())));
    let reply: ClearReply = rig.client.post("/v1/sessions/clear", &tcp).await.unwrap();
    let found = reply.own_connection.expect("the SSH connection");
    assert_eq!(
        (reply.cleared, found.state.as_str(), found.forward.source_port),
        (1, "syn_sent", Some(50_000))
    );
    assert!(found.forward.tcp.is_some());
    let udp = preview(query(|q| q.protocol = Some("udp".into())));
    let reply: ClearReply = rig.client.post("/v1/sessions/clear", &udp).await.unwrap();
    assert_eq!((reply.cleared, reply.own_connection), (10, None));
    assert_eq!(list(&rig, &SessionQuery::default()).await.1.listed, 11);
}

#[tokio::test]
async fn a_reload_with_errors_changes_nothing_and_says_what_is_wrong() {
    // Swap before checking and the revision moves; lose the findings and the operator sees nothing.
    let rig = rig("reload", 1, 1_000, 1, &[]).await;
    let file = rig.dir.join("policy.toml");
    std::fs::write(&file, format!("{}\nnonsense = 1\n", twin::POLICY)).unwrap();
    let failed = rig.client.post::<PolicyReload>("/v1/policy/reload", &()).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Usage);
    assert!(failed.message.contains("policy.toml:") && failed.message.contains("nonsense"), "{failed}");
    let shown: PolicyShow = rig.client.get("/v1/policy").await.unwrap();
    assert_eq!((shown.revision, shown.rules[0].hits), (1, Some(1)));
}

#[tokio::test]
async fn hung_workers_are_named_and_the_rest_answers() {
    // Wait without a bound and this never ends; leave the worker out in silence and the sums lie.
    let rig = rig("hung", 2, 1_000, 0, &[1]).await;
    let drops: Drops = rig.client.get("/v1/drops").await.unwrap();
    assert_eq!(drops.unanswered_workers, [1]);
    assert_eq!(drops.reasons.len(), tidegate_dataplane::drops::DROP_REASONS);
    let status: Status = rig.client.get("/v1/status").await.unwrap();
    assert_eq!((status.workers_alive, status.workers_started), (1, 2));
    assert!(status.degraded.iter().any(|d| d.contains("worker 1")), "{:?}", status.degraded);
    let livez = rig.client.get::<Probe>("/livez").await.unwrap_err();
    assert!(livez.message.contains("503"), "{livez}");
}

#[tokio::test]
async fn metrics_are_rendered_with_help_and_values() {
    // An undeclared name panics in a debug build; a metric that is not set has no line.
    let rig = rig("metrics", 1, 1_000, 5, &[]).await;
    let text = rig.client.text("/metrics").await.unwrap();
    assert!(text.contains("tidegate_table_in_use_sessions{worker=\"0\"} 5"), "{text}");
    assert!(text.contains("# HELP tidegate_sessions_failed_total "), "{text}");
    assert!(text.contains("tidegate_dropped_packets_total{reason=\"table_full\"} 0"), "{text}");
}

#[tokio::test]
async fn requests_are_bounded_and_unknown_ones_refused() {
    // Without the limit a client could make the daemon hold any body; without deny_unknown_fields a
    // misspelt filter would clear everything.
    let rig = rig("bounds", 1, 1_000, 0, &[]).await;
    let big = serde_json::json!({ "query": { "id": "x".repeat(100_000) } });
    assert!(rig.client.post::<ClearReply>("/v1/sessions/clear", &big).await.is_err());
    let misspelt = serde_json::json!({ "query": { "protokoll": "tcp" } });
    assert!(rig.client.post::<ClearReply>("/v1/sessions/clear", &misspelt).await.is_err());
    assert!(rig.client.get::<Status>("/v1/nothing").await.is_err());
    assert!(rig.client.text("/v1/sessions?protokoll=tcp").await.is_err());
}
