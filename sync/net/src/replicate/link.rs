//! The link with one peer: the connection that this node dialled and the one that the peer dialled, as a pair.
//!
//! One task for each peer owns both, so what the node hears of the link is in order. Records leave by the own
//! connection and come by the peer's; acknowledgements take the way back of the same connection. When one of the two
//! ends, the other is closed too: a link is whole or not there.

use super::dial::dial;
use super::plane::{Peer, Plane, Side};
use super::stream::{self, Meter, StreamEnd, Use};
use super::wiring::{BACK_QUEUE, BackOutlet, Link, Outlet, QUEUE};
use crate::cluster::counters::count;
use crate::cluster::tls::close_reason;
use crate::quic::endpoint::Close;
use crate::quic::hello::printable;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::session::owner::Boot;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;

/// Pause after a link that the peer broke, or that the node did not want.
const PENALTY: Duration = Duration::from_secs(1);

/// Keeps a link with a peer until it is no full member any more.
pub(super) async fn keep(plane: Arc<Plane>, peer: Arc<Peer>, mut arrivals: Receiver<Side>) {
    let (mut out, mut inbound) = (None, None);
    while pair(&plane, &peer, &mut arrivals, &mut out, &mut inbound).await {
        let (Some(own), Some(theirs)) = (out.take(), inbound.take()) else { continue };
        let end = link(&plane, &peer, &own, &theirs, &mut arrivals).await;
        peer.note().out = None;
        let (why, text) = end.close();
        for side in [&own, &theirs] {
            side.connection.close(why.code(), text.as_bytes());
        }
        ended(&plane, &peer, &end, &text);
        match end {
            End::Replaced(side) => inbound = Some(side),
            End::Gone => break,
            End::Violation(_) | End::Unwanted => {
                tokio::select! {
                    () = tokio::time::sleep(PENALTY) => {}
                    () = peer.gone() => break,
                }
            }
            End::Closed(_) => {}
        }
    }
    for side in out.iter().chain(&inbound) {
        side.close(Close::Removed);
    }
}

/// Waits until both connections lead to the same process; `false`: the peer is none any more.
async fn pair(
    plane: &Arc<Plane>,
    peer: &Arc<Peer>,
    arrivals: &mut Receiver<Side>,
    out: &mut Option<Side>,
    inbound: &mut Option<Side>,
) -> bool {
    let mut dialling = Box::pin(dial(plane, peer));
    while out.is_none() || inbound.is_none() {
        tokio::select! {
            side = &mut dialling, if out.is_none() => {
                dialling = Box::pin(dial(plane, peer));
                drop_other(inbound, &side);
                peer.note().out = Some(side.connection.clone());
                *out = Some(side);
            }
            Some(side) = arrivals.recv() => {
                drop_other(out, &side);
                if let Some(old) = inbound.replace(side) {
                    old.close(Close::Replaced);
                }
            }
            () = over(out) => *out = None,
            () = over(inbound) => *inbound = None,
            () = peer.gone() => return false,
        }
    }
    true
}

/// Closes a connection to another process than the one that has just been met: that one is the older.
fn drop_other(held: &mut Option<Side>, met: &Side) {
    if let Some(old) = held.take_if(|held| held.process != met.process) {
        old.close(Close::Replaced);
    }
}

fn over(side: &Option<Side>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
    match side {
        Some(side) => Box::pin(async {
            side.connection.closed().await;
        }),
        None => Box::pin(std::future::pending()),
    }
}

/// How a link ended.
enum End {
    Closed(String),
    Violation(String),
    /// A newer connection of the peer is there.
    Replaced(Side),
    /// The node has no place for the peer.
    Unwanted,
    /// The peer is no full member any more.
    Gone,
}

impl End {
    /// What the peer is told.
    fn close(&self) -> (Close, String) {
        match self {
            End::Closed(why) => (Close::Done, why.clone()),
            End::Violation(why) => (Close::Violation, why.clone()),
            End::Replaced(_) => (Close::Replaced, "a newer connection took its place".to_owned()),
            End::Unwanted => (Close::Refused, "this node has no place for the peer".to_owned()),
            End::Gone => (Close::Removed, "the node is no full member any more".to_owned()),
        }
    }
}

