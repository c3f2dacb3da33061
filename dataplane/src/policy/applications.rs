//! Applications in compiled form: which of a rule's matches a flow, its label, and its own timeout.

use super::Ttl;
use super::model::{ApplicationRef, PolicyFile, PortRange, Term};
use super::predefined::PREDEFINED;
use super::ttl::class;
use crate::addr::Tuple;
use crate::names::{AppId, ClassId, Names, NamesFull};
use crate::session::timeouts::TimeoutSource;

/// What matching an application says about a flow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Label {
    /// Its name.
    pub(super) id: AppId,
    /// `inactivity_timeout`, when it is written in the policy.
    pub(super) own: Option<ClassId>,
    /// A predefined one's timeout.
    pub(super) predefined: Option<ClassId>,
}

#[derive(Debug)]
struct Compiled {
    label: Label,
    terms: Box<[Term]>,
}

/// All applications that a policy can match.
#[derive(Debug)]
pub(super) struct Applications {
    predefined: Box<[Compiled]>,
    own: Box<[Compiled]>,
    labels: Box<[(Service, Label)]>,
}

/// Protocol and destination ports of the flows that a predefined application labels. No two overlap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Service {
    protocol: u8,
    first: u16,
    last: u16,
}

impl Applications {
    pub(super) fn new(file: &PolicyFile, names: &mut Names) -> Result<Self, NamesFull> {
        let mut predefined = Vec::with_capacity(PREDEFINED.len());
        for p in PREDEFINED {
            let id = names.application(p.name)?;
            let timeout = p.timeout_s.map(|s| class(Ttl::Seconds(s), TimeoutSource::PredefinedApplication));
            let label = Label { id, own: None, predefined: timeout.map(|t| names.class(t)).transpose()? };
            predefined.push(Compiled { label, terms: p.terms.into() });
        }
        let mut own = Vec::with_capacity(file.applications.len());
        for a in &file.applications {
            let id = names.application(&a.name)?;
            let timeout = a.inactivity_timeout.map(|t| class(t, TimeoutSource::Application));
            let label = Label { id, own: timeout.map(|t| names.class(t)).transpose()?, predefined: None };
            own.push(Compiled { label, terms: a.terms.as_slice().into() });
        }
        let labels = labels(&predefined);
        Ok(Applications { predefined: predefined.into(), own: own.into(), labels })
    }

    /// The first of a rule's applications that matches the flow.
    #[inline]
    pub(super) fn first(&self, wanted: &[ApplicationRef], tuple: &Tuple) -> Option<Label> {
        wanted.iter().find_map(|application| {
            let Some(compiled) = self.compiled(*application) else { return Some(self.resolve(tuple)) };
            compiled.matches(tuple).then_some(compiled.label)
        })
    }

    /// The label of all flows that protocol and destination port bring to a rule with these applications, when it is
    /// one application that leaves the source port open.
    pub(super) fn only(&self, wanted: &[ApplicationRef]) -> Option<Label> {
        let [application] = wanted else { return None };
        let compiled = self.compiled(*application)?;
        compiled.terms.iter().all(|term| term.source == PortRange::ALL).then_some(compiled.label)
    }

    fn compiled(&self, application: ApplicationRef) -> Option<&Compiled> {
        match application {
            ApplicationRef::Any => None,
            ApplicationRef::Predefined(i) => Some(&self.predefined[usize::from(i)]),
            ApplicationRef::Own(i) => Some(&self.own[usize::from(i)]),
        }
    }

    /// The label of a flow under `any`: the predefined application of its port, if there is one.
    fn resolve(&self, tuple: &Tuple) -> Label {
        let wanted = (tuple.protocol, tuple.dst_port);
        let after = self.labels.partition_point(|(service, _)| (service.protocol, service.first) <= wanted);
        match after.checked_sub(1).map(|i| self.labels[i]) {
            Some((Service { protocol, last, .. }, label)) if protocol == wanted.0 && wanted.1 <= last => {
                label
            }
            _ => Label::default(),
        }
    }
}

/// What labels flows under `any`, ascending. These terms leave the source port open.
fn labels(predefined: &[Compiled]) -> Box<[(Service, Label)]> {
    let labelling = PREDEFINED.iter().zip(predefined).filter(|(p, _)| p.labels_any);
    let mut labels: Vec<_> = labelling
        .flat_map(|(p, compiled)| p.terms.iter().map(|term| (term, compiled.label)))
        .map(|(Term { protocol, destination, .. }, label)| {
            (Service { protocol: *protocol, first: destination.first, last: destination.last }, label)
        })
        .collect();
    labels.sort_unstable_by_key(|(service, _)| *service);
    labels.into()
}

impl Compiled {
    #[inline]
    fn matches(&self, tuple: &Tuple) -> bool {
        self.terms.iter().any(|t| t.matches(tuple.protocol, tuple.src_port, tuple.dst_port))
    }
}
