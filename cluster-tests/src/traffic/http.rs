//! A file over HTTP: a server that reads it from disk, a client that hashes what arrives.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Crew;
use crate::LabError;
use crate::sys::{Netns, Stop};

const CHUNK_BYTES: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves one file to every GET while it lives, one connection after the other.
#[derive(Debug)]
pub struct HttpServer {
    _crew: Crew,
}

impl HttpServer {
    /// Listens on `address` in a namespace.
    pub fn start(netns: &Netns, address: SocketAddr, file: &Path) -> Result<HttpServer, LabError> {
        let mut crew = Crew::default();
        let file = file.to_owned();
        let listen = move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        crew.hire(netns, listen, move |listener: TcpListener, stop| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A transfer that breaks off is the client's to report.
                    Ok((stream, _)) => drop(serve(stream, &file)),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        })?;
        Ok(HttpServer { _crew: crew })
    }
}

/// Fetches `http://address/file` from a namespace: how many bytes came, and their SHA-256 in hexadecimal.
/// `progress` is told how many came so far.
pub fn fetch(
    netns: &Netns,
    address: SocketAddr,
    stop: &Stop,
    mut progress: impl FnMut(u64) + Send,
) -> Result<(u64, String), LabError> {
    let fetched = netns.run(|| -> io::Result<(u64, String)> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /file HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let (status, expected) = read_head(&mut stream)?;
        if status != 200 {
            return Err(io::Error::other(format!("HTTP status {status}")));
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut total = 0;
        while total < expected && !stop.is_set() {
            match stream.read(&mut buffer)? {
                0 => {
                    return Err(io::Error::other(format!(
                        "the transfer ended after {total} of {expected} bytes"
                    )));
                }
                length => {
                    hash.update(&buffer[..length]);
                    total += length as u64;
                    progress(total);
                }
            }
        }
        Ok((total, hex(&hash.finalize())))
    })?;
    stop.check()?;
    fetched.map_err(|error| LabError::system(format!("GET http://{address}/file"), error))
}

/// Writes a file of that size that no compression or caching could fake, and returns its SHA-256.
pub fn make_file(path: &Path, bytes: u64, seed: u64) -> Result<String, LabError> {
    let fail = |source| LabError::File { action: "write", path: PathBuf::from(path), source };
    let mut out = BufWriter::with_capacity(CHUNK_BYTES, File::create(path).map_err(fail)?);
    let mut hash = Sha256::new();
    let mut state = seed | 1;
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64: fast, and without a pattern that a checksum of 16 bits would miss.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = left.min(CHUNK_BYTES as u64) as usize;
        hash.update(&chunk[..length]);
        out.write_all(&chunk[..length]).map_err(fail)?;
        left -= length as u64;
    }
    out.flush().map_err(fail)?;
    Ok(hex(&hash.finalize()))
}

fn serve(mut stream: TcpStream, file: &Path) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut byte = [0; 512];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < 8192 {
        match stream.read(&mut byte)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&byte[..length]),
        }
    }
    let mut source = File::open(file)?;
    let length = source.metadata()?.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    io::copy(&mut source, &mut stream).map(drop)
}

/// Status and content length of a response; leaves the stream at the first byte of the body.
fn read_head(stream: &mut impl Read) -> io::Result<(u16, u64)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > 8192 {
            return Err(io::Error::other("the response's head has no end"));
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = text.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    match (status, length) {
        (Some(status), Some(length)) => Ok((status, length)),
        _ => Err(io::Error::other("no status or content length in the response")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_where_the_body_starts() {
        let mut response: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(read_head(&mut response).unwrap(), (200, 3));
        assert_eq!(response, b"abc");
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..]).is_err());
    }
}
