//! Sockets and transport settings.

use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::{Digest, Sha256};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(5);
/// How often a silent peer is asked for a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Packets of session records that a peer may take before it acknowledges them at once.
const PACKETS_UNACKED: u32 = 24;
/// How long one address is tried.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// Why a connection is closed, as its peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown = 1,
    /// The peer was removed from the cluster.
    Removed = 2,
    /// The peer broke the protocol.
    Violation = 3,
    /// A newer connection of the same process took its place.
    Replaced = 4,
    /// The hello was refused.
    Refused = 5,
    /// The exchange is over.
    Done = 6,
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Whether an error says that the peer closed for this reason.
    pub(crate) fn is(self, error: &quinn::ConnectionError) -> bool {
        matches!(error, quinn::ConnectionError::ApplicationClosed(c) if c.error_code == self.code())
    }
}

/// How soon a peer acknowledges packets. Its maximum delay rules the probe timer: 25 ms by default.
fn acknowledgements() -> AckFrequencyConfig {
    let mut ack = AckFrequencyConfig::default();
    ack.max_ack_delay(Some(Duration::from_millis(1)));
    ack
}

/// Transport settings, with limits for what a peer may open and send ahead.
fn transport(bidi: u32, uni: u32) -> Arc<TransportConfig> {
    Arc::new(settings(bidi, uni))
}

fn settings(bidi: u32, uni: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(bidi))
        .max_concurrent_uni_streams(VarInt::from_u32(uni))
        .stream_receive_window(VarInt::from_u32(4 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        .send_window(16 << 20)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .ack_frequency_config(Some(acknowledgements()));
    transport
}

/// For accepting: members and those who join. What they may open is cut down after the handshake for the
/// latter.
pub(crate) fn server(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, String> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(|e| e.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(64, 4)).migration(false).max_incoming(256);
    Ok(config)
}

/// For dialling. The other side opens nothing on a connection that this side dialled.
pub(crate) fn client(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, String> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|e| e.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = settings(0, 0);
    // Only answers come here: long ones that wait for a slow reader leave the others room.
    transport.stream_receive_window(VarInt::from_u32(1 << 20));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// For dialling to send session records. What is on its way is bounded, so that a slow peer coalesces at the source; the
/// other side opens one stream, for its acknowledgements.
pub(crate) fn sync_client(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, String> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|e| e.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = settings(0, 1);
    // A batch is several packets: it is acknowledged once, with the peer's own word on it or after a millisecond.
    let mut ack = acknowledgements();
    ack.ack_eliciting_threshold(VarInt::from_u32(PACKETS_UNACKED));
    transport
        .ack_frequency_config(Some(ack))
        .send_window(2 << 20)
        .stream_receive_window(VarInt::from_u32(256 << 10))
        .receive_window(VarInt::from_u32(512 << 10));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Cuts down what a peer may open and send ahead on a connection for session records: one stream for each of its
/// workers.
pub(crate) fn limit_sync(connection: &quinn::Connection, streams: u16) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(u32::from(streams)));
    connection.set_receive_window(VarInt::from_u32(8 << 20));
}

/// A socket, and the address that it really has.
pub(crate) fn bind(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind(address)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// All sockets of a node: one a listening address, and one a family to dial from. Replies to those come to
/// whatever address the kernel chose by its routes.
pub(crate) struct Endpoints {
    listeners: Vec<Endpoint>,
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Endpoints {
    /// Takes bound sockets; `reset_key` stays the same over restarts, so that peers notice one at once.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub(crate) fn new(
        sockets: Vec<UdpSocket>,
        server: &quinn::ServerConfig,
        reset_key: &[u8; 32],
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        // A reset is sent only for ids that the node knows for its own: also those of the process before.
        let ids = Sha256::digest(reset_key).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        for socket in sockets {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
            let mut config = EndpointConfig::new(Arc::new(key));
            config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
            listeners.push(Endpoint::new(config, Some(server.clone()), socket, Arc::new(TokioRuntime))?);
        }
        let (v4, v6) = dialling();
        Ok(Endpoints { listeners, v4, v6 })
    }

    pub(crate) fn listeners(&self) -> &[Endpoint] {
        &self.listeners
    }

    /// New handshakes use this from now on; connections stay.
    pub(crate) fn set_server(&self, server: &quinn::ServerConfig) {
        for listener in &self.listeners {
            listener.set_server_config(Some(server.clone()));
        }
    }

    /// The endpoint to dial that address from.
    pub(crate) fn to(&self, address: SocketAddr) -> Result<&Endpoint, String> {
        pick(&self.v4, &self.v6, address)
    }

    /// Closes everything, and tells the peers.
    pub(crate) async fn close(&self) {
        let all = || self.listeners.iter().chain(&self.v4).chain(&self.v6);
        for endpoint in all() {
            endpoint.close(Close::Shutdown.code(), b"the node stops");
        }
        for endpoint in all() {
            // Waits until the last words are out, but not for those who do not listen.
            let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        }
        self.listeners.iter().for_each(release);
    }
}

/// Gives an endpoint's address back at once: who still holds the member, or a connection to a silent peer, would keep the
/// socket. Twice, because quinn keeps the one before the newest.
fn release(endpoint: &Endpoint) {
    let anywhere: SocketAddr = match endpoint.local_addr() {
        Ok(SocketAddr::V6(_)) => (Ipv6Addr::LOCALHOST, 0).into(),
        _ => (Ipv4Addr::LOCALHOST, 0).into(),
    };
    for _ in 0..2 {
        if let Err(error) = UdpSocket::bind(anywhere).and_then(|socket| endpoint.rebind(socket)) {
            tracing::debug!(%error, "an address is given back later");
        }
    }
}

/// Endpoints to dial from; a family that the host does not have is left out.
pub(crate) fn dialling() -> (Option<Endpoint>, Option<Endpoint>) {
    let open = |address: SocketAddr| Endpoint::client(address).ok();
    (open((Ipv4Addr::UNSPECIFIED, 0).into()), open((Ipv6Addr::UNSPECIFIED, 0).into()))
}

/// The one of the address's family.
pub(crate) fn pick<'a>(
    v4: &'a Option<Endpoint>,
    v6: &'a Option<Endpoint>,
    address: SocketAddr,
) -> Result<&'a Endpoint, String> {
    let endpoint = if address.is_ipv4() { v4 } else { v6 };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    endpoint.as_ref().ok_or_else(|| format!("this host has no {family}"))
}
