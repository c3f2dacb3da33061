//! The compiled policy: immutable, shared by every engine, replaced as a whole (a commit is atomic
//! for a packet).

use super::Action;
use super::applications::{Applications, Label};
use super::matcher::{Flow, Matcher, Place};
use super::model::{ApplicationRef, PolicyFile, TimeWaitSetting, Ttl};
use super::replication::{ReplicationSettings, SetupAck};
use super::ttl::{Levels, TtlTable, class, fallback};
use crate::addr::Tuple;
use crate::names::{AppId, ClassId, Names, NamesFull, RuleId, ZoneId};
use crate::session::timeouts::{TimeoutClass, TimeoutSource};
use serde::Serialize;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

/// `never` sessions may take this share of the table; beyond it [`Policy::never_fallback`] is used
/// and counted (F6).
pub const NEVER_SHARE_PERCENT: u32 = 10;

/// Idle timeout after the last ACK of a close, in seconds (J6).
const LAST_ACK_S: u32 = 2;

/// Why a policy that passed its checks could not be compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// Names or timeouts ran out.
    #[error(transparent)]
    Names(#[from] NamesFull),
    /// The rules overlap in too many different ways to be held in memory.
    #[error(
        "the rules need more than 256 MiB when compiled; join rules that differ in one address only into \
         one with an address set"
    )]
    TooComplex,
}

/// What the policy says about a flow's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// What to do.
    pub action: Action,
    /// The rule that said so; `None` is the default deny.
    pub rule: Option<RuleId>,
    /// Whether the rule wants its flows logged.
    pub log: bool,
    /// Whether the rule answers a TCP packet that is no SYN and belongs to no session (J7).
    pub tcp_rst: bool,
    /// Whether peers are told of the flow's session.
    pub sync: bool,
    /// Whether its first packet waits for peers; never so without `sync`.
    pub setup_ack: SetupAck,
    /// The application that matched; 0 is none.
    pub application: AppId,
    /// Idle timeout of the flow's session (F5).
    pub class: ClassId,
}

/// `tcp.time_wait` in compiled form (J6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeWait {
    /// A closed session has this class.
    Class(ClassId),
    /// A closed session keeps its service class.
    Ageout,
}

/// `[tcp]` and `[mss]` in compiled form (J4 to J8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpPolicy {
    /// Until the handshake completes (J4).
    pub initial: ClassId,
    /// After the second FIN (J6).
    pub time_wait: TimeWait,
    /// After the last ACK of a close (J6): 2 s.
    pub last_ack: ClassId,
    /// `time_wait` counts from the first FIN (J6).
    pub half_close_time_wait: bool,
    /// A valid RST ends the session at once (J5).
    pub rst_invalidate: bool,
    /// The completed close ends the session at once (J6).
    pub fin_invalidate: bool,
    /// A first packet that is no SYN is dropped (J7).
    pub syn_check: bool,
    /// Payload before the handshake is done is dropped (J7).
    pub strict_syn_check: bool,
    /// A segment outside its window is dropped (J7).
    pub sequence_check: bool,
    /// A RST outside its window is dropped (J7).
    pub rst_sequence_check: bool,
    /// Some rule answers a first packet that is no SYN (J7).
    pub answers_strays: bool,
    /// Largest MSS option that a SYN passes on (J8).
    pub mss_max: Option<u16>,
}

/// A zone of the policy, for show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ZoneInfo {
    /// Its number.
    #[serde(skip)]
    pub id: ZoneId,
    /// Its name.
    pub name: Arc<str>,
    /// What an operator says about it.
    pub description: Option<Arc<str>>,
}

