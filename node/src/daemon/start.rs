//! Start and end of the daemon, step by step.

use super::cluster::{Agreement, Clusters, QuicClusters, Seat, follow};
use super::dataplane::{NoDataplane, Ports, XdpPorts, XdpSink, XdpWorkers};
use super::delivery::Delivery;
use super::events::Events;
use super::flowlog::{self, Clock, Hub, Inlet, Logs};
use super::metrics::Metrics;
use super::node::Node;
use super::policy::{InForce, LoadError, PolicyStore};
use super::ports::{PortKeeper, PortTable};
use super::replicate::{self, Origin, Replication};
use super::tandem::Tandem;
use super::workers::Workers;
use super::{caps, logging, supervise};
use crate::api::Walls;
use crate::config::{self, Config, Role};
use crate::control::{ControlSocket, Listener, control_router, metrics_router, serve};
use crate::exit::{Exit, Failure};
use crate::netlink::{Mirror, Resolver};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tidegate_dataplane::engine::{Engine, EngineConfig, Event};
use tidegate_dataplane::fragment::FragmentConfig;
use tidegate_dataplane::route::Snapshot;
use tidegate_sync_net::identity::Directory;
use tidegate_xdp::Idle;
use tidegate_xdp::area::AreaConfig;
use tidegate_xdp::socket::RingSizes;
use tidegate_xdp::workers::WorkersConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// ICMP errors and resets that the whole node writes in a second, at most.
const ICMP_ERRORS_PER_S: u32 = 1_000;
/// Workers' events that wait for the control side; beyond it they are left out and counted.
const EVENTS_MAX: usize = 4_096;
/// Threads of the control side: it is idle most of the time, and leaves the cores to the workers.
const CONTROL_THREADS: usize = 2;
/// How long workers and sockets may take to end.
const END_MAX: Duration = Duration::from_secs(5);

/// How much the control side's threads yield to the workers (see nice(2)): where CPUs are few, a long list of
/// sessions must not take them from packets.
const CONTROL_NICE: i32 = 10;

/// Why the daemon ends when it should not.
const TASK_ENDED: &str = "a task of the daemon ended";

