//! The files that a lab writes for its members: configuration and default policy.

use super::plan::{METRICS_LISTEN, NodePlan};
use super::spec::LabSpec;

/// The lab's default policy: everything from client to server except port 9, nothing new back.
pub const DEFAULT_POLICY: &str = include_str!("default-policy.toml");

/// A member's configuration. A witness has neither ports nor workers nor a policy.
pub(super) fn node_config(node: &NodePlan, ports: &[&str], spec: &LabSpec) -> String {
    let mut text = format!("# Written by tidegate-lab for lab {}, {}.\n", spec.name, node.name);
    let is_node = node.ports.is_some();
    if is_node && !spec.without_policy {
        text += &format!("policy = {}\n", quoted(&node.policy.display().to_string()));
    }
    text += &format!("\n[node]\nname = {}\n", quoted(&node.name));
    if !is_node {
        text += "role = \"witness\"\n";
    }
    text += "\n";
    if is_node {
        text += &dataplane(ports, spec);
    }
    if spec.members() > 1 {
        text += &format!("[cluster]\ndirectory = {}\n\n", quoted(&node.cluster_dir.display().to_string()));
    }
    text += &format!("[control]\nsocket = {}\n\n", quoted(&node.control.display().to_string()));
    text += &format!("[metrics]\nlisten = {}\n", quoted(METRICS_LISTEN));
    if is_node { text + &spec.node_extra } else { text }
}

fn dataplane(ports: &[&str], spec: &LabSpec) -> String {
    let mut text = String::new();
    for port in ports {
        let zone = if *port == "outside" { "outside" } else { "inside" };
        text += &format!(
            "[[port]]\nname = {}\ninterface = {}\nzone = {}\n\n",
            quoted(port),
            quoted(port),
            quoted(zone)
        );
    }
    text += &format!("[workers]\ncount = {}\n", spec.workers.unwrap_or(spec.queues));
    if let Some(cpus) = &spec.cpus {
        text += &format!("cpus = {cpus:?}\n");
    }
    text + &format!("\n[table]\ncapacity = {}\n\n", spec.capacity)
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04X}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;

    #[test]
    fn strings_are_quoted_as_toml_has_it() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }

    #[test]
    fn one_worker_for_each_queue_unless_told() {
        let mut spec = LabSpec { queues: 2, ..LabSpec::new("a") };
        let plan = Plan::new(&spec, std::path::Path::new("/x")).unwrap();
        assert!(node_config(&plan.nodes[0], &["outside", "inside"], &spec).contains("count = 2\n"));
        spec.workers = Some(1);
        assert!(node_config(&plan.nodes[0], &["outside", "inside"], &spec).contains("count = 1\n"));
    }
}
