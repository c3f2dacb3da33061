//! What `check` says: several findings in one go, each with its place and a way out.

use super::*;

/// A file that passes, to hang one wrong thing on.
pub(super) const PAIR: &str = "[[zone]]\nname = \"a\"\n[[zone]]\nname = \"b\"\n";

/// A rule from `a` to `b` for everything.
pub(super) const ALL: &str = "[[rule]]\nname = \"all\"\nfrom = \"a\"\nto = \"b\"\nsource = \"any\"\n\
                              destination = \"any\"\napplication = \"any\"\naction = \"permit\"\n";

fn rule(name: &str, source: &str, application: &str, more: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nfrom = \"a\"\nto = \"b\"\nsource = {source}\ndestination = \"any\"\n\
         application = {application}\naction = \"permit\"\n{more}\n"
    )
}

fn errors(text: &str) -> Vec<String> {
    check(text, "p").errors.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let report = check(text, "p");
    assert!(report.errors.is_empty(), "{}", print(&report));
    report.warnings.iter().map(|d| format!("{} {}", d.line, d.message)).collect()
}

/// Goes red when the example uses a key that does not exist, or does something that is warned about.
#[test]
fn the_example_file_passes_without_a_warning() {
    let report = check(include_str!("../../../../deploy/examples/policy.toml"), "policy.toml");
    assert_eq!(print(&report), "");
    assert!(report.file.is_some());
}

/// Goes red when the first error ends the check, a place is off, or a suggestion gets lost.
#[test]
fn every_error_is_found_in_one_go() {
    let text = r#"x = 1
[tcp]
initial_timeout = 3
rst-invalidate = true
[timeouts]
udp = "30m"
tpc = 4
[[zone]]
name = "trust"
[[address_set]]
name = "lan"
prefixes = ["10.0.0.1/24", "::ffff:10.0.0.0/120"]
[[rule]]
name = "r"
from = "trust"
to = "turst"
source = ["10.0.0.300", "lna"]
destination = []
application = ["htp", 3]
action = "allow"
"#;
    let report = check(text, "p.toml");
    assert!(report.file.is_none());
    let expected = "\
p.toml:1:1: error: unknown key `x` in the policy file
  help: known here: timeouts, tcp, mss, session_ttl, log, replication, zone, address_set, application, rule
p.toml:3:19: error: `initial_timeout` in [tcp] is `3`, which is out of range: an integer from 4 to 300
  help: the nearest that is allowed is 4
p.toml:4:1: error: unknown key `rst-invalidate` in [tcp]
  help: did you mean `rst_invalidate`?
p.toml:6:7: error: `udp` in [timeouts] is the string `30m`, not an integer from 1 to 2764800
  help: times are in seconds: write 1800
p.toml:7:1: error: unknown key `tpc` in [timeouts]
  help: did you mean `tcp`?
p.toml:12:13: error: `10.0.0.1/24` has bits behind its prefix length
  help: write 10.0.0.0/24 for the prefix, or 10.0.0.1 for the address
p.toml:12:28: error: `::ffff:10.0.0.0/120` is an IPv4 address written as IPv6
  help: write the IPv4 address: 10.0.0.0
p.toml:16:6: error: there is no zone `turst`
  help: did you mean \"trust\"?
p.toml:17:11: error: `10.0.0.300` is not an address or a prefix
  help: write 192.0.2.0/24, 192.0.2.1, 2001:db8::/32 or 2001:db8::1
p.toml:17:25: error: there is no address set `lna`
  help: did you mean \"lan\"?
p.toml:18:15: error: `destination` in rule `r` is empty: it would match nothing
  help: list what it matches
p.toml:19:16: error: there is no application `htp`
  help: did you mean \"http\"?
p.toml:19:23: error: an element of `application` in rule `r` is an integer, not a string
  help: put it in quotes
p.toml:20:10: error: `allow` is not an action
  help: write \"permit\"
";
    assert_eq!(print(&report), expected);
}