/// Runs the node until SIGTERM or SIGINT.
pub fn run(config: &Path) -> Result<(), Failure> {
    let config = config::load(config).map_err(|e| Failure::usage(e.to_string()))?;
    logging::start(config.log_level, config.log_format);
    // A witness forwards nothing: it needs no capability, and the kernel's forwarding is not its business.
    let walls = match config.role {
        Role::Node => {
            caps::check().map_err(|e| Failure::error(e.to_string()))?;
            supervise::first_wall(&[], 0)
        }
        Role::Witness => Walls::default(),
    };
    let socket = ControlSocket::bind(&config.control_socket).map_err(|e| Failure::error(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        // Workers, started from the main thread, come first; what is refused here stays as it was.
        .on_thread_start(|| rustix::process::setpriority_process(None, CONTROL_NICE).unwrap_or_default())
        .enable_all()
        .build()
        .map_err(|e| Failure::error(format!("cannot start: {e}")))?;
    let result = runtime.block_on(daemon(config, walls, socket));
    runtime.shutdown_timeout(END_MAX);
    result
}

fn policy_failure(error: LoadError) -> Failure {
    let mut message = String::new();
    if let LoadError::Invalid { text, findings, .. } = &error {
        message.extend(findings.iter().map(|d| d.render(Some(text))));
    }
    message.push_str(&error.to_string());
    if matches!(error, LoadError::Read { .. }) {
        message.push_str(
            "\n  help: set `policy` in the configuration; deploy/examples/policy.toml is one to start from",
        );
    }
    Failure::new(Exit::Usage, message)
}

/// The member that this node is, if it is one, and the policy to begin with, if it is none.
async fn member_or_policy(
    config: &mut Config,
    clusters: &dyn Clusters,
    policy: &PolicyStore,
) -> Result<(Option<Arc<dyn Agreement>>, Option<Arc<InForce>>), Failure> {
    let directory = &config.cluster.directory;
    let opened = clusters.open(directory).await;
    if let Some(cluster) =
        opened.map_err(|e| Failure::error(format!("cannot take part in the cluster: {e}")))?
    {
        if cluster.role() != config.role {
            return Err(Failure::usage(format!(
                "{} holds the identity of a {}, and the configuration says role = \"{}\"\n  help: set `role` under [node] to \"{0}\", or name another `cluster.directory`",
                directory.display(),
                cluster.role().name(),
                config.role.name()
            )));
        }
        if config.policy.is_some() {
            tracing::info!("the policy file of the configuration is not used: the cluster's policy counts");
        }
        config.name = cluster.name();
        return Ok((Some(cluster), None));
    }
    if policy.path().is_none() {
        return Ok((None, None));
    }
    let in_force = policy.load().map_err(policy_failure)?;
    for warning in &in_force.warnings {
        tracing::warn!("{}", warning.render(None).trim_end());
    }
    Ok((None, Some(in_force)))
}

/// What tells this start from every other one of the node. A member's never repeats; others have nobody to tell.
fn boot_number(config: &Config, member: bool) -> Result<u32, Failure> {
    let clock_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32);
    if !member {
        return Ok(clock_s);
    }
    let directory = Directory::create(&config.cluster.directory);
    let boot = directory.and_then(|directory| directory.next_boot(clock_s));
    boot.map_err(|e| Failure::error(format!("cannot count this start: {e}")))
}

async fn daemon(mut config: Config, walls: Walls, mut socket: ControlSocket) -> Result<(), Failure> {
    let mut ends = Ends::new()?;
    let metrics_listener =
        match config.metrics_listen {
            Some(address) => Some(tokio::net::TcpListener::bind(address).await.map_err(|e| {
                Failure::error(format!("cannot listen at {address} (`metrics.listen`): {e}"))
            })?),
            None => None,
        };
    let mut tasks = JoinSet::new();
    let policy = Arc::new(PolicyStore::new(config.policy.clone()));
    let clusters = Arc::new(QuicClusters::new(config.cluster.listen.clone()));
    let (member, in_force) = member_or_policy(&mut config, &*clusters, &policy).await?;
    let boot = boot_number(&config, member.is_some())?;
    let (node, xdp) = assemble(config, boot, policy, in_force.as_ref(), walls, clusters, &mut tasks)?;
    node.seat.take(member);
    tasks.spawn(follow(node.clone()));
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    let metrics = Arc::new(Metrics::default());
    if let Some(listener) = socket.take_listener() {
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|e| Failure::error(format!("cannot use the control socket: {e}")))?;
        let router = control_router(node.clone(), metrics.clone());
        serving.spawn(serve(Listener::Control(listener), router, stopping.clone()));
    }
    if let Some(listener) = metrics_listener {
        let router = metrics_router(node.clone(), metrics);
        serving.spawn(serve(Listener::Metrics(listener), router, stopping));
    }
    announce(&node);
    // On the main thread, which is not niced: the thread of the heartbeats takes over its priority.
    let why = tokio::select! {
        why = ends.wait(&node, &mut tasks) => why,
        () = replicate::follow(node.clone()) => TASK_ENDED,
    };
    tracing::info!(why, "ending");
    stop.send_replace(true);
    while serving.join_next().await.is_some() {}
    // Peers hear that this node is gone before it stops forwarding, and not by its silence.
    node.replication.stop().await;
    // The lead goes to another member while this one still forwards.
    if let Some(cluster) = node.seat.cluster()
        && tokio::time::timeout(END_MAX, cluster.shutdown()).await.is_err()
    {
        tracing::warn!("the cluster was not left in order in time");
    }
    tasks.shutdown().await;
    // The last holders: sockets close, threads end, the XDP programs stay.
    let stopped = tokio::task::spawn_blocking(move || drop((node, xdp)));
    if tokio::time::timeout(END_MAX, stopped).await.is_err() {
        return Err(Failure::error("the workers did not end in time"));
    }
    drop(socket);
    tracing::info!("ended");
    if why == TASK_ENDED { Err(Failure::error(why)) } else { Ok(()) }
}

fn announce(node: &Node) {
    tracing::info!(
        node = node.name(),
        role = node.config.role.name(),
        cluster = node.seat.cluster().map(|c| c.cluster().1),
        control = %node.config.control_socket.display(),
        policy_revision = node.policy.current().map(|p| p.policy.revision()),
        workers = node.workers.count(),
        capacity = node.config.capacity,
        "tidegate {} runs",
        env!("CARGO_PKG_VERSION")
    );
}

/// Starts workers, mirror, ports and supervision, and joins them to a node. A witness has none of them.
fn assemble(
    config: Config,
    boot: u32,
    policy: Arc<PolicyStore>,
    in_force: Option<&Arc<InForce>>,
    walls: Walls,
    clusters: Arc<dyn Clusters>,
    tasks: &mut JoinSet<()>,
) -> Result<(Arc<Node>, Option<Arc<XdpWorkers>>), Failure> {
    let forwards = config.role == Role::Node;
    let started = Instant::now();
    let (mirror, mirror_handle) = Mirror::new(Node::bindings(&config, in_force.map(Arc::as_ref)));
    let (resolver, resolving) = Resolver::new(mirror_handle.updates());
    let events = Arc::new(Events::new(resolver.clone()));
    let (inlets, outlet) = flowlog::rings(if forwards { config.workers.count } else { 0 });
    let origin = Origin { boot, hash_key: [rand::random(), rand::random()], started };
    let xdp = match forwards {
        true => Some(Arc::new(start_workers(&config, in_force, origin, &events, inlets, tasks)?)),
        false => None,
    };
    let (workers, ports): (_, Arc<dyn Ports>) = match &xdp {
        Some(xdp) => (
            Workers::new(Arc::new(XdpSink(xdp.clone()))),
            Arc::new(XdpPorts(tidegate_xdp::ports::Ports::new(xdp.clone(), RingSizes::default()))),
        ),
        None => (Workers::new(Arc::new(NoDataplane)), Arc::new(NoDataplane)),
    };
    let hub = Hub::new(workers.clone());
    let logs = Arc::new(Logs::start(&config, tasks));
    let delivery =
        Delivery::start(&workers, in_force.map(|p| p.policy.clone()), mirror_handle.updates(), tasks);
    let port_table = PortTable::default();
    let node = Arc::new(Node {
        alive: (0..workers.count()).map(|_| AtomicBool::new(true)).collect(),
        config,
        started,
        workers: workers.clone(),
        policy: policy.clone(),
        delivery,
        mirror: mirror_handle.clone(),
        resolver,
        events,
        hub: hub.clone(),
        logs: logs.clone(),
        ports: ports.clone(),
        port_table: port_table.clone(),
        walls: Mutex::new(walls),
        last_numbers: Mutex::default(),
        reloading: tokio::sync::Mutex::default(),
        seat: Seat::default(),
        clusters,
        replication: Replication::new(origin, workers, policy.clone()),
    });
    if forwards {
        tasks.spawn(outlet.run(hub, logs, policy, Clock { start: started }));
        tasks.spawn(mirror.run());
        tasks.spawn(resolving);
        tasks.spawn(PortKeeper::new(ports, mirror_handle, port_table).run());
        tasks.spawn(supervise::workers(node.clone()));
        tasks.spawn(supervise::walls(node.clone()));
    }
    Ok((node, xdp))
}

