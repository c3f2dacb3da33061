//! The mirror's connections to the kernel, and how long it waits for a burst of events to end.

use futures::TryStreamExt;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, IpVersion, MulticastGroup};
use std::time::Duration;
use tokio::time::Instant;

/// How long a burst of events may go on before the tables are read.
const DEBOUNCE_MAX: Duration = Duration::from_millis(10);
/// Quiet time after which they are read.
const DEBOUNCE_QUIET: Duration = Duration::from_millis(2);
/// Kernel-side buffer for events, in bytes; when it overflows, everything is read again.
const EVENT_BUFFER_BYTES: usize = 4 << 20;

/// Why the mirror lost the kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] std::io::Error),
    #[error("reading the kernel's tables failed: {0}")]
    Read(#[from] rtnetlink::Error),
    #[error("the netlink socket was closed")]
    Closed,
}

/// What waits to be read or published.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) first: Option<Instant>,
    last: Option<Instant>,
    pub(super) tables: bool,
    pub(super) everything: bool,
}

impl Pending {
    pub(super) fn note(&mut self, tables: bool) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tables |= tables;
    }

    /// A neighbour is told at once: packets wait for it. Tables are read when the burst is over.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.tables {
            return self.first;
        }
        Some((self.first? + DEBOUNCE_MAX).min(self.last? + DEBOUNCE_QUIET))
    }
}

pub(super) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

pub(super) type Events = futures::channel::mpsc::UnboundedReceiver<(
    NetlinkMessage<RouteNetlinkMessage>,
    rtnetlink::sys::SocketAddr,
)>;

/// One connection for events, one to read with: a dump never waits behind events. The events wait
/// in memory while tables are read, which takes milliseconds; before that the kernel's own buffer
/// bounds them.
pub(super) fn connect() -> Result<(Events, Handle, tokio::task::JoinSet<()>), MirrorError> {
    const GROUPS: [MulticastGroup; 8] = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let mut connections = tokio::task::JoinSet::new();
    let (mut connection, _, events) = rtnetlink::new_multicast_connection(&GROUPS)?;
    connection.socket_mut().socket_mut().set_rx_buf_sz(EVENT_BUFFER_BYTES)?;
    connections.spawn(connection);
    let (connection, reader, _) = rtnetlink::new_connection()?;
    connections.spawn(connection);
    Ok((events, reader, connections))
}

/// Rules beyond local, main and default, which every namespace has.
pub(super) async fn foreign_rules(reader: &Handle) -> Result<usize, MirrorError> {
    let mut count = 0;
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut rules = reader.rule().get(version).execute();
        while let Some(rule) = rules.try_next().await? {
            let priority = rule.attributes.iter().find_map(|a| match a {
                RuleAttribute::Priority(p) => Some(*p),
                _ => None,
            });
            count += usize::from(![0, 32766, 32767].contains(&priority.unwrap_or(0)));
        }
    }
    Ok(count)
}
