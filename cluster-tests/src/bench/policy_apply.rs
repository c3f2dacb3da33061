//! `policy_apply_10k_rules`: from a policy of 10,000 rules in the operator's hand until all engines of three nodes
//! enforce it, against the kernel's own packet filter taking as many rules on one node.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Instant;

use super::Scale;
use super::policy_commit::{apply, cluster, connect_to_leader};
use super::report::{Better, Row, Run, Subject};
use crate::LabError;
use crate::lab::{Forwarder, Lab, LabSpec};
use crate::policies::{self, Draw, Shape};
use crate::sys::{Stop, run_in, write_file};

/// Name of the bench.
pub const NAME: &str = "policy_apply_10k_rules";
const RULES: u32 = 10_000;
const PREFIXES: u32 = 20_000;
/// Of each node.
const ENGINES: u32 = 2;

const GENERATOR: &str = "HTTP to the leader's Unix socket; `nft -f`, one transaction, plain rules of two prefixes and a \
                         port";
const SINK: &str = "three nodes of two engines each; the kernel's nf_tables in one namespace";
const PLACEMENT: &str = "all of it on all CPUs, as the kernel runs it";

/// Measures.
pub fn run(scale: &Scale, stop: &Stop, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, LabError> {
    progress(&format!("{NAME}: making the cluster"));
    let lab = cluster("10k", ENGINES, stop)?;
    let name = format!("bench-{}-nft", std::process::id());
    let peer = Lab::up(LabSpec { forwarder: Forwarder::Nobody, ..LabSpec::new(name) }, stop, |_| ())?;
    let mut runs = Vec::new();
    for round in 0..scale.rounds {
        stop.check()?;
        let seed = u64::from(round);
        let run = if round.is_multiple_of(2) {
            let mine = ours(&lab, seed)?;
            Run::new(mine, theirs(&peer, seed)?)
        } else {
            let peers = theirs(&peer, seed)?;
            Run::new(ours(&lab, seed)?, peers)
        };
        progress(&format!("{NAME}: round {}: {:.0} ms; nft {:.0} ms", round + 1, run.ours, run.theirs));
        runs.push(run);
    }
    let subject = Subject {
        name: NAME,
        case: "3 nodes, 6 engines",
        peer: "nft, 1 node",
        unit: "ms",
        better: Better::Lower,
        gate: None,
        generator: GENERATOR,
        sink: SINK,
        cpu_placement: PLACEMENT,
    };
    Ok(vec![Row::from_runs(&subject, runs)])
}

/// Milliseconds until all engines of all nodes enforce it.
fn ours(lab: &Lab, seed: u64) -> Result<f64, LabError> {
    let text = policies::policy(Shape::Mixed, RULES, PREFIXES, seed);
    let mut connection = connect_to_leader(lab)?;
    let start = Instant::now();
    apply(&mut connection, &text)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds until `nft` has ended.
fn theirs(lab: &Lab, seed: u64) -> Result<f64, LabError> {
    let path = lab.plan().dir.join("rules.nft");
    write_file(&path, &nft_rules(seed))?;
    let start = Instant::now();
    let loaded = run_in(Some(&lab.node()), "nft", &["-f", &path.display().to_string()])?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if loaded.success { Ok(took) } else { Err(LabError::Check(format!("nft: {}", loaded.stderr))) }
}

fn nft_rules(seed: u64) -> String {
    let mut draw = Draw::new(seed);
    let mut text = String::from(
        "table inet filter {}\ndelete table inet filter\ntable inet filter {\n  chain forward {\n    \
         type filter hook forward priority 0; policy drop;\n",
    );
    for _ in 0..RULES {
        let [source, destination] = [0; 2].map(|_: u32| Ipv4Addr::from_bits(draw.address() & 0xffff_ff00));
        let port = policies::FIRST_PORT + draw.below(200) as u16;
        let _ = writeln!(text, "    ip saddr {source}/24 ip daddr {destination}/24 udp dport {port} accept");
    }
    text + "  }\n}\n"
}
