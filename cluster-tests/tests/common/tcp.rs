//! A TCP conversation between the raw ends, segment by segment.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::raw::{Arrived, QUIET, RawPair, SOON, Segment, v4};
use super::{TestLab, eventually};

/// The client's and the server's first sequence numbers.
pub const CLIENT: u32 = 1_000;
pub const SERVER: u32 = 500_000;
/// The window that both grant, unscaled.
pub const WINDOW: u16 = 60_000;

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    Client,
    Server,
}

/// Two ends and the node between them.
pub struct Talk<'a> {
    pub lab: &'a TestLab,
    pub pair: &'a RawPair,
    pub client: (IpAddr, u16),
    pub server: (IpAddr, u16),
}

/// What payloads are cut from.
static PAYLOAD: [u8; 1000] = [0x5a; 1000];

/// A segment with a payload of `len` bytes, at most 1000.
pub fn segment(flags: &str, seq: u32, ack: u32, len: usize) -> Segment<'_> {
    Segment { flags, seq, ack, window: WINDOW, payload: &PAYLOAD[..len], ..Segment::default() }
}

impl<'a> Talk<'a> {
    /// A conversation from that client port to server port 7000, over IPv4.
    pub fn new(lab: &'a TestLab, pair: &'a RawPair, port: u16) -> Talk<'a> {
        let (client, server) = v4(pair);
        pair.forget();
        Talk { lab, pair, client: (client, port), server: (server, 7000) }
    }

    fn send(&self, from: From, s: &Segment<'_>) {
        match from {
            From::Client => self.pair.client.tcp(self.client, self.server, s),
            From::Server => self.pair.server.tcp(self.server, self.client, s),
        }
    }

    /// What arrives next for this conversation at the side that `from` sends to.
    pub fn arrives(&self, from: From, patience: Duration) -> Option<Arrived> {
        let (end, at, source) = match from {
            From::Client => (&self.pair.server, self.server.1, self.client),
            From::Server => (&self.pair.client, self.client.1, self.server),
        };
        loop {
            let seen = end.tcp_arrival(at, patience)?;
            if (seen.source, seen.source_port) == source {
                return Some(seen);
            }
        }
    }

    /// Sends a segment that must be the next to arrive at the other side, as it is.
    pub fn passes(&self, from: From, flags: &str, seq: u32, ack: u32, len: usize) {
        self.send(from, &segment(flags, seq, ack, len));
        let seen =
            self.arrives(from, SOON).unwrap_or_else(|| panic!("{flags} {seq} {ack} +{len} does not arrive"));
        assert!(seen.checksums_right);
        let got = (seen.flags.as_str(), seen.seq, seen.ack, seen.payload.len());
        assert_eq!(got, (flags, seq, ack, len));
    }

    /// Sends a segment that must be dropped for that reason. That it does not arrive is shown by the next
    /// that does ([`Talk::passes`]).
    pub fn stopped(&self, from: From, flags: &str, seq: u32, ack: u32, len: usize, reason: &str) {
        let before = self.lab.drops(reason).unwrap();
        self.send(from, &segment(flags, seq, ack, len));
        eventually(&format!("{flags} {seq} {ack} +{len} counts as {reason}"), SOON, || {
            (self.lab.drops(reason).unwrap() > before).then_some(())
        });
        assert_eq!(self.arrives(from, QUIET), None, "{flags} {seq} {ack} +{len}");
    }

    /// The three segments of a handshake.
    pub fn connect(&self) {
        self.passes(From::Client, "S", CLIENT, 0, 0);
        self.passes(From::Server, "SA", SERVER, CLIENT + 1, 0);
        self.passes(From::Client, "A", CLIENT + 1, SERVER + 1, 0);
    }

    /// The session, if it is listed.
    pub fn session(&self) -> Option<Value> {
        let port = self.client.1.to_string();
        let found = self.lab.sessions(&["--protocol", "tcp", "--source-port", &port]).unwrap();
        assert!(found.len() <= 1, "{found:?}");
        found.into_iter().next()
    }

    /// State and timeout in seconds, as listed.
    pub fn state(&self) -> (String, f64) {
        let s = self.session().expect("a session");
        (s["state"].as_str().unwrap().to_owned(), s["timeout_s"].as_f64().unwrap())
    }

    /// Seconds from its first packet to its end, if no other comes: the same whenever it is asked.
    pub fn ends_at_s(&self) -> f64 {
        let s = self.session().expect("a session");
        s["age_s"].as_f64().unwrap() + s["remaining_s"].as_f64().unwrap()
    }

    /// Waits until it is gone.
    pub fn is_gone(&self) {
        eventually("the session goes", SOON, || self.session().is_none().then_some(()));
    }
}

/// Puts a policy in force: the lab's, with a part added.
pub fn policy(lab: &TestLab, base: &str, extra: &str) {
    std::fs::write(&lab.plan().nodes[0].policy, format!("{base}\n{extra}\n")).unwrap();
    let taken = lab.tidegate(&["policy", "reload"]).unwrap();
    assert_eq!(taken.code, Some(0), "{extra}: {}{}", taken.stdout, taken.stderr);
}
