//! `cluster reissue`: this node's certificate anew, without a daemon.

use super::Output;
use super::output::{print, print_json};
use crate::api::Reissued;
use crate::config;
use crate::daemon::cluster::report::{rfc3339_s, unix_ms};
use crate::exit::{Exit, Failure};
use std::path::Path;
use tidegate_sync_net::cluster::Options;
use tidegate_sync_net::identity::{self, Directory, IdentityError};

/// `cluster reissue --config FILE`.
pub(super) fn reissue(config: &Path, output: Output) -> Result<Exit, Failure> {
    let config = config::load(config).map_err(|e| Failure::usage(e.to_string()))?;
    let path = &config.cluster.directory;
    let failed = |e: IdentityError| Failure::error(e.to_string());
    let directory = Directory::open(path).map_err(failed)?.ok_or_else(|| {
        Failure::error(format!(
            "{} does not exist: this node is in no cluster\n  help: `cluster.directory` in {} says where its identity is",
            path.display(),
            config.file.display()
        ))
    })?;
    let life_s = Options::default().certificate_life.as_secs();
    let issued = identity::reissue(&directory, unix_ms() / 1_000, life_s).map_err(failed)?;
    let reissued = Reissued {
        directory: path.display().to_string(),
        certificate_expires_at: rfc3339_s(issued.not_after_unix_s()),
    };
    match output {
        Output::Json => print_json(&reissued)?,
        _ => print(&format!(
            "a new certificate is in {}, good until {}; start the daemon\n",
            reissued.directory, reissued.certificate_expires_at
        ))?,
    }
    Ok(Exit::Ok)
}
