//! The command line from outside: exit codes, what goes to stdout and what to stderr.
// A test of processes waits for them by a clock.
#![allow(clippy::disallowed_methods)]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env_remove("TIDEGATE_CONTROL")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file in a folder of its own.
fn file(test: &str, name: &str, content: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tidegate-cli-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

const POLICY: &str = "[[zone]]\nname = \"a\"\n[[rule]]\nname = \"r\"\nfrom = \"a\"\nto = \"a\"\nsource = \"any\"\n\
                      destination = \"any\"\napplication = \"any\"\naction = \"permit\"\n";

#[test]
fn exit_codes_are_the_documented_ones() {
    // Map any failure to another code and its line fails.
    let none = "/nonexistent/control.sock";
    for (arguments, code) in [
        (&["version"][..], 0),
        (&["--version"], 0),
        (&["--help"], 0),
        (&["session", "clear", "--help"], 0),
        (&["completions", "zsh"], 0),
        (&[], 2),
        (&["frobnicate"], 2),
        (&["session", "list", "--limit", "0"], 2),
        (&["session", "clear", "--all", "--protocol", "tcp"], 2),
        (&["session", "clear", "--all", "--min-bytes", "1"], 2),
        (&["--control", none, "session", "watch"], 3),
        (&["run", "--config", "/nonexistent/node.toml"], 2),
        (&["policy", "check", "/nonexistent/policy.toml"], 2),
        (&["--control", none, "status"], 3),
        (&["--control", none, "session", "list"], 3),
        (&["--control", none, "policy", "reload"], 3),
        // A filter is missing; then: no terminal to ask at, and no --yes (J10).
        (&["--control", none, "session", "clear"], 2),
        (&["--control", none, "session", "clear", "--all"], 4),
        (&["--control", none, "session", "clear", "--all", "--yes"], 3),
        (&["policy", "apply", "/nonexistent/policy.toml"], 2),
        (&["policy", "apply", "p.toml", "--confirm-within", "soon"], 2),
        (&["policy", "rollback", "newest"], 2),
        (&["--control", none, "policy", "history"], 3),
        (&["--control", none, "policy", "confirm"], 3),
        (&["--control", none, "policy", "rollback", "3"], 3),
        (&["--control", none, "policy", "show", "3"], 3),
        (&["--control", none, "policy", "diff", "3", "4"], 3),
        (&["cluster", "init", "--name", "edge"], 2),
        (&["--control", none, "cluster", "init", "--name", "edge", "--address", "10.0.0.1", "10.0.0.2"], 3),
        (&["--control", none, "cluster", "join", "tidegate-join-1-x", "--address", "10.0.0.1"], 3),
        (&["cluster", "token", "create", "--ttl", "soon"], 2),
        (&["cluster", "token", "create", "--role", "king"], 2),
        (&["--control", none, "cluster", "token", "list"], 3),
        (&["--control", none, "cluster", "members"], 3),
        (&["--control", none, "cluster", "rotate"], 3),
        // What is for good is asked for first, and --force does not answer.
        (&["--control", none, "cluster", "remove", "fw-2"], 4),
        (&["--control", none, "cluster", "remove", "fw-2", "--yes"], 3),
        (&["--control", none, "cluster", "recover"], 2),
        (&["--control", none, "cluster", "recover", "--force"], 4),
        (&["--control", none, "cluster", "recover", "--force", "--yes"], 3),
        (&["cluster", "reissue", "--config", "/nonexistent/node.toml"], 2),
    ] {
        let output = tidegate(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        if code > 0 {
            assert!(output.stdout.is_empty(), "{arguments:?}: errors belong on stderr");
            assert!(!output.stderr.is_empty(), "{arguments:?}: fails in silence");
        }
    }
}

#[test]
fn an_unreachable_daemon_is_explained() {
    // Print only the errno and the operator does not know which socket was tried.
    let output = tidegate(&["--control", "/nonexistent/control.sock", "status"]);
    let message = text(&output.stderr);
    assert!(message.contains("no control socket at /nonexistent/control.sock"), "{message}");
    assert!(message.contains("help:"), "{message}");
}

#[test]
fn policy_check_needs_no_daemon_and_prints_every_finding() {
    // Stop at the first error, or print to stderr, and this fails.
    let good = file("check", "good.toml", POLICY);
    let output = tidegate(&["policy", "check", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let bad =
        file("check", "bad.toml", &POLICY.replace("permit", "premit").replace("to = \"a\"", "to = \"b\""));
    let output = tidegate(&["policy", "check", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let out = text(&output.stdout);
    let name = bad.display();
    assert!(out.contains(&format!("{name}:6:")) && out.contains(&format!("{name}:10:")), "{out}");
    let json = tidegate(&["policy", "check", bad.to_str().unwrap(), "-o", "json"]);
    assert_eq!(json.status.code(), Some(2));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["errors"].as_u64(), Some(value["diagnostics"].as_array().unwrap().len() as u64));
    assert!(value["diagnostics"][0]["line"].is_u64() && value["diagnostics"][0]["suggestion"].is_string());
}

#[test]
fn run_reports_every_mistake_in_the_configuration() {
    // The golden text: a change of any message, place or suggestion shows here.
    let config = file("run", "node.toml", "polcy = \"p.toml\"\n[table]\ncapacity = 10\n");
    let output = tidegate(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let name = config.display();
    assert_eq!(
        text(&output.stderr),
        format!(
            "tidegate: {name}:1:1: error: unknown key `polcy`\n  1 | polcy = \"p.toml\"\n    | ^\n  \
             help: did you mean `policy`?\n\
             {name}:3:12: error: `table.capacity` is 10, which is out of range\n  3 | capacity = 10\n    \
             |            ^\n  help: write a number from 1000 to 50000000\n2 errors in {name}\n"
        )
    );
}

#[test]
fn run_without_capabilities_says_which_are_missing() {
    // Try first and fail with an errno, and this message is not there.
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to drop privileges from");
        return;
    }
    let config = file(
        "caps",
        "node.toml",
        "policy = \"p.toml\"\n[[port]]\nname = \"a\"\nzone = \"a\"\ninterface = \"x\"\n",
    );
    // The build folder may be closed to others: run a copy that is not. Another process makes it: a child that
    // another test forks here meanwhile would hold a copy of ours open for writing, and it could not be run.
    let binary = config.with_file_name("tidegate");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_tidegate")).arg(&binary).status().unwrap();
    assert!(copied.success());
    let output =
        Command::new(&binary).arg("run").arg("--config").arg(&config).uid(65534).gid(65534).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("CAP_NET_ADMIN") && message.contains("help: run as root"), "{message}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // Treat a broken pipe as a failure (or panic over it) and the code or stderr says so.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn help_names_every_verb() {
    // A verb that is not in the help does not exist for an operator.
    let help = text(&tidegate(&["--help"]).stdout);
    for verb in [
        "run",
        "status",
        "port",
        "session",
        "policy",
        "cluster",
        "drops",
        "completions",
        "version",
        "Exit codes",
    ] {
        assert!(help.contains(verb), "{verb} is not in the help");
    }
}

#[test]
fn an_import_prints_a_policy_and_lists_what_it_did_not_take() {
    // Print the list to stdout, or nothing for what was left out, and a line here fails.
    let source = "set security policies from-zone a to-zone b policy p match source-address any\n\
                  set security policies from-zone a to-zone b policy p match destination-address any\n\
                  set security policies from-zone a to-zone b policy p match application junos-https\n\
                  set security policies from-zone a to-zone b policy p then permit\n\
                  set system host-name fw\n";
    let path = file("import", "fw.set", source);
    let output = tidegate(&["policy", "import", "--from", "junos", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("line 5") && said.contains("host-name fw") && said.contains("4 lines"), "{said}");
    let policy = file("import", "policy.toml", &text(&output.stdout));
    let check = tidegate(&["policy", "check", policy.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    let json = tidegate(&["policy", "import", "--from", "junos", path.to_str().unwrap(), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["lines_taken"], &json["not_taken"][0]["line"]), (&4.into(), &5.into()));
    // The wrong vendor takes nothing: that is a mistake of the caller.
    let wrong = tidegate(&["policy", "import", "--from", "fortios", path.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// A process that is ended with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_witness_runs_without_privileges_and_says_what_it_lacks() {
    // Ask for capabilities, start a dataplane, or show an empty list of sessions, and a line here fails.
    let config = file("witness", "node.toml", "");
    let dir = config.parent().unwrap().to_owned();
    let socket = dir.join("control.sock");
    let (at, cluster) = (socket.display(), dir.join("cluster"));
    let text_of = format!(
        "[node]\nname = \"wit\"\nrole = \"witness\"\n[cluster]\ndirectory = \"{}\"\n[control]\nsocket = \"{at}\"\n",
        cluster.display()
    );
    std::fs::write(&config, text_of).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["run", "--config", config.to_str().unwrap()]).stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let ask = |verb: &[&str]| tidegate(&[&["--control", socket.to_str().unwrap()], verb].concat());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while ask(&["status"]).status.code() == Some(3) {
        assert!(std::time::Instant::now() < until, "the witness does not answer");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = ask(&["status", "-o", "json"]);
    assert_eq!(status.status.code(), Some(5));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["role"], &status["cluster"]), (&"witness".into(), &serde_json::Value::Null));
    assert_eq!(status["degraded"].as_array().unwrap().len(), 1, "{status}");
    assert!(status["degraded"][0].as_str().unwrap().contains("cluster join"), "{status}");
    for (verb, code, says) in [
        (&["session", "list"][..], 1, "no sessions"),
        (&["cluster", "members"], 1, "cluster join"),
        (&["cluster", "init", "--name", "edge", "--address", "10.0.0.1"], 1, "cannot found"),
        (&["cluster", "join", "tidegate-join-1-abc", "--address", "10.0.0.1"], 2, "damaged"),
        (&["cluster", "join", "hello", "--address", "10.0.0.1"], 2, "not a join token"),
        (&["policy", "reload"], 2, "names no policy file"),
    ] {
        let output = ask(verb);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{verb:?}: {said}");
        assert!(said.contains(says), "{verb:?}: {said}");
    }
    let reissue = tidegate(&["cluster", "reissue", "--config", config.to_str().unwrap()]);
    assert_eq!(reissue.status.code(), Some(1));
    assert!(text(&reissue.stderr).contains("in no cluster"), "{}", text(&reissue.stderr));
    std::fs::remove_dir_all(dir).unwrap();
}
