//! The lab before anything of Tidegate is in it: a test that fails here says nothing about the product.

mod common;

use std::process::Command;
use std::time::Duration;

use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, HttpServer, UdpEcho, churn, fetch, make_file, udp_flows};

use common::{ip, kernel_lab};

/// Red when addresses, routes or the lab's own traffic are wrong: then every other test would blame the node.
#[test]
fn hosts_reach_each_other_through_the_kernel_of_the_node() {
    let lab = kernel_lab("hosts", |spec| spec.client_addresses = 3);
    for (address, port) in [(lab.server_v4(7), 7), (lab.server_v6(7), 7)] {
        let _echo = UdpEcho::start(&lab.server(), address).unwrap();
        let answered =
            udp_flows(&lab.client(), address, 20_000..20_300, 2, Duration::from_millis(500)).unwrap();
        assert_eq!(answered.len(), 300, "port {port}");
    }
    let plan = Churn {
        connections: 400,
        concurrency: 16,
        sources: (0..4).map(|index| ip(&lab.plan().links[0].host_ipv4(index))).collect(),
        server: lab.server_v4(0).ip(),
        ports: (8000..8008).collect(),
    };
    let report = churn(&lab.client(), &lab.server(), &plan, &Stop::default()).unwrap();
    assert_eq!((report.completed, report.failed), (400, 0), "{:?}", report.errors);
}

/// Red when the server sends, or the client hashes, something else than the file.
#[test]
fn a_file_arrives_whole() {
    let lab = kernel_lab("file", |_| ());
    let file = std::env::temp_dir().join(format!("tidegate-lab-test-{}", std::process::id()));
    let sent = make_file(&file, 3_000_001, 7).unwrap();
    let address = lab.server_v6(8080);
    let server = HttpServer::start(&lab.server(), address, &file).unwrap();
    let got = fetch(&lab.client(), address, &Stop::default(), |_| ());
    drop(server);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(got.unwrap(), (3_000_001, sent));
}

/// Red when `up` prints anything but the promised object, when a second lab disturbs the first, or when `down`
/// leaves something.
#[test]
fn up_prints_one_object_and_down_removes_everything() {
    let name = |which: &str| format!("u{}-{which}", std::process::id());
    let binary = env!("CARGO_BIN_EXE_tidegate-lab");
    let run = |arguments: &[&str]| Command::new(binary).args(arguments).output().unwrap();
    let up = |name: &str| run(&["up", "--forwarder", "kernel", "--name", name]);
    let (a, b) = (name("a"), name("b"));
    let first = up(&a);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let again = up(&a);
    let second = up(&b);
    let object: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    let client = object["client"]["netns"].as_str().unwrap().to_owned();
    let reached = Command::new("ip")
        .args(["netns", "exec", &client, "ping", "-c", "1", "-W", "2"])
        .arg(object["server"]["ipv6"].as_str().unwrap())
        .output()
        .unwrap();
    let downs = [run(&["down", "--name", &a]), run(&["down", "--name", &b]), run(&["down", "--name", &a])];
    assert!(!again.status.success(), "a name was given twice");
    assert!(second.status.success() && reached.status.success());
    assert!(downs.iter().all(|down| down.status.success()));
    for key in ["ipv4", "ipv6"] {
        assert_eq!(object["virtual"]["outside"][key], object["nodes"][0]["ports"]["outside"][key]);
    }
    for key in ["name", "netns", "control", "metrics", "config", "log"] {
        assert!(object["nodes"][0][key].is_string(), "{key}");
    }
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout);
    assert!(!left.contains(&a) && !left.contains(&b), "{left}");
}

/// Red when an interrupted `up` leaves namespaces behind.
#[test]
fn an_interrupted_up_leaves_nothing() {
    let name = format!("u{}-int", std::process::id());
    let mut up = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["up", "--forwarder", "kernel", "--name", &name])
        .spawn()
        .unwrap();
    let client = std::path::PathBuf::from(format!("/run/netns/tg-{name}-client"));
    common::eventually("the client's namespace", Duration::from_secs(5), || client.exists().then_some(()));
    let pid = nix::unistd::Pid::from_raw(up.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert!(!client.exists());
    assert!(!std::path::Path::new("/run/tidegate-lab").join(&name).exists());
}