impl From<StreamEnd> for End {
    fn from(end: StreamEnd) -> Self {
        match end {
            StreamEnd::Closed(why) => End::Closed(why),
            StreamEnd::Violation(why) => End::Violation(why),
        }
    }
}

fn ended(plane: &Plane, peer: &Peer, end: &End, text: &str) {
    let text = printable(text, 400);
    match end {
        End::Violation(_) => {
            count(&peer.counters.refused);
            count(&plane.shared.counting.messages_refused);
            if let Some(held) = plane.shared.may_log(&format!("sync violation {}", peer.id)) {
                tracing::warn!("node {} broke the protocol, its link was closed: {text}{held}", peer.id);
            }
        }
        End::Replaced(_) => count(&peer.counters.replaced),
        _ => {}
    }
    if let Some(held) = plane.shared.may_log(&format!("sync link {}", peer.id)) {
        tracing::warn!("the link to node {} is down: {text}{held}", peer.id);
    }
    peer.note().last_error = Some(text);
}

/// Tells the node of the link's end, also when the task is dropped.
struct Up<'a> {
    plane: &'a Plane,
    peer: &'a Peer,
    number: u64,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.peer.note().link = None;
        self.plane.links.down(self.peer.node, self.number);
    }
}

/// Carries batches and acknowledgements until something ends.
async fn link(
    plane: &Arc<Plane>,
    peer: &Arc<Peer>,
    own: &Side,
    theirs: &Side,
    arrivals: &mut Receiver<Side>,
) -> End {
    let number = plane.next_link();
    let queues = || (0..plane.config.streams).map(|_| mpsc::channel::<Vec<u8>>(QUEUE));
    let (outlets, batches): (Vec<_>, Vec<_>) = queues().unzip();
    let (back, backs) = mpsc::channel(BACK_QUEUE);
    let it = Boot { node: peer.node, boot: theirs.greeting.boot };
    let intakes = plane.links.up(Link {
        it,
        number,
        streams: theirs.greeting.streams,
        uptime_ms: theirs.greeting.uptime_ms,
        outlets: outlets.into_iter().map(Outlet).collect(),
        back: BackOutlet(back),
    });
    let Some(intakes) = intakes.filter(|i| i.streams.len() == usize::from(theirs.greeting.streams)) else {
        return End::Unwanted;
    };
    let up = Up { plane, peer, number };
    {
        let mut note = peer.note();
        (note.link, note.last_error) = (Some(number), None);
        note.heartbeats.clone_from(&theirs.greeting.heartbeats);
    }
    count(&peer.counters.links);
    tracing::info!("the link to node {} (boot {}) is up", it.node, it.boot);
    let mut tasks = JoinSet::new();
    let (out, inbound, counters) = (&own.connection, &theirs.connection, &peer.counters);
    tasks.spawn(stream::read_records(inbound.clone(), intakes.streams, counters.clone()));
    tasks.spawn(stream::read_back(out.clone(), intakes.back, counters.clone()));
    tasks.spawn(stream::write(inbound.clone(), Use::Back, backs, Meter::backs_out(counters)));
    for (worker, queue) in batches.into_iter().enumerate() {
        let what = Use::Records(worker as u16);
        tasks.spawn(stream::write(out.clone(), what, queue, Meter::batches_out(counters)));
    }
    let end = tokio::select! {
        end = out.closed() => End::Closed(close_reason(&end)),
        end = inbound.closed() => End::Closed(close_reason(&end)),
        Some(side) = arrivals.recv() => End::Replaced(side),
        Some(end) = tasks.join_next() => match end {
            Ok(Ok(())) => End::Closed("a stream ended".to_owned()),
            Ok(Err(end)) => end.into(),
            Err(error) => End::Closed(error.to_string()),
        },
        () = peer.gone() => End::Gone,
    };
    // The intakes first: nothing comes by this link once the node heard that it is down.
    tasks.shutdown().await;
    drop(up);
    end
}
