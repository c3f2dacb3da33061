//! Policy revisions, and which of them is in force.

use super::command::Lease;
use super::ids::NodeId;
use super::outcome::{Outcome, Refusal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where a revision's text came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// The first member had it when the cluster was founded.
    Founding,
    /// `policy apply`.
    Apply,
    /// `policy rollback` to that revision.
    Rollback(u32),
}

/// What became of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// Needs no confirmation, or has it.
    Confirmed,
    /// Waits for one.
    Pending(Lease),
    /// Was not confirmed in time; the last confirmed one came back.
    Expired,
    /// Another revision took its place before it was confirmed.
    Replaced,
}

/// One policy revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revision {
    /// From 1, counting up.
    pub number: u32,
    /// The policy file; old ones are dropped.
    pub text: Option<Arc<str>>,
    /// SHA-256 of the text.
    pub sha256: [u8; 32],
    /// Length of the text in bytes.
    pub bytes: u64,
    /// Who asked for it.
    pub by: String,
    /// The node that was asked.
    pub via: NodeId,
    /// When, by that node's clock: Unix time in milliseconds.
    pub at_unix_ms: u64,
    /// Where the text came from.
    pub source: Source,
    /// What became of it.
    pub standing: Standing,
}

/// All revisions that are remembered, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyLog {
    revisions: VecDeque<Revision>,
    newest: u32,
    confirmed: u32,
}

/// Who asks for a revision, where and when.
pub(super) struct Asked<'a> {
    pub(super) by: &'a str,
    pub(super) via: NodeId,
    pub(super) at_unix_ms: u64,
}

impl PolicyLog {
    /// Longest policy, in bytes.
    pub const LONGEST: usize = 8 << 20;
    /// Revisions that are remembered.
    pub const REMEMBERED: usize = 4_096;
    /// Revisions whose texts are kept at least, whatever their length.
    pub const TEXTS: usize = 8;
    /// Bytes of texts that are kept beyond those.
    pub const TEXT_BYTES: u64 = 16 << 20;

    /// The revision in force as agreed: the newest, unless it expired. A node whose clock says that the
    /// newest one's lease is over falls back to [`PolicyLog::fallback`] by itself.
    pub fn in_force(&self) -> Option<&Revision> {
        match self.get(self.newest) {
            Some(newest) if newest.standing != Standing::Expired => Some(newest),
            _ => self.fallback(),
        }
    }

    /// The last confirmed revision.
    pub fn fallback(&self) -> Option<&Revision> {
        self.get(self.confirmed)
    }

    /// The revision that waits for confirmation, with its lease.
    pub fn pending(&self) -> Option<(&Revision, Lease)> {
        let newest = self.get(self.newest)?;
        match newest.standing {
            Standing::Pending(lease) => Some((newest, lease)),
            _ => None,
        }
    }

    /// A revision by its number.
    pub fn get(&self, number: u32) -> Option<&Revision> {
        let first = self.revisions.front()?.number;
        self.revisions.get(number.checked_sub(first)? as usize)
    }

    /// All that are remembered, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Revision> {
        self.revisions.iter()
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Revision> {
        let first = self.revisions.front()?.number;
        self.revisions.get_mut(number.checked_sub(first)? as usize)
    }

    fn number_in_force(&self) -> u32 {
        self.in_force().map_or(0, |r| r.number)
    }

    pub(super) fn found(&mut self, text: Arc<str>, by: &str, at_unix_ms: u64) {
        self.add(text, Source::Founding, None, &Asked { by, via: NodeId(1), at_unix_ms });
    }

    pub(super) fn apply(
        &mut self,
        base: u32,
        text: &Arc<str>,
        lease: Option<Lease>,
        asked: &Asked<'_>,
    ) -> Outcome {
        if text.len() > Self::LONGEST {
            return Outcome::Refused(Refusal::TooLong { bytes: text.len(), limit: Self::LONGEST });
        }
        let now = self.number_in_force();
        let same = self.in_force().is_some_and(|r| r.sha256 == digest(text));
        if same {
            return Outcome::Revision { number: now, unchanged: true };
        }
        if base != now {
            return Outcome::Refused(Refusal::RevisionMoved { base, now });
        }
        self.add(text.clone(), Source::Apply, lease, asked)
    }

    pub(super) fn rollback(
        &mut self,
        base: u32,
        to: u32,
        lease: Option<Lease>,
        asked: &Asked<'_>,
    ) -> Outcome {
        let Some(text) = self.get(to).and_then(|r| r.text.clone()) else {
            return Outcome::Refused(Refusal::NoSuchRevision(to));
        };
        let now = self.number_in_force();
        if base != now {
            return Outcome::Refused(Refusal::RevisionMoved { base, now });
        }
        if self.in_force().is_some_and(|r| r.sha256 == digest(&text)) {
            return Outcome::Revision { number: now, unchanged: true };
        }
        self.add(text, Source::Rollback(to), lease, asked)
    }

    pub(super) fn confirm(&mut self, revision: u32) -> Outcome {
        let newest = self.newest;
        match self.get_mut(revision) {
            None => Outcome::Refused(Refusal::NoSuchRevision(revision)),
            Some(r) => match r.standing {
                Standing::Pending(_) if revision == newest => {
                    r.standing = Standing::Confirmed;
                    self.confirmed = revision;
                    self.drop_old();
                    Outcome::Revision { number: revision, unchanged: false }
                }
                // Said twice is said once.
                Standing::Confirmed if revision == newest => {
                    Outcome::Revision { number: revision, unchanged: true }
                }
                Standing::Expired => Outcome::Refused(Refusal::LeaseExpired(revision)),
                _ => Outcome::Refused(Refusal::NotPending(revision)),
            },
        }
    }

    pub(super) fn expire(&mut self, revision: u32) -> Outcome {
        let newest = self.newest;
        match self.get_mut(revision).filter(|_| revision == newest) {
            Some(r) if matches!(r.standing, Standing::Pending(_)) => {
                r.standing = Standing::Expired;
                Outcome::Revision { number: self.confirmed, unchanged: false }
            }
            _ => Outcome::Refused(Refusal::NotPending(revision)),
        }
    }

    fn add(&mut self, text: Arc<str>, source: Source, lease: Option<Lease>, asked: &Asked<'_>) -> Outcome {
        if let Some(last) = self.get_mut(self.newest)
            && matches!(last.standing, Standing::Pending(_))
        {
            last.standing = Standing::Replaced;
        }
        self.newest += 1;
        self.revisions.push_back(Revision {
            number: self.newest,
            sha256: digest(&text),
            bytes: text.len() as u64,
            text: Some(text),
            by: asked.by.to_owned(),
            via: asked.via,
            at_unix_ms: asked.at_unix_ms,
            source,
            standing: lease.map_or(Standing::Confirmed, Standing::Pending),
        });
        if lease.is_none() {
            self.confirmed = self.newest;
        }
        self.drop_old();
        Outcome::Revision { number: self.newest, unchanged: false }
    }

    /// Keeps what is in force, what it would fall back to, and the newest texts.
    fn drop_old(&mut self) {
        while self.revisions.len() > Self::REMEMBERED
            && self.revisions.front().is_some_and(|r| r.number != self.confirmed)
        {
            self.revisions.pop_front();
        }
        let (confirmed, mut kept, mut bytes) = (self.confirmed, 0, 0);
        for revision in self.revisions.iter_mut().rev() {
            if revision.text.is_none() {
                continue;
            }
            kept += 1;
            bytes += revision.bytes;
            if kept > Self::TEXTS && bytes > Self::TEXT_BYTES && revision.number != confirmed {
                revision.text = None;
            }
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
