//! `tidegate-lab`: labs of namespaces around a Tidegate node, for people, tests and benches.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_lab::bench;
use tidegate_lab::bench::raw::{self, RawPort};
use tidegate_lab::lab::link::{self, Change, Request};
use tidegate_lab::lab::{self, Forwarder, Lab, LabSpec, Routing};
use tidegate_lab::sys::{Stop, read_file};
use tidegate_lab::{LabError, demo, sim};

/// A client, a server, and Tidegate nodes between them, in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "tidegate-lab", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a lab, leave it running, and print one JSON object that describes it.
    ///
    /// Any program started with `ip netns exec <client.netns>` reaches the server through the first node.
    /// `metrics` is a URL inside each node's namespace; `control` is a path that works everywhere.
    Up(Up),
    /// Remove a lab: end its daemons, delete its namespaces and files. Fine if there is none.
    Down {
        /// The lab's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Send client and server of a lab through other nodes from now on.
    ///
    /// `--via node2`: both directions. `--via node1,node2`: out through the first, back through the second. In a lab
    /// with `--routing ecmp`, client and server each spread their flows over all that are named.
    Route {
        /// The lab's name.
        #[arg(long, default_value = "lab")]
        name: String,
        /// Nodes by name or number.
        #[arg(long, value_name = "NODE[,NODE]", required = true, value_delimiter = ',')]
        via: Vec<String>,
    },
    /// Make trouble on the sync link between two members of a lab, by a relay in user space; print all ways as JSON.
    ///
    /// What several calls ask for adds up, until `--heal`. Without any option it only prints.
    Link(Link),
    /// Move the frames of a lab's sync segment, with trouble (started by `link`).
    #[command(hide = true)]
    Relay {
        /// The lab's name.
        #[arg(long)]
        name: String,
    },
    /// Print the names of the labs that are up.
    List,
    /// Forward between two ports with `afxdp` alone: the floor that benches compare with.
    #[command(hide = true)]
    RawForward {
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
        /// Both ports, each as interface,destination-MAC,source-MAC.
        #[arg(num_args = 2, value_parser = parse_raw_port)]
        ports: Vec<RawPort>,
    },
    /// Measure against peers; writes target/bench/report.json and prints its table.
    Bench {
        /// Show in seconds that the benches work; writes target/bench/quick.json, judges no gate.
        #[arg(long)]
        quick: bool,
        /// Only this one.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(bench::NAMES))]
        only: Option<String>,
    },
    /// Show the main job on real traffic, in under a minute; exit code 0 only if every check passes.
    Demo,
    /// Run whole clusters on virtual networks, clocks and disks; each seed is another life.
    ///
    /// Their agreement on members and policies, or (`--sessions`) what becomes of sessions on several nodes.
    /// Prints what the seeds contained. Ends with 1 if one of them broke a rule, with the command that
    /// does the same again, or if too little happened in them.
    Sim(Sim),
}

#[derive(Debug, clap::Args)]
struct Link {
    /// The lab's name.
    #[arg(long, default_value = "lab")]
    name: String,
    /// Two members, by name or number.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    between: Vec<String>,
    /// Milliseconds that every frame takes longer, each way.
    #[arg(long, value_name = "MS")]
    delay: Option<f64>,
    /// Percent of the frames that are lost, each way.
    #[arg(long, value_name = "PCT")]
    loss: Option<f64>,
    /// Percent that come twice.
    #[arg(long, value_name = "PCT")]
    duplicate: Option<f64>,
    /// Percent with a changed bit, which UDP's checksum does not tell of.
    #[arg(long, value_name = "PCT")]
    corrupt: Option<f64>,
    /// Percent that others overtake.
    #[arg(long, value_name = "PCT")]
    reorder: Option<f64>,
    /// Let nothing through, either way or one way only.
    #[arg(long, value_name = "A-to-B", num_args = 0..=1)]
    cut: Option<Option<String>>,
    /// End all trouble between the two members, or everywhere.
    #[arg(long, conflicts_with_all = ["delay", "loss", "duplicate", "corrupt", "reorder", "cut"])]
    heal: bool,
    /// What all chances are drawn from, from now on.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Sim {
    /// How many seeds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    first: u64,
    /// This one alone, again; of sessions, its story is printed.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Engines and replication, with packets through them, rather than the agreement on policies.
    #[arg(long)]
    sessions: bool,
}

