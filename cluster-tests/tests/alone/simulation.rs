//! Simulated clusters, as `make sim` runs them.

use std::process::Command;

/// The release build, which `make test-lab` has made: a debug build takes ten times as long.
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/tidegate-lab");

#[test]
fn two_hundred_seeds_find_nothing_and_contain_enough() {
    // Red with any rule broken in one of them, or with one kind of trouble gone from the generator.
    let run = Command::new(LAB).args(["sim", "--seeds", "200"]).output().expect("run `make build` first");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("nothing was found"), "{said}");
}
