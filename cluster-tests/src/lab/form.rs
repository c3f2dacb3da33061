//! A cluster of a lab's members, formed by the verbs that an operator would use.

use serde_json::Value;

use super::{Lab, Member};
use crate::LabError;
use crate::sys::Stop;

impl Lab {
    /// Founds a cluster at node 1 and lets the other members join, one after the other.
    pub fn form_cluster(&self, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<(), LabError> {
        let first = self.at(1);
        first.found_cluster(&self.plan().name)?;
        progress("node1 has founded the cluster");
        for member in self.members().skip(1) {
            stop.check()?;
            let token = first.create_token(member)?;
            member.join_cluster(&token)?;
            progress(&format!("{} has joined", member.name()));
        }
        Ok(())
    }
}

impl Member<'_> {
    /// `cluster init`.
    pub fn found_cluster(&self, name: &str) -> Result<(), LabError> {
        let address = self.cluster_address()?;
        self.must(&["cluster", "init", "--name", name, "--node", self.name(), "--address", &address])
    }

    /// `cluster token create`, for another member to join with.
    pub fn create_token(&self, member: Member<'_>) -> Result<String, LabError> {
        let role = if member.plan().ports.is_some() { "node" } else { "witness" };
        match &self.json(&["cluster", "token", "create", "--role", role])?["token"] {
            Value::String(token) => Ok(token.clone()),
            _ => Err(LabError::Check("`cluster token create -o json` printed no token".into())),
        }
    }

    /// `cluster join`.
    pub fn join_cluster(&self, token: &str) -> Result<(), LabError> {
        self.must(&["cluster", "join", token, "--address", &self.cluster_address()?])
    }

    /// Runs a verb that has to succeed.
    pub fn must(&self, verb: &[&str]) -> Result<(), LabError> {
        let output = self.tidegate(verb)?;
        if output.success { Ok(()) } else { Err(LabError::Check(super::observe::failed(verb, &output))) }
    }

    fn cluster_address(&self) -> Result<String, LabError> {
        let none = || LabError::Check(format!("{} has no address for a cluster", self.name()));
        self.plan().cluster_address().ok_or_else(none)
    }
}