/// Goes red when a syntax error is not reported with its place, or only the first is.
#[test]
fn syntax_errors_have_a_place() {
    let report = check("a = 1\nb = \n[tcp\n", "p");
    assert!(report.file.is_none() && report.errors.len() >= 2, "{}", print(&report));
    assert_eq!(report.errors[0].line, 2);
    assert!(errors("[tcp]\n[tcp]\n")[0].starts_with("2:"));
    assert!(errors("[tcp]\nsyn_check = true\nsyn_check = true\n")[0].starts_with("3:"));
}

/// Goes red when a check is taken without the one that it stands on, or the refusal has no place.
#[test]
fn j7_a_check_needs_the_one_that_it_stands_on() {
    for (key, needs) in [("strict_syn_check", "syn_check"), ("rst_sequence_check", "sequence_check")] {
        let wrong = format!("[tcp]\n{key} = true\n{needs} = false\n");
        let column = key.len() + 4;
        assert_eq!(errors(&wrong), [format!("2:{column} `{key}` in [tcp] needs `{needs}`, which is off")]);
        for right in
            [format!("{key} = true"), format!("{needs} = false"), format!("{key} = true\n{needs} = true")]
        {
            assert_eq!(errors(&format!("[tcp]\n{right}\n")), [""; 0], "{right}");
        }
    }
}

/// Goes red when a rule that answers by itself, or must not answer, takes `tcp_rst`.
#[test]
fn j7_tcp_rst_goes_with_permit_only() {
    let rule = |action: &str| {
        format!(
            "[[zone]]\nname = \"a\"\n[[rule]]\nname = \"r\"\nfrom = \"a\"\nto = \"a\"\nsource = \"any\"\n\
             destination = \"any\"\napplication = \"any\"\naction = \"{action}\"\ntcp_rst = true\n"
        )
    };
    assert_eq!(errors(&rule("permit")), [""; 0]);
    for action in ["deny", "reject"] {
        assert_eq!(errors(&rule(action)), ["11:11 `tcp_rst` in rule `r` goes with action = \"permit\" only"]);
    }
}

/// Goes red when a key that exists only later is silently taken, or called a slip.
#[test]
fn settings_of_later_versions_are_refused_as_such() {
    for (text, key) in [
        ("[tcp]\nsyn_check_in_tunnel = true", "syn_check_in_tunnel"),
        ("[aging]\nhigh_watermark = 1", "aging"),
        ("[mss]\ntunnel = 1400", "tunnel"),
        ("[mss]\ngre_in = 1400", "gre_in"),
        ("[mss]\ngre_out = 1400", "gre_out"),
        ("[[application]]\nname = \"x\"\nprotocol = 6\nalg = \"ignore\"", "alg"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("`{key}` in")), "{found:?}");
        assert!(found[0].ends_with("is not supported by this version"), "{found:?}");
    }
    assert_eq!(errors("[table]\ncapacity = 1000"), ["1:2 `table` is no part of the policy"]);
}

/// Goes red when a name that is wrong, reserved, predefined or used twice is taken.
#[test]
fn j1_j3_names_are_checked() {
    let zone = |name: &str| format!("[[zone]]\nname = \"{name}\"\n");
    for bad in ["", "-x", ".x", "a b", "a/b", "ä", "any", &"x".repeat(64)] {
        assert_eq!(errors(&zone(bad)).len(), 1, "{bad:?}");
    }
    for good in ["x", "_x", "1", "a.b-c_d", &"x".repeat(63)] {
        assert_eq!(errors(&zone(good)), [""; 0], "{good:?}");
    }
    assert_eq!(errors(&zone("a").repeat(2)), ["4:8 the zone `a` exists already, in line 2"]);
    let app = "[[application]]\nname = \"http\"\nprotocol = \"tcp\"\n";
    assert_eq!(errors(app), ["1:1 `http` is a predefined application"]);
    let set = "[[address_set]]\nname = \"10.0.0.1\"\nprefixes = [\"10.0.0.1\"]\n";
    assert!(errors(set)[0].contains("is an address"));
    let twice = format!("{PAIR}{ALL}{ALL}");
    assert_eq!(errors(&twice), ["14:8 the rule `all` from `a` to `b` exists already, in line 6"]);
    let elsewhere = format!("{PAIR}{ALL}{}", ALL.replace("to = \"b\"", "to = \"a\""));
    assert_eq!(errors(&elsewhere), [""; 0]);
}

