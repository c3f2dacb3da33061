//! Trouble on the sync segment: what is wanted between which members, and how a relay is told.
//!
//! The relay (`relay.rs`) is a process of its own that takes the place of the segment's bridge with the first order,
//! so that it outlives `tidegate-lab link`. Each order is a line of JSON over a socket in the lab's directory, and so
//! is the answer: all ways, what is wrong with them, and what has become of the frames so far.

mod frame;
mod process;
mod relay;
mod switch;

pub use process::{link, run};

pub(super) use process::end_recorded;

use serde::{Deserialize, Serialize};

use super::Lab;
use super::plan::Plan;
use super::route::member_number;
use crate::LabError;

/// Longest delay.
const DELAY_MS_MAX: f64 = 10_000.0;

/// What is wrong with one way, from one member to another. Percent are of the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Impairment {
    /// How much later frames arrive.
    pub delay_ms: f64,
    /// How many are lost.
    pub loss_pct: f64,
    /// How many come twice.
    pub duplicate_pct: f64,
    /// In how many a bit is changed. Of UDP the payload, and its checksum is made right again: the change reaches the
    /// program. What is not IP stays as it is, so that no neighbour is learned wrong.
    pub corrupt_pct: f64,
    /// How many are held back by 1 to 10 ms, so that others overtake them.
    pub reorder_pct: f64,
    /// Nothing arrives.
    pub cut: bool,
}

/// What an order changes; the rest stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// See [`Impairment::delay_ms`].
    pub delay_ms: Option<f64>,
    /// See [`Impairment::loss_pct`].
    pub loss_pct: Option<f64>,
    /// See [`Impairment::duplicate_pct`].
    pub duplicate_pct: Option<f64>,
    /// See [`Impairment::corrupt_pct`].
    pub corrupt_pct: Option<f64>,
    /// See [`Impairment::reorder_pct`].
    pub reorder_pct: Option<f64>,
    /// See [`Impairment::cut`].
    pub cut: Option<bool>,
}

impl Change {
    /// Changes nothing.
    pub const NOTHING: Change = Change {
        delay_ms: None,
        loss_pct: None,
        duplicate_pct: None,
        corrupt_pct: None,
        reorder_pct: None,
        cut: None,
    };

    /// Nothing arrives any more.
    pub const CUT: Change = Change { cut: Some(true), ..Change::NOTHING };

    /// Everything is as on a good cable again.
    pub const HEAL: Change = Change {
        delay_ms: Some(0.0),
        loss_pct: Some(0.0),
        duplicate_pct: Some(0.0),
        corrupt_pct: Some(0.0),
        reorder_pct: Some(0.0),
        cut: Some(false),
    };

    fn check(&self) -> Result<(), LabError> {
        let within = |option, value: Option<f64>, most: f64| match value {
            Some(value) if !(0.0..=most).contains(&value) => {
                Err(LabError::BadOption { option, reason: format!("{value} is not within 0 to {most}") })
            }
            _ => Ok(()),
        };
        within("delay", self.delay_ms, DELAY_MS_MAX)?;
        within("loss", self.loss_pct, 100.0)?;
        within("duplicate", self.duplicate_pct, 100.0)?;
        within("corrupt", self.corrupt_pct, 100.0)?;
        within("reorder", self.reorder_pct, 100.0)
    }

    fn apply(&self, to: &mut Impairment) {
        let set = |field: &mut f64, value: Option<f64>| *field = value.unwrap_or(*field);
        set(&mut to.delay_ms, self.delay_ms);
        set(&mut to.loss_pct, self.loss_pct);
        set(&mut to.duplicate_pct, self.duplicate_pct);
        set(&mut to.corrupt_pct, self.corrupt_pct);
        set(&mut to.reorder_pct, self.reorder_pct);
        to.cut = self.cut.unwrap_or(to.cut);
    }
}

/// One order to the relay: changes of ways, each by the names of its ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Applied one after the other.
    pub changes: Vec<(Way, Change)>,
    /// Draws all chances anew from this number.
    pub seed: Option<u64>,
}

/// From one member to another; `None` is every member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The sender's name.
    pub from: Option<String>,
    /// The receiver's name.
    pub to: Option<String>,
}

impl Way {
    fn between(from: &str, to: &str) -> Way {
        Way { from: Some(from.to_owned()), to: Some(to.to_owned()) }
    }

