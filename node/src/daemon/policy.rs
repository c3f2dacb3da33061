//! The policy in force: read, checked, compiled, swapped as a whole.

use crate::diagnostic::{Diagnostic, Severity};
use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tidegate_dataplane::names::{AppId, Names, RuleId, ZoneId};
use tidegate_dataplane::policy::{self, Policy, PolicyFile};
use tidegate_sync::replication::{LEARNED_MAX, NameTable};

/// Every finding in a policy's text, and the file if there is no error among them.
pub fn check(name: &str, text: &str) -> (Vec<Diagnostic>, Option<PolicyFile>) {
    let report = policy::check(text, name);
    let mut found: Vec<Diagnostic> = report.errors.iter().chain(&report.warnings).map(convert).collect();
    found.sort_by_key(|d| (d.line, d.column));
    (found, report.file)
}

fn convert(d: &policy::Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: match d.severity {
            policy::Severity::Error => Severity::Error,
            policy::Severity::Warning => Severity::Warning,
        },
        file: d.file.to_string(),
        line: d.line,
        column: d.column,
        message: d.message.clone(),
        suggestion: d.suggestion.clone(),
    }
}

/// Whether a checked policy can be compiled in a process that has seen no other.
///
/// # Errors
/// Why not.
pub fn compiles(file: &PolicyFile) -> Result<Policy, policy::CompileError> {
    policy::compile(file, 0, &mut Names::default())
}

/// SHA-256 of a policy's text.
pub fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// One policy that is or was in force.
#[derive(Debug)]
pub struct InForce {
    /// Compiled.
    pub policy: Arc<Policy>,
    /// As checked: for `policy show --effective`.
    pub file: PolicyFile,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// Where it came from: a file, or the cluster.
    pub source: String,
    /// When it came in force.
    pub loaded_at: SystemTime,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

/// Why a policy did not come in force. The one before stays.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration names no file.
    #[error(
        "the configuration names no policy file\n  help: set `policy` in it, or make this node a member of a cluster: `tidegate cluster init` or `tidegate cluster join`"
    )]
    NoFile,
    /// The node is a member of a cluster, whose policy counts.
    #[error(
        "this node is a member of cluster {0}, whose policy is agreed on and not read from a file\n  help: `tidegate policy apply FILE` proposes it to the cluster"
    )]
    Agreed(String),
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has errors.
    #[error("the policy {from} has errors; the one in force stays")]
    Invalid {
        /// The file, or which revision.
        from: String,
        /// Its text.
        text: String,
        /// All findings, warnings included.
        findings: Vec<Diagnostic>,
    },
    /// It could not be compiled.
    #[error("the policy {from} cannot be compiled: {source}")]
    Compile {
        /// The file, or which revision.
        from: String,
        /// Why.
        source: policy::CompileError,
    },
}

/// The policy in force on this node, and the file that it comes from while the node is in no cluster.
pub struct PolicyStore {
    path: Option<PathBuf>,
    current: ArcSwapOption<InForce>,
    names: ArcSwap<Names>,
    /// One load at a time; revisions of the file count up.
    loading: Mutex<u32>,
}

impl PolicyStore {
    /// A store for that file; nothing is in force yet.
    pub fn new(path: Option<PathBuf>) -> Self {
        PolicyStore {
            path,
            current: ArcSwapOption::empty(),
            names: ArcSwap::from_pointee(Names::default()),
            loading: Mutex::new(0),
        }
    }

    /// The policy file.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// The policy in force.
    pub fn current(&self) -> Option<Arc<InForce>> {
        self.current.load_full()
    }

    /// Names of all zones, rules and applications so far.
    pub fn names(&self) -> Arc<Names> {
        self.names.load_full()
    }

    /// Reads, checks and compiles the file, and makes it the one in force here, under the next number.
    /// Handing it to the workers is the caller's part.
    pub fn load(&self) -> Result<Arc<InForce>, LoadError> {
        let file = self.path.as_ref().ok_or(LoadError::NoFile)?;
        let text =
            std::fs::read_to_string(file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
        let from = file.display().to_string();
        let mut count = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let in_force = self.make(&from, &from, &text, *count + 1)?;
        *count += 1;
        Ok(in_force)
    }

    /// Checks and compiles a policy that was agreed on elsewhere, and makes it the one in force here,
    /// under that revision. `source` is shown as where it comes from.
    pub fn put(&self, revision: u32, text: &str, source: &str) -> Result<Arc<InForce>, LoadError> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.make(&format!("revision {revision}"), source, text, revision)
    }

    /// Nothing is in force any more.
    pub fn withdraw(&self) {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.store(None);
    }

    fn make(&self, name: &str, source: &str, text: &str, revision: u32) -> Result<Arc<InForce>, LoadError> {
        let from = || name.to_owned();
        let (findings, checked) = check(name, text);
        let Some(file) = checked else {
            return Err(LoadError::Invalid { from: from(), text: text.to_owned(), findings });
        };
        let mut names = Names::clone(&self.names.load());
        let policy = policy::compile(&file, revision, &mut names)
            .map_err(|source| LoadError::Compile { from: from(), source })?;
        let in_force = Arc::new(InForce {
            policy: Arc::new(policy),
            file,
            sha256: sha256(text),
            source: source.to_owned(),
            loaded_at: SystemTime::now(),
            warnings: findings,
        });
        self.names.store(Arc::new(names));
        self.current.store(Some(in_force.clone()));
        Ok(in_force)
    }
}

/// Gives numbers to names that come from elsewhere, a batch at a time. While it has new ones no policy is
/// compiled, and no other batch read: numbers are handed out once.
///
/// What one peer can make this process remember is bounded.
pub struct Learner<'a> {
    store: &'a PolicyStore,
    known: Arc<Names>,
    learned: u32,
    new: Option<(MutexGuard<'a, u32>, Names)>,
}

impl<'a> Learner<'a> {
    /// For names of a peer from which so many were learned before.
    pub fn new(store: &'a PolicyStore, learned: u32) -> Self {
        Learner { store, known: store.names(), learned, new: None }
    }

    /// Makes the new ones known to everybody. Returns how many were learned from the peer so far.
    pub fn keep(self) -> u32 {
        if let Some((_guard, names)) = self.new {
            self.store.names.store(Arc::new(names));
        }
        self.learned
    }

    /// The name's number as this process knows it, or a new one; and whether it is new.
    fn number<T>(
        &mut self,
        find: impl Fn(&Names) -> Option<T>,
        add: impl FnOnce(&mut Names) -> Option<T>,
    ) -> Option<(T, bool)> {
        let known = self.new.as_ref().map_or(&*self.known, |(_, names)| names);
        if let Some(id) = find(known) {
            return Some((id, false));
        }
        if self.learned >= LEARNED_MAX {
            return None;
        }
        self.learned += 1;
        let new = self.new.get_or_insert_with(|| {
            let guard = self.store.loading.lock().unwrap_or_else(PoisonError::into_inner);
            let names = Names::clone(&self.store.names.load());
            (guard, names)
        });
        add(&mut new.1).map(|id| (id, true))
    }
}

impl NameTable for Learner<'_> {
    fn zone(&mut self, name: &str) -> Option<(ZoneId, bool)> {
        self.number(|n| n.find_zone(name), |n| n.zone(name).ok())
    }

    fn rule(&mut self, name: &str) -> Option<(RuleId, bool)> {
        self.number(|n| n.find_rule(name), |n| n.rule(name).ok())
    }

    fn application(&mut self, name: &str) -> Option<(AppId, bool)> {
        self.number(|n| n.find_application(name), |n| n.application(name).ok())
    }
}
