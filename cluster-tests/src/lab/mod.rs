//! A lab as a value: made by [`Lab::up`], removed when dropped unless [`Lab::detach`]ed.

mod daemon;
mod files;
mod observe;
mod plan;
mod wiring;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use daemon::{Daemon, http_get};
pub use files::DEFAULT_POLICY;
pub use observe::Metrics;
pub use plan::{
    Forwarder, Gateway, Host, LabSpec, Link, METRICS_LISTEN, NAME_MAX, NodePlan, Plan, Port, Ports,
    QUEUES_MAX, Virtual,
};
pub use wiring::set_kernel_forwarding;

use crate::LabError;
use crate::sys::{Netns, Stop, find_binary, require_root, run_in, write_file};

/// A lab that this process made.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    spec: LabSpec,
    daemon: Option<Daemon>,
    detached: bool,
}

/// What `up` prints: everything that an outside program needs. The shape is a promise.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    name: &'a str,
    client: &'a Host,
    server: &'a Host,
    nodes: Vec<NodeDescription<'a>>,
    r#virtual: &'a Virtual,
}

#[derive(Debug, Serialize)]
struct NodeDescription<'a> {
    name: &'a str,
    netns: &'a str,
    ports: &'a Ports,
    control: &'a Path,
    metrics: String,
    config: &'a Path,
    pid: Option<i32>,
    log: &'a Path,
}

