//! `[cluster]`, and what a node's role asks of the rest.

use super::check::Checker;
use super::raw;
use super::{CLUSTER_ADDRESSES_MAX, CLUSTER_DIRECTORY_DEFAULT, ClusterConfig, Role, socket_address};
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

impl Checker<'_> {
    pub(super) fn role(&mut self, at: Option<Spanned<String>>) -> Role {
        self.word(at, "node.role", &[("node", Role::Node), ("witness", Role::Witness)]).unwrap_or(Role::Node)
    }

    /// A witness has none of what makes a dataplane. Read and ignored would be worse than refused.
    pub(super) fn witness(
        &mut self,
        ports: &[Spanned<raw::Port>],
        sections: [Option<Range<usize>>; 4],
        policy: Option<Range<usize>>,
    ) {
        const HELP: &str = "remove it: a witness only votes (or remove role = \"witness\")";
        for port in ports {
            self.error(port.span(), "a witness has no ports", HELP);
        }
        for (span, what) in sections.into_iter().zip(["workers", "table", "frames", "fragments"]) {
            if let Some(span) = span {
                self.error(
                    span,
                    format!("a witness has no dataplane, and nothing for [{what}] to set"),
                    HELP,
                );
            }
        }
        if let Some(span) = policy {
            self.error(span, "a witness has no policy of its own", HELP);
        }
    }

    pub(super) fn cluster(&mut self, raw: raw::Cluster) -> ClusterConfig {
        let raw::Cluster { directory, listen } = raw;
        let directory = directory.map_or(PathBuf::from(CLUSTER_DIRECTORY_DEFAULT), |at| {
            let path = PathBuf::from(at.get_ref());
            if !path.is_absolute() {
                let message = format!("`cluster.directory` is \"{}\"", at.get_ref());
                let help = format!("write an absolute path, such as {CLUSTER_DIRECTORY_DEFAULT}");
                self.error(at.span(), message, help);
            }
            path
        });
        let mut addresses = Vec::new();
        if let Some(at) = listen {
            let span = at.span();
            let all = at.into_inner();
            if all.is_empty() || all.len() > CLUSTER_ADDRESSES_MAX {
                let message = format!("`cluster.listen` names {} addresses", all.len());
                let help = format!("name 1 to {CLUSTER_ADDRESSES_MAX}, or remove it");
                self.error(span, message, help);
            }
            for text in all {
                match socket_address(text.get_ref()) {
                    Ok(address) => addresses.push(address),
                    Err(why) => self.error(text.span(), "`cluster.listen` holds no address", why),
                }
            }
        }
        ClusterConfig { directory, listen: addresses }
    }
}
