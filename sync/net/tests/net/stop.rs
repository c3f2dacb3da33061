//! A member stops.

use crate::support::*;
use tidegate_sync_net::cluster::Cluster;

#[test]
fn a_stopped_member_gives_its_address_back_while_its_handle_is_still_held() {
    // Red without the release: whoever still looks at the old member keeps the new one from listening.
    let home = tempfile::tempdir().unwrap();
    let node = Node::found(home.path(), "a");
    let old = node.cluster().clone();
    node.run(old.clone().shutdown());
    let again = node.run(Cluster::open(&node.dir, node.options.clone())).unwrap();
    assert_eq!(again.addresses(), old.addresses());
    node.run(again.shutdown());
}
