//! One connection that is kept for many HTTP requests, so that a bench measures the answer and not the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::LabError;
use crate::sys::Netns;

/// How long an answer may take: it only ends a hang.
const ANSWER_MAX: Duration = Duration::from_secs(60);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open connection to a server of JSON.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    peer: String,
}

impl Connection {
    /// Connects to a daemon's control socket.
    pub fn control(socket: &Path) -> Result<Connection, LabError> {
        let connect = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(ANSWER_MAX)).map(|()| stream)
        };
        let fail = |source| LabError::File { action: "connect to", path: socket.into(), source };
        Ok(Connection::over(connect().map_err(fail)?, socket.display().to_string()))
    }

    /// Connects to an address inside a namespace.
    pub fn tcp(netns: &Netns, address: SocketAddr) -> Result<Connection, LabError> {
        let connected = netns.run(|| {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_MAX)).map(|()| stream)
        })?;
        let fail = |source| LabError::system(format!("connect to {address}"), source);
        Ok(Connection::over(connected.map_err(fail)?, address.to_string()))
    }

    fn over(stream: impl Stream + 'static, peer: String) -> Connection {
        Connection { stream: BufReader::new(Box::new(stream)), peer }
    }

    /// Posts an object and reads the answer. An error for anything but 2xx.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, LabError> {
        self.ask("POST", path, &body.to_string())
    }

    /// Gets an object. An error for anything but 2xx.
    pub fn get(&mut self, path: &str) -> Result<Value, LabError> {
        self.ask("GET", path, "")
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Value, LabError> {
        let what = format!("{method} {path}");
        let (status, answer) = self
            .exchange(&what, body)
            .map_err(|source| LabError::system(format!("{what} to {}", self.peer), source))?;
        if !(200..300).contains(&status) {
            let answer = answer.trim();
            return Err(LabError::Check(format!("{what} to {}: HTTP {status} {answer}", self.peer)));
        }
        serde_json::from_str(&answer)
            .map_err(|error| LabError::Check(format!("{what} to {}: {error}: {answer}", self.peer)))
    }

    fn exchange(&mut self, what: &str, body: &str) -> std::io::Result<(u16, String)> {
        let head = format!(
            "{what} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // In one piece: a request in two would wait for the acknowledgement of the first.
        self.stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let status = self.line()?.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other("no HTTP status"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => {
                    length = value.trim().parse().map_err(std::io::Error::other)?;
                }
                Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
                Some(_) => {}
            }
        }
        let bytes = if chunked { self.chunks()? } else { self.bytes(length)? };
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }

    fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(std::io::Error::other)?;
            all.extend(self.bytes(size)?);
            self.line()?;
            if size == 0 {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(answer: &'static str) -> Result<Value, LabError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer.as_bytes()).unwrap();
        Connection::over(ours, "test".into()).post("/x", &Value::Null)
    }

    #[test]
    fn answers_of_either_length_are_read_to_their_end() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
        assert_eq!(served(plain).unwrap()["a"], 1);
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:2}\r\n0\r\n\r\n";
        assert_eq!(served(chunked).unwrap()["a"], 2);
        assert!(
            served("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
                .unwrap_err()
                .to_string()
                .contains("503 no")
        );
    }
}