/// Goes red when a rule may leave out what it matches, or a table what it is.
#[test]
fn j1_required_keys_are_required() {
    let found = errors("[[rule]]\n[[zone]]\n[[address_set]]\n[[application]]\n[[session_ttl.port]]\n");
    for missing in
        ["name", "from", "to", "source", "destination", "application", "action", "prefixes", "protocol", "id"]
    {
        assert!(found.iter().any(|e| e.contains(&format!("has no `{missing}`"))), "{missing}: {found:?}");
    }
}

/// Goes red when any value of a wrong type is taken or stops the check.
#[test]
fn wrong_types_are_named() {
    for (text, message) in [
        ("tcp = 1", "`tcp` is an integer, not a table"),
        ("rule = 1", "`rule` is an integer, not a list of tables"),
        ("rule = [1]", "an element of `rule` is an integer, not a table"),
        ("[zone]\nname = \"a\"", "`zone` is a table, not a list of tables"),
        ("[tcp]\nsyn_check = 1", "`syn_check` in [tcp] is an integer, not true or false"),
        ("[timeouts]\ntcp = 1.5", "is a floating-point number, not an integer"),
        ("[timeouts]\ntcp = 1979-05-27", "is a date or time, not an integer"),
        ("[timeouts]\ntcp = 99999999999999999999999", "out of range"),
        ("[tcp]\ntime_wait = \"Ageout\"", "is the string `Ageout`, not an integer from 2 to 600 or"),
        ("[[zone]]\nname = 3", "`name` in [[zone]] is an integer, not a string"),
        ("[session_ttl]\ndefault = \"Never\"", "does not know `Never`"),
    ] {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].contains(message), "{text}: {found:?}");
    }
}

/// Goes red when the bounds on input are not kept.
#[test]
fn bounds_are_kept() {
    let zones: String = (0..1025).map(|i| format!("[[zone]]\nname = \"z{i}\"\n")).collect();
    assert_eq!(errors(&zones), ["2049:1 more than 1024 [[zone]] tables"]);
    let ports: String = (0..4097).map(|i| format!("[[session_ttl.port]]\nid = {i}\n")).collect();
    assert_eq!(errors(&ports), ["8193:1 more than 4096 [[session_ttl.port]] entries"]);
    let long = format!("[[zone]]\nname = \"a\"\ndescription = \"{}\"\n", "x".repeat(256));
    assert!(errors(&long)[0].contains("too long"));
    let big = " ".repeat(crate::policy::FILE_BYTES_MAX + 1);
    assert!(errors(&big)[0].contains("at most"));
}

/// Goes red when 1,000,000 prefixes are refused, or one more is taken.
#[test]
fn a_million_prefixes_are_the_bound() {
    let set = |n: u32| {
        let prefixes: String =
            (0..n).map(|i| format!("\"{}\",", std::net::Ipv4Addr::from(0x0a00_0000 + i))).collect();
        format!("{PAIR}{ALL}[[address_set]]\nname = \"big\"\nprefixes = [{prefixes}]\n")
    };
    assert_eq!(errors(&set(1_000_000)), [""; 0]);
    assert!(errors(&set(1_000_001))[0].contains("more than 1000000 prefixes"));
}

/// Goes red when `never` passes without a word (F6).
#[test]
fn f6_never_is_warned_about_everywhere() {
    let text = format!(
        "{PAIR}[session_ttl]\ndefault = \"never\"\n[[session_ttl.port]]\nid = 1\nprotocol = 17\ntimeout = \"never\"\n\
         [[application]]\nname = \"x\"\nprotocol = 6\ninactivity_timeout = \"never\"\n{}",
        rule("r", "\"any\"", "[\"x\", \"any\"]", "session_ttl = \"never\"")
    );
    let found = warnings(&text);
    assert_eq!(found.iter().filter(|w| w.contains("`never`")).count(), 4, "{found:?}");
}

