//! The running exchange of a node, and its end.

use super::ExchangeHealth;
use super::heart::{self, Beating, Ending};
use super::plane::Plane;
use super::wiring::{ExchangeConfig, STREAMS_MAX, Wiring};
use crate::cluster::shared::Shared;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tidegate_sync::cluster::Role;

/// Why a node does not exchange sessions.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It forwards nothing.
    #[error("a witness has no sessions to exchange")]
    Witness,
    /// It does already.
    #[error("the exchange of sessions runs already")]
    Runs,
    /// Too many workers, or none.
    #[error("{0} workers: sessions are exchanged by 1 to {STREAMS_MAX}")]
    Streams(u16),
    /// Node numbers are given out for ever; session ids have room for so many.
    #[error("node number {0} is above 65535: make a new cluster")]
    Number(u64),
    /// No socket for heartbeats.
    #[error("no socket for heartbeats: {0}")]
    Socket(#[from] io::Error),
}

/// The exchange of session records and heartbeats with all other full members. Dropped, it ends as a killed process
/// would; [`Exchange::stop`] ends it in order.
pub struct Exchange {
    plane: Arc<Plane>,
    ending: Arc<Ending>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Exchange {
    /// Starts it; within a tokio runtime. The thread of the heartbeats takes over the priority of the calling one.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        config: ExchangeConfig,
        wiring: Wiring,
    ) -> Result<Exchange, ExchangeError> {
        if shared.role == Role::Witness {
            return Err(ExchangeError::Witness);
        }
        if !(1..=STREAMS_MAX).contains(&config.streams) {
            return Err(ExchangeError::Streams(config.streams));
        }
        if u16::try_from(shared.id.0).is_err() {
            return Err(ExchangeError::Number(shared.id.0));
        }
        if shared.exchange.load().is_some() {
            return Err(ExchangeError::Runs);
        }
        let listen = &shared.options.listen;
        let sockets = heart::bind(if listen.is_empty() { &shared.addresses } else { listen })?;
        let bound = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let told = told(&shared.addresses, listen, &bound);
        let name = config.thread.clone();
        let plane = Arc::new(Plane::new(shared.clone(), config, wiring.links, told, bound));
        let ending = Arc::new(Ending::default());
        let beating = Beating::new(plane.clone(), wiring.heart, sockets, ending.clone());
        let thread = std::thread::Builder::new().name(name).spawn(move || beating.run())?;
        shared.exchange.store(Some(plane.clone()));
        plane.spawn(plane.clone().follow());
        Ok(Exchange { plane, ending, thread: Mutex::new(Some(thread)) })
    }

    /// One look at all peers.
    pub fn health(&self) -> ExchangeHealth {
        self.plane.health()
    }

    /// Where this node takes heartbeats, as its peers are told.
    pub fn heartbeats(&self) -> &[SocketAddr] {
        &self.plane.told
    }

    /// Says farewell, so that peers take over at once, and closes all links. The heart is gone when this returns.
    pub async fn stop(self) {
        self.ending.in_order.store(true, Ordering::Release);
        self.end();
        let thread = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn end(&self) {
        self.ending.end.store(true, Ordering::Release);
        self.plane.stop.send_replace(true);
        self.plane.shared.exchange.store(None);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where peers reach the sockets for heartbeats. A node that listens elsewhere than where it is reached is reached at the
/// port after the one that it advertises.
fn told(advertised: &[SocketAddr], listen: &[SocketAddr], bound: &[SocketAddr]) -> Vec<SocketAddr> {
    if listen.is_empty() {
        return bound.to_vec();
    }
    let is_beside =
        |(listen, bound): (&SocketAddr, &SocketAddr)| bound.port() == listen.port().wrapping_add(1);
    let beside = listen.iter().zip(bound).all(is_beside);
    let free = bound.first().map_or(0, SocketAddr::port);
    let port = |address: &SocketAddr| match beside {
        true => address.port().wrapping_add(1),
        false => free,
    };
    advertised.iter().map(|address| SocketAddr::new(address.ip(), port(address))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_where_they_reach_the_sockets() {
        let at = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let bound = at(&["10.0.0.1:5001"]);
        assert_eq!(told(&at(&["10.0.0.1:5000"]), &[], &bound), bound);
        // Behind a translation, with the port after each.
        let (advertised, listen) = (at(&["192.0.2.1:7000", "192.0.2.2:7000"]), at(&["0.0.0.0:5000"]));
        let beside = told(&advertised, &listen, &at(&["0.0.0.0:5001"]));
        assert_eq!(beside, at(&["192.0.2.1:7001", "192.0.2.2:7001"]));
        let elsewhere = told(&advertised, &listen, &at(&["0.0.0.0:9"]));
        assert_eq!(elsewhere, at(&["192.0.2.1:9", "192.0.2.2:9"]));
    }
}
