//! Members whose store is not what it was.

use crate::support::*;
use std::path::PathBuf;
use tidegate_sync::cluster::Role;
use tidegate_sync_net::cluster::Standing;

fn store(node: &Node) -> PathBuf {
    node.dir.join("raft.redb")
}

/// Three voters; the returned one does not lead.
fn three_and_a_follower(home: &std::path::Path) -> (Vec<Node>, usize, usize) {
    let nodes = three(home, Role::Node);
    let leader = leader(&nodes);
    (nodes, leader, (leader + 1) % 3)
}

/// Removes the member and lets its directory's successor join; it must be the fourth.
fn comes_back_as_another(nodes: &mut [Node], leader: usize, follower: usize, home: &std::path::Path) {
    let gone = nodes[leader].cluster().state().borrow().find(["a", "b", "c"][follower]).unwrap();
    let remove = tidegate_sync::cluster::Command::Remove { node: gone };
    nodes[leader].run(nodes[leader].cluster().propose(remove, "test", LONG)).unwrap();
    let token = nodes[leader].token(Role::Node);
    nodes[follower] = Node::join(home, "again", &token);
    assert_eq!(nodes[follower].id().0, 4);
    let revision = nodes[leader].apply("after all");
    until("the policy", || nodes[follower].revision() == revision);
}

#[test]
fn an_older_copy_of_the_store_stops_its_member() {
    // Red when it follows, and votes, again although it forgot what it had acknowledged.
    let home = tempfile::tempdir().unwrap();
    let (mut nodes, leader, follower) = three_and_a_follower(home.path());
    nodes[follower].stop();
    let old = std::fs::read(store(&nodes[follower])).unwrap();
    nodes[follower].open();
    let revisions: Vec<u32> = (0..5).map(|n| nodes[leader].apply(&format!("policy {n}"))).collect();
    let last = revisions[4];
    until("the policies", || nodes[follower].revision() == last);
    nodes[follower].stop();
    std::fs::write(store(&nodes[follower]), old).unwrap();
    nodes[follower].open();
    let mut said = String::new();
    until("the member stops", || match nodes[follower].cluster().standing().borrow().clone() {
        Standing::StoreFailed { message } => {
            said = message;
            true
        }
        _ => false,
    });
    assert!(said.contains("older copy") && said.contains("cluster remove"), "{said}");
    comes_back_as_another(&mut nodes, leader, follower, home.path());
}

#[test]
fn a_damaged_store_is_refused_and_its_node_comes_back_under_a_new_number() {
    // Red when a member starts on a store of which a bit flipped or the end is missing, or when it does not
    // say what to do.
    let home = tempfile::tempdir().unwrap();
    let (mut nodes, leader, follower) = three_and_a_follower(home.path());
    let last = nodes[leader].apply("a policy that is easy to find in the file");
    until("the policy", || nodes[follower].revision() == last);
    nodes[follower].stop();
    let whole = std::fs::read(store(&nodes[follower])).unwrap();
    let word = b"easy to find";
    let at = whole.windows(word.len()).position(|w| w == word).unwrap();
    let mut flipped = whole.clone();
    flipped[at] ^= 4;
    for (damage, bytes) in [("flipped", &flipped[..]), ("cut", &whole[..whole.len() / 2]), ("empty", &[])] {
        std::fs::write(store(&nodes[follower]), bytes).unwrap();
        let error = nodes[follower].try_open().unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("cluster remove"), "{damage}: {error}");
        // The others go on.
        nodes[leader].apply(&format!("while {damage}"));
    }
    comes_back_as_another(&mut nodes, leader, follower, home.path());
}
