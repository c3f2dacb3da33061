//! Tests of the policy as a whole: file in, judgements and diagnostics out.

mod diagnostics;
mod oracle;
mod precedence;
mod ranges;
mod replication;
mod rules;
mod size;

use super::{CheckReport, Policy, check, compile};
use crate::addr::{Addr, Tuple};
use crate::names::{Names, ZoneId};
use crate::session::timeouts::TimeoutClass;
use std::net::IpAddr;

/// A compiled policy with its names.
pub(super) struct Fixture {
    pub(super) policy: Policy,
    pub(super) names: Names,
}

impl Fixture {
    /// From a text that must have no errors.
    pub(super) fn new(text: &str) -> Self {
        let report = check(text, "policy.toml");
        let Some(file) = report.file else { panic!("{text}\n{}", print(&report)) };
        let mut names = Names::default();
        let policy = compile(&file, 7, &mut names).unwrap();
        Fixture { policy, names }
    }

    pub(super) fn zone(&self, name: &str) -> ZoneId {
        self.names.find_zone(name).unwrap()
    }

    pub(super) fn judge(&self, from: &str, to: &str, tuple: &Tuple) -> super::Judgement {
        self.policy.evaluate(self.zone(from), self.zone(to), tuple)
    }

    /// Name of the rule that a flow from `a` to `b` matches; "" is the default deny.
    pub(super) fn rule(&self, tuple: &Tuple) -> String {
        let judgement = self.judge("a", "b", tuple);
        judgement.rule.map(|id| self.names.rule_name(id).to_string()).unwrap_or_default()
    }

    /// Timeout class of a flow from `a` to `b`.
    pub(super) fn class(&self, tuple: &Tuple) -> TimeoutClass {
        self.policy.classes()[usize::from(self.judge("a", "b", tuple).class.0)]
    }
}

/// Every diagnostic as people see it.
pub(super) fn print(report: &CheckReport) -> String {
    report.errors.iter().chain(&report.warnings).map(|d| format!("{d}\n")).collect()
}

pub(super) fn tuple(src: &str, dst: &str, protocol: u8, src_port: u16, dst_port: u16) -> Tuple {
    let addr = |s: &str| Addr::from(s.parse::<IpAddr>().unwrap());
    Tuple { src: addr(src), dst: addr(dst), src_port, dst_port, protocol }
}
