//! How a daemon begins and ends, as whoever starts it sees it.

use std::process::Command;
use std::time::Duration;

use tidegate_lab::sys::{Stop, find_binary, run_in};
use tidegate_lab::traffic::{TcpEcho, connect};

use crate::common::{PATIENCE, lab};

/// Red when SIGTERM is not heard (the daemon has to be killed), the exit code is not 0, or the control socket is
/// left for the next one to stumble over.
#[test]
fn sigterm_ends_the_daemon_in_order_and_it_starts_again() {
    let mut lab = lab("sigterm", |_| ());
    let address = lab.server_v4(7000);
    let _echo = TcpEcho::start(&lab.server(), address).unwrap();
    for _ in 0..2 {
        assert!(connect(&lab.client(), address, PATIENCE).is_ok());
        assert_eq!(lab.daemon().unwrap().terminate().unwrap(), Some(0), "exit code after SIGTERM");
        assert!(!lab.plan().nodes[0].control.exists(), "the control socket is left behind");
        let status = lab.tidegate(&["status"]).unwrap();
        assert_eq!(status.code, Some(3), "nobody answers: {}", status.stderr);
        assert!(
            connect(&lab.client(), address, Duration::from_millis(700)).is_err(),
            "forwarded without a daemon"
        );
        lab.restart(&Stop::default()).unwrap();
    }
    assert!(connect(&lab.client(), address, PATIENCE).is_ok());
}

/// Red when a broken configuration is taken, or refused without saying where it is broken.
#[test]
fn a_bad_configuration_ends_with_code_2_and_says_where() {
    let tidegate = find_binary("tidegate", "TIDEGATE_BIN").unwrap();
    let dir = std::env::temp_dir().join(format!("tidegate-bad-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = dir.join("node.toml");
    std::fs::write(&config, "policy = \"policy.toml\"\n\n[tabel]\ncapacity = 5000\n").unwrap();
    let output = Command::new(&tidegate).args(["run", "--config"]).arg(&config).output().unwrap();
    let missing = Command::new(&tidegate).args(["run", "--config", "/nowhere/node.toml"]).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("node.toml:3") && said.contains("tabel"), "{said}");
    assert_eq!(missing.status.code(), Some(2));
}

/// Red when a daemon without its capabilities runs into some system call's EPERM instead of saying what it needs.
#[test]
fn a_missing_capability_ends_with_a_message_that_names_it() {
    let mut lab = lab("caps", |_| ());
    lab.daemon().unwrap().terminate().unwrap();
    let tidegate = find_binary("tidegate", "TIDEGATE_BIN").unwrap().display().to_string();
    let config = lab.plan().nodes[0].config.display().to_string();
    let arguments = ["--bounding-set", "-net_admin", &tidegate, "run", "--config", &config];
    let output = run_in(Some(&lab.node()), "setpriv", &arguments).unwrap();
    assert!(!output.success);
    assert!(output.stderr.contains("CAP_NET_ADMIN"), "{}", output.stderr);
}