/// A rule of the policy, for show and hit counters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RuleInfo {
    /// Its number; its name in [`Names`] is `from/to/name`.
    #[serde(skip)]
    pub id: RuleId,
    /// Its name within its zones.
    pub name: Arc<str>,
    /// Zone name, or `any`.
    pub from: Arc<str>,
    /// Zone name, or `any`.
    pub to: Arc<str>,
    /// As written: set names, prefixes, or `any`.
    pub source: Vec<String>,
    /// As written: set names, prefixes, or `any`.
    pub destination: Vec<String>,
    /// As written: application names, or `any`.
    pub application: Vec<String>,
    /// What it does.
    pub action: Action,
    /// Idle timeout of its sessions, in seconds or `never`.
    pub session_ttl: Option<Ttl>,
    /// Whether its flows are logged.
    pub log: bool,
    /// Whether a TCP packet that would be its first but is no SYN is answered with a RST (J7).
    pub tcp_rst: bool,
    /// Whether peers are told of its sessions; `None`: by `replication.protocols`.
    pub sync: Option<bool>,
    /// Whether its flows' first packets wait for peers; `None`: as `replication.setup_ack` says.
    pub setup_ack: Option<SetupAck>,
    /// A rule that is not enabled matches nothing.
    pub enabled: bool,
    /// What an operator says about it.
    pub description: Option<Arc<str>>,
    /// Line in the policy file.
    pub line: u32,
}

/// What `evaluate` reads of a rule.
#[derive(Debug)]
struct Verdict {
    id: RuleId,
    action: Action,
    log: bool,
    tcp_rst: bool,
    sync: Option<bool>,
    setup_ack: SetupAck,
    session_ttl: Option<ClassId>,
    /// What labels each of its flows, when protocol and destination port decide that one application matches.
    only: Option<Label>,
}

/// A compiled policy revision. Immutable; share it as `Arc<Policy>`.
#[derive(Debug)]
pub struct Policy {
    revision: u32,
    matcher: Matcher,
    verdicts: Box<[Verdict]>,
    /// Those of each rule. Apart from the verdicts, which are read for every flow.
    rule_applications: Box<[Box<[ApplicationRef]>]>,
    applications: Applications,
    ttl: TtlTable,
    tcp: TcpPolicy,
    replication: ReplicationSettings,
    icmp_reply: ClassId,
    log_default_deny: bool,
    /// Index of each zone in the policy, by its `ZoneId`.
    zone_index: Box<[Option<u16>]>,
    zones: Box<[ZoneInfo]>,
    rules: Box<[RuleInfo]>,
    rule_ids_end: usize,
    never_fallbacks: BTreeMap<ClassId, ClassId>,
    classes: Arc<[TimeoutClass]>,
    source_text: Arc<str>,
    fingerprint: u128,
}

/// Compiles a checked file as that revision. New names are numbered in `names`; when it fails, the
/// numbers given out so far stay, which harms nobody.
pub fn compile(file: &PolicyFile, revision: u32, names: &mut Names) -> Result<Policy, CompileError> {
    let matcher = Matcher::new(file)?;
    let zones = file
        .zones
        .iter()
        .map(|z| {
            let (name, description) = (z.name.clone(), z.description.clone());
            Ok(ZoneInfo { id: names.zone(&name)?, name, description })
        })
        .collect::<Result<Box<[_]>, NamesFull>>()?;
    let mut zone_index = vec![None; zones.iter().map(|z| usize::from(z.id.0) + 1).max().unwrap_or(0)];
    for (i, zone) in zones.iter().enumerate() {
        zone_index[usize::from(zone.id.0)] = Some(i as u16);
    }
    let rules = rule_infos(file, names)?;
    let applications = Applications::new(file, names)?;
    let verdicts = verdicts(file, &rules, &applications, names)?;
    let ttl = TtlTable::new(file, names)?;
    let tcp = tcp(file, names)?;
    let icmp_reply =
        names.class(class(Ttl::Seconds(file.timeouts.icmp_reply_s), TimeoutSource::IcmpReply))?;
    let never_fallbacks = never_fallbacks(names)?;
    let mut hasher = SipHasher13::new();
    hasher.write(file.text.as_bytes());
    Ok(Policy {
        revision,
        matcher,
        verdicts,
        rule_applications: file.rules.iter().map(|rule| rule.application.as_slice().into()).collect(),
        applications,
        ttl,
        tcp,
        replication: file.replication,
        icmp_reply,
        log_default_deny: file.log.default_deny,
        zone_index: zone_index.into(),
        zones,
        rule_ids_end: rules.iter().map(|rule| rule.id.0 as usize + 1).max().unwrap_or(0),
        rules,
        never_fallbacks,
        classes: names.classes().into(),
        source_text: file.text.clone(),
        fingerprint: hasher.finish128().as_u128(),
    })
}