/// Goes red when an overlap is missed, a pair apart is called one, or the wrong winner is named (F4).
#[test]
fn f4_overlaps_are_warned_about_with_their_winner() {
    let entry = |id: u16, protocol: u8, ports: Option<(u16, u16)>| {
        let ports = ports.map_or(String::new(), |(a, b)| format!("start_port = {a}\nend_port = {b}\n"));
        format!("[[session_ttl.port]]\nid = {id}\nprotocol = {protocol}\n{ports}")
    };
    let found = |a: String, b: String| {
        let list = warnings(&format!("{PAIR}{ALL}{a}{b}"));
        assert!(list.len() <= 1, "{list:?}");
        list.first().map(|w| {
            let at = w.find("they do, ").unwrap() + 9;
            w[at..].split(' ').next().unwrap().parse::<u16>().unwrap()
        })
    };
    let r = |a, b| Some((a, b));
    assert_eq!(found(entry(1, 6, r(1, 10)), entry(2, 6, r(11, 20))), None);
    assert_eq!(found(entry(1, 6, r(1, 10)), entry(2, 17, r(1, 10))), None);
    assert_eq!(found(entry(1, 6, r(1, 10)), entry(2, 6, r(10, 30))), Some(1));
    assert_eq!(found(entry(1, 6, r(1, 30)), entry(2, 6, r(10, 30))), Some(2));
    assert_eq!(found(entry(9, 6, r(1, 10)), entry(2, 6, r(1, 10))), Some(2));
    assert_eq!(found(entry(1, 0, r(5, 5)), entry(2, 6, r(1, 10))), Some(2));
    assert_eq!(found(entry(1, 6, None), entry(2, 6, r(1, 10))), Some(2));
    assert_eq!(found(entry(1, 47, None), entry(2, 0, r(0, 65_535))), None);
    assert_eq!(found(entry(1, 47, None), entry(2, 0, None)), Some(1));
}

/// Goes red when any of these findings is lost.
#[test]
fn what_is_right_but_pointless_is_warned_about() {
    let lonely = format!(
        "{PAIR}[[zone]]\nname = \"c\"\n[[address_set]]\nname = \"s\"\nprefixes = \"10.0.0.0/8\"\n\
         [[application]]\nname = \"x\"\nprotocol = 6\n{ALL}"
    );
    let found = warnings(&lonely);
    assert!(found[0].starts_with("5 no rule names the zone `c`"), "{found:?}");
    assert_eq!(found[1], "7 no rule uses the address set `s`");
    assert_eq!(found[2], "10 no rule uses the application `x`");
    assert_eq!(found.len(), 3);
    assert_eq!(warnings(PAIR), ["1 there is no rule: everything is denied"]);
    let many = rule("r", "[\"any\", \"10.0.0.0/8\"]", "[\"any\", \"ssh\", \"any\"]", "");
    let found = warnings(&format!("{PAIR}{many}"));
    assert!(found.iter().any(|w| w.contains("makes the others pointless")), "{found:?}");
    assert!(found.iter().any(|w| w.contains("`ssh` stands behind `any`")), "{found:?}");
    assert!(found.iter().any(|w| w.contains("`any` stands twice")), "{found:?}");
    let tcp = |settings: &str| warnings(&format!("{PAIR}{ALL}[tcp]\n{settings}"));
    assert!(tcp("fin_invalidate = true\ntime_wait = 9")[0].contains("`time_wait` has no effect"));
    assert!(tcp("half_close_time_wait = true\ntime_wait = \"ageout\"")[0].contains("`half_close_time_wait`"));
    assert_eq!(tcp("fin_invalidate = true\nhalf_close_time_wait = true\ntime_wait = 9"), [""; 0]);
}

