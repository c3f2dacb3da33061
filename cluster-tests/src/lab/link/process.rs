//! The relay as a process: started with the first order, found again by later ones, ended with the lab.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::super::plan::{NodePlan, Plan};
use super::super::removal;
use super::switch::Switch;
use super::{Order, Report, Request, relay};
use crate::LabError;
use crate::sys::{
    Netns, ProcessId, Stop, find_binary, read_file, require_root, run as run_program, write_file,
};
use crate::traffic::Wire;

/// What chances are drawn from unless an order says otherwise.
const SEED: u64 = 1;
/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// `tidegate-lab link`: changes the sync link of a lab by its name.
pub fn link(name: &str, request: &Request) -> Result<Report, LabError> {
    require_root()?;
    let plan = removal::existing(name)?;
    order(&plan, &request.order(&plan)?)
}

/// Gives an order to a lab's relay, which is started if none runs.
pub(super) fn order(plan: &Plan, order: &Order) -> Result<Report, LabError> {
    let lock = File::create(plan.dir.join("relay.lock")).map_err(|source| LabError::File {
        action: "create",
        path: plan.dir.join("relay.lock"),
        source,
    })?;
    // Two orders at once: the first starts the relay, the second finds it.
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| LabError::system("wait for another `tidegate-lab link`", errno))?;
    if !recorded(plan).is_some_and(|process| process.is_alive()) {
        start(plan)?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told =
            UnixStream::connect(socket_path(plan)).and_then(|stream| relay::tell(stream, order, PATIENCE));
        match told {
            Ok(report) => return Ok(report),
            Err(error) => {
                let is_alive = recorded(plan).is_some_and(|process| process.is_alive());
                if !is_alive || Instant::now() >= deadline {
                    let log = read_file(&log_path(plan)).unwrap_or_default();
                    return Err(LabError::Check(format!(
                        "the relay does not answer: {error}; it said: {log}"
                    )));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn start(plan: &Plan) -> Result<(), LabError> {
    let Some(segment) = sync_segment(plan) else {
        return Err(LabError::Check(format!("lab {} has one member, and no sync link", plan.name)));
    };
    let binary = find_binary("tidegate-lab", "TIDEGATE_LAB_BIN")?;
    for member in members(plan) {
        let arguments = ["netns", "exec", &member.netns, "ethtool", "-K", "sync"];
        // Packets leave whole and with their checksums: they pass through a program that would see them half made.
        run_program("ip", &[&arguments[..], &["tx", "off", "tso", "off", "gso", "off"]].concat())?;
    }
    let log_file = log_path(plan);
    let log = File::create(&log_file).map_err(|source| LabError::File {
        action: "create",
        path: log_file.clone(),
        source,
    })?;
    let errors = log.try_clone().map_err(|source| LabError::system("duplicate the log", source))?;
    // The one of an earlier relay would be told, and nobody listens there.
    let _ = std::fs::remove_file(socket_path(plan));
    // `ip` becomes `setsid`, which becomes the relay: the child's process id is the relay's.
    let child = segment
        .command("setsid")
        .arg(binary)
        .args(["relay", "--name", &plan.name])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| LabError::Missing { program: "ip".into(), source })?;
    let process = ProcessId::of(child.id() as i32)
        .ok_or_else(|| LabError::Check("the relay ended at once".to_owned()))?;
    let text = serde_json::to_string(&process).map_err(|error| LabError::Check(error.to_string()))?;
    write_file(&record_path(plan), &text)
}

/// `tidegate-lab relay`: moves the frames of a lab's sync segment, which takes the ports from its bridge. Runs in the
/// segment's namespace, until it is told to end.
pub fn run(name: &str, stop: &Stop) -> Result<(), LabError> {
    let plan = removal::existing(name)?;
    let segment = sync_segment(&plan).ok_or_else(|| LabError::Check("no sync segment".to_owned()))?;
    let names: Vec<_> = members(&plan).into_iter().map(|member| member.name.clone()).collect();
    let ports = names.iter().map(|port| Wire::open(&segment, port)).collect::<Result<Vec<_>, _>>()?;
    for (name, port) in names.iter().zip(&ports) {
        port.widen(8 << 20)?;
        segment.ip(&format!("link set {name} nomaster"))?;
    }
    let path = socket_path(&plan);
    let orders = UnixListener::bind(&path).map_err(|source| LabError::File {
        action: "listen on",
        path: path.clone(),
        source,
    })?;
    orders.set_nonblocking(true).map_err(|source| LabError::system("listen for orders", source))?;
    relay::run(&ports, Switch::new(names, SEED), &orders, stop)
}

/// Ends a lab's relay. Returns whether one ran.
pub(in crate::lab) fn end_recorded(plan: &Plan) -> bool {
    let running = recorded(plan).filter(ProcessId::is_alive);
    let is_there = running.is_some();
    if let Some(process) = running {
        // It is killed if it must be: it holds nothing that matters.
        process.stop(END_PATIENCE);
    }
    is_there
}

/// Members that are plugged into the sync segment.
fn members(plan: &Plan) -> Vec<&NodePlan> {
    let all = plan.members().filter(|member| member.sync.is_some());
    all.filter(|member| Netns::new(&member.netns).exists()).collect()
}

fn sync_segment(plan: &Plan) -> Option<Netns> {
    let segment = plan.segments.iter().find(|segment| segment.name == "sync")?;
    Some(Netns::new(&segment.netns)).filter(Netns::exists)
}

fn recorded(plan: &Plan) -> Option<ProcessId> {
    serde_json::from_str(&std::fs::read_to_string(record_path(plan)).ok()?).ok()
}

fn record_path(plan: &Plan) -> PathBuf {
    plan.dir.join("relay.json")
}

fn socket_path(plan: &Plan) -> PathBuf {
    plan.dir.join("relay.sock")
}

fn log_path(plan: &Plan) -> PathBuf {
    plan.dir.join("relay.log")
}
