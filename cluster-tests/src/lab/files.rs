//! The files that a lab writes for its node: configuration and default policy.

use super::plan::{LabSpec, METRICS_LISTEN, NodePlan};

/// The lab's default policy: everything from client to server except port 9, nothing new back.
pub const DEFAULT_POLICY: &str = include_str!("default-policy.toml");

/// The daemon's configuration.
pub(super) fn node_config(node: &NodePlan, ports: &[&str], spec: &LabSpec) -> String {
    let mut text = format!(
        "# Written by tidegate-lab for lab {}, {}.\npolicy = {}\n\n",
        spec.name,
        node.name,
        quoted(&node.policy.display().to_string())
    );
    text += &format!("[node]\nname = {}\n\n", quoted(&node.name));
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
    text += "\n";
    text += &format!("[table]\ncapacity = {}\n\n", spec.capacity);
    text += &format!("[control]\nsocket = {}\n\n", quoted(&node.control.display().to_string()));
    text += &format!("[metrics]\nlisten = {}\n", quoted(METRICS_LISTEN));
    text + &spec.node_extra
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
        let plan = Plan::new("a", false, std::path::Path::new("/x")).unwrap();
        let mut spec = LabSpec { queues: 2, ..LabSpec::new("a") };
        assert!(node_config(&plan.nodes[0], &["outside", "inside"], &spec).contains("count = 2\n"));
        spec.workers = Some(1);
        assert!(node_config(&plan.nodes[0], &["outside", "inside"], &spec).contains("count = 1\n"));
    }
}
