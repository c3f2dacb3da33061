//! Asks the kernel to resolve and confirm neighbours, so that ARP and ND stay its business.
//!
//! The kernel does not see what the dataplane forwards: without us it would neither look for a
//! missing neighbour nor notice that a used one has changed its MAC. An `NTF_USE` request stands for
//! "a packet is about to go there": a missing neighbour is resolved, a stale one is probed.

use super::mirror::Update;
use dashmap::DashMap;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate_dataplane::addr::Addr;
use tidegate_dataplane::route::PortId;
use tokio::sync::{mpsc, watch};

/// A neighbour is asked for at most once in this time.
const REPEAT: Duration = Duration::from_millis(250);
/// Neighbours whose last request is remembered; beyond it requests are left out until some are old.
const REMEMBERED_MAX: usize = 8_192;
/// Requests that wait for the kernel; beyond it they are left out, and the next packet asks again.
const QUEUE: usize = 1_024;
/// Stale neighbours that are confirmed in one second.
const CONFIRM_PER_S: usize = 256;

/// Counters of the resolver.
#[derive(Debug, Default)]
pub struct ResolverStats {
    /// Requests sent to the kernel for missing neighbours.
    pub requested: AtomicU64,
    /// Requests sent to confirm stale neighbours.
    pub confirmed: AtomicU64,
    /// Requests left out: asked a moment ago, or too many at once.
    pub left_out: AtomicU64,
    /// Requests that the kernel refused.
    pub refused: AtomicU64,
}

/// The side that workers' events reach; cheap to clone, never blocks.
#[derive(Clone)]
pub struct Resolver {
    asked: Arc<DashMap<(PortId, Addr), Instant>>,
    queue: mpsc::Sender<(u32, IpAddr)>,
    updates: watch::Receiver<Update>,
    stats: Arc<ResolverStats>,
}

impl Resolver {
    /// A resolver; its task, which needs a tokio runtime, comes beside it.
    pub fn new(updates: watch::Receiver<Update>) -> (Resolver, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stats = Arc::new(ResolverStats::default());
        let resolver =
            Resolver { asked: Arc::default(), queue: sender, updates: updates.clone(), stats: stats.clone() };
        let task = run(resolver.asked.clone(), receiver, updates, stats);
        (resolver, task)
    }

    /// A next hop's MAC is missing.
    pub fn missing(&self, port: PortId, next_hop: Addr) {
        let now = Instant::now();
        let fresh = match self.asked.get(&(port, next_hop)) {
            Some(last) => now.duration_since(*last) >= REPEAT,
            None => self.asked.len() < REMEMBERED_MAX,
        };
        let link = {
            let update = self.updates.borrow();
            update.derived.ports.get(usize::from(port.0)).and_then(|p| p.link.as_ref()).map(|l| l.index)
        };
        let sent = fresh && link.is_some_and(|link| self.queue.try_send((link, next_hop.to_ip())).is_ok());
        if sent {
            self.asked.insert((port, next_hop), now);
            self.stats.requested.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stats.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counters.
    pub fn stats(&self) -> &ResolverStats {
        &self.stats
    }
}

async fn run(
    asked: Arc<DashMap<(PortId, Addr), Instant>>,
    mut queue: mpsc::Receiver<(u32, IpAddr)>,
    updates: watch::Receiver<Update>,
    stats: Arc<ResolverStats>,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut connection: Option<(Handle, tokio::task::JoinSet<()>)> = None;
    let mut first_confirmed = 0;
    loop {
        let requests: Vec<(u32, IpAddr)> = tokio::select! {
            request = queue.recv() => match request {
                Some(request) => vec![request],
                None => return,
            },
            _ = tick.tick() => {
                asked.retain(|_, last| last.elapsed() < REPEAT);
                let stale = updates.borrow().stale.clone();
                // In turn, so that with more than the limit each has its chance.
                let chosen: Vec<_> =
                    stale.iter().cycle().skip(first_confirmed).take(stale.len().min(CONFIRM_PER_S)).copied().collect();
                first_confirmed = (first_confirmed + chosen.len()) % stale.len().max(1);
                stats.confirmed.fetch_add(chosen.len() as u64, Ordering::Relaxed);
                chosen
            }
        };
        for (link, address) in requests {
            if connection.is_none() {
                connection = connect();
            }
            let Some((handle, _)) = &mut connection else { break };
            match ask(handle, link, address).await {
                Ok(()) => {}
                Err(AskError::Refused(code)) => {
                    stats.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%address, link, code, "the kernel refused a neighbour request");
                }
                Err(AskError::Broken) => connection = None,
            }
        }
    }
}

fn connect() -> Option<(Handle, tokio::task::JoinSet<()>)> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .inspect_err(|error| tracing::error!(%error, "cannot open a netlink socket for neighbour requests"))
        .ok()?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    Some((handle, tasks))
}

enum AskError {
    Refused(i32),
    Broken,
}

/// Asks for a neighbour, unless an operator has entered it for good: `NTF_USE` would make it an ordinary one (since Linux
/// 5.16), and the mirror, which may be a moment behind, knows of it soon.
async fn ask(handle: &mut Handle, link: u32, address: IpAddr) -> Result<(), AskError> {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = link;
    message.header.state = NeighbourState::None;
    let destination = match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let get = RouteNetlinkMessage::GetNeighbour(message.clone());
    let known = match request(handle, get, NLM_F_REQUEST).await {
        Ok(known) => known,
        // There is none.
        Err(AskError::Refused(_)) => None,
        Err(broken) => return Err(broken),
    };
    if let Some(RouteNetlinkMessage::NewNeighbour(known)) = known
        && matches!(known.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
    {
        return Ok(());
    }
    message.header.flags = NeighbourFlags::Use;
    let wish = RouteNetlinkMessage::NewNeighbour(message);
    request(handle, wish, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK).await.map(drop)
}

/// Sends a request, and waits for what the kernel says.
async fn request(
    handle: &mut Handle,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<Option<RouteNetlinkMessage>, AskError> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = flags;
    let mut answers = handle.request(request).map_err(|_| AskError::Broken)?;
    while let Some(answer) = futures::StreamExt::next(&mut answers).await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => return Ok(Some(message)),
            NetlinkPayload::Error(e) => {
                return match e.code {
                    None => Ok(None),
                    Some(code) => Err(AskError::Refused(code.get())),
                };
            }
            _ => {}
        }
    }
    Ok(None)
}