/// Goes red when a shadowed rule passes unseen, or the advice is the wrong one.
#[test]
fn shadowed_rules_are_named_with_the_rule_that_covers_them() {
    let text = format!("{PAIR}{}{}", rule("wide", "\"10.0.0.0/8\"", "\"tcp-any\"", ""), {
        let narrow = rule("narrow", "\"10.1.0.0/16\"", "\"ssh\"", "");
        narrow.replace("\"permit\"", "\"deny\"")
    });
    let report = check(&text, "p");
    assert_eq!(
        print(&report),
        "p:14:1: warning: rule `narrow` never matches: rule `wide` in line 5 comes first and covers it\n  \
         help: move it before `wide`, or remove it\n"
    );
    // Neither a rule that is not enabled nor a wider one that comes later shadows.
    let off = format!(
        "{PAIR}{}{}{}",
        rule("off", "\"any\"", "\"any\"", "enabled = false"),
        rule("narrow", "\"10.1.0.0/16\"", "\"ssh\"", ""),
        rule("wide", "\"10.0.0.0/8\"", "\"tcp-any\"", "")
    );
    assert_eq!(warnings(&off), [""; 0]);
    let mixed = rule("mixed", "\"10.0.0.0/8\"", "\"any\"", "")
        .replace("destination = \"any\"", "destination = \"2001:db8::/32\"");
    assert!(warnings(&format!("{PAIR}{mixed}"))[0].contains("share no family"));
}

/// Goes red when pieces of one rule are not added up, or a gap of one address or port is overlooked.
#[test]
fn a_rule_is_covered_by_the_pieces_of_another_together() {
    let shadowed = |wide: [&str; 2], narrow: [&str; 2]| {
        let apps: String = [
            ("low", "1-99", "0-65535"),
            ("high", "100-200", "0-65535"),
            ("above", "101-200", "0-65535"),
            ("all", "1-200", "0-65535"),
            ("below-src", "1-200", "0-999"),
            ("from-src", "50-200", "1000-65535"),
            ("low-src", "1-99", "1000-65535"),
            ("inner", "50-60", "0-65535"),
        ]
        .iter()
        .map(|(name, to, from)| {
            format!(
                "[[application]]\nname = \"{name}\"\nprotocol = \"tcp\"\ndestination_port = \"{to}\"\n\
                 source_port = \"{from}\"\n"
            )
        })
        .collect();
        let (wide, narrow) = (rule("w", wide[0], wide[1], ""), rule("n", narrow[0], narrow[1], ""));
        warnings(&format!("{PAIR}{apps}{wide}{narrow}")).iter().any(|w| w.contains("`n` never matches"))
    };
    let any = "\"any\"";
    for (wide, narrow, covered) in [
        ("[\"10.0.0.2/31\", \"10.0.0.0/31\"]", "\"10.0.0.0/30\"", true),
        ("[\"10.0.0.0/31\", \"10.0.0.2\"]", "\"10.0.0.0/30\"", false),
        ("[\"10.0.0.1\", \"10.0.0.2/31\"]", "\"10.0.0.0/30\"", false),
        ("[\"0.0.0.0/1\", \"128.0.0.0/1\"]", "\"10.0.0.0/8\"", true),
        ("[\"0.0.0.0/0\", \"::/0\"]", any, true),
        ("[\"0.0.0.0/0\", \"::/1\"]", any, false),
        ("[\"::/1\", \"8000::/1\", \"0.0.0.0/0\"]", any, true),
    ] {
        assert_eq!(shadowed([wide, any], [narrow, any]), covered, "{wide} {narrow}");
    }
    for (wide, narrow, covered) in [
        ("[\"high\", \"low\"]", "\"all\"", true),
        ("[\"low\", \"above\"]", "\"all\"", false),
        ("[\"from-src\", \"below-src\"]", "\"inner\"", true),
        ("\"from-src\"", "\"inner\"", false),
        ("\"below-src\"", "\"inner\"", false),
        // Source ports from 1000 are missing below destination port 50.
        ("[\"from-src\", \"below-src\"]", "\"all\"", false),
        // And here above 99.
        ("[\"low-src\", \"below-src\"]", "\"all\"", false),
        ("[\"inner\", \"low\", \"high\"]", "[\"inner\", \"all\"]", true),
        ("\"tcp-any\"", "[\"all\", \"udp-any\"]", false),
    ] {
        assert_eq!(shadowed([any, wide], [any, narrow]), covered, "{wide} {narrow}");
    }
}