fn start_workers(
    config: &Config,
    in_force: Option<&Arc<InForce>>,
    origin: Origin,
    events: &Arc<Events>,
    inlets: Vec<Inlet>,
    tasks: &mut JoinSet<()>,
) -> Result<XdpWorkers, Failure> {
    let count = config.workers.count;
    let shards = u32::from(count);
    let Origin { boot, hash_key, started: start } = origin;
    let routes = Arc::new(Snapshot::empty());
    let engines = (0..count).map(|shard| {
        let engine = EngineConfig {
            shard,
            shards: count,
            // What does not divide evenly goes to the first shards: the sum is the configured capacity.
            capacity: config.capacity / shards + u32::from(u32::from(shard) < config.capacity % shards),
            hash_key,
            node_id: config.node_id,
            boot,
            icmp_errors_per_s: (ICMP_ERRORS_PER_S / shards).max(1),
            fragments: FragmentConfig { datagrams: config.fragments.datagrams / shards, ..config.fragments },
        };
        let mut engine = Engine::new(engine, routes.clone()).map_err(|e| Failure::error(e.to_string()))?;
        engine.make_resident().map_err(|e| {
            Failure::error(format!("cannot allocate the session table: {e}\n  help: lower `table.capacity`"))
        })?;
        if let Some(in_force) = in_force {
            engine.set_policy(in_force.policy.clone());
        }
        Ok(engine.into())
    });
    let engines: Vec<Tandem> = engines.collect::<Result<_, Failure>>()?;
    let area = AreaConfig {
        workers: count,
        frames_per_worker: config.frames.per_worker,
        frame_bytes: config.frames.size_bytes,
    };
    let settings = WorkersConfig {
        area,
        cpus: config.workers.cpus.iter().flatten().map(|c| usize::from(*c)).collect(),
        idle: Idle { spin_us: config.workers.spin_us, ..Idle::default() },
        start,
    };
    let (sender, receiver) = mpsc::channel::<Event>(EVENTS_MAX);
    tasks.spawn(handle_events(receiver, events.clone()));
    let mut inlets = inlets.into_iter();
    XdpWorkers::spawn(&settings, engines, |_| {
        let (sender, mut inlet) = (sender.clone(), inlets.next());
        Box::new(move |event| match (event, &mut inlet) {
            (Event::Session(_) | Event::Refused(_) | Event::LeftOut(_), Some(inlet)) => inlet.push(event),
            (event, _) => sender.try_send(event).is_ok(),
        })
    })
    .map_err(|e| Failure::error(e.to_string()))
}

async fn handle_events(mut receiver: mpsc::Receiver<Event>, events: Arc<Events>) {
    while let Some(event) = receiver.recv().await {
        events.handle(event);
    }
}

/// What ends the daemon.
struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> Result<Ends, Failure> {
        let listen =
            |kind| signal(kind).map_err(|e| Failure::error(format!("cannot listen for signals: {e}")));
        Ok(Ends {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// A signal, or a task that should never end and did: a bug, and no state to go on in. SIGHUP reads
    /// the policy again, as `policy reload` does.
    async fn wait(&mut self, node: &Arc<Node>, tasks: &mut JoinSet<()>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => reload(node).await,
                ended = tasks.join_next() => {
                    tracing::error!(?ended, "a task of the daemon ended");
                    return TASK_ENDED;
                }
            }
        }
    }
}

async fn reload(node: &Node) {
    if let Err(error) = node.reload().await {
        if let LoadError::Invalid { findings, .. } = &error {
            for finding in findings {
                tracing::error!("{}", finding.render(None).trim_end());
            }
        }
        tracing::error!("{error}");
    }
}
