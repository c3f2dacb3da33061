//! The lab before anything of Tidegate is in it: a test that fails here says nothing about the product.

use std::process::{Command, Stdio};

use tidegate_lab::lab::Member;
use tidegate_lab::sys::{Stop, run_in};
use tidegate_lab::traffic::{Churn, HttpServer, UdpEcho, churn, fetch, make_file, snmp_value, udp_flows};

use crate::common::{EACH_TRY, PATIENCE, TRIES, ip, kernel_lab};

/// Red when addresses, routes or the lab's own traffic are wrong: then every other test would blame the node.
#[test]
fn hosts_reach_each_other_through_the_kernel_of_the_node() {
    let lab = kernel_lab("hosts", |spec| spec.client_addresses = 3);
    for (address, port) in [(lab.server_v4(7), 7), (lab.server_v6(7), 7)] {
        let _echo = UdpEcho::start(&lab.server(), address).unwrap();
        let answered = udp_flows(&lab.client(), address, 20_000..20_300, TRIES, EACH_TRY).unwrap();
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

/// Red when a segment does not join what is plugged into it, when moving the routes moves nothing, or moves one
/// direction only.
#[test]
fn hosts_reach_each_other_through_each_of_several_nodes() {
    let lab = kernel_lab("segments", |spec| spec.nodes = 3);
    let forwarded = |member: Member<'_>| {
        let ipv4 = snmp_value(&member.netns().proc_net("snmp").unwrap(), "Ip", "ForwDatagrams").unwrap();
        let snmp6 = member.netns().proc_net("snmp6").unwrap();
        let ipv6 = snmp6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")).unwrap();
        [ipv4, ipv6.trim().parse::<u64>().unwrap()]
    };
    for node in 1..=3 {
        lab.route_via(node).unwrap();
        let before: Vec<_> = lab.members().map(forwarded).collect();
        for address in [lab.server_v4(7), lab.server_v6(7)] {
            let _echo = UdpEcho::start(&lab.server(), address).unwrap();
            let answered = udp_flows(&lab.client(), address, 20_000..20_100, TRIES, EACH_TRY).unwrap();
            assert_eq!(answered.len(), 100, "{address} through node {node}");
        }
        for (member, before) in lab.members().zip(before) {
            let (after, used) = (forwarded(member), member.number() == node);
            for (after, before) in after.iter().zip(before) {
                // Requests and answers; whoever is not on the way forwards nothing.
                assert!(if used { after - before >= 200 } else { *after == before }, "{}", member.name());
            }
        }
    }
    for pair in [(1, "10.90.0.3"), (3, "fd90::2")] {
        let ping = run_in(Some(&lab.at(pair.0).netns()), "ping", &["-c1", "-W20", pair.1]).unwrap();
        assert!(ping.success, "{pair:?}: {}", ping.stdout);
    }
}

/// Red when a daemon forwards wrong through a switch, or what `up` starts by itself for several nodes is not there.
#[test]
fn several_nodes_that_are_no_cluster_forward_each_for_itself() {
    let lab = crate::common::lab("alone", |spec| (spec.nodes, spec.clustered) = (2, false));
    let address = lab.server_v4(7);
    let file = std::env::temp_dir().join(format!("tidegate-lab-two-{}", std::process::id()));
    let sent = make_file(&file, 3_000_001, 8).unwrap();
    let server = HttpServer::start(&lab.server(), lab.server_v6(8080), &file);
    let _echo = UdpEcho::start(&lab.server(), address).unwrap();
    for (node, other) in [(1, 2), (2, 1)] {
        lab.route_via(node).unwrap();
        let first = 20_000 + 100 * u16::try_from(node).unwrap();
        let answered = udp_flows(&lab.client(), address, first..first + 20, TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), 20, "through node {node}");
        let got = fetch(&lab.client(), lab.server_v6(8080), &Stop::default(), |_| ()).unwrap();
        assert_eq!((got.0, &got.1), (3_000_001, &sent), "through node {node}");
        let filter = ["--source-port", &format!("{first}-{}", first + 19)];
        assert_eq!(lab.at(node).sessions(&filter).unwrap().len(), 20);
        assert_eq!(lab.at(other).sessions(&filter).unwrap().len(), 0);
    }
    drop(server);
    std::fs::remove_file(&file).unwrap();
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
    let up = |name: &str, nodes| run(&["up", "--forwarder", "kernel", "--name", name, "--nodes", nodes]);
    let (a, b) = (name("a"), name("b"));
    let first = up(&a, "1");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let again = up(&a, "1");
    let second = up(&b, "2");
    let object: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    let client = object["client"]["netns"].as_str().unwrap().to_owned();
    let reached = Command::new("ip")
        .args(["netns", "exec", &client, "ping", "-c", "1", "-W", "20"])
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
    let two: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    for node in [&object["nodes"][0], &two["nodes"][0], &two["nodes"][1]] {
        for key in ["name", "netns", "control", "metrics", "config", "log"] {
            assert!(node[key].is_string(), "{key}");
        }
        assert!(node["addresses"].is_array() && node["virtual_ips"].is_array(), "{node}");
        assert!(node["ports"]["inside"]["ipv6"].is_string() && node["pid"].is_null(), "{node}");
    }
    assert_eq!((object["nodes"].as_array().unwrap().len(), two["nodes"].as_array().unwrap().len()), (1, 2));
    assert!(object["nodes"][0]["sync"].is_null() && object["witness"].is_null(), "{object}");
    assert_eq!(two["nodes"][1]["cluster_address"], "10.90.0.2:7400");
    let segments: Vec<_> = two["segments"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(segments, ["outside", "inside", "sync"]);
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout);
    assert!(!left.contains(&a) && !left.contains(&b), "{left}");
}

