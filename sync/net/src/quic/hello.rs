//! The first exchange of a connection between members: who is it, and can the two talk.
//!
//! The range of protocol versions comes first and is read alone, so that also a peer whose hello looks
//! otherwise is told, and told about, in plain words.

use super::frame::FrameError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use tidegate_sync::cluster::{ClusterId, Member, NodeId, StoreId};
use tidegate_sync::codec;

/// The protocol versions that this build speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Default for Versions {
    fn default() -> Self {
        Versions { min: 1, max: 1 }
    }
}

impl Versions {
    /// The newest that both speak.
    pub(crate) fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.max),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

/// Who a member says that it is. The certificate says the same of cluster and node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its cluster.
    pub(crate) cluster: ClusterId,
    /// Its id.
    pub(crate) node: NodeId,
    /// The generation that it belongs to.
    pub(crate) generation: u32,
    /// Its Raft store.
    pub(crate) store: StoreId,
    /// Drawn at its start, so that two processes under one id are told apart.
    pub(crate) boot: [u8; 16],
    /// Its build, for people.
    pub(crate) build: String,
}

/// Longest build string that is shown.
pub(crate) const BUILD_LONGEST: usize = 64;

impl Hello {
    pub(crate) fn write(&self, versions: Versions) -> Vec<u8> {
        let mut bytes = [versions.min.to_le_bytes(), versions.max.to_le_bytes()].concat();
        bytes.extend(codec::encode(self));
        bytes
    }

    /// The versions of a hello, and the rest of it.
    pub(crate) fn versions(bytes: &[u8]) -> Result<(Versions, &[u8]), FrameError> {
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Short)?;
        let [a, b, c, d] = *head;
        Ok((Versions { min: u16::from_le_bytes([a, b]), max: u16::from_le_bytes([c, d]) }, rest))
    }

    pub(crate) fn read(rest: &[u8]) -> Result<Self, FrameError> {
        Ok(codec::decode::<Hello, 4_096>(rest)?)
    }
}

/// Why a hello was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// No common version.
    Version,
    /// Not a member, as far as the refusing node knows.
    Unknown,
    /// A former member.
    Removed,
    /// A member of an older generation.
    Fenced,
    /// Another store than the one that it joined with.
    Store,
    /// Another process with the same id is alive.
    Duplicate,
    /// It says something else than its certificate, or is of another cluster.
    Identity,
    /// The refusing node takes no part itself.
    Out,
    /// A code of a later version.
    Other(u16),
}

impl Code {
    const ALL: [Code; 8] = [
        Code::Version,
        Code::Unknown,
        Code::Removed,
        Code::Fenced,
        Code::Store,
        Code::Duplicate,
        Code::Identity,
        Code::Out,
    ];

    fn number(self) -> u16 {
        match self {
            Code::Other(number) => number,
            known => Code::ALL.iter().position(|code| *code == known).map_or(0, |at| at as u16 + 1),
        }
    }

    fn of(number: u16) -> Self {
        let known = usize::from(number).checked_sub(1).and_then(|at| Code::ALL.get(at));
        known.copied().unwrap_or(Code::Other(number))
    }
}

/// A refusal as it goes over the wire: readable by every version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HelloRefusal {
    /// Why.
    pub(crate) code: Code,
    /// With [`Code::Fenced`]: the newer generation.
    pub(crate) number: u64,
    /// Why, in words.
    pub(crate) text: String,
}

impl HelloRefusal {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        HelloRefusal { code, number: 0, text: text.into() }
    }
}

impl fmt::Display for HelloRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HelloAnswer {
    /// Come in: the version that both use from now on, who answers, and the members that it knows: a node
    /// that was away while others joined would refuse a new leader, and never learn of it.
    Accepted { version: u16, hello: Hello, members: BTreeMap<NodeId, Member> },
    /// No.
    Refused(HelloRefusal),
}

