use super::*;

fn findings(text: &str) -> Vec<String> {
    match parse(Path::new("/etc/tidegate/node.toml"), text.to_owned()) {
        Err(ConfigError::Invalid { findings, .. }) => findings
            .iter()
            .map(|d| {
                format!("{}:{} {} | {}", d.line, d.column, d.message, d.suggestion.as_deref().unwrap_or("-"))
            })
            .collect(),
        other => panic!("expected findings, got {other:?}"),
    }
}

const GOOD: &str = r#"
policy = "policy.toml"
[node]
name = "edge-1"
[[port]]
name = "outside"
zone = "untrust"
interface = "eth0"
[[port]]
name = "inside"
zone = "trust"
prefix = "10.1.0.0/24"
partial_checksums = true
[workers]
count = 2
cpus = [0, 1]
"#;

#[test]
fn a_small_file_gets_the_documented_defaults() {
    // Change any default and this fails.
    let c = parse(Path::new("/etc/tidegate/node.toml"), GOOD.to_owned()).unwrap();
    assert_eq!(c.capacity, 262_144);
    assert_eq!((c.fragments.datagrams, c.fragments.timeout_ms), (4_096, 5_000));
    assert_eq!(c.control_socket, Path::new("/run/tidegate/control.sock"));
    assert_eq!(c.policy.as_deref(), Some(Path::new("/etc/tidegate/policy.toml")));
    assert_eq!((c.role, c.cluster.listen.len()), (Role::Node, 0));
    assert_eq!(c.cluster.directory, Path::new("/var/lib/tidegate"));
    assert_eq!(c.metrics_listen, None);
    assert_eq!(c.ports[0].partial_checksums, PartialChecksums::Auto);
    assert_eq!(c.ports[1].partial_checksums, PartialChecksums::On);
    assert_eq!(c.ports[1].select, Select::Prefix("10.1.0.0/24".parse().unwrap()));
    assert_eq!(c.workers.cpus.as_deref(), Some(&[0, 1][..]));
}

#[test]
fn every_mistake_is_reported_in_one_go_with_its_place() {
    // Stop at the first finding (what serde does by itself) and all but one line go missing.
    let text = r#"policy = "p.toml"
spelt = 1
[node]
name = "no spaces please"
id = 0
[[port]]
name = "a"
zone = "z"
interfase = "eth0"
partial_checksums = 7
[workers]
cout = 2
spin_us = -1
[table]
capacity = 999
[fragments]
datagrams = 0
timeout_ms = 60001
[log]
level = "inof"
[metrics]
listen = "9477"
"#;
    assert_eq!(
        findings(text),
        [
            "2:1 unknown key `spelt` | known here: policy, node, cluster, port, workers, table, frames, fragments, control, metrics, log",
            "4:8 `node.name` is \"no spaces please\", which is no name | use 1 to 63 letters, digits, - or _",
            "5:6 `node.id` is 0, which is out of range | write a number from 1 to 65535",
            "9:1 unknown key `interfase` | did you mean `interface`?",
            "10:21 `port.partial_checksums` is 7 | write \"auto\", true or false",
            "12:1 unknown key `cout` | did you mean `count`?",
            "13:11 `workers.spin_us` is -1, which is out of range | write a number from 0 to 1000000",
            "15:12 `table.capacity` is 999, which is out of range | write a number from 1000 to 50000000",
            "17:13 `fragments.datagrams` is 0, which is out of range | write a number from 64 to 262144",
            "18:14 `fragments.timeout_ms` is 60001, which is out of range | write a number from 100 to 60000",
            "20:9 `log.level` is \"inof\" | did you mean \"info\"?",
            "22:10 `metrics.listen` is \"9477\", which is no address with a port | write one such as 127.0.0.1:9477 or [::1]:9477",
        ]
    );
}

#[test]
fn missing_and_contradicting_keys_are_reported() {
    // Without the `missing` and duplicate checks this file would load.
    let text = r#"
[[port]]
name = "a"
zone = "z"
interface = "eth0"
address = "10.0.0.1"
[[port]]
name = "b"
zone = "z"
interface = "eth1"
[[port]]
name = "b"
interface = "eth1"
zone = "y"
[[port]]
name = "c"
"#;
    assert_eq!(
        findings(text),
        [
            "1:1 `policy` is missing | add policy = \"policy.toml\" above the first [section], or [cluster] if this node gets its policy from a cluster",
            "6:11 the port selects its interface in more than one way | write exactly one of interface = \"eth0\", address = \"10.1.0.1\", prefix = \"10.1.0.0/24\"",
            "12:8 two ports are called \"b\" | give each port a name of its own",
            "12:8 ports \"b\" and \"b\" select the same interface | each interface can be one port only",
            "15:1 `port.zone` is missing | add zone = \"...\", a zone that the policy names",
            "15:1 `port.interface` is missing | write exactly one of interface = \"eth0\", address = \"10.1.0.1\", prefix = \"10.1.0.0/24\"",
        ]
    );
}

#[test]
fn broken_toml_is_reported_with_its_place() {
    // Report the reader's error without its span and the line is 1.
    let found = findings("policy = \"p\"\n[node\nname = \"x\"\n");
    assert!(found[0].starts_with("2:"), "{found:?}");
    assert!(!found.iter().any(|f| f.contains("missing")), "{found:?}");
}