/// Red when an interrupted `up` leaves namespaces behind.
#[test]
fn an_interrupted_up_leaves_nothing() {
    let name = format!("u{}-int", std::process::id());
    let binary = env!("CARGO_BIN_EXE_tidegate-lab");
    let client = std::path::PathBuf::from(format!("/run/netns/tg-{name}-client"));
    let interrupted = || {
        let mut up = Command::new(binary)
            .args(["up", "--forwarder", "kernel", "--name", &name])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        crate::common::eventually("the client's namespace", PATIENCE, || client.exists().then_some(()));
        let pid = nix::unistd::Pid::from_raw(up.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let code = up.wait().unwrap().code();
        if code == Some(0) {
            // It was done before it heard: again.
            assert!(Command::new(binary).args(["down", "--name", &name]).status().unwrap().success());
        }
        (code != Some(0)).then_some(code)
    };
    assert_eq!(crate::common::eventually("an interrupted `up`", PATIENCE, interrupted), Some(130));
    assert!(!client.exists());
    assert!(!std::path::Path::new("/run/tidegate-lab").join(&name).exists());
}

/// Stays up until somebody ends this program: for the test below.
#[test]
#[ignore = "ends only when the program is told to"]
fn a_lab_that_stays_up() {
    let _lab = crate::common::lab("stays", |_| ());
    crate::common::pause(10 * PATIENCE);
}

/// Red when Ctrl-C on the tests leaves their labs behind.
#[test]
fn interrupted_tests_leave_no_lab() {
    let test = ["--ignored", "--exact", "lab_itself::a_lab_that_stays_up"];
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(test)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lab = format!("{}stays", crate::common::prefix(tests.id()));
    let dir = std::path::Path::new("/run/tidegate-lab").join(&lab);
    let record = crate::common::eventually("its daemon is recorded", PATIENCE, || {
        let text = std::fs::read_to_string(dir.join("node1/process.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    });
    let daemon = format!("/proc/{}", record["pid"]);
    assert!(std::path::Path::new(&daemon).exists());
    let pid = nix::unistd::Pid::from_raw(tests.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(tests.wait().unwrap().code(), Some(130));
    assert!(!dir.exists() && !std::path::Path::new(&daemon).exists());
    assert!(!std::path::Path::new(&format!("/run/netns/tg-{lab}-client")).exists());
}
