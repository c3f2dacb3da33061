//! Traffic that a lab's hosts make for themselves, with ordinary sockets of the kernel.
//!
//! Every thread enters the host's namespace and stays there; dropping a handle ends its threads.

mod churn;
mod http;
mod numbered;
mod streams;
mod tcp;
mod trickle;
mod udp;
mod wire;

pub use churn::{Churn, ChurnReport, churn, paced_churn, snmp_value};
pub use http::{HttpServer, fetch, make_file};
pub use numbered::Numbered;
pub use streams::Streams;
pub use tcp::{TcpEcho, connect, exchange};
pub use trickle::{Trickle, TrickleFlow};
pub use udp::{UdpEcho, udp_flows};
pub use wire::Wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::LabError;
use crate::sys::Netns;

/// The wildcard address of the family of `like`, with a port.
pub fn wildcard(like: IpAddr, port: u16) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
    }
}

/// Threads inside namespaces that end when this is dropped. They look at the flag at least every 100 ms.
#[derive(Debug, Default)]
struct Crew {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread in a namespace. `setup` runs there first, and its error is the caller's.
    fn hire<T: 'static>(
        &mut self,
        netns: &Netns,
        setup: impl FnOnce() -> io::Result<T> + Send + 'static,
        work: impl FnOnce(T, &AtomicBool) + Send + 'static,
    ) -> Result<(), LabError> {
        let (netns, stop) = (netns.clone(), self.stop.clone());
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        self.threads.push(std::thread::spawn(move || {
            let made = netns.enter().and_then(|()| {
                setup().map_err(|error| LabError::system(format!("in {}", netns.name()), error))
            });
            match made {
                Ok(made) => {
                    // The caller waits for exactly one answer.
                    let _ = ready.send(Ok(()));
                    work(made, &stop);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        }));
        is_ready.recv().unwrap_or_else(|_| Err(LabError::Check("a traffic thread ended at once".into())))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error; the check that needs it fails by itself.
            let _ = thread.join();
        }
    }
}
