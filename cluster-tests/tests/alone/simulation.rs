//! Simulated clusters, and sessions on them, as `make sim` runs them.

use std::process::Command;

/// The release build, which `make test-lab` has made: a debug build takes ten times as long.
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/tidegate-lab");

fn two_hundred_seeds(of: &[&str]) {
    let run = Command::new(LAB).args(["sim", "--seeds", "200"]).args(of).output();
    let run = run.expect("run `make build` first");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("nothing was found"), "{said}");
}

// Red with any rule broken in one of them, or with one kind of trouble gone from the generator.

#[test]
fn two_hundred_seeds_find_nothing_and_contain_enough() {
    two_hundred_seeds(&[]);
}

#[test]
fn two_hundred_seeds_of_sessions_find_nothing_and_contain_enough() {
    two_hundred_seeds(&["--sessions"]);
}
