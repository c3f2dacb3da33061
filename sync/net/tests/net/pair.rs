//! Two nodes without a witness: one votes.

use crate::support::*;
use tidegate_sync::cluster::{Command, Role};
use tidegate_sync_net::cluster::{Cluster, ProposeError, RaftRole, Standing};

#[test]
fn the_second_member_s_death_hurts_nothing_and_it_recovers_the_policy_after_the_first_s() {
    // Red when the second member votes (then its death ends all changes), or when a learner cannot recover.
    let home = tempfile::tempdir().unwrap();
    let mut a = Node::found(home.path(), "a");
    let mut b = Node::join(home.path(), "b", &a.token(Role::Node));
    until("the second to follow", || b.revision() == 1 && b.cluster().health().raft == RaftRole::Learner);
    b.kill();
    assert_eq!(a.apply("without the second"), 2);
    b.open();
    until("it to catch up", || b.revision() == 2);
    a.kill();
    until("the loss to be noticed", || !b.cluster().health().quorum);
    let change = || Command::ApplyPolicy { base: 2, text: "x".into(), lease: None };
    let error = b.run(b.cluster().propose(change(), "test", LONG)).unwrap_err();
    assert!(matches!(error, ProposeError::NoQuorum(_)), "{error}");
    assert_eq!(b.cluster().policy().borrow().as_ref().unwrap().revision, 2);
    b.stop();
    assert_eq!(Cluster::recover(&b.dir, "test").unwrap(), 2);
    b.open();
    assert_eq!(b.apply("after the recovery"), 3);
    // The old voter alone would go on as if nothing had happened.
    a.open();
    let standing = a.cluster().standing();
    until("the old voter to be fenced", || *standing.borrow() == Standing::Fenced { own: 1, now: 2 });
    until("its policy to go", || a.cluster().policy().borrow().is_none());
    let error = a.run(a.cluster().propose(change(), "test", LONG)).unwrap_err();
    assert!(matches!(error, ProposeError::Standing(_)), "{error}");
    // It comes back as a new member.
    a.stop();
    let token = b.token(Role::Node);
    let again = Node::join(home.path(), "a-again", &token);
    until("the new member to follow", || again.revision() == 3);
    assert_eq!(again.id().0, 3);
}
