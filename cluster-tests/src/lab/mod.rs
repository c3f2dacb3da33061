//! A lab as a value: made by [`Lab::up`], removed when dropped unless [`Lab::detach`]ed.

mod daemon;
mod describe;
mod files;
mod form;
pub mod link;
mod member;
mod observe;
mod plan;
mod removal;
mod route;
mod spec;
mod wiring;

pub use daemon::{Daemon, http_get};
pub use describe::Description;
pub use files::DEFAULT_POLICY;
pub use member::Member;
pub use observe::Metrics;
pub use plan::{
    CLUSTER_PORT, Gateway, Host, Link, METRICS_LISTEN, NAME_MAX, NodePlan, Plan, Port, Ports, Segment,
    Virtual, WITNESS,
};
pub use removal::{down, list};
pub use route::{Route, reroute};
pub use spec::{Forwarder, LabSpec, NODES_MAX, QUEUES_MAX, Routing};
pub use wiring::set_kernel_forwarding;

use crate::LabError;
use crate::sys::{Netns, Stop, find_binary, require_root, write_file};
use member::Seat;
use removal::{base_dir, claim, make_dir, remove};

/// A lab that this process made.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    spec: LabSpec,
    /// One for each member of the plan, in its order.
    seats: Vec<Seat>,
    detached: bool,
}

impl Lab {
    /// Makes a lab and, where daemons forward, waits until they are ready and have formed their cluster. `progress`
    /// is told each step. What was made is removed again when a step fails or `stop` is set.
    pub fn up(spec: LabSpec, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Lab, LabError> {
        require_root()?;
        let daemons = spec.forwarder == Forwarder::Tidegate;
        if daemons {
            find_binary("tidegate", "TIDEGATE_BIN")?;
        }
        let plan = Plan::new(&spec, &base_dir())?;
        claim(&plan)?;
        let seats = plan.members().map(|_| Seat::default()).collect();
        // From here on dropping `lab` removes whatever is there.
        let lab = Lab { plan, spec, seats, detached: false };
        lab.write_files()?;
        progress("making namespaces and links");
        wiring::build(&lab.plan, &lab.spec, stop)?;
        if daemons {
            lab.spawn_all(stop, &mut progress)?;
            let forms = lab.spec.clustered && lab.spec.members() > 1;
            if forms {
                lab.form_cluster(stop, &mut progress)?;
            }
            // A witness alone, or a node without a policy, has nothing to do and is never ready.
            if !lab.spec.without_policy && (forms || !lab.spec.witness) {
                lab.wait_all_ready(stop, progress)?;
            }
        }
        Ok(lab)
    }

    /// Starts all daemons at once, then waits until each does its work.
    pub fn start_all(&self, stop: &Stop) -> Result<(), LabError> {
        self.spawn_all(stop, &mut |_| ())?;
        self.wait_all_ready(stop, |_| ())
    }

    fn spawn_all(&self, stop: &Stop, progress: &mut impl FnMut(&str)) -> Result<(), LabError> {
        for member in self.members() {
            stop.check()?;
            progress(&format!("starting {}", member.name()));
            member.spawn()?;
        }
        self.members().try_for_each(|member| member.wait_alive(stop))
    }

    fn wait_all_ready(&self, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<(), LabError> {
        for member in self.members() {
            member.wait_ready(stop)?;
            progress(&format!("{} is ready", member.name()));
        }
        Ok(())
    }

    /// Lets the lab outlive this process; `down` removes it.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The plan that it was made by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The client's namespace.
    pub fn client(&self) -> Netns {
        Netns::new(&self.plan.client.netns)
    }

    /// The server's namespace.
    pub fn server(&self) -> Netns {
        Netns::new(&self.plan.server.netns)
    }

    /// The namespace of node 1.
    pub fn node(&self) -> Netns {
        self.at(1).netns()
    }

    /// The daemon of node 1, when one forwards.
    pub fn daemon(&mut self) -> Result<&mut Daemon, LabError> {
        let seat = self.seats.first_mut().and_then(|seat| seat.get_mut().as_mut());
        seat.ok_or_else(|| LabError::Check("no daemon forwards in this lab".into()))
    }

    /// Starts the daemon of node 1 again after it was killed or ended, and waits until it is ready.
    pub fn restart(&mut self, stop: &Stop) -> Result<(), LabError> {
        self.at(1).start(stop)
    }

    /// Makes the veth pair of a port of the only node again after it was deleted, addresses and routes and all.
    pub fn remake_link(&self, port: &str) -> Result<(), LabError> {
        let link = self.plan.link(port).ok_or_else(|| LabError::Check(format!("no port {port}")))?;
        wiring::make_link(&self.node(), link, &self.spec)
    }

    fn write_files(&self) -> Result<(), LabError> {
        route::record(&self.plan, self.spec.routing)?;
        let ports: Vec<_> = self.plan.links.iter().map(|link| link.port).collect();
        for member in self.plan.members() {
            make_dir(&member.dir)?;
            write_file(&member.config, &files::node_config(member, &ports, &self.spec))?;
            if member.ports.is_some() {
                write_file(&member.policy, self.spec.policy.as_deref().unwrap_or(DEFAULT_POLICY))?;
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let mut daemons: Vec<Daemon> =
            self.seats.iter_mut().filter_map(|seat| seat.get_mut().take()).collect();
        daemon::stop_all(&daemons.iter().map(Daemon::process).collect::<Vec<_>>());
        for daemon in &mut daemons {
            // Reaps it; its exit code is of interest to callers that end it themselves.
            let _ = daemon.terminate();
        }
        if let Err(error) = remove(&self.plan) {
            eprintln!("tidegate-lab: {error}");
        }
    }
}
