//! Which rule a flow matches (J1), and what it is called (J3).

use super::diagnostics::{ALL, PAIR};
use super::*;
use crate::addr::proto::{ESP, GRE, ICMP, ICMPV6, TCP, UDP};
use crate::policy::Action;

fn rule(
    name: &str,
    [from, to]: [&str; 2],
    [source, destination, application]: [&str; 3],
    action: &str,
) -> String {
    format!(
        "[[rule]]\nname = {name:?}\nfrom = {from:?}\nto = {to:?}\nsource = {source}\ndestination = {destination}\n\
         application = {application}\naction = {action:?}\n"
    )
}

const ANY: [&str; 3] = ["\"any\"", "\"any\"", "\"any\""];
const AB: [&str; 2] = ["a", "b"];

fn tcp(port: u16) -> Tuple {
    tuple("10.0.0.1", "10.9.0.1", TCP, 40_000, port)
}

/// Goes red when the order of the file does not decide.
#[test]
fn j1_the_first_match_wins() {
    let ssh = rule("ssh", AB, ["\"any\"", "\"any\"", "\"ssh\""], "deny");
    let all = rule("all", AB, ANY, "permit");
    assert_eq!(Fixture::new(&format!("{PAIR}{ssh}{all}")).rule(&tcp(22)), "a/b/ssh");
    assert_eq!(Fixture::new(&format!("{PAIR}{ssh}{all}")).rule(&tcp(23)), "a/b/all");
    assert_eq!(Fixture::new(&format!("{PAIR}{all}{ssh}")).rule(&tcp(22)), "a/b/all");
}

/// Goes red when a flow that no rule matches passes, or is booked on a rule.
#[test]
fn j1_the_default_is_deny() {
    let fixture =
        Fixture::new(&format!("{PAIR}{}", rule("ssh", AB, ["\"any\"", "\"any\"", "\"ssh\""], "permit")));
    let judgement = fixture.judge("a", "b", &tcp(23));
    assert_eq!((judgement.action, judgement.rule, judgement.log), (Action::Deny, None, false));
    assert_eq!(judgement.application, crate::names::AppId(0));
    assert!(fixture.judge("b", "a", &tcp(22)).rule.is_none());
    assert!(fixture.policy.permits(fixture.zone("a"), fixture.zone("b"), &tcp(22)));
    assert!(!fixture.policy.permits(fixture.zone("a"), fixture.zone("b"), &tcp(23)));
    assert_eq!(Fixture::new(PAIR).rule(&tcp(22)), "");
}

/// Goes red when an action or the log flag of a rule is not what the file says.
#[test]
fn j1_actions_and_the_log_flag_come_from_the_rule() {
    for (name, action) in [("permit", Action::Permit), ("deny", Action::Deny), ("reject", Action::Reject)] {
        for log in [false, true] {
            let fixture = Fixture::new(&format!("{PAIR}{}log = {log}\n", rule("r", AB, ANY, name)));
            let judgement = fixture.judge("a", "b", &tcp(1));
            assert_eq!((judgement.action, judgement.log), (action, log));
            assert_eq!(
                fixture.policy.permits(fixture.zone("a"), fixture.zone("b"), &tcp(1)),
                name == "permit"
            );
        }
    }
}

/// Goes red when `any` zone is tried out of order, misses a zone, or lets in an undeclared one.
#[test]
fn j1_any_zone_is_every_declared_zone_in_file_order() {
    let text = format!(
        "{PAIR}{}{}{}",
        rule("ssh", ["any", "b"], ["\"any\"", "\"any\"", "\"ssh\""], "deny"),
        rule("ab", AB, ANY, "permit"),
        rule("rest", ["any", "any"], ANY, "permit")
    );
    let fixture = Fixture::new(&text);
    let name = |from, to, port| {
        fixture.names.rule_name(fixture.judge(from, to, &tcp(port)).rule.unwrap()).to_string()
    };
    assert_eq!(name("a", "b", 22), "any/b/ssh");
    assert_eq!(name("b", "b", 22), "any/b/ssh");
    assert_eq!(name("a", "b", 23), "a/b/ab");
    assert_eq!(name("b", "a", 23), "any/any/rest");
    let (a, stranger) = (fixture.zone("a"), crate::names::ZoneId(99));
    assert!(fixture.policy.evaluate(a, stranger, &tcp(1)).rule.is_none());
    assert!(fixture.policy.evaluate(stranger, a, &tcp(1)).rule.is_none());
}

