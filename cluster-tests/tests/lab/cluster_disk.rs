//! A disk that is full or gives up under a member's store. These make file systems of their own: `make soak` runs them.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_lab::lab::{DEFAULT_POLICY, Member};
use tidegate_lab::sys::{Stop, run};
use tidegate_lab::traffic::Numbered;

use crate::common::cluster::{
    PATIENCE, apply, apply_in_the_end, is_long, numbered_policy, view, wait_enforced, wait_whole,
};
use crate::common::{eventually, lab};

/// A disk that can be made to fail: ext4 on a file with holes, which lies on a file system that is filled up. A write
/// to a hole is an I/O error then, which ext4 tells at the next sync.
struct FailingDisk {
    below: PathBuf,
    at: PathBuf,
}

impl FailingDisk {
    /// Mounts it where the member will keep its identity and its store. A daemon has a mount namespace of its own, and
    /// sees what was mounted before it started.
    fn mount(member: Member<'_>) -> FailingDisk {
        let disk =
            FailingDisk { below: member.plan().dir.join("below"), at: member.plan().cluster_dir.clone() };
        std::fs::create_dir(&disk.below).unwrap();
        std::fs::create_dir(&disk.at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", &path(&disk.below)]).unwrap();
        std::fs::File::create(disk.image()).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", &path(&disk.image())]).unwrap();
        run("mount", &["-o", "loop", &path(&disk.image()), &path(&disk.at)]).unwrap();
        std::fs::remove_dir(disk.at.join("lost+found")).unwrap();
        run("chmod", &["700", &path(&disk.at)]).unwrap();
        disk
    }

    fn image(&self) -> PathBuf {
        self.below.join("disk.img")
    }

    /// From now on what is written to a new place is lost.
    fn fail(&self) {
        let mut file = std::fs::File::create(self.below.join("filler")).unwrap();
        let block = vec![0x5a; 64 << 10];
        for size in [block.len(), 4096] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
    }

    /// Mends it as an operator does, while the daemon does not run.
    fn mend(&self) {
        std::fs::remove_file(self.below.join("filler")).unwrap();
        run("umount", &[&path(&self.at)]).unwrap();
        run("mount", &["-o", "loop", &path(&self.image()), &path(&self.at)]).unwrap();
    }
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // The daemon may still have files open: the file systems go with the last of them.
        for at in [&self.at, &self.below] {
            if let Err(error) = run("umount", &["--lazy", &path(at)]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Red when a failed sync is taken for a done one, when the node leads on, ends, stops forwarding or says nothing; when
/// the others cannot go on; or when its store is not whole once the disk is mended.
#[test]
fn a_leader_whose_disk_gives_up_steps_down_and_forwards_on() {
    if !is_long() {
        return;
    }
    let lab = lab("gives-up", |spec| (spec.nodes, spec.clustered, spec.capacity) = (3, false, 10_000));
    let member = lab.at(1);
    member.terminate().unwrap();
    let disk = FailingDisk::mount(member);
    member.start(&Stop::default()).unwrap();
    lab.form_cluster(&Stop::default(), |_| ()).unwrap();
    wait_whole(&lab);
    lab.route_via(1).unwrap();
    let flow =
        Numbered::start(&lab.client(), &lab.server(), lab.server_v4(7), Duration::from_millis(5)).unwrap();
    assert!(flow.wait_arrival(PATIENCE).is_some());
    disk.fail();
    let mut number = 0;
    let said = eventually("node1 says that its disk failed", PATIENCE, || {
        number += 1;
        // What fits into places written before may still succeed.
        let long = format!("{}\n# {}\n", numbered_policy(number), "x".repeat(1 << 20));
        apply_in_the_end(lab.at(2), &long);
        let view = view(member).ok()?;
        (view["standing"] == "store_failed").then(|| view["standing_note"].as_str().unwrap().to_owned())
    });
    assert!(said.contains("check the disk"), "{said}");
    assert!(flow.wait_arrival(PATIENCE).is_some(), "a failed disk ends forwarding");
    let refused =
        apply(member, &numbered_policy(9_000), &[]).expect_err("a change through a node without a store");
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let text = numbered_policy(9_001);
    apply_in_the_end(lab.at(3), &text);
    wait_enforced(lab.at(2), &text);
    assert!(flow.wait_arrival(PATIENCE).is_some());

    member.terminate().unwrap();
    disk.mend();
    member.start(&Stop::default()).unwrap();
    wait_whole(&lab);
    wait_enforced(member, &text);
    assert_eq!(view(member).unwrap()["node_id"], 1);
    assert!(flow.wait_arrival(PATIENCE).is_some());
}

/// A small file system of its own under a member's directory; unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// 16 MiB of ext4 in a file, mounted where the member will keep its store.
    fn mount(member: Member<'_>) -> SmallDisk {
        let image = member.plan().dir.join("disk.img");
        std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let dir = member.plan().cluster_dir.clone();
        std::fs::create_dir(&dir).unwrap();
        let (image, at) = (image.display().to_string(), dir.display().to_string());
        run("mkfs.ext4", &["-q", &image]).unwrap();
        run("mount", &["-o", "loop", &image, &at]).unwrap();
        std::fs::remove_dir(dir.join("lost+found")).unwrap();
        run("chmod", &["700", &at]).unwrap();
        SmallDisk(dir)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![0x5a; 64 << 10];
        for size in [block.len(), 4096, 512] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its daemon may still have files open: the file system goes with the last of them.
        if let Err(error) = run("umount", &["--lazy", &self.0.display().to_string()]) {
            eprintln!("{error}");
        }
    }
}

/// Red when a node whose disk is full ends, stops forwarding, says nothing, or stays out once there is room; or when
/// the others cannot go on.
#[test]
fn a_full_disk_is_told_and_forwarding_goes_on() {
    if !is_long() {
        return;
    }
    let lab = lab("full", |spec| (spec.nodes, spec.clustered, spec.capacity) = (3, false, 10_000));
    let member = lab.at(3);
    // A daemon sees what is mounted when it starts.
    member.terminate().unwrap();
    let disk = SmallDisk::mount(member);
    member.start(&Stop::default()).unwrap();
    lab.form_cluster(&Stop::default(), |_| ()).unwrap();
    wait_whole(&lab);
    lab.route_via(3).unwrap();
    let flow =
        Numbered::start(&lab.client(), &lab.server(), lab.server_v4(7), Duration::from_millis(5)).unwrap();
    assert!(flow.wait_arrival(PATIENCE).is_some());
    disk.fill();
    let mut number = 0;
    let said = eventually("node3 says that its disk is full", PATIENCE, || {
        // Long ones: what the store has reserved is used up soon.
        number += 1;
        let long = format!("# {number}\n{DEFAULT_POLICY}\n# {}\n", "x".repeat(1 << 20));
        apply_in_the_end(lab.at(1), &long);
        let view = view(member).ok()?;
        (view["standing"] == "store_failed").then(|| view["standing_note"].as_str().unwrap().to_owned())
    });
    assert!(said.contains("full") || said.contains("space"), "{said}");
    assert!(flow.wait_arrival(PATIENCE).is_some(), "a full disk ends forwarding");
    disk.make_room();
    member.terminate().unwrap();
    member.start(&Stop::default()).unwrap();
    wait_whole(&lab);
    assert!(flow.wait_arrival(PATIENCE).is_some());
}
