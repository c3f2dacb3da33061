//! Long-lived TCP connections: an echo server with a thread for each, and a client's end to hold.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Crew;
use crate::LabError;
use crate::sys::Netns;

/// Repeats what every connection says while it lives.
#[derive(Debug)]
pub struct TcpEcho {
    _crew: Crew,
}

impl TcpEcho {
    /// Listens on `address` in a namespace.
    pub fn start(netns: &Netns, address: SocketAddr) -> Result<TcpEcho, LabError> {
        let mut crew = Crew::default();
        let listen = move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        crew.hire(netns, listen, |listener: TcpListener, stop| {
            std::thread::scope(|scope| {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => drop(scope.spawn(|| echo(stream, stop))),
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            });
        })?;
        Ok(TcpEcho { _crew: crew })
    }
}

/// Connects from a namespace. The stream may be used from any thread.
pub fn connect(netns: &Netns, address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let made = netns.run(|| TcpStream::connect_timeout(&address, patience)).map_err(io::Error::other)??;
    made.set_nodelay(true)?;
    Ok(made)
}

/// Says something to an echo server and waits for it to come back.
pub fn exchange(stream: &mut TcpStream, message: &[u8], patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    if answer == message { Ok(()) } else { Err(io::Error::other("the answer is not what was sent")) }
}

fn echo(mut stream: TcpStream, stop: &std::sync::atomic::AtomicBool) {
    let mut buffer = [0; 65_536];
    let ready = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(100))));
    if ready.is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            // The client sees a broken answer by itself.
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return,
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return;
            }
            _ => (),
        }
    }
}
