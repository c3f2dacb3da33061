//! What `up` prints: everything that an outside program needs. The shape is a promise.

use std::path::Path;

use serde::Serialize;

use super::plan::{Host, METRICS_LISTEN, NodePlan, Port, Ports, Segment, Virtual};
use super::{Lab, Member};

/// A lab that is up.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    name: &'a str,
    client: &'a Host,
    server: &'a Host,
    nodes: Vec<MemberDescription<'a>>,
    /// `null` if there is none.
    witness: Option<MemberDescription<'a>>,
    /// Empty where there is one node.
    segments: &'a [Segment],
    r#virtual: &'a Virtual,
    /// How client and server send through the nodes: `single`, `asymmetric` or `ecmp`.
    routing: &'static str,
}

#[derive(Debug, Serialize)]
struct MemberDescription<'a> {
    name: &'a str,
    netns: &'a str,
    /// Not of a witness.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<&'a Ports>,
    /// `null` where there is one member.
    sync: Option<&'a Port>,
    addresses: Vec<&'a str>,
    /// Virtual addresses that clients and servers may use; none so far.
    virtual_ips: Vec<&'a str>,
    /// Where other members reach it.
    cluster_address: Option<String>,
    control: &'a Path,
    metrics: String,
    config: &'a Path,
    pid: Option<i32>,
    log: &'a Path,
}

impl Lab {
    /// What `up` prints.
    pub fn describe(&self) -> Description<'_> {
        let plan = self.plan();
        let witness = plan.witness.as_ref().map(|witness| describe(witness, self.at(witness.number)));
        Description {
            name: &plan.name,
            client: &plan.client,
            server: &plan.server,
            nodes: plan.nodes.iter().map(|node| describe(node, self.at(node.number))).collect(),
            witness,
            segments: &plan.segments,
            r#virtual: &plan.gateways,
            routing: self.spec.routing.name(),
        }
    }
}

fn describe<'a>(plan: &'a NodePlan, member: Member<'_>) -> MemberDescription<'a> {
    MemberDescription {
        name: &plan.name,
        netns: &plan.netns,
        ports: plan.ports.as_ref(),
        sync: plan.sync.as_ref(),
        addresses: plan.addresses(),
        virtual_ips: Vec::new(),
        cluster_address: plan.cluster_address(),
        control: &plan.control,
        metrics: format!("http://{METRICS_LISTEN}/metrics"),
        config: &plan.config,
        pid: member.pid(),
        log: &plan.log,
    }
}
