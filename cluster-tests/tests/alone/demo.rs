//! The demo, which is the first thing that anybody sees.

use std::process::{Command, Stdio};
use std::time::Duration;

/// The demo as `make demo` runs it.
fn demo() -> Command {
    let find = |name, env| tidegate_lab::sys::find_binary(name, env).unwrap();
    let daemon = find("tidegate", "TIDEGATE_BIN");
    let mut command = Command::new(find("tidegate-lab", "TIDEGATE_LAB_BIN"));
    command.arg("demo").env("TIDEGATE_BIN", daemon).stdout(Stdio::piped());
    command
}

/// What a demo of that process would leave behind.
fn left_behind(pid: u32) -> Vec<std::path::PathBuf> {
    let mut paths = vec![
        format!("/run/tidegate-lab/demo-{pid}").into(),
        std::env::temp_dir().join(format!("tidegate-demo-{pid}")),
    ];
    paths.extend(
        ["client", "server", "node1", "node2"].map(|end| format!("/run/netns/tg-demo-{pid}-{end}").into()),
    );
    paths.into_iter().filter(|path: &std::path::PathBuf| path.exists()).collect()
}

/// Red when any of the demo's own checks fails, when it takes far longer than its minute (half of that where nothing
/// else runs; the rest is for machines that are busy), or when it leaves something behind.
#[test]
fn the_demo_passes_and_leaves_nothing() {
    let start = crate::common::now();
    let demo = demo().spawn().unwrap();
    let pid = demo.id();
    let output = demo.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(start.elapsed() < Duration::from_secs(180), "{said}");
    let claims = [
        "both sessions are on both nodes",
        "went on through node2: 256 MiB",
        "interactive stream went on too",
        "has a new owner",
        "moved back to node1",
        "iperf3, server to client",
        "port 9 is denied",
        "left at its timeout",
    ];
    for claim in claims {
        assert!(said.contains(claim), "{claim} is missing: {said}");
    }
    assert!(left_behind(pid).is_empty(), "{:?}", left_behind(pid));
}

/// Red when Ctrl-C leaves the lab, or the file, behind.
#[test]
fn an_interrupted_demo_leaves_nothing() {
    let mut demo = demo().spawn().unwrap();
    let pid = demo.id();
    crate::common::eventually("the demo is under way", crate::common::PATIENCE, || {
        (left_behind(pid).len() == 6).then_some(())
    });
    crate::common::pause(Duration::from_millis(1500));
    let signal = nix::sys::signal::Signal::SIGINT;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(left_behind(pid).is_empty(), "{:?}", left_behind(pid));
}