impl Lab {
    /// Makes a lab and, where the daemon forwards, waits until it is ready. `progress` is told each step.
    /// What was made is removed again when a step fails or `stop` is set.
    pub fn up(spec: LabSpec, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Lab, LabError> {
        require_root()?;
        let binary = match spec.forwarder {
            Forwarder::Tidegate => Some(find_binary("tidegate", "TIDEGATE_BIN")?),
            Forwarder::Kernel | Forwarder::Nobody => None,
        };
        let plan = Plan::new(&spec.name, spec.second_path, &base_dir())?;
        claim(&plan)?;
        // From here on dropping `lab` removes whatever is there.
        let mut lab = Lab { plan, spec, daemon: None, detached: false };
        lab.write_files()?;
        progress("making namespaces and links");
        wiring::build(&lab.plan, &lab.spec, stop)?;
        if let Some(binary) = binary {
            progress("starting node1");
            let mut daemon = Daemon::start(&lab.plan.nodes[0], binary)?;
            let ready = daemon.wait_ready(stop);
            lab.daemon = Some(daemon);
            ready?;
            progress("node1 is ready");
        }
        Ok(lab)
    }

    /// Lets the lab outlive this process; `down` removes it.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The plan that it was made by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The client's namespace.
    pub fn client(&self) -> Netns {
        Netns::new(&self.plan.client.netns)
    }

    /// The server's namespace.
    pub fn server(&self) -> Netns {
        Netns::new(&self.plan.server.netns)
    }

    /// The node's namespace.
    pub fn node(&self) -> Netns {
        Netns::new(&self.plan.nodes[0].netns)
    }

    /// The daemon, when one forwards.
    pub fn daemon(&mut self) -> Result<&mut Daemon, LabError> {
        self.daemon.as_mut().ok_or_else(|| LabError::Check("no daemon forwards in this lab".into()))
    }

    /// Starts the daemon again after it was killed or ended, and waits until it is ready.
    pub fn restart(&mut self, stop: &Stop) -> Result<(), LabError> {
        let binary = self.daemon()?.binary().clone();
        let mut daemon = Daemon::start(&self.plan.nodes[0], binary)?;
        daemon.wait_ready(stop)?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Runs a `tidegate` verb against the node; any exit code is an answer.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<crate::sys::Output, LabError> {
        let binary = find_binary("tidegate", "TIDEGATE_BIN")?.display().to_string();
        let control = self.plan.nodes[0].control.display().to_string();
        let mut all = vec!["--control", control.as_str()];
        all.extend(arguments);
        run_in(Some(&self.node()), &binary, &all)
    }

    /// Makes the veth pair of a port again after it was deleted, addresses and routes and all.
    pub fn remake_link(&self, port: &str) -> Result<(), LabError> {
        let link = self.plan.link(port).ok_or_else(|| LabError::Check(format!("no port {port}")))?;
        wiring::make_link(&self.node(), link, &self.spec)
    }

    /// What `up` prints.
    pub fn describe(&self) -> Description<'_> {
        Description {
            name: &self.plan.name,
            client: &self.plan.client,
            server: &self.plan.server,
            nodes: self.plan.nodes.iter().map(|node| self.describe_node(node)).collect(),
            r#virtual: &self.plan.gateways,
        }
    }

    fn describe_node<'a>(&'a self, node: &'a NodePlan) -> NodeDescription<'a> {
        NodeDescription {
            name: &node.name,
            netns: &node.netns,
            ports: &node.ports,
            control: &node.control,
            metrics: format!("http://{METRICS_LISTEN}/metrics"),
            config: &node.config,
            pid: self.daemon.as_ref().map(|daemon| daemon.process().pid),
            log: &node.log,
        }
    }

    fn write_files(&self) -> Result<(), LabError> {
        let ports: Vec<_> = self.plan.links.iter().map(|link| link.port).collect();
        for node in &self.plan.nodes {
            make_dir(&node.dir)?;
            write_file(&node.config, &files::node_config(node, &ports, &self.spec))?;
            write_file(&node.policy, self.spec.policy.as_deref().unwrap_or(DEFAULT_POLICY))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if let Some(mut daemon) = self.daemon.take() {
            // Its exit code is of interest to callers that end it themselves.
            let _ = daemon.terminate();
        }
        if let Err(error) = remove(&self.plan) {
            eprintln!("tidegate-lab: {error}");
        }
    }
}

/// Removes a lab by name, whole or half made; none at all is fine too. Returns what it removed, in words.
pub fn down(name: &str) -> Result<Vec<String>, LabError> {
    require_root()?;
    remove(&Plan::new(name, false, &base_dir())?)
}

/// The names of all labs that are up, whole or half made.
pub fn list() -> Vec<String> {
    let entries = std::fs::read_dir(base_dir()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn remove(plan: &Plan) -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    for node in &plan.nodes {
        if node.process.exists() {
            daemon::stop_recorded(node);
            removed.push(format!("daemon of {}", node.name));
        }
    }
    for netns in plan.netns_names().into_iter().map(Netns::new).filter(Netns::exists) {
        let left = netns.processes();
        if !left.is_empty() {
            // They are not ours to kill; the namespace lives on, without a name, until they end.
            eprintln!("tidegate-lab: still running in {}: process {left:?}", netns.name());
        }
        // An interface would live on with them: take the links away from under them.
        remove_links(&netns);
        netns.delete()?;
        removed.push(format!("namespace {}", netns.name()));
    }
    if plan.dir.exists() {
        std::fs::remove_dir_all(&plan.dir).map_err(|source| LabError::File {
            action: "remove",
            path: plan.dir.clone(),
            source,
        })?;
        removed.push(format!("{}", plan.dir.display()));
    }
    Ok(removed)
}

fn remove_links(netns: &Netns) {
    for ifname in ["outside", "inside", "inside2", "eth0", "eth1"] {
        // Deleting one end deleted the other: most of them are gone already.
        let _ = netns.ip(&format!("link del {ifname}"));
    }
}

/// Makes the lab's directory, which claims its name.
fn claim(plan: &Plan) -> Result<(), LabError> {
    let base = plan.dir.parent().unwrap_or(Path::new("/"));
    make_dir(base)?;
    if plan.netns_names().iter().any(|name| Netns::new(name).exists()) {
        return Err(LabError::Exists { name: plan.name.clone() });
    }
    std::fs::create_dir(&plan.dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => LabError::Exists { name: plan.name.clone() },
        _ => LabError::File { action: "make", path: plan.dir.clone(), source },
    })
}

fn make_dir(path: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(path).map_err(|source| LabError::File {
        action: "make",
        path: path.into(),
        source,
    })
}

/// Where labs keep their files: /run, or /tmp where there is no writable /run.
fn base_dir() -> PathBuf {
    let run = Path::new("/run");
    let writable = nix::unistd::access(run, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable { run.join("tidegate-lab") } else { Path::new("/tmp").join("tidegate-lab") }
}