impl HelloAnswer {
    pub(crate) fn write(&self) -> Vec<u8> {
        match self {
            HelloAnswer::Accepted { version, hello, members } => {
                let mut bytes = vec![0, 0];
                bytes.extend(version.to_le_bytes());
                bytes.extend(codec::encode(&(hello, members)));
                bytes
            }
            HelloAnswer::Refused(refusal) => {
                let mut bytes = refusal.code.number().to_le_bytes().to_vec();
                bytes.extend(refusal.number.to_le_bytes());
                bytes.extend(refusal.text.as_bytes());
                bytes
            }
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let (code, rest) = bytes.split_first_chunk::<2>().ok_or(FrameError::Short)?;
        match u16::from_le_bytes(*code) {
            0 => {
                let (version, rest) = rest.split_first_chunk::<2>().ok_or(FrameError::Short)?;
                let version = u16::from_le_bytes(*version);
                let (hello, members) = codec::decode::<(Hello, _), { 256 << 10 }>(rest)?;
                Ok(HelloAnswer::Accepted { version, hello, members })
            }
            code => {
                let (number, text) = rest.split_first_chunk::<8>().ok_or(FrameError::Short)?;
                let text = printable(&String::from_utf8_lossy(text), 400);
                let number = u64::from_le_bytes(*number);
                Ok(HelloAnswer::Refused(HelloRefusal { code: Code::of(code), number, text }))
            }
        }
    }
}

/// A peer's words, made fit for a log line: no control characters, not too long.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        // Take the maximum of the maxima, and the second line is red.
        let v = |min, max| Versions { min, max };
        assert_eq!(v(1, 1).common(v(1, 1)), Some(1));
        assert_eq!(v(1, 3).common(v(2, 9)), Some(3));
        assert_eq!(v(1, 2).common(v(3, 4)), None);
        assert_eq!(v(3, 4).common(v(1, 2)), None);
        assert_eq!(v(4, 2).common(v(1, 9)), None);
    }

    #[test]
    fn answers_are_read_as_written_also_those_of_later_versions() {
        let hello = Hello {
            cluster: ClusterId([1; 16]),
            node: NodeId(2),
            generation: 3,
            store: StoreId([4; 16]),
            boot: [5; 16],
            build: "0.1".to_owned(),
        };
        let bytes = hello.write(Versions { min: 2, max: 7 });
        let (versions, rest) = Hello::versions(&bytes).unwrap();
        assert_eq!((versions, Hello::read(rest).unwrap()), (Versions { min: 2, max: 7 }, hello.clone()));
        let accepted = HelloAnswer::Accepted { version: 1, hello, members: BTreeMap::new() };
        assert_eq!(HelloAnswer::read(&accepted.write()).unwrap(), accepted);
        for code in Code::ALL.into_iter().chain([Code::Other(99)]) {
            let refused = HelloAnswer::Refused(HelloRefusal { code, number: 8, text: "no".to_owned() });
            assert_eq!(HelloAnswer::read(&refused.write()).unwrap(), refused);
        }
        // Red without `printable`: a peer would write lines of its own into the log.
        let evil = HelloRefusal::new(Code::Unknown, "a\nb\u{1b}[2J");
        let HelloAnswer::Refused(read) = HelloAnswer::read(&HelloAnswer::Refused(evil).write()).unwrap()
        else {
            panic!("read as accepted")
        };
        assert_eq!(read.text, "a?b?[2J");
    }

    #[test]
    fn short_and_damaged_hellos_are_refused() {
        for bytes in [&[][..], &[1], &[1, 0, 1], &[0, 0, 1, 0, 9], &[7, 0, 1]] {
            assert!(HelloAnswer::read(bytes).is_err(), "{bytes:?}");
        }
        assert!(Hello::versions(&[1, 0, 1]).is_err());
        assert!(Hello::read(&[0; 10]).is_err());
    }
}
