//! A cluster for tests: the real state machine, without network, disk or Raft.

use super::agreement::{Agreement, Clusters, Forming, Report, Rotation};
use super::report::unix_ms;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_sync::cluster::{
    ClusterId, ClusterState, Command, Founding, JoinToken, NodeId, Outcome, Proposal, RequestId, Role,
    StoreId, TokenId,
};
use tidegate_sync_net::cluster::{
    Counters, Enforcement, Health, InForce, NodeHandler, NodeReply, NodeReport, NodeRequest, OpenError,
    ProposeError, RaftRole, ReadError, RecoverError, Standing,
};
use tidegate_sync_net::replicate::{Exchange, ExchangeConfig, Wiring};
use tokio::sync::watch;

/// End of every certificate here: the year 2100.
const NOT_AFTER: u64 = 4_102_444_800;

/// The only member that runs.
pub(crate) struct TwinMember {
    id: NodeId,
    index: AtomicU64,
    /// Whether changes are agreed on.
    pub(crate) quorum: AtomicBool,
    state: watch::Sender<Arc<ClusterState>>,
    policy: watch::Sender<Option<Arc<InForce>>>,
    pub(crate) standing: watch::Sender<Standing>,
    enforced: watch::Sender<Option<(u32, [u8; 32])>>,
}

impl TwinMember {
    fn new(id: NodeId, state: ClusterState) -> Arc<TwinMember> {
        let member = TwinMember {
            id,
            index: AtomicU64::new(0),
            quorum: AtomicBool::new(true),
            state: watch::channel(Arc::new(state)).0,
            policy: watch::channel(None).0,
            standing: watch::channel(Standing::Member).0,
            enforced: watch::channel(None).0,
        };
        member.publish();
        Arc::new(member)
    }

    fn publish(&self) {
        let state = self.state.borrow().clone();
        let in_force = state.policy.in_force().filter(|_| *self.standing.borrow() == Standing::Member);
        let in_force = in_force.map(|r| {
            let text = r.text.clone().expect("the text in force is kept");
            InForce {
                revision: r.number,
                text,
                sha256: r.sha256,
                fell_back_from: None,
                confirm_within_ms: None,
            }
        });
        self.policy.send_replace(in_force.map(Arc::new));
    }

    /// What became of this node.
    pub(crate) fn stand(&self, standing: Standing) {
        self.standing.send_replace(standing);
        self.publish();
    }

    /// Applies a command as the leader would.
    pub(crate) fn agree(&self, command: Command, by: &str) -> Outcome {
        let index = self.index.fetch_add(1, Ordering::Relaxed) + 1;
        let id = RequestId(rand::random());
        let proposal = Proposal { id, by: by.to_owned(), via: self.id, at_unix_ms: unix_ms(), command };
        let mut state = ClusterState::clone(&self.state.borrow());
        let outcome = state.apply(index, &proposal);
        self.state.send_replace(Arc::new(state));
        self.publish();
        outcome
    }

    /// Admits another node, which is never there.
    pub(crate) fn admit(&self, name: &str, role: Role) {
        let (token, secret_sha256) = (TokenId(rand::random()), [7; 32]);
        let expires_unix_ms = unix_ms() + 60_000;
        self.agree(Command::CreateToken { token, secret_sha256, role, expires_unix_ms }, "test");
        let node = self.state.borrow().next_node;
        let redeem = Command::Redeem {
            token,
            secret_sha256,
            key_sha256: rand::random(),
            node,
            name: name.to_owned(),
            addresses: vec!["10.90.0.9:7400".parse().unwrap()],
            store: StoreId([9; 16]),
        };
        assert_eq!(self.agree(redeem, "test"), Outcome::Admitted { node });
    }

    fn others(&self) -> Vec<(NodeId, String, Role)> {
        let state = self.state.borrow().clone();
        let others = state.members.iter().filter(|(id, _)| **id != self.id);
        others.map(|(id, m)| (*id, m.name.clone(), m.role)).collect()
    }
}

