//! A member whose store is damaged or wiped says so, does no harm, and comes back as another one.

use std::path::{Path, PathBuf};

use tidegate_lab::lab::Member;
use tidegate_lab::sys::Stop;

use crate::common::cluster::{PATIENCE, apply_in_the_end, cluster, numbered_policy, view, wait_whole};
use crate::common::{TestLab, eventually};

/// The Raft store below a member's directory.
fn store(member: Member<'_>) -> PathBuf {
    member.plan().cluster_dir.join("raft.redb")
}

/// Starts a member whose store cannot be used, and returns what it says: in its status, or in its log as it ends.
fn complaint(member: Member<'_>) -> String {
    member.spawn().unwrap();
    eventually(&format!("{} says what is wrong", member.name()), PATIENCE, || {
        if member.has_ended() {
            return Some(member.log_tail());
        }
        let view = view(member).ok()?;
        let note = view["standing_note"].as_str()?;
        (view["standing"] == "store_failed").then(|| note.to_owned())
    })
}

/// Red when a store with a flipped bit or a missing end is taken for whole, when the message does not say what to do,
/// when the others cannot go on, or when the node cannot come back as another one.
#[test]
fn a_damaged_store_is_told_and_its_node_comes_back_under_a_new_number() {
    let lab = cluster("damage", 3, false, |_| ());
    let text = numbered_policy(1);
    apply_in_the_end(lab.at(1), &text);
    wait_whole(&lab);
    let flip: fn(&Path) = |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let marks: Vec<_> =
            bytes.windows(10).enumerate().filter(|(_, it)| it == b"# number 1").map(|(at, _)| at).collect();
        assert!(!marks.is_empty(), "the store does not hold the policy");
        for mark in marks {
            bytes[mark] ^= 1;
        }
        std::fs::write(path, bytes).unwrap();
    };
    let cut: fn(&Path) = |path| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let wipe: fn(&Path) = |path| std::fs::remove_file(path).unwrap();
    let member = lab.at(3);
    let kinds = [("flipped", flip, 4), ("cut", cut, 5), ("wiped", wipe, 6)];
    for (number, (what, damage, next_id)) in kinds.into_iter().enumerate() {
        member.kill().unwrap();
        damage(&store(member));
        let said = complaint(member);
        assert!(said.contains("join") || said.contains("cluster remove"), "{what}: no remedy in: {said}");
        apply_in_the_end(lab.at(1), &numbered_policy(10 + number));
        member.kill().unwrap();
        come_back(&lab, member, next_id);
    }
}

/// As the message says: removed, its directory out of the way, and a new token.
fn come_back(lab: &TestLab, member: Member<'_>, id: u64) {
    lab.at(1).must(&["cluster", "remove", member.name(), "--yes"]).unwrap();
    let dir = &member.plan().cluster_dir;
    std::fs::rename(dir, dir.with_extension(format!("before-{id}"))).unwrap();
    member.start(&Stop::default()).unwrap();
    member.join_cluster(&lab.at(1).create_token(member).unwrap()).unwrap();
    wait_whole(lab);
    assert_eq!(view(member).unwrap()["node_id"], id);
}