#[test]
fn a_prefix_with_host_bits_is_refused_with_the_right_one() {
    // Accept it truncated and a port could be selected that was not meant.
    let text = GOOD.replace("10.1.0.0/24", "10.1.0.7/24");
    assert_eq!(
        findings(&text),
        ["12:10 \"10.1.0.7/24\" has bits set behind its prefix length | write \"10.1.0.0/24\""]
    );
}

#[test]
fn the_shipped_examples_load() {
    // A key that is renamed without the example turns this red.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    assert_eq!(load(&examples.join("node.toml")).unwrap().role, Role::Node);
    assert_eq!(load(&examples.join("witness.toml")).unwrap().role, Role::Witness);
}

#[test]
fn syslog_servers_are_read_and_their_mistakes_named() {
    // Swap a default, lose a server, or take a name for an address, and a line fails.
    let servers = "[[log.syslog]]\nserver = \"192.0.2.9:514\"\n[[log.syslog]]\nserver = \"[2001:db8::9]:601\"\n\
                   transport = \"tcp\"\nfacility = \"local7\"\nrate_per_s = 50\nenterprise_number = 9\n";
    let c = parse(Path::new("/etc/tidegate/node.toml"), format!("{GOOD}[log]\nrate_per_s = 0\n{servers}"))
        .unwrap();
    assert_eq!(c.log_rate_per_s, 0);
    let default = SyslogConfig {
        server: "192.0.2.9:514".parse().unwrap(),
        transport: Transport::Udp,
        facility: 16,
        rate_per_s: 1_000,
        enterprise_number: 32_473,
    };
    let second = SyslogConfig {
        server: "[2001:db8::9]:601".parse().unwrap(),
        transport: Transport::Tcp,
        facility: 23,
        rate_per_s: 50,
        enterprise_number: 9,
    };
    assert_eq!(c.syslog, [default, second]);
    let wrong = "[[log.syslog]]\ntransport = \"upd\"\n[[log.syslog]]\nserver = \"logs.example.net:514\"\nrate_per_s = 0\n";
    let found = findings(&format!("{GOOD}{wrong}")).join("\n");
    for part in ["`log.syslog.server` is missing", "did you mean \"udp\"?", "logs.example.net", "rate_per_s"]
    {
        assert!(found.contains(part), "{part} in {found}");
    }
}

#[test]
fn a_witness_has_nothing_of_a_dataplane() {
    // Read what it does not use and ignore it, and an operator believes that the witness forwards.
    let c = parse(Path::new("/n.toml"), "[node]\nname = \"w\"\nrole = \"witness\"\n".to_owned()).unwrap();
    assert_eq!((c.role, c.ports.len(), c.policy), (Role::Witness, 0, None));
    let text = "policy = \"p.toml\"\n[node]\nrole = \"witness\"\n[[port]]\nname = \"a\"\nzone = \"z\"\n\
                interface = \"eth0\"\n[workers]\ncount = 1\n[table]\ncapacity = 5000\n";
    let found = findings(text);
    assert_eq!(found.len(), 4, "{found:?}");
    for (line, what) in [(1, "no policy"), (4, "no ports"), (8, "[workers]"), (10, "[table]")] {
        assert!(
            found.iter().any(|f| f.starts_with(&format!("{line}:")) && f.contains(what)),
            "{what}: {found:?}"
        );
    }
    let found = findings(
        "policy = \"p\"\n[node]\nrole = \"wittness\"\n[[port]]\nname = \"a\"\nzone = \"z\"\ninterface = \"x\"\n",
    );
    assert!(found[0].contains("did you mean \"witness\"?"), "{found:?}");
}

#[test]
fn a_node_that_gets_its_policy_from_a_cluster_names_none() {
    // Ask for a file all the same, and every node of a cluster carries one that counts for nothing.
    let port = "[[port]]\nname = \"a\"\nzone = \"z\"\ninterface = \"x\"\n";
    let c =
        parse(Path::new("/n.toml"), format!("{port}[cluster]\nlisten = [\"0.0.0.0:7441\", \"10.0.0.1\"]\n"))
            .unwrap();
    assert_eq!(c.policy, None);
    let listen: Vec<_> = c.cluster.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:7441", "10.0.0.1:7400"]);
    assert!(findings(port)[0].contains("`policy` is missing"));
    let found = findings(&format!("{port}[cluster]\ndirectory = \"lib\"\nlisten = [\"fw-1\"]\n"));
    assert!(found[0].contains("absolute path") && found[1].contains("no IP address"), "{found:?}");
}

#[test]
fn addresses_of_members_are_ones_that_others_can_reach() {
    // Take any socket address, and a node advertises itself as 0.0.0.0.
    let said = |text| cluster_address(text).map(|a| a.to_string());
    assert_eq!(said("10.0.0.1").unwrap(), "10.0.0.1:7400");
    assert_eq!(said("[2001:db8::1]:9").unwrap(), "[2001:db8::1]:9");
    assert_eq!(said("2001:db8::1").unwrap(), "[2001:db8::1]:7400");
    for wrong in ["0.0.0.0", "::", "224.0.0.1", "fw-1", "10.0.0.1:x"] {
        assert!(said(wrong).is_err(), "{wrong}");
    }
}