/// Goes red when a zone of an earlier revision that is gone now still matches.
#[test]
fn j1_a_zone_that_this_revision_does_not_declare_is_denied() {
    let mut names = Names::default();
    let old = check("[[zone]]\nname = \"gone\"\n", "p").file.unwrap();
    compile(&old, 1, &mut names).unwrap();
    let file = check(&format!("{PAIR}{}", rule("all", ["any", "any"], ANY, "permit")), "p").file.unwrap();
    let policy = compile(&file, 2, &mut names).unwrap();
    let (gone, a) = (names.find_zone("gone").unwrap(), names.find_zone("a").unwrap());
    assert!(policy.permits(a, a, &tcp(1)));
    assert!(!policy.permits(gone, a, &tcp(1)) && !policy.permits(a, gone, &tcp(1)));
}

/// Goes red when `::/0` holds IPv4, `0.0.0.0/0` IPv6, or `any` only one of them.
#[test]
fn j1_families_do_not_mix() {
    let v6 = tuple("2001:db8::1", "2001:db8::2", TCP, 1, 22);
    for (source, holds_v4, holds_v6) in [
        ("\"any\"", true, true),
        ("\"0.0.0.0/0\"", true, false),
        ("\"::/0\"", false, true),
        ("[\"::/0\", \"0.0.0.0/0\"]", true, true),
    ] {
        let fixture =
            Fixture::new(&format!("{PAIR}{}", rule("r", AB, [source, "\"any\"", "\"any\""], "permit")));
        assert_eq!(!fixture.rule(&tcp(22)).is_empty(), holds_v4, "{source}");
        assert_eq!(!fixture.rule(&v6).is_empty(), holds_v6, "{source}");
    }
}

/// Goes red when the ends of a prefix, a set's other prefixes, or literal addresses are off.
#[test]
fn j1_addresses_match_by_prefix() {
    let text = format!(
        "{PAIR}[[address_set]]\nname = \"lan\"\nprefixes = [\"10.0.0.0/30\", \"10.0.0.9\", \"2001:db8::/127\"]\n{}",
        rule("r", AB, ["\"lan\"", "[\"10.9.0.1\", \"2001:db8:f::/48\"]", "\"any\""], "permit")
    );
    let fixture = Fixture::new(&text);
    for (src, dst, hit) in [
        ("10.0.0.0", "10.9.0.1", true),
        ("10.0.0.3", "10.9.0.1", true),
        ("10.0.0.4", "10.9.0.1", false),
        ("9.255.255.255", "10.9.0.1", false),
        ("10.0.0.9", "10.9.0.1", true),
        ("10.0.0.9", "10.9.0.2", false),
        ("2001:db8::1", "2001:db8:f:ffff::1", true),
        ("2001:db8::2", "2001:db8:f:ffff::1", false),
        ("2001:db8::1", "2001:db8:e::1", false),
    ] {
        assert_eq!(!fixture.rule(&tuple(src, dst, TCP, 1, 2)).is_empty(), hit, "{src} {dst}");
    }
}

/// Goes red when a rule that is not enabled matches, or vanishes from show.
#[test]
fn j1_a_rule_that_is_not_enabled_matches_nothing() {
    let off = rule("off", AB, ANY, "permit") + "enabled = false\n";
    let fixture = Fixture::new(&format!("{PAIR}{off}{ALL}"));
    assert_eq!(fixture.rule(&tcp(1)), "a/b/all");
    let rules = fixture.policy.rules();
    assert_eq!(
        rules.iter().map(|r| (&*r.name, r.enabled)).collect::<Vec<_>>(),
        [("off", false), ("all", true)]
    );
    assert_eq!(fixture.names.rule_name(rules[0].id), "a/b/off");
    assert_eq!((rules[1].source.as_slice(), rules[1].line), (["any".to_string()].as_slice(), 14));
    assert_eq!(fixture.policy.zones().iter().map(|z| &*z.name).collect::<Vec<_>>(), ["a", "b"]);
}

