//! Names that live as long as the process: zones, rules and applications as small numbers.
//!
//! A session holds numbers; a record, a log line or a CLI shows names. Numbers are handed out once
//! and never reused, so a session that was set up under an older policy revision still says which
//! rule let it in. Bounded: a policy that would need more than 65,535 names of a kind is refused.

use crate::session::timeouts::TimeoutClass;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of a zone name.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct ZoneId(pub u16);

/// Number of a rule name (a policy's rule, by its `from/to/name`).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct RuleId(pub u32);

/// Number of an application name. 0 is "none": no rule names an application for this flow.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct AppId(pub u16);

/// Number of a timeout class: one (timeout, what set it) pair.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct ClassId(pub u16);

/// An append-only list of distinct values and their numbers.
#[derive(Clone, Debug)]
struct Numbered<T> {
    values: Vec<T>,
    index: std::collections::BTreeMap<T, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Numbered { values: Vec::new(), index: std::collections::BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Numbered<T> {
    fn number(&mut self, value: &T, max: u32) -> Result<u32, NamesFull> {
        if let Some(n) = self.index.get(value) {
            return Ok(*n);
        }
        let n = self.values.len() as u32;
        if n > max {
            return Err(NamesFull);
        }
        self.values.push(value.clone());
        self.index.insert(value.clone(), n);
        Ok(n)
    }
}

/// More names of one kind than a process can number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many distinct names or timeouts since this process started; restart it to begin anew")]
pub struct NamesFull;

/// Every name and timeout class that any policy revision of this process has used.
#[derive(Clone, Debug)]
pub struct Names {
    zones: Numbered<Arc<str>>,
    rules: Numbered<Arc<str>>,
    applications: Numbered<Arc<str>>,
    classes: Numbered<TimeoutClass>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Names {
            zones: Numbered::default(),
            rules: Numbered::default(),
            applications: Numbered::default(),
            classes: Numbered::default(),
        };
        // Number 0 of applications is "none".
        let _ = names.applications.number(&Arc::from(""), 0);
        names
    }
}

impl Names {
    /// The number of a zone name; a new one if it is new.
    pub fn zone(&mut self, name: &str) -> Result<ZoneId, NamesFull> {
        self.zones.number(&Arc::from(name), 0xfffe).map(|n| ZoneId(n as u16))
    }

    /// The number of a rule name; a new one if it is new.
    pub fn rule(&mut self, name: &str) -> Result<RuleId, NamesFull> {
        self.rules.number(&Arc::from(name), 0xffff_fffe).map(RuleId)
    }

    /// The number of an application name; a new one if it is new.
    pub fn application(&mut self, name: &str) -> Result<AppId, NamesFull> {
        self.applications.number(&Arc::from(name), 0xfffe).map(|n| AppId(n as u16))
    }

    /// The number of a timeout class; a new one if it is new.
    pub fn class(&mut self, class: TimeoutClass) -> Result<ClassId, NamesFull> {
        self.classes.number(&class, 0xfffe).map(|n| ClassId(n as u16))
    }

    /// The zone of that name, if it was ever used.
    pub fn find_zone(&self, name: &str) -> Option<ZoneId> {
        self.zones.index.get(name).map(|n| ZoneId(*n as u16))
    }

    /// The rule of that name, if it was ever used.
    pub fn find_rule(&self, name: &str) -> Option<RuleId> {
        self.rules.index.get(name).map(|n| RuleId(*n))
    }

    /// The application of that name, if it was ever used.
    pub fn find_application(&self, name: &str) -> Option<AppId> {
        self.applications.index.get(name).map(|n| AppId(*n as u16))
    }

    /// The name of a zone, or "?" for a number that was never handed out.
    pub fn zone_name(&self, id: ZoneId) -> &str {
        self.zones.values.get(usize::from(id.0)).map_or("?", |n| n)
    }

    /// The name of a rule, or "?" for a number that was never handed out.
    pub fn rule_name(&self, id: RuleId) -> &str {
        self.rules.values.get(id.0 as usize).map_or("?", |n| n)
    }

    /// The name of an application ("" for none).
    pub fn application_name(&self, id: AppId) -> &str {
        self.applications.values.get(usize::from(id.0)).map_or("?", |n| n)
    }

    /// Every timeout class, by number. Engines hold a copy, replaced with each policy revision.
    pub fn classes(&self) -> &[TimeoutClass] {
        &self.classes.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change_and_are_never_reused() {
        let mut n = Names::default();
        let a = n.zone("trust").unwrap();
        let b = n.zone("untrust").unwrap();
        assert_ne!(a, b);
        assert_eq!(n.zone("trust").unwrap(), a);
        assert_eq!(n.zone_name(b), "untrust");
        assert_eq!(n.application_name(AppId(0)), "");
        assert_ne!(n.application("x").unwrap(), AppId(0));
    }
}