impl Policy {
    /// What happens to a flow whose first packet has this tuple, comes from zone `from` and leads to
    /// zone `to`: the first enabled rule that matches in file order (J1), with the idle timeout of F5.
    /// A zone that the policy does not declare matches no rule, not even one for `any`. Both addresses are of one
    /// family, as in every packet.
    ///
    /// Once for each new flow, and again for a live one after a commit. Does not allocate.
    pub fn evaluate(&self, from: ZoneId, to: ZoneId, tuple: &Tuple) -> Judgement {
        self.evaluate_at(from, to, tuple, self.matcher.place_one(tuple))
    }

    /// Finds out where flows stand among all prefixes, before they are evaluated: with many prefixes
    /// that is a few cache misses a flow, which overlap when it is done for a batch at once.
    ///
    /// # Panics
    /// When the slices are not of one length.
    pub fn place(&self, flows: &[Tuple], places: &mut [Place]) {
        assert_eq!(flows.len(), places.len());
        self.matcher.place(flows, places);
    }

    /// [`Policy::evaluate`] of a flow whose place this very policy has found.
    pub fn evaluate_at(&self, from: ZoneId, to: ZoneId, tuple: &Tuple, place: Place) -> Judgement {
        let (Some(from), Some(to)) = (self.zone(from), self.zone(to)) else {
            return self.default_deny(tuple);
        };
        let found = self.matcher.first(Flow { from, to, tuple }, place, u32::MAX, |rule| {
            let verdict = &self.verdicts[rule as usize];
            verdict.only.or_else(|| self.applications.first(&self.rule_applications[rule as usize], tuple))
        });
        let Some((rule, label)) = found else {
            return self.default_deny(tuple);
        };
        let verdict = &self.verdicts[rule as usize];
        let levels =
            Levels { application: label.own, rule: verdict.session_ttl, predefined: label.predefined };
        let sync = verdict.sync.unwrap_or_else(|| self.replication.protocols.holds(tuple.protocol));
        Judgement {
            action: verdict.action,
            rule: Some(verdict.id),
            log: verdict.log,
            tcp_rst: verdict.tcp_rst,
            sync,
            setup_ack: if sync { verdict.setup_ack } else { SetupAck::None },
            application: label.id,
            class: self.ttl.class(tuple, levels),
        }
    }

    /// Whether a flow may pass.
    pub fn permits(&self, from: ZoneId, to: ZoneId, tuple: &Tuple) -> bool {
        self.evaluate(from, to, tuple).action == Action::Permit
    }

    /// The revision that it was compiled as.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The TCP settings.
    pub fn tcp(&self) -> &TcpPolicy {
        &self.tcp
    }

    /// The replication settings.
    pub fn replication(&self) -> &ReplicationSettings {
        &self.replication
    }

    /// `timeouts.icmp_reply` (J2). It shortens the protocol's own timeout only: see
    /// [`Policy::icmp_reply_class_for`].
    pub fn icmp_reply_class(&self) -> ClassId {
        self.icmp_reply
    }

    /// The class of an answered ICMP query whose service class is `service`. `timeouts.icmp_reply`
    /// is a protocol's value, so by F5 anything more specific stays in force.
    pub fn icmp_reply_class_for(&self, service: ClassId) -> ClassId {
        match self.classes.get(usize::from(service.0)).map(|c| c.source) {
            Some(TimeoutSource::Protocol) => self.icmp_reply,
            _ => service,
        }
    }

    /// For a `never` class, the class of 2764800 s with the same source that is used beyond
    /// [`NEVER_SHARE_PERCENT`] (F6); `None` for every other class.
    pub fn never_fallback(&self, class: ClassId) -> Option<ClassId> {
        self.never_fallbacks.get(&class).copied()
    }

    /// Every timeout class of the process, by number, as of this revision.
    pub fn classes(&self) -> &Arc<[TimeoutClass]> {
        &self.classes
    }

    /// The zones that the policy declares, in file order.
    pub fn zones(&self) -> &[ZoneInfo] {
        &self.zones
    }