/// Goes red when the source port of a term does not count, or ends the search at the wrong rule.
#[test]
fn j3_source_ports_count() {
    let app = "[[application]]\nname = \"x\"\nprotocol = \"tcp\"\nsource_port = \"100-200\"\ndestination_port = 5\n";
    let first = rule("x", AB, ["\"any\"", "\"any\"", "\"x\""], "deny");
    let fixture = Fixture::new(&format!("{PAIR}{app}{first}{ALL}"));
    let flow = |source| tuple("10.0.0.1", "10.9.0.1", TCP, source, 5);
    for (source, name) in [(99, "all"), (100, "x"), (200, "x"), (201, "all")] {
        assert_eq!(fixture.rule(&flow(source)), format!("a/b/{name}"));
    }
}

/// Goes red when a flow gets the wrong label, or one under `any` none.
#[test]
fn j3_the_first_application_that_matches_names_the_flow() {
    let app = "[[application]]\nname = \"mine\"\nprotocol = \"tcp\"\ndestination_port = \"79-81\"\n";
    let label = |list: &str, tuple: &Tuple| {
        let text = format!("{PAIR}{app}{}", rule("r", AB, ["\"any\"", "\"any\"", list], "permit"));
        let fixture = Fixture::new(&text);
        fixture.names.application_name(fixture.judge("a", "b", tuple).application).to_string()
    };
    assert_eq!(label("[\"http\", \"mine\"]", &tcp(80)), "http");
    assert_eq!(label("[\"mine\", \"http\"]", &tcp(80)), "mine");
    assert_eq!(label("[\"http\", \"mine\"]", &tcp(81)), "mine");
    assert_eq!(label("\"any\"", &tcp(80)), "http");
    assert_eq!(label("\"any\"", &tcp(81)), "");
    assert_eq!(label("[\"mine\", \"any\"]", &tcp(443)), "https");
    assert_eq!(label("\"any\"", &tuple("10.0.0.1", "10.9.0.1", UDP, 9, 53)), "dns");
    assert_eq!(label("\"tcp-any\"", &tcp(22)), "tcp-any");
    assert_eq!(label("\"any\"", &tuple("10.0.0.1", "10.9.0.1", GRE, 0, 0)), "");
}

/// Every predefined application matches exactly its own flows. Goes red when a term is wrong.
#[test]
fn j3_predefined_applications_match_their_flows() {
    let query = crate::addr::ICMP_QUERY_PORT;
    for (name, protocol, port, hit) in [
        ("ssh", TCP, 22, true),
        ("ssh", UDP, 22, false),
        ("ssh", TCP, 23, false),
        ("dns", UDP, 53, true),
        ("dns", TCP, 53, true),
        ("tftp", UDP, 69, true),
        ("ike", UDP, 4500, true),
        ("snmp", UDP, 162, true),
        ("ping", ICMP, query, true),
        ("ping", ICMPV6, query, true),
        ("ping", ICMP, 0, false),
        ("icmp-any", ICMP, 0, true),
        ("gre", GRE, 0, true),
        ("esp", ESP, 0, true),
        ("esp", GRE, 0, false),
    ] {
        let application = format!("{name:?}");
        let text = format!("{PAIR}{}", rule("r", AB, ["\"any\"", "\"any\"", &application], "permit"));
        let flow = tuple("10.0.0.1", "10.9.0.1", protocol, 7, port);
        assert_eq!(!Fixture::new(&text).rule(&flow).is_empty(), hit, "{name} {protocol} {port}");
    }
}

/// The compiled policy crosses threads. Goes red (does not compile) when it holds an `Rc` or a cell.
#[test]
fn a_policy_is_shared_between_workers() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
    shared::<CheckReport>();
}