#[derive(Debug, clap::Args)]
struct Up {
    /// The lab's name; labs of different names run side by side.
    #[arg(long, default_value = "lab")]
    name: String,
    /// How many nodes stand between client and server, 1 to 4; several form a cluster.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// Add a member that only votes.
    #[arg(long)]
    witness: bool,
    /// How client and server send through several nodes: all through the first; out through the first and back
    /// through the second; or each spreads its flows over all of them by addresses and ports.
    #[arg(long, value_enum, default_value_t = Paths::Single)]
    routing: Paths,
    /// Leave the nodes by themselves, to try `tidegate cluster init` and `join` by hand.
    #[arg(long)]
    unclustered: bool,
    /// Policy file instead of the lab's default (all from client to server but port 9).
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Receive and transmit queues of every port.
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// Worker threads of each node [default: one for each queue].
    #[arg(long)]
    workers: Option<u32>,
    /// Sessions that each node's table holds.
    #[arg(long, default_value_t = 262_144)]
    capacity: u32,
    /// Who forwards: the daemons, or, to compare with, the kernel of each node's namespace.
    #[arg(long, value_enum, default_value_t = By::Tidegate)]
    forwarder: By,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum By {
    Tidegate,
    Kernel,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Paths {
    Single,
    Asymmetric,
    Ecmp,
}

fn parse_raw_port(text: &str) -> Result<RawPort, String> {
    let mac = |text: &str| -> Option<[u8; 6]> {
        let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes?.try_into().ok()
    };
    let parts: Vec<_> = text.split(',').collect();
    match parts[..] {
        [ifname, destination, source] => match (mac(destination), mac(source)) {
            (Some(destination), Some(source)) => Ok(RawPort { ifname: ifname.into(), destination, source }),
            _ => Err("a MAC is six bytes in hexadecimal, joined by ':'".into()),
        },
        _ => Err("write interface,destination-MAC,source-MAC".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.verb {
        Verb::Up(up) => up.run(),
        Verb::Down { name } => down(&name),
        Verb::Route { name, via } => route(&name, &via),
        Verb::Link(link) => link.run(),
        Verb::Relay { name } => Stop::on_signals().and_then(|stop| link::run(&name, &stop)),
        Verb::RawForward { cpu, ports } => match <[RawPort; 2]>::try_from(ports) {
            Ok(ports) => raw::forward(ports, cpu),
            Err(_) => unreachable!("clap takes exactly two"),
        },
        Verb::Bench { quick, only } => {
            Stop::on_signals().and_then(|stop| bench::run(quick, only.as_deref(), &stop))
        }
        Verb::Demo => Stop::on_signals().and_then(|stop| demo::run(&stop)),
        Verb::Sim(Sim { seeds, first, seed, sessions }) => {
            let well = match seed {
                Some(seed) => sim::command::replay(seed, sessions),
                None => sim::command::run_seeds(sim::command::Order { first, seeds, sessions }),
            };
            return if well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Verb::List => {
            lab::list().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

impl Up {
    fn run(self) -> Result<(), LabError> {
        let spec = self.spec()?;
        let stop = Stop::on_signals()?;
        let name = spec.name.clone();
        let lab = Lab::up(spec, &stop, |step| eprintln!("lab {name}: {step}"))?;
        let description = serde_json::to_string(&lab.describe())
            .map_err(|error| LabError::Check(format!("describe the lab: {error}")))?;
        // A Ctrl-C up to here removes the lab; from here on it is the user's.
        stop.check()?;
        println!("{description}");
        lab.detach();
        Ok(())
    }

    fn spec(&self) -> Result<LabSpec, LabError> {
        let policy = self.policy.as_deref().map(read_file).transpose()?;
        let (queues, workers, capacity) = (self.queues, self.workers, self.capacity);
        let forwarder = match self.forwarder {
            By::Tidegate => Forwarder::Tidegate,
            By::Kernel => Forwarder::Kernel,
        };
        let routing = match self.routing {
            Paths::Single => Routing::Single,
            Paths::Asymmetric => Routing::Asymmetric,
            Paths::Ecmp => Routing::Ecmp,
        };
        let (nodes, witness, clustered) = (self.nodes, self.witness, !self.unclustered);
        let spec = LabSpec::new(&self.name);
        Ok(LabSpec {
            nodes,
            witness,
            clustered,
            policy,
            queues,
            workers,
            capacity,
            routing,
            forwarder,
            ..spec
        })
    }
}

impl Link {
    fn run(self) -> Result<(), LabError> {
        let change = Change {
            delay_ms: self.delay,
            loss_pct: self.loss,
            duplicate_pct: self.duplicate,
            corrupt_pct: self.corrupt,
            reorder_pct: self.reorder,
            cut: None,
        };
        let (between, cut, heal, seed) = (self.between, self.cut, self.heal, self.seed);
        let report = link::link(&self.name, &Request { between, change, cut, heal, seed })?;
        let text = serde_json::to_string(&report)
            .map_err(|error| LabError::Check(format!("describe the link: {error}")))?;
        println!("{text}");
        Ok(())
    }
}

fn route(name: &str, via: &[String]) -> Result<(), LabError> {
    let route = lab::reroute(name, via)?;
    let nodes =
        |list: &[u32]| list.iter().map(|node| format!("node{node}")).collect::<Vec<_>>().join(" and ");
    eprintln!("lab {name}: out through {}, back through {}", nodes(&route.out), nodes(&route.back));
    Ok(())
}

fn down(name: &str) -> Result<(), LabError> {
    let removed = lab::down(name)?;
    match removed.is_empty() {
        true => eprintln!("lab {name}: nothing to remove"),
        false => removed.iter().for_each(|what| eprintln!("lab {name}: removed {what}")),
    }
    Ok(())
}
