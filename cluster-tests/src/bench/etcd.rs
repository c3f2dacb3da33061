//! Three members of etcd in the namespaces of a lab's nodes, over the same segment as the nodes: what a commit is
//! compared with.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Connection;
use crate::LabError;
use crate::lab::{Lab, NodePlan};
use crate::sys::{Netns, Stop};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Members of etcd, which end with this value.
pub struct Etcd {
    children: Vec<Child>,
    leader: (Netns, SocketAddr),
}

impl Etcd {
    /// Starts one member beside each node and waits until they have a leader.
    pub fn start(lab: &Lab, stop: &Stop) -> Result<Etcd, LabError> {
        let peers: Vec<_> = lab.plan().nodes.iter().map(peer).collect::<Result<_, _>>()?;
        let first = lab.at(1).netns();
        let mut etcd = Etcd { children: Vec::new(), leader: (first, peers[0].1) };
        let cluster: Vec<_> = peers
            .iter()
            .map(|(name, address)| format!("{name}=http://{}:{PEER_PORT}", address.ip()))
            .collect();
        for (node, (_, address)) in lab.plan().nodes.iter().zip(&peers) {
            etcd.children.push(member(node, *address, &cluster.join(","))?);
        }
        for _ in 0..300 {
            stop.sleep(Duration::from_millis(100))?;
            let all = lab.plan().nodes.iter().zip(&peers);
            let found = all.map(|(node, peer)| (Netns::new(&node.netns), peer.1)).find(leads);
            if let Some(leader) = found {
                etcd.leader = leader;
                return Ok(etcd);
            }
        }
        Err(LabError::Check("etcd has no leader within 30 s".into()))
    }

    /// A connection to the leader.
    pub fn connect(&self) -> Result<Connection, LabError> {
        Connection::tcp(&self.leader.0, self.leader.1)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Puts a value; returns once it is committed.
pub fn put(connection: &mut Connection, value: &str) -> Result<(), LabError> {
    // Both are Base64, and any text of these letters is.
    connection.post("/v3/kv/put", &json!({"key": "YmVuY2g=", "value": value})).map(drop)
}

fn peer(node: &NodePlan) -> Result<(String, SocketAddr), LabError> {
    let fail = || LabError::Check(format!("{} has no sync address", node.name));
    let address = node.sync.as_ref().and_then(|sync| sync.ipv4.parse().ok()).ok_or_else(fail)?;
    Ok((node.name.clone(), SocketAddr::new(address, CLIENT_PORT)))
}

fn member(node: &NodePlan, address: SocketAddr, cluster: &str) -> Result<Child, LabError> {
    let (client, peer) = (format!("http://{address}"), format!("http://{}:{PEER_PORT}", address.ip()));
    let data = node.dir.join("etcd").display().to_string();
    let mut command = Netns::new(&node.netns).command("etcd");
    command
        .args(["--name", &node.name, "--data-dir", &data, "--log-level", "error", "--logger", "zap"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", cluster, "--initial-cluster-state", "new"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map_err(|source| LabError::Missing { program: "etcd".into(), source })
}

fn leads(member: &(Netns, SocketAddr)) -> bool {
    let ask = || -> Result<Value, LabError> {
        Connection::tcp(&member.0, member.1)?.post("/v3/maintenance/status", &json!({}))
    };
    ask().is_ok_and(|status| {
        let leader = &status["leader"];
        leader.is_string() && *leader == status["header"]["member_id"]
    })
}
