//! HTTP/JSON over the control socket: what every verb speaks.

use crate::api::ErrorBody;
use crate::exit::{Exit, Failure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// Longest line that a stream may carry: far above any session's JSON.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest answer that is read whole.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon at that control socket. Connects with each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into() }
    }

    /// GET; the answer as a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.value(Method::GET, path, Bytes::new()).await
    }

    /// POST with a JSON body; the answer as a value.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::error(e.to_string()))?;
        self.value(Method::POST, path, body.into()).await
    }

    /// GET; the answer as text.
    pub async fn text(&self, path: &str) -> Result<String, Failure> {
        let bytes = self.bytes(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// GET; the answer line by line, as it comes.
    pub async fn lines(&self, path: &str) -> Result<Lines, Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(failure(response.status(), &self.collect(response).await?));
        }
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), socket: self.socket.clone() })
    }

    async fn value<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Failure::error(format!("the daemon's answer is not understood ({e}); is it of another version?"))
        })
    }

    async fn bytes(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = self.collect(response).await?;
        if status.is_success() { Ok(bytes) } else { Err(failure(status, &bytes)) }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = http_body_util::Limited::new(response.into_body(), BODY_BYTES_MAX);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(e) => Err(self.broke(&*e)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broke(&e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "tidegate")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| Failure::usage(format!("not a request: {e}")))?;
        sender.send_request(request).await.map_err(|e| self.broke(&e))
    }

    fn unreachable(&self, e: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let why = match e.kind() {
            std::io::ErrorKind::NotFound => format!("no control socket at {socket}"),
            std::io::ErrorKind::ConnectionRefused => format!("nobody listens at {socket}"),
            std::io::ErrorKind::PermissionDenied => format!("no permission for {socket}; run as root"),
            _ => format!("cannot reach {socket}: {e}"),
        };
        Failure::new(
            Exit::Unreachable,
            format!(
                "{why}\n  help: is the daemon running? Name its socket with --control (`control.socket` in node.toml)"
            ),
        )
    }

    fn broke(&self, e: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!("the connection to {} broke: {e}\n  help: see the daemon's log", self.socket.display()),
        )
    }
}

/// A streamed answer.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    socket: PathBuf,
}

impl Lines {
    /// The next line without its newline, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Failure::error("the daemon sent a line without end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => {
                    let message = format!("the connection to {} broke: {e}", self.socket.display());
                    return Err(Failure::new(Exit::Unreachable, message));
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Failure::error("the daemon's answer ends in the middle of a line")),
            }
        }
    }
}

/// The daemon's own words for a failure, or the bare status.
fn failure(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { exit, message, diagnostics }) => {
            let mut text: String = diagnostics.iter().map(|d| d.render(None)).collect();
            text.push_str(&message);
            Failure::new(exit, text)
        }
        Err(_) => Failure::error(format!("the daemon answered {status}: {}", String::from_utf8_lossy(body))),
    }
}

/// A path with a query string from name and value pairs, percent-encoded.
pub fn with_query(path: &str, query: &impl Serialize) -> Result<String, Failure> {
    let pairs = serde_json::to_value(query).map_err(|e| Failure::error(e.to_string()))?;
    let mut out = path.to_owned();
    let mut sign = '?';
    for (key, value) in pairs.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        out.push(sign);
        out.push_str(key);
        out.push('=');
        for b in value.bytes() {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
        }
        sign = '&';
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SessionQuery;

    #[test]
    fn queries_are_encoded() {
        // Without percent-encoding the slash and the ampersand would change the request.
        let q = SessionQuery {
            source_prefix: Some("10.0.0.0/8".into()),
            policy: Some("a&b".into()),
            ..Default::default()
        };
        assert_eq!(with_query("/s", &q).unwrap(), "/s?policy=a%26b&source_prefix=10.0.0.0%2F8");
    }
}