    /// The rules in file order, those that are not enabled included.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.rules
    }

    /// One above the highest number of its rules.
    pub fn rule_ids_end(&self) -> usize {
        self.rule_ids_end
    }

    /// The text that it was compiled from.
    pub fn source_text(&self) -> &Arc<str> {
        &self.source_text
    }

    /// Tells texts apart in show and logs (SipHash-1-3, 128 bits, no key: not a signature).
    pub fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    #[inline]
    fn zone(&self, id: ZoneId) -> Option<u16> {
        self.zone_index.get(usize::from(id.0)).copied().flatten()
    }

    fn default_deny(&self, tuple: &Tuple) -> Judgement {
        Judgement {
            action: Action::Deny,
            rule: None,
            log: self.log_default_deny,
            tcp_rst: false,
            sync: false,
            setup_ack: SetupAck::None,
            application: AppId::default(),
            class: self.ttl.class(tuple, Levels::default()),
        }
    }
}

fn rule_infos(file: &PolicyFile, names: &mut Names) -> Result<Box<[RuleInfo]>, NamesFull> {
    let written = |list: &[_]| list.iter().map(|a| file.address_name(*a)).collect();
    file.rules
        .iter()
        .map(|r| {
            let (from, to) = (file.zone_name(r.from), file.zone_name(r.to));
            Ok(RuleInfo {
                id: names.rule(&format!("{from}/{to}/{}", r.name))?,
                name: r.name.clone(),
                from: from.into(),
                to: to.into(),
                source: written(&r.source),
                destination: written(&r.destination),
                application: r.application.iter().map(|a| file.application_name(*a).to_string()).collect(),
                action: r.action,
                session_ttl: r.session_ttl,
                log: r.log,
                tcp_rst: r.tcp_rst,
                sync: r.sync,
                setup_ack: r.setup_ack,
                enabled: r.enabled,
                description: r.description.clone(),
                line: r.line,
            })
        })
        .collect()
}

fn verdicts(
    file: &PolicyFile,
    infos: &[RuleInfo],
    applications: &Applications,
    names: &mut Names,
) -> Result<Box<[Verdict]>, NamesFull> {
    file.rules
        .iter()
        .zip(infos)
        .map(|(rule, info)| {
            let ttl = rule.session_ttl.map(|t| names.class(class(t, TimeoutSource::Rule)));
            Ok(Verdict {
                id: info.id,
                action: rule.action,
                log: rule.log,
                tcp_rst: rule.tcp_rst,
                sync: rule.sync,
                setup_ack: rule.setup_ack.unwrap_or(file.replication.setup_ack),
                session_ttl: ttl.transpose()?,
                only: applications.only(&rule.application),
            })
        })
        .collect()
}

fn tcp(file: &PolicyFile, names: &mut Names) -> Result<TcpPolicy, NamesFull> {
    let t = &file.tcp;
    let mut seconds = |s, source| names.class(class(Ttl::Seconds(s), source));
    Ok(TcpPolicy {
        initial: seconds(t.initial_timeout_s, TimeoutSource::TcpInitial)?,
        time_wait: match t.time_wait {
            TimeWaitSetting::Seconds(s) => TimeWait::Class(seconds(s, TimeoutSource::TcpTimeWait)?),
            TimeWaitSetting::Ageout => TimeWait::Ageout,
        },
        last_ack: seconds(LAST_ACK_S, TimeoutSource::TcpLastAck)?,
        half_close_time_wait: t.half_close_time_wait,
        rst_invalidate: t.rst_invalidate,
        fin_invalidate: t.fin_invalidate,
        syn_check: t.syn_check,
        strict_syn_check: t.strict_syn_check,
        sequence_check: t.sequence_check,
        rst_sequence_check: t.rst_sequence_check,
        answers_strays: file.rules.iter().any(|r| r.tcp_rst && r.enabled),
        mss_max: file.mss.all_tcp,
    })
}

/// A fallback for every `never` class of the process, so that one from an older revision has one too.
fn never_fallbacks(names: &mut Names) -> Result<BTreeMap<ClassId, ClassId>, NamesFull> {
    let never: Vec<_> = names
        .classes()
        .iter()
        .enumerate()
        .filter(|(_, c)| c.timeout_ms.is_none())
        .map(|(i, c)| (ClassId(i as u16), *c))
        .collect();
    never.into_iter().map(|(id, c)| Ok((id, names.class(fallback(c))?))).collect()
}
