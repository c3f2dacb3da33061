//! What to build, as the caller wants it.

/// Most nodes that a lab has.
pub const NODES_MAX: u32 = 4;
/// Most queues of a port that a lab makes.
pub const QUEUES_MAX: u32 = 16;

/// What to build; the plan follows from it.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Name, part of every namespace's.
    pub name: String,
    /// Nodes between client and server, at most [`NODES_MAX`].
    pub nodes: u32,
    /// A member that only votes, beside the nodes.
    pub witness: bool,
    /// Whether several members form a cluster, by the verbs that an operator would use.
    pub clustered: bool,
    /// Policy file text of every node; `None` is the lab's default policy. A cluster begins with that of node 1.
    pub policy: Option<String>,
    /// The nodes' configuration names no policy: they get one from their cluster, or have none.
    pub without_policy: bool,
    /// Receive and transmit queues of every port.
    pub queues: u32,
    /// Worker threads of each node; `None` is one for each queue.
    pub workers: Option<u32>,
    /// The CPU of each worker; `None` leaves it to the scheduler.
    pub cpus: Option<Vec<u32>>,
    /// Sessions that each node's table holds (J14).
    pub capacity: u32,
    /// Further address pairs of the client beyond its first, for tests that need many.
    pub client_addresses: u32,
    /// A second port towards the server (`inside2`), for routes that move; only where there is one node.
    pub second_path: bool,
    /// Further text of each node's configuration, behind all else.
    pub node_extra: String,
    /// How client and server send through several nodes.
    pub routing: Routing,
    /// Who forwards.
    pub forwarder: Forwarder,
}

/// How client and server send through several nodes, until they are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// All through the first node.
    Single,
    /// Out through the first, back through the second.
    Asymmetric,
    /// Each host spreads its flows over all nodes.
    Ecmp,
}

impl Routing {
    /// All of them.
    pub const ALL: [Routing; 3] = [Routing::Single, Routing::Asymmetric, Routing::Ecmp];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Routing::Single => "single",
            Routing::Asymmetric => "asymmetric",
            Routing::Ecmp => "ecmp",
        }
    }
}

/// Who forwards between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarder {
    /// The daemons.
    Tidegate,
    /// The kernel of each node's namespace: what Tidegate is compared with.
    Kernel,
    /// Nobody; the caller brings its own.
    Nobody,
}

impl LabSpec {
    /// Members of the lab: nodes and witness.
    pub fn members(&self) -> u32 {
        self.nodes + u32::from(self.witness)
    }

    /// A lab of that name with everything else at its default.
    pub fn new(name: impl Into<String>) -> LabSpec {
        LabSpec {
            name: name.into(),
            nodes: 1,
            witness: false,
            clustered: true,
            policy: None,
            without_policy: false,
            queues: 1,
            workers: None,
            cpus: None,
            capacity: 262_144,
            client_addresses: 0,
            second_path: false,
            node_extra: String::new(),
            routing: Routing::Single,
            forwarder: Forwarder::Tidegate,
        }
    }
}
