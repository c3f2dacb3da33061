//! The policy in force: read, checked, compiled, swapped as a whole.

use crate::diagnostic::{Diagnostic, Severity};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tidegate_dataplane::names::Names;
use tidegate_dataplane::policy::{self, Policy, PolicyFile};

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

/// One policy that is or was in force.
#[derive(Debug)]
pub struct InForce {
    /// Compiled.
    pub policy: Arc<Policy>,
    /// As checked: for `policy show --effective`.
    pub file: PolicyFile,
    /// When it came in force.
    pub loaded_at: SystemTime,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

/// Why a policy did not come in force. The one before stays.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has errors.
    #[error("the policy {} has errors; the one in force stays", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Its text.
        text: String,
        /// All findings, warnings included.
        findings: Vec<Diagnostic>,
    },
    /// It could not be compiled.
    #[error("the policy {} cannot be compiled: {source}", file.display())]
    Compile {
        /// The file.
        file: PathBuf,
        /// Why.
        source: policy::CompileError,
    },
}

/// The policy file of this node and what was made of it.
pub struct PolicyStore {
    path: PathBuf,
    current: ArcSwapOption<InForce>,
    names: ArcSwap<Names>,
    /// One load at a time; revisions count up.
    loading: Mutex<u32>,
}

impl PolicyStore {
    /// A store for that file; nothing is in force yet.
    pub fn new(path: PathBuf) -> Self {
        PolicyStore {
            path,
            current: ArcSwapOption::empty(),
            names: ArcSwap::from_pointee(Names::default()),
            loading: Mutex::new(0),
        }
    }

    /// The policy file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The policy in force.
    pub fn current(&self) -> Option<Arc<InForce>> {
        self.current.load_full()
    }

    /// Names of all zones, rules and applications so far.
    pub fn names(&self) -> Arc<Names> {
        self.names.load_full()
    }

    /// Reads, checks and compiles the file, and makes it the one in force here. Handing it to the
    /// workers is the caller's part.
    pub fn load(&self) -> Result<Arc<InForce>, LoadError> {
        let file = || self.path.clone();
        let text =
            std::fs::read_to_string(&self.path).map_err(|source| LoadError::Read { file: file(), source })?;
        let (findings, checked) = check(&self.path.display().to_string(), &text);
        let Some(checked) = checked else {
            return Err(LoadError::Invalid { file: file(), text, findings });
        };
        let mut revision = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = Names::clone(&self.names.load());
        let compiled = policy::compile(&checked, *revision + 1, &mut names)
            .map_err(|source| LoadError::Compile { file: file(), source })?;
        *revision += 1;
        let in_force = Arc::new(InForce {
            policy: Arc::new(compiled),
            file: checked,
            loaded_at: SystemTime::now(),
            warnings: findings,
        });
        self.names.store(Arc::new(names));
        self.current.store(Some(in_force.clone()));
        Ok(in_force)
    }
}
