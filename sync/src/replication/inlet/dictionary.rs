//! Names of a stream: the sender's numbers, and what they are in this process.

use crate::replication::Doubt;
use crate::replication::message::{NAME_BYTES_MAX, NameKind};
use tidegate_dataplane::names::{AppId, Names, NamesFull, RuleId, ZoneId};

/// Where names get their numbers in this process. A name that is new here is stored anyway: the session keeps
/// it, whatever the policy here says of it. `None`: there is no number left.
pub trait NameTable {
    /// The number of a zone name, and whether it is new.
    fn zone(&mut self, name: &str) -> Option<(ZoneId, bool)>;
    /// The number of a rule name, and whether it is new.
    fn rule(&mut self, name: &str) -> Option<(RuleId, bool)>;
    /// The number of an application name, and whether it is new.
    fn application(&mut self, name: &str) -> Option<(AppId, bool)>;
}

/// Names that only peers ever used, at most, in the life of a process: beyond, policies could not be read for
/// want of numbers.
pub const LEARNED_MAX: u32 = 16_384;

/// The process's names, for what peers tell. `learned` counts the names that were new, over all peers and links.
#[derive(Debug)]
pub struct PeerNames<'a> {
    /// The process's names.
    pub names: &'a mut Names,
    /// How many of them peers brought.
    pub learned: &'a mut u32,
}

impl PeerNames<'_> {
    fn find<T>(
        &mut self,
        known: Option<T>,
        add: impl FnOnce(&mut Names) -> Result<T, NamesFull>,
    ) -> Option<(T, bool)> {
        if let Some(id) = known {
            return Some((id, false));
        }
        if *self.learned >= LEARNED_MAX {
            return None;
        }
        let id = add(self.names).ok()?;
        *self.learned += 1;
        Some((id, true))
    }
}

impl NameTable for PeerNames<'_> {
    fn zone(&mut self, name: &str) -> Option<(ZoneId, bool)> {
        self.find(self.names.find_zone(name), |names| names.zone(name))
    }

    fn rule(&mut self, name: &str) -> Option<(RuleId, bool)> {
        self.find(self.names.find_rule(name), |names| names.rule(name))
    }

    fn application(&mut self, name: &str) -> Option<(AppId, bool)> {
        self.find(self.names.find_application(name), |names| names.application(name))
    }
}

/// Most numbers of a kind, on the wire: what a process hands out, and for rules more than any has.
const NUMBERS_MAX: [u32; NameKind::ALL.len()] = [1 << 16, 1 << 20, 1 << 16];
/// A number that the stream did not name.
const UNKNOWN: u32 = u32::MAX;
/// A number whose name could not be stored here.
const FULL: u32 = u32::MAX - 1;
/// A number whose name no policy can have.
const BAD: u32 = u32::MAX - 2;

/// By kind: this process's number for each of the sender's.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    numbers: [Vec<u32>; NameKind::ALL.len()],
}

impl Dictionary {
    /// Notes a name; says whether it is new in this process. `None`: no node has such a kind or number.
    pub(super) fn learn(
        &mut self,
        kind: u8,
        number: u32,
        text: &str,
        names: &mut dyn NameTable,
    ) -> Option<bool> {
        let kind = *NameKind::ALL.get(usize::from(kind))?;
        if number >= NUMBERS_MAX[kind as usize] {
            return None;
        }
        let found = match kind {
            _ if !is_plausible(kind, text) => None,
            NameKind::Zone => Some(names.zone(text).map(|(id, new)| (u32::from(id.0), new))),
            NameKind::Rule => Some(names.rule(text).map(|(id, new)| (id.0, new))),
            NameKind::Application => Some(names.application(text).map(|(id, new)| (u32::from(id.0), new))),
        };
        let (here, new) = match found {
            None => (BAD, false),
            Some(None) => (FULL, false),
            Some(Some(known)) => known,
        };
        let numbers = &mut self.numbers[kind as usize];
        if numbers.len() <= number as usize {
            numbers.resize(number as usize + 1, UNKNOWN);
        }
        numbers[number as usize] = here;
        Some(new)
    }

    pub(super) fn zone(&self, number: u16) -> Result<ZoneId, Doubt> {
        self.find(NameKind::Zone, u32::from(number)).map(|n| ZoneId(n as u16))
    }

    pub(super) fn rule(&self, number: u32) -> Result<RuleId, Doubt> {
        self.find(NameKind::Rule, number).map(RuleId)
    }

    pub(super) fn application(&self, number: u16) -> Result<AppId, Doubt> {
        self.find(NameKind::Application, u32::from(number)).map(|n| AppId(n as u16))
    }

    fn find(&self, kind: NameKind, number: u32) -> Result<u32, Doubt> {
        match self.numbers[kind as usize].get(number as usize).copied().unwrap_or(UNKNOWN) {
            FULL => Err(Doubt::NamesFull),
            UNKNOWN | BAD => Err(Doubt::Name),
            here => Ok(here),
        }
    }
}

/// Whether a policy can have that name. No application has the empty one.
fn is_plausible(kind: NameKind, text: &str) -> bool {
    (!text.is_empty() || kind == NameKind::Application)
        && text.len() <= NAME_BYTES_MAX
        && !text.chars().any(char::is_control)
}
