//! Members in one process, each with a runtime, a directory and loopback sockets of its own.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods)]

pub mod exchange;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_sync::cluster::{Command, JoinToken, NodeId, Outcome, Role};
use tidegate_sync_net::cluster::{Cluster, Found, Join, OpenError, Options, RaftRole};
use tokio::runtime::Runtime;

/// Generous: a busy machine only makes a test slower.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Node {
    pub dir: PathBuf,
    pub options: Options,
    runtime: Option<Runtime>,
    cluster: Option<Cluster>,
}

/// All log lines of this test process.
static LOG: Mutex<String> = Mutex::new(String::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        print!("{text}");
        LOG.lock().unwrap().push_str(&text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether a line with all these words was logged.
pub fn logged(words: &[&str]) -> bool {
    LOG.lock().unwrap().lines().any(|line| words.iter().all(|word| line.contains(word)))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn loopback() -> Vec<std::net::SocketAddr> {
    vec!["127.0.0.1:0".parse().unwrap()]
}

impl Node {
    pub fn new(home: &Path, name: &str) -> Self {
        let log = tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false);
        let _ = log.with_max_level(tracing::Level::INFO).try_init();
        let options = Options { leader_patience: Duration::from_secs(3), ..Options::default() };
        Node { dir: home.join(name), options, runtime: None, cluster: None }
    }

    pub fn found(home: &Path, name: &str) -> Self {
        let mut node = Node::new(home, name);
        node.try_found(name).unwrap();
        node
    }

    pub fn try_found(&mut self, name: &str) -> Result<(), OpenError> {
        let found = Found {
            name: "edge".to_owned(),
            node: name.to_owned(),
            addresses: loopback(),
            policy: Some(Arc::from("first")),
            by: "test".to_owned(),
        };
        let runtime = runtime();
        let result = runtime.block_on(Cluster::found(&self.dir, found, self.options.clone()));
        self.keep(runtime, result)
    }

    pub fn join(home: &Path, name: &str, token: &JoinToken) -> Self {
        let mut node = Node::new(home, name);
        node.try_join(name, token, LONG).unwrap();
        node
    }

    pub fn try_join(&mut self, name: &str, token: &JoinToken, timeout: Duration) -> Result<(), OpenError> {
        let (token, node, role) = (token.clone(), name.to_owned(), token.role);
        let join = Join { token, node, addresses: loopback(), role, timeout };
        let runtime = runtime();
        let result = runtime.block_on(Cluster::join(&self.dir, join, self.options.clone()));
        self.keep(runtime, result)
    }

    /// Opens again; a store that the killed one has not let go yet is waited for.
    pub fn open(&mut self) {
        let end = Instant::now() + LONG;
        while let Err(error) = self.try_open() {
            let text = error.to_string();
            assert!(text.contains("has this store open") || text.contains("cannot listen"), "{text}");
            assert!(Instant::now() < end, "{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn try_open(&mut self) -> Result<(), OpenError> {
        let runtime = runtime();
        let result = runtime.block_on(Cluster::open(&self.dir, self.options.clone()));
        self.keep(runtime, result)
    }

    fn keep(&mut self, runtime: Runtime, result: Result<Cluster, OpenError>) -> Result<(), OpenError> {
        match result {
            Ok(cluster) => {
                self.runtime = Some(runtime);
                self.cluster = Some(cluster);
                Ok(())
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the node runs")
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("the node runs").block_on(future)
    }

    /// As `kill -9`: its sockets go without a word.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.cluster = None;
    }

    pub fn stop(&mut self) {
        if let (Some(runtime), Some(cluster)) = (self.runtime.take(), self.cluster.take()) {
            runtime.block_on(cluster.shutdown());
        }
    }

    pub fn id(&self) -> NodeId {
        self.cluster().id()
    }

    pub fn token(&self, role: Role) -> JoinToken {
        self.run(self.cluster().create_token(role, Duration::from_secs(600), "test", LONG)).unwrap()
    }

    pub fn revision(&self) -> u32 {
        self.cluster().state().borrow().policy.in_force().map_or(0, |r| r.number)
    }

    /// A new policy on top of what this node can read; retries when another came first.
    pub fn apply(&self, text: &str) -> u32 {
        for _ in 0..50 {
            let state = self.run(self.cluster().read(LONG)).unwrap();
            let base = state.policy.in_force().map_or(0, |r| r.number);
            let command = Command::ApplyPolicy { base, text: text.into(), lease: None };
            if let Outcome::Revision { number, .. } =
                self.run(self.cluster().propose(command, "test", LONG)).unwrap()
            {
                return number;
            }
        }
        panic!("the revision always moved");
    }

    pub fn leads(&self) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.health().raft == RaftRole::Leader)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for what should come.
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !there() {
        assert!(Instant::now() < end, "did not come: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The one that leads.
pub fn leader(nodes: &[Node]) -> usize {
    let mut found = 0;
    until("a leader", || match nodes.iter().position(Node::leads) {
        Some(at) => {
            found = at;
            true
        }
        None => false,
    });
    found
}

pub fn voters(node: &Node) -> usize {
    node.cluster().state().borrow().voters().len()
}

/// Three voters: full nodes `a` and `b`, and `c`, a node or a witness.
pub fn three(home: &Path, third: Role) -> Vec<Node> {
    let a = Node::found(home, "a");
    let b = Node::join(home, "b", &a.token(Role::Node));
    let c = Node::join(home, "c", &b.token(third));
    let nodes = vec![a, b, c];
    until("three voters", || nodes.iter().all(|n| voters(n) == 3));
    nodes
}
