//! Keys and certificates of members: renewed without a gap, issued anew offline, kept from other users.

use std::os::unix::fs::PermissionsExt;

use tidegate_lab::lab::WITNESS;
use tidegate_lab::sys::{Stop, find_binary, run_in};

use crate::common::cluster::{PATIENCE, apply, apply_in_the_end, cluster, numbered_policy, wait_whole};
use crate::common::eventually;

/// Red when a rotation changes no key, loses the cluster, leaves the witness (which has no CA key) out, or when a
/// restart shows that the new certificates are not the ones on record.
#[test]
fn rotated_certificates_are_new_and_good_on_every_member() {
    let lab = cluster("rotate", 2, true, |_| ());
    let keys = || -> Vec<_> {
        lab.members()
            .map(|member| std::fs::read(member.plan().cluster_dir.join("node.pem")).unwrap())
            .collect()
    };
    let before = keys();
    let rotated = lab.at(2).json(&["cluster", "rotate"]).unwrap();
    let nodes = rotated["nodes"].as_array().unwrap();
    assert!(nodes.len() == 3 && nodes.iter().all(|node| node["error"].is_null()), "{rotated}");
    assert!(keys().iter().zip(&before).all(|(new, old)| new != old), "a certificate stayed");
    apply(lab.at(1), &numbered_policy(1), &[]).unwrap();
    for member in lab.members() {
        member.terminate().unwrap();
    }
    lab.start_all(&Stop::default()).unwrap();
    wait_whole(&lab);
    assert!(!lab.at(WITNESS).plan().cluster_dir.join("ca.key").exists(), "the CA key is on a witness");
}

/// Red when a certificate that was issued offline is not accepted by the others, or when a daemon takes a key that
/// others can read.
#[test]
fn a_certificate_is_issued_anew_offline_and_a_readable_key_is_refused() {
    let lab = cluster("offline", 2, false, |_| ());
    let member = lab.at(2);
    let tidegate = find_binary("tidegate", "TIDEGATE_BIN").unwrap().display().to_string();
    let config = member.plan().config.display().to_string();
    let reissue = ["cluster", "reissue", "--config", config.as_str()];
    let running = run_in(Some(&member.netns()), &tidegate, &reissue).unwrap();
    assert!(!running.success, "reissued under a running daemon");
    member.terminate().unwrap();
    let certificate = member.plan().cluster_dir.join("node.pem");
    let before = std::fs::read(&certificate).unwrap();
    let done = run_in(Some(&member.netns()), &tidegate, &reissue).unwrap();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_ne!(std::fs::read(&certificate).unwrap(), before);
    member.start(&Stop::default()).unwrap();
    wait_whole(&lab);
    apply_in_the_end(member, &numbered_policy(1));

    for key in ["node.pem", "ca.key"] {
        let path = member.plan().cluster_dir.join(key);
        member.terminate().unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        mode(0o644);
        member.spawn().unwrap();
        eventually("the daemon refuses", PATIENCE, || member.has_ended().then_some(()));
        let said = member.log_tail();
        assert!(said.contains(key) && said.contains("chmod"), "{said}");
        mode(0o600);
        member.start(&Stop::default()).unwrap();
    }
    wait_whole(&lab);
}