    fn is(&self, from: &str, to: &str) -> bool {
        self.from.as_deref().is_none_or(|name| name == from)
            && self.to.as_deref().is_none_or(|name| name == to)
    }
}

/// A way, what is wrong with it, and what has become of the frames that were to go it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WayReport {
    /// The sender's name.
    pub from: String,
    /// The receiver's name.
    pub to: String,
    /// What is wrong.
    #[serde(flatten)]
    pub impairment: Impairment,
    /// Frames that were delivered, duplicates too.
    pub delivered: u64,
    /// Frames that a cut kept back.
    pub cut_off: u64,
    /// Frames that were lost on purpose.
    pub lost: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames with a changed bit.
    pub corrupted: u64,
    /// Frames that others could overtake.
    pub reordered: u64,
    /// Frames lost against the intention: too many were under way, or the receiver's port took no more.
    pub overflowed: u64,
}

/// What the relay answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// All ways.
    pub ways: Vec<WayReport>,
}

impl Report {
    /// The way from one member to another.
    pub fn way(&self, from: &str, to: &str) -> Option<&WayReport> {
        self.ways.iter().find(|way| way.from == from && way.to == to)
    }
}

/// `tidegate-lab link` as it was written.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `--between`: two members.
    pub between: Vec<String>,
    /// What is to change both ways.
    pub change: Change,
    /// `--cut`, perhaps one way only: `node1-to-node2`.
    pub cut: Option<Option<String>>,
    /// `--heal`: between the two members, or everywhere.
    pub heal: bool,
    /// `--seed`.
    pub seed: Option<u64>,
}

impl Request {
    fn order(&self, plan: &Plan) -> Result<Order, LabError> {
        self.change.check()?;
        let name = |text: &str| {
            let number = member_number(plan, text)?;
            plan.members().find(|member| member.number == number).map(|member| member.name.clone())
        };
        let bad = |option, reason: String| LabError::BadOption { option, reason };
        let nobody = |text: &str| bad("between", format!("{text:?} is no member of lab {}", plan.name));
        let named = |text: &String| name(text).ok_or_else(|| nobody(text));
        let names = self.between.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let mut changes = Vec::new();
        let ways = match &names[..] {
            [] if self.heal => vec![Way::default()],
            [] if self.change == Change::default() && self.cut.is_none() => Vec::new(),
            [a, b] if a != b => vec![Way::between(a, b), Way::between(b, a)],
            _ => return Err(bad("between", "name two members, such as node1,node2".into())),
        };
        let both = if self.heal { Change::HEAL } else { self.change };
        changes.extend(ways.iter().map(|way| (way.clone(), both)));
        match &self.cut {
            None => (),
            Some(None) => changes.extend(ways.into_iter().map(|way| (way, Change::CUT))),
            Some(Some(one)) => {
                let ends = one.split_once("-to-").and_then(|(from, to)| Some((name(from)?, name(to)?)));
                let way = ends.map(|(from, to)| Way::between(&from, &to)).filter(|way| ways.contains(way));
                let way = way.ok_or_else(|| {
                    bad("cut", format!("{one:?}: write A-to-B, both of them named by --between"))
                })?;
                changes.push((way, Change::CUT));
            }
        }
        Ok(Order { changes, seed: self.seed })
    }
}

impl Lab {
    /// Changes the sync link between two members, both ways.
    pub fn link(&self, a: u32, b: u32, change: Change) -> Result<Report, LabError> {
        let (a, b) = (self.at(a).name(), self.at(b).name());
        self.order_link(Order {
            changes: [Way::between(a, b), Way::between(b, a)].map(|way| (way, change)).into(),
            seed: None,
        })
    }

    /// Changes the sync link from one member to another.
    pub fn link_one_way(&self, from: u32, to: u32, change: Change) -> Result<Report, LabError> {
        let way = Way::between(self.at(from).name(), self.at(to).name());
        self.order_link(Order { changes: vec![(way, change)], seed: None })
    }

    /// Makes the whole sync segment good again.
    pub fn heal_links(&self) -> Result<Report, LabError> {
        self.order_link(Order { changes: vec![(Way::default(), Change::HEAL)], seed: None })
    }

    fn order_link(&self, order: Order) -> Result<Report, LabError> {
        order.changes.iter().try_for_each(|(_, change)| change.check())?;
        process::order(self.plan(), &order)
    }
}
