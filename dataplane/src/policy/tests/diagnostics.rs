use super::*;

#[test]
fn smoke() {
    let report = check(include_str!("../../../../deploy/examples/policy.toml"), "policy.toml");
    println!("{}", print(&report));
    assert!(report.errors.is_empty() && report.warnings.is_empty());
    let report = check(
        r#"
x = 1
[tcp]
initial_timeout = 3
sequence_check = true
rst-invalidate = true
[timeouts]
udp = "30m"
tpc = 4
[[zone]]
name = "a"
[[rule]]
name = "r"
from = "a"
to = "b"
source = ["10.0.0.1/24", "10.0.0.300", "lan"]
destination = []
application = ["htp", 3]
action = "allow"
"#,
        "p.toml",
    );
    println!("{}", print(&report));
    let report = check("x = \n y = [1,\n[a", "p.toml");
    println!("{}", print(&report));
    panic!();
}