impl Agreement for TwinMember {
    fn id(&self) -> NodeId {
        self.id
    }

    fn name(&self) -> String {
        self.state.borrow().members.get(&self.id).map_or("gone".to_owned(), |m| m.name.clone())
    }

    fn role(&self) -> Role {
        self.state.borrow().members.get(&self.id).map_or(Role::Node, |m| m.role)
    }

    fn cluster(&self) -> (ClusterId, String) {
        let state = self.state.borrow();
        (state.cluster, state.name.clone())
    }

    fn propose<'a>(
        &'a self,
        command: Command,
        by: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>> {
        async move {
            match self.quorum.load(Ordering::Relaxed) {
                true => Ok(self.agree(command, by)),
                false => Err(ProposeError::NoQuorum("no leader".to_owned())),
            }
        }
        .boxed()
    }

    fn read(&self, _: Duration) -> BoxFuture<'_, Result<Arc<ClusterState>, ReadError>> {
        async move {
            match self.quorum.load(Ordering::Relaxed) {
                true => Ok(self.state.borrow().clone()),
                false => Err(ReadError::NoQuorum("no leader".to_owned())),
            }
        }
        .boxed()
    }

    fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    fn policy(&self) -> watch::Receiver<Option<Arc<InForce>>> {
        self.policy.subscribe()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn health(&self) -> Health {
        let state = self.state.borrow().clone();
        let quorum = self.quorum.load(Ordering::Relaxed);
        let peers =
            self.others().into_iter().map(|(id, name, role)| tidegate_sync_net::cluster::PeerHealth {
                id,
                name,
                role,
                connected: false,
                connected_from: false,
                address: None,
                rtt_ms: None,
                last_error: Some("connection refused".to_owned()),
                build: None,
            });
        Health {
            cluster: state.cluster,
            cluster_name: state.name.clone(),
            node: self.id,
            node_name: self.name(),
            role: self.role(),
            generation: state.generation,
            standing: self.standing.borrow().clone(),
            raft: if quorum { RaftRole::Leader } else { RaftRole::Candidate },
            leader: quorum.then_some(self.id),
            term: 3,
            quorum,
            commit: self.index.load(Ordering::Relaxed),
            applied: self.index.load(Ordering::Relaxed),
            peers: peers.collect(),
            certificate_not_after_unix_s: NOT_AFTER,
            renewal_error: None,
            counters: Counters::default(),
        }
    }

    fn enforced(&self, revision: u32, sha256: [u8; 32]) {
        self.enforced.send_replace(Some((revision, sha256)));
    }

    fn wait_enforced(&self, revision: u32, timeout: Duration) -> BoxFuture<'_, Vec<Enforcement>> {
        async move {
            let mut enforced = self.enforced.subscribe();
            let reached = enforced.wait_for(|e| e.is_some_and(|(r, _)| r >= revision));
            let result = match tokio::time::timeout(timeout, reached).await {
                Ok(Ok(_)) => Ok(()),
                _ => Err("not yet".to_owned()),
            };
            let mut all = vec![Enforcement { node: self.id, name: self.name(), result }];
            let nodes = self.others().into_iter().filter(|(.., role)| *role == Role::Node);
            all.extend(nodes.map(|(node, name, _)| Enforcement {
                node,
                name,
                result: Err("not connected".to_owned()),
            }));
            all
        }
        .boxed()
    }

    fn reports(&self, _: Duration) -> BoxFuture<'_, Vec<Report>> {
        async move {
            let own = NodeReport {
                build: "0".to_owned(),
                enforced: *self.enforced.borrow(),
                certificate_not_after_unix_s: NOT_AFTER,
                applied: 0,
                state_sha256: [0; 32],
                uptime_s: 1,
            };
            let others = self.others().into_iter();
            let others = others.map(|(id, name, _)| (id, name, Err("not connected".to_owned())));
            others.chain([(self.id, self.name(), Ok(own))]).collect()
        }
        .boxed()
    }

    fn create_token<'a>(
        &'a self,
        role: Role,
        ttl: Duration,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProposeError>> {
        async move {
            let token = JoinToken {
                ca_sha256: [1; 32],
                token: TokenId(rand::random()),
                secret: rand::random(),
                role,
                addresses: vec!["10.90.0.1:7400".parse().unwrap()],
            };
            let create = Command::CreateToken {
                token: token.token,
                secret_sha256: token.secret_sha256(),
                role,
                expires_unix_ms: unix_ms() + ttl.as_millis() as u64,
            };
            self.propose(create, by, timeout).await.map(|_| token)
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        node: NodeId,
        by: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Outcome, ProposeError>> {
        self.propose(Command::Remove { node }, by, timeout)
    }

    fn rotate_all<'a>(&'a self, _: &'a str, _: Duration) -> BoxFuture<'a, Vec<Rotation>> {
        let mut all = vec![(self.id, self.name(), Ok(NOT_AFTER))];
        all.extend(
            self.others().into_iter().map(|(id, name, _)| (id, name, Err("not connected".to_owned()))),
        );
        async move { all }.boxed()
    }

    fn answer_nodes(&self, _: NodeHandler) {}

    fn ask_node<'a>(
        &'a self,
        _: NodeId,
        _: &'a NodeRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<NodeReply, String>> {
        async { Err("not connected yet".to_owned()) }.boxed()
    }

    fn replicate(&self, _: ExchangeConfig, _: Wiring) -> Result<Option<Exchange>, String> {
        Ok(None)
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// Founds clusters in memory, and opens the last one again.
#[derive(Default)]
pub(crate) struct TwinClusters {
    pub(crate) last: Mutex<Option<Arc<TwinMember>>>,
}

impl TwinClusters {
    /// The member that was founded last.
    pub(crate) fn member(&self) -> Arc<TwinMember> {
        self.last.lock().unwrap().clone().expect("no cluster was founded")
    }

    fn keep(&self, member: Arc<TwinMember>) -> Arc<dyn Agreement> {
        *self.last.lock().unwrap() = Some(member.clone());
        member
    }
}

impl Clusters for TwinClusters {
    fn found<'a>(
        &'a self,
        _: &'a Path,
        name: String,
        forming: Forming,
        policy: Option<Arc<str>>,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>> {
        let Forming { node, addresses, by } = forming;
        let founding = Founding {
            cluster: ClusterId([5; 16]),
            name,
            node,
            addresses,
            store: StoreId([1; 16]),
            key_sha256: [1; 32],
            not_after_unix_s: NOT_AFTER,
            by,
            at_unix_ms: unix_ms(),
            policy,
        };
        let member = TwinMember::new(NodeId(1), ClusterState::founded(founding));
        async move { Ok(self.keep(member)) }.boxed()
    }

    /// Another cluster, in which this node is the second.
    fn join<'a>(
        &'a self,
        directory: &'a Path,
        _: JoinToken,
        forming: Forming,
        role: Role,
    ) -> BoxFuture<'a, Result<Arc<dyn Agreement>, OpenError>> {
        async move {
            let first = Forming { node: "first".to_owned(), ..forming.clone() };
            self.found(directory, "other".to_owned(), first, Some(super::tests::DENY.into())).await?;
            let founded = self.member();
            founded.admit(&forming.node, role);
            let state = ClusterState::clone(&founded.state.borrow());
            Ok(self.keep(TwinMember::new(NodeId(2), state)))
        }
        .boxed()
    }

    fn open<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<Option<Arc<dyn Agreement>>, OpenError>> {
        let last = self.last.lock().unwrap().clone();
        async move { Ok(last.map(|m| m as Arc<dyn Agreement>)) }.boxed()
    }

    fn recover(&self, _: &Path, by: &str) -> Result<u32, RecoverError> {
        let old = self.member();
        let state = ClusterState::clone(&old.state.borrow());
        let state = state.recovered(old.id, by.to_owned(), unix_ms()).ok_or(RecoverError::NotMember)?;
        let generation = state.generation;
        self.keep(TwinMember::new(old.id, state));
        Ok(generation)
    }
}
