//! What this node is to its cluster, over restarts: a node that was told that it is out stays out, also
//! when it starts where nobody can tell it again.

use super::Standing;
use crate::identity::{Directory, files};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_sync::cluster::{ClusterState, NodeId};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Out {
    Removed { told_by: Option<u64> },
    Fenced { own: u32, now: u32 },
}

fn path(directory: &Directory) -> PathBuf {
    directory.path().join("out.json")
}

/// Remembers that this node is out.
pub(crate) fn keep(directory: &Directory, standing: &Standing) {
    let out = match standing {
        Standing::Removed { told_by } => Out::Removed { told_by: told_by.map(|id| id.0) },
        Standing::Fenced { own, now } => Out::Fenced { own: *own, now: *now },
        Standing::Member | Standing::StoreFailed { .. } => return,
    };
    let written = serde_json::to_vec(&out).map_err(|e| e.to_string());
    let written = written.and_then(|b| files::write(&path(directory), &b, 0o600).map_err(|e| e.to_string()));
    if let Err(error) = written {
        tracing::warn!("after a restart this node must be told again that it is out: {error}");
    }
}

/// What this node is when it starts.
pub(crate) fn read(directory: &Directory, id: NodeId, state: &ClusterState) -> Standing {
    match files::read(&path(directory), false) {
        Ok(None) => {}
        Ok(Some(bytes)) => {
            return match serde_json::from_slice(&bytes) {
                Ok(Out::Fenced { own, now }) => Standing::Fenced { own, now },
                Ok(Out::Removed { told_by }) => Standing::Removed { told_by: told_by.map(NodeId) },
                Err(_) => Standing::Removed { told_by: None },
            };
        }
        // It is there, so it was written.
        Err(_) => return Standing::Removed { told_by: None },
    }
    match state.removed.contains_key(&id) {
        true => Standing::Removed { told_by: None },
        false => Standing::Member,
    }
}

/// A recovery made this node a member again.
pub(crate) fn forget(directory: &Directory) -> Result<(), files::FileError> {
    files::remove(&path(directory))
}
