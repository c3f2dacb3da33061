//! A member's daemon: started so that it outlives us, waited for until it is ready, stopped by its process id.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::plan::{METRICS_LISTEN, NodePlan};
use crate::LabError;
use crate::sys::{Netns, ProcessId, Stop, read_file, write_file};

/// How long a daemon may take until it is ready. A table of 50 million sessions takes a while to map.
const READY_S_MAX: u64 = 60;
/// How long a daemon may take to end in order before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer over HTTP may take: on a machine that is busy with other things, seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that this process started.
#[derive(Debug)]
pub struct Daemon {
    node: NodePlan,
    child: Child,
    process: ProcessId,
}

impl Daemon {
    /// Starts `tidegate run` in the member's namespace, in a session of its own so that neither Ctrl-C nor the
    /// end of our terminal reaches it, and records its process id.
    pub fn start(node: &NodePlan, binary: PathBuf) -> Result<Daemon, LabError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&node.log)
            .map_err(|source| LabError::File { action: "open", path: node.log.clone(), source })?;
        let errors = log.try_clone().map_err(|source| LabError::system("duplicate the log", source))?;
        // `ip` becomes `setsid`, which becomes the daemon: the child's process id is the daemon's.
        let mut child = Netns::new(&node.netns)
            .command("setsid")
            .arg(binary)
            .args(["run", "--config"])
            .arg(&node.config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| LabError::Missing { program: "ip".into(), source })?;
        match record(&child, node) {
            Ok(process) => Ok(Daemon { node: node.clone(), child, process }),
            Err(error) => {
                // Without a record nobody could end it later. Both may fail only because it is gone already.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits until the daemon's readiness check says yes: it does all its work.
    pub fn wait_ready(&mut self, stop: &Stop) -> Result<(), LabError> {
        self.wait_probe("/readyz", stop)
    }

    /// Waits until the daemon answers; it may still wait for a cluster to join.
    pub fn wait_alive(&mut self, stop: &Stop) -> Result<(), LabError> {
        self.wait_probe("/livez", stop)
    }

    fn wait_probe(&mut self, path: &str, stop: &Stop) -> Result<(), LabError> {
        let start = Instant::now();
        let netns = Netns::new(&self.node.netns);
        loop {
            stop.check()?;
            if let Some(status) = self.try_wait()? {
                let (node, log_tail) = (self.node.name.clone(), self.log_tail());
                return Err(LabError::NodeEnded { node, status, log_tail });
            }
            let last = match http_get(&netns, path) {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => format!("HTTP {status} {}", body.trim()),
                Err(error) => error.to_string(),
            };
            if start.elapsed().as_secs() >= READY_S_MAX {
                let (node, log_tail) = (self.node.name.clone(), self.log_tail());
                return Err(LabError::NotReady { node, waited_s: READY_S_MAX, last, log_tail });
            }
            stop.sleep(Duration::from_millis(20))?;
        }
    }

    /// Its process.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Kills it with SIGKILL and returns once it was reaped: from then on it runs no instruction.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.child.kill().map_err(|source| LabError::system("kill the daemon", source))?;
        self.child.wait().map(drop).map_err(|source| LabError::system("wait for the daemon", source))
    }

    /// Ends it in order. Returns its exit code, `None` when it had to be killed.
    pub fn terminate(&mut self) -> Result<Option<i32>, LabError> {
        self.process.stop(END_PATIENCE);
        let status = self.child.wait().map_err(|source| LabError::system("wait for the daemon", source))?;
        Ok(status.code())
    }

    fn try_wait(&mut self) -> Result<Option<String>, LabError> {
        let status =
            self.child.try_wait().map_err(|source| LabError::system("wait for the daemon", source))?;
        Ok(status.map(|status| status.to_string()))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.node)
    }
}

/// The last lines of a member's log.
pub(super) fn log_tail(node: &NodePlan) -> String {
    let text = read_file(&node.log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn record(child: &Child, node: &NodePlan) -> Result<ProcessId, LabError> {
    let process = ProcessId::of(child.id() as i32)
        .ok_or_else(|| LabError::Check(format!("the daemon of {} ended at once", node.name)))?;
    let text = serde_json::to_string(&process).map_err(|error| LabError::Check(error.to_string()))?;
    write_file(&node.process, &text)?;
    Ok(process)
}

/// Stops the daemons that records name, those that still run and are the ones that were recorded.
pub(super) fn stop_recorded(nodes: &[&NodePlan]) {
    let record = |node: &&NodePlan| std::fs::read_to_string(&node.process).ok();
    let process = |text: String| serde_json::from_str::<ProcessId>(&text).ok();
    stop_all(&nodes.iter().filter_map(record).filter_map(process).collect::<Vec<_>>());
}

/// Asks all of them to end before it waits for the first: members of a cluster end in order side by side.
pub(super) fn stop_all(processes: &[ProcessId]) {
    for process in processes {
        // One that was frozen would not hear it.
        process.signal(Signal::SIGCONT);
        process.signal(Signal::SIGTERM);
    }
    for process in processes {
        process.stop(END_PATIENCE);
    }
}

/// One HTTP GET against the daemon's metrics address inside its namespace: status and body.
pub fn http_get(netns: &Netns, path: &str) -> Result<(u16, String), LabError> {
    let fail = |source| LabError::system(format!("GET http://{METRICS_LISTEN}{path}"), source);
    let text = netns.run(|| -> std::io::Result<String> {
        let address: SocketAddr = METRICS_LISTEN.parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_PATIENCE)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })?;
    parse_response(&text.map_err(fail)?)
        .ok_or_else(|| LabError::Check(format!("http://{METRICS_LISTEN}{path} did not answer in HTTP")))
}

fn parse_response(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

/// Joins the chunks of an HTTP/1.1 body; stops at what is cut short.
fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        if size == 0 {
            break;
        }
        out += chunk;
        body = rest.get(size + 2..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_status_and_body() {
        let plain = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(parse_response(plain), Some((503, "no\n".into())));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse_response(chunked), Some((200, "abcde".into())));
        assert_eq!(parse_response("garbage"), None);
    }
}
