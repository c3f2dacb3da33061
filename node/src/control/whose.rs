//! Which node answers for a session when all are asked: its owner in the view of the node that asks. Nodes may
//! believe different things for a moment, when one of them has died or come; each by its own belief would answer for some
//! sessions twice and for others not at all.

use super::sessions::Scope;
use crate::api::SessionQuery;
use crate::daemon::node::Node;
use std::sync::Arc;
use tidegate_dataplane::engine::Whose;
use tidegate_dataplane::session::owner::{Boot, View};

/// More nodes than a cluster has.
const NODES_MAX: usize = 64;

/// What this node believes, as it passes it on: `node.boot` of who may own sessions, with commas.
pub(super) fn belief(node: &Node) -> Option<String> {
    let view = node.replication.view()?;
    let text: Vec<String> = view.owners().iter().map(|b| format!("{}.{}", b.node, b.boot)).collect();
    Some(text.join(","))
}

/// Whose sessions a query means here. A belief that is not understood, as of another version, counts as none.
pub(super) fn whose(node: &Node, query: &SessionQuery, scope: Scope) -> Whose {
    let own = match scope {
        Scope::Table => return Whose::Anybodys,
        Scope::Owned => node.replication.view(),
    };
    let believed = own.as_ref().zip(query.view.as_deref());
    match believed.and_then(|(own, text)| read(text, own.me)) {
        Some(view) => Whose::OwnBy(Arc::new(view)),
        None => Whose::Own,
    }
}

/// `None`: not understood.
fn read(text: &str, me: Boot) -> Option<View> {
    let boot = |text: &str| {
        let (node, boot) = text.split_once('.')?;
        Some(Boot { node: node.parse().ok()?, boot: boot.parse().ok()? })
    };
    let owners = text.split(',').take(NODES_MAX).map(boot).collect::<Option<Vec<Boot>>>()?;
    Some(View::new(me, [], owners, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_belief_is_read_as_it_was_written_and_what_is_none_is_not_taken_for_one() {
        let (a, b) = (Boot { node: 1, boot: 7 }, Boot { node: 65535, boot: u32::MAX });
        let view = read("1.7,65535.4294967295", a).unwrap();
        assert_eq!(view.owners(), [a, b]);
        for text in ["", "1", "1.7,", "1.7,2", "70000.1", "1.-7", "x.y"] {
            assert!(read(text, a).is_none(), "{text}");
        }
    }

    /// A node that the asker does not believe in owns nothing: others answer for its sessions.
    #[test]
    fn who_is_not_believed_in_owns_nothing() {
        use tidegate_dataplane::session::record::SessionId;
        let (a, b) = (Boot { node: 1, boot: 7 }, Boot { node: 2, boot: 9 });
        let view = read("1.7", b).unwrap();
        assert!((0..100).all(|counter| view.owner(SessionId { origin: 2, boot: 9, counter }) == a));
    }
}
