//! The compiled policy against the plainest possible reading of the file, on random files.

use super::*;
use crate::policy::{AddressRef, Application, ApplicationRef, PREDEFINED, PolicyFile, Rule, Ttl, ZoneRef};
use crate::session::timeouts::TimeoutSource as Source;
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

const ZONES: [&str; 3] = ["a", "b", "c"];
const PREFIXES: [&str; 14] = [
    "10.0.0.0/30",
    "10.0.0.0/31",
    "10.0.0.2/31",
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "2001:db8::/127",
    "2001:db8::",
    "2001:db8::1",
    "::/0",
    "2000::/3",
];
/// One address in each cell that the prefixes cut out.
const ADDRESSES: [&str; 10] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "11.0.0.0",
    "2001:db8::",
    "2001:db8::1",
    "2001:db8::2",
    "fe80::1",
];
const PROTOCOLS: [u8; 5] = [6, 17, 1, 47, 132];
const PORTS: [u16; 6] = [0, 21, 22, 23, 80, 65_535];

fn application(i: usize) -> impl Strategy<Value = String> {
    let port = || select(PORTS.to_vec());
    let term = (select(PROTOCOLS.to_vec()), port(), port(), port(), port()).prop_map(|(p, a, b, c, d)| {
        let ports = format!(
            "destination_port = \"{}-{}\"\nsource_port = \"{}-{}\"\n",
            a.min(b),
            a.max(b),
            c.min(d),
            c.max(d)
        );
        format!("[[application.term]]\nprotocol = {p}\n{}", if matches!(p, 1 | 47) { "" } else { &ports })
    });
    let timeout =
        prop_oneof![Just(String::new()), (1u32..5).prop_map(|t| format!("inactivity_timeout = {t}\n"))];
    (timeout, prop::collection::vec(term, 1..4))
        .prop_map(move |(t, terms)| format!("[[application]]\nname = \"app{i}\"\n{t}{}", terms.concat()))
}

fn list(items: Vec<&'static str>, any: u32) -> impl Strategy<Value = String> {
    let some = prop::collection::btree_set(select(items), 1..4)
        .prop_map(|set| format!("[{}]", set.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ")));
    prop_oneof![any => Just("\"any\"".to_string()), 4 => some]
}

fn rule() -> impl Strategy<Value = String> {
    let zone = || select(vec!["a", "b", "c", "any"]);
    let addresses = || list([PREFIXES.as_slice(), &["set0", "set1", "set2"]].concat(), 2);
    let applications = list(vec!["app0", "app1", "app2", "http", "ping", "tcp-any", "any"], 2);
    let action = select(vec!["permit", "deny", "reject"]);
    let more = select(vec![
        "",
        "enabled = false\n",
        "session_ttl = 9\n",
        "session_ttl = \"never\"\n",
        "log = true\n",
    ]);
    (zone(), zone(), addresses(), addresses(), applications, action, more).prop_map(|(f, t, s, d, a, action, more)| {
        format!(
            "from = {f:?}\nto = {t:?}\nsource = {s}\ndestination = {d}\napplication = {a}\naction = {action:?}\n{more}"
        )
    })
}

fn port_entries() -> impl Strategy<Value = String> {
    let ports = prop_oneof![
        Just(String::new()),
        (select(PORTS.to_vec()), select(PORTS.to_vec())).prop_map(|(a, b)| format!(
            "start_port = {}\nend_port = {}\n",
            a.min(b),
            a.max(b)
        ))
    ];
    let protocol = select(vec![0, 0, 6, 17, 132]);
    let entry = (protocol, ports, 1u32..5)
        .prop_map(|(p, ports, t)| format!("protocol = {p}\ntimeout = {t}\n{ports}"));
    prop::collection::vec(entry, 0..6).prop_map(|entries| {
        entries
            .iter()
            .enumerate()
            .map(|(i, e)| format!("[[session_ttl.port]]\nid = {}\n{e}", 100 - i))
            .collect()
    })
}

/// A file without errors, with up to `rules_max` rules.
fn policy(rules_max: usize) -> impl Strategy<Value = String> {
    let zones: String = ZONES.iter().map(|z| format!("[[zone]]\nname = {z:?}\n")).collect();
    let sets = prop::collection::vec(prop::collection::btree_set(select(PREFIXES.to_vec()), 1..5), 3);
    let default = select(vec!["", "[session_ttl]\ndefault = 400\n"]);
    let applications = (application(0), application(1), application(2));
    (sets, applications, default, port_entries(), prop::collection::vec(rule(), 0..rules_max)).prop_map(
        move |(sets, (x, y, z), default, ports, rules)| {
            let sets: String = sets
                .iter()
                .enumerate()
                .map(|(i, set)| {
                    format!("[[address_set]]\nname = \"set{i}\"\nprefixes = {set:?}\n")
                        .replace(['{'], "[")
                        .replace('}', "]")
                })
                .collect();
            let rules: String =
                rules.iter().enumerate().map(|(i, r)| format!("[[rule]]\nname = \"r{i}\"\n{r}")).collect();
            format!("{zones}{sets}{x}{y}{z}{default}{ports}{rules}")
        },
    )
}

fn flow() -> impl Strategy<Value = (usize, usize, Tuple)> {
    let address = || select(ADDRESSES.to_vec());
    let port = || select(PORTS.to_vec());
    (
        0..3usize,
        0..3usize,
        address(),
        address(),
        select([PROTOCOLS.as_slice(), &[0, 58]].concat()),
        port(),
        port(),
    )
        .prop_map(|(f, t, s, d, p, sp, dp)| (f, t, tuple(s, d, p, sp, dp)))
        // No packet has addresses of both families, and rules that only such a flow would meet are not searched.
        .prop_filter("addresses of one family", |(_, _, t)| t.src.is_v4() == t.dst.is_v4())
}

fn address_matches(file: &PolicyFile, side: &[AddressRef], address: Addr) -> bool {
    let holds = |p: &IpNet| p.contains(&address.to_ip());
    side.iter().any(|a| match a {
        AddressRef::Any => true,
        AddressRef::Set(i) => file.address_sets[*i as usize].prefixes.iter().any(holds),
        AddressRef::Prefix(p) => holds(p),
    })
}

fn application_matches(file: &PolicyFile, application: ApplicationRef, t: &Tuple) -> bool {
    let hit = |terms: &[crate::policy::Term]| {
        terms.iter().any(|x| {
            x.protocol == t.protocol
                && (x.source.first..=x.source.last).contains(&t.src_port)
                && (x.destination.first..=x.destination.last).contains(&t.dst_port)
        })
    };
    match application {
        ApplicationRef::Any => true,
        ApplicationRef::Predefined(i) => hit(PREDEFINED[usize::from(i)].terms),
        ApplicationRef::Own(i) => hit(&file.applications[usize::from(i)].terms),
    }
}

pub(super) fn rule_matches(file: &PolicyFile, rule: &Rule, from: usize, to: usize, t: &Tuple) -> bool {
    let zone = |z: ZoneRef, i: usize| z == ZoneRef::Any || z == ZoneRef::Zone(i as u16);
    rule.enabled
        && zone(rule.from, from)
        && zone(rule.to, to)
        && address_matches(file, &rule.source, t.src)
        && address_matches(file, &rule.destination, t.dst)
        && rule.application.iter().any(|a| application_matches(file, *a, t))
}

/// F5, read off the table in the specification.
fn timeout(file: &PolicyFile, rule: Option<&Rule>, t: &Tuple) -> TimeoutClass {
    let class = |ttl: Ttl, source| TimeoutClass { timeout_ms: ttl.timeout_ms(), source };
    let matched = rule.and_then(|r| r.application.iter().copied().find(|a| application_matches(file, *a, t)));
    if let Some(ApplicationRef::Own(i)) = matched {
        let Application { inactivity_timeout, .. } = &file.applications[usize::from(i)];
        if let Some(ttl) = inactivity_timeout {
            return class(*ttl, Source::Application);
        }
    }
    if let Some(ttl) = rule.and_then(|r| r.session_ttl) {
        return class(ttl, Source::Rule);
    }
    let ported = matches!(t.protocol, 6 | 17 | 132);
    let covering = file.session_ttl.ports.iter().filter(|e| {
        (e.protocol == 0 || e.protocol == t.protocol)
            && e.ports.is_none_or(|p| ported && p.first <= t.dst_port && t.dst_port <= p.last)
    });
    let width = |e: &crate::policy::PortTtl| e.ports.map_or(65_536, |p| p.width());
    if let Some(e) = covering.min_by_key(|e| (e.protocol == 0, width(e), e.id)) {
        return class(e.timeout, Source::PortEntry(e.id));
    }
    if let (Some(ttl), 6 | 132) = (file.session_ttl.default, t.protocol) {
        return class(ttl, Source::SessionTtlDefault);
    }
    let web = t.protocol == 6 && t.dst_port == 80;
    let named = match matched {
        Some(ApplicationRef::Any) => true,
        Some(ApplicationRef::Predefined(i)) => PREDEFINED[usize::from(i)].name == "http",
        _ => false,
    };
    if web && named {
        return class(Ttl::Seconds(300), Source::PredefinedApplication);
    }
    class(Ttl::Seconds(if t.protocol == 6 { 1800 } else { 60 }), Source::Protocol)
}

fn agree(text: &str, flows: &[(usize, usize, Tuple)]) -> Result<(), TestCaseError> {
    let fixture = Fixture::new(text);
    let file = check(text, "p").file.unwrap();
    for (from, to, t) in flows {
        let expected = file.rules.iter().position(|r| rule_matches(&file, r, *from, *to, t));
        let got = fixture.judge(ZONES[*from], ZONES[*to], t);
        prop_assert_eq!(got.rule, expected.map(|i| fixture.policy.rules()[i].id), "{:?}\n{}", t, text);
        let rule = expected.map(|i| &file.rules[i]);
        prop_assert_eq!(got.action, rule.map_or(crate::policy::Action::Deny, |r| r.action));
        prop_assert_eq!(got.log, rule.is_some_and(|r| r.log));
        let class = fixture.policy.classes()[usize::from(got.class.0)];
        prop_assert_eq!(class, timeout(&file, rule, t), "{:?}\n{}", t, text);
    }
    Ok(())
}

/// A family-pure flow from every cell that files of `policy` can tell apart.
fn every_flow() -> Vec<(usize, usize, Tuple)> {
    let mut flows = Vec::new();
    for (from, to) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
        for src in ADDRESSES {
            for dst in ADDRESSES.iter().filter(|d| d.contains(':') == src.contains(':')) {
                flows.push((from, to, tuple(src, dst, 0, 0, 0)));
            }
        }
    }
    flows
}

fn services() -> Vec<(u8, u16, u16)> {
    // A port in each cell between the borders.
    let ports = [0, 1, 21, 22, 23, 24, 80, 81, 65_535];
    let mut all = vec![(0, 0, 0), (58, 0, 0), (58, 0, 65_535)];
    for protocol in PROTOCOLS {
        all.extend(ports.iter().flat_map(|s| ports.iter().map(move |d| (protocol, *s, *d))));
    }
    all
}

/// Whether every flow of `b` is one of `a`, and `b` has any: by trying all.
fn covers(
    file: &PolicyFile,
    a: &Rule,
    b: &Rule,
    flows: &[(usize, usize, Tuple)],
    services: &[(u8, u16, u16)],
) -> bool {
    let mut some = false;
    // The services of a rule do not depend on zones and addresses.
    let plain = |r: &Rule| Rule { application: vec![ApplicationRef::Any], ..r.clone() };
    let (pa, pb) = (plain(a), plain(b));
    for (from, to, t) in flows {
        if rule_matches(file, &pb, *from, *to, t) {
            some = true;
            if !rule_matches(file, &pa, *from, *to, t) {
                return false;
            }
        }
    }
    let hit = |r: &Rule, t: &Tuple| r.application.iter().any(|x| application_matches(file, *x, t));
    some && services.iter().all(|(p, s, d)| {
        let t = Tuple { protocol: *p, src_port: *s, dst_port: *d, ..Tuple::default() };
        // Whole-protocol terms for all protocols do not exist, so `any` is told apart by protocol 0.
        !hit(b, &t) || hit(a, &t)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goes red when the matcher or the timeout table departs from a linear reading in anything.
    #[test]
    fn evaluate_agrees_with_a_linear_search(text in policy(12), flows in prop::collection::vec(flow(), 40)) {
        agree(&text, &flows)?;
    }

    /// Goes red when a shadowed rule is missed, another rule is called shadowed, or not the first
    /// covering rule is named.
    #[test]
    fn shadowed_rules_are_exactly_those_that_trying_all_flows_finds(text in policy(7)) {
        let report = check(&text, "p");
        let file = report.file.as_ref().unwrap();
        let (flows, services) = (every_flow(), services());
        let mut expected = Vec::new();
        for (i, rule) in file.rules.iter().enumerate().filter(|(_, r)| r.enabled) {
            let by = file.rules[..i].iter().find(|a| a.enabled && covers(file, a, rule, &flows, &services));
            expected.extend(by.map(|by| format!("rule `{}` never matches: rule `{}`", rule.name, by.name)));
        }
        let got: Vec<_> = report.warnings.iter().filter_map(|w| w.message.split(" in line").next())
            .filter(|m| m.contains("never matches: rule")).map(String::from).collect();
        prop_assert_eq!(got, expected, "{}", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// As above over several bitmap words and summaries. Goes red when rules beyond the 64th or the
    /// 4,096th are lost or misnumbered.
    #[test]
    fn evaluate_agrees_with_a_linear_search_over_many_rules(
        text in policy(80),
        flows in prop::collection::vec(flow(), 60),
        silent in 0..4200usize,
    ) {
        let filler: String = (0..silent).map(|i| format!(
            "[[rule]]\nname = \"f{i}\"\nfrom = \"a\"\nto = \"a\"\nsource = \"172.16.0.1\"\ndestination = \"any\"\n\
             application = \"ssh\"\naction = \"deny\"\n")).collect();
        let at = text.find("[[rule]]").unwrap_or(text.len());
        agree(&format!("{}{filler}{}", &text[..at], &text[at..]), &flows)?;
    }
}

/// Pieces that are put into files to break them.
const PIECES: [&str; 22] = [
    "[[rule]]\n",
    "[tcp]\n",
    "=",
    "\"",
    "'''",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "never",
    "any",
    "-1",
    "0x",
    "1e400",
    "\u{0}",
    "é",
    ".",
    "2764801",
    "99999999999999999999",
    "true",
    "#",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goes red when a broken file panics the check, or passes and then does not compile.
    #[test]
    fn broken_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, 0..40usize), 1..6)) {
        let mut text: Vec<char> = include_str!("../../../../deploy/examples/policy.toml").chars().collect();
        for (place, cut, piece) in edits {
            let at = place.index(text.len());
            let end = (at + cut).min(text.len());
            let insert: Vec<char> = PIECES.get(piece).unwrap_or(&"").chars().collect();
            text.splice(at..end, insert);
        }
        let text: String = text.into_iter().collect();
        let report = check(&text, "p");
        prop_assert_eq!(report.file.is_some(), report.errors.is_empty());
        if let Some(file) = report.file {
            let mut names = Names::default();
            let policy = compile(&file, 1, &mut names).unwrap();
            policy.evaluate(ZoneId(0), ZoneId(1), &tuple("192.0.2.1", "192.0.2.2", 6, 1, 22));
        }
    }

    /// Goes red when any text at all panics the check.
    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&text, "p");
        check(&String::from_utf8_lossy(&bytes), "p");
    }
}

/// Goes red when nesting overflows the stack.
#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let deep = 200_000;
    assert!(!check(&format!("a = {}", "[".repeat(deep)), "p").errors.is_empty());
    assert!(!check(&format!("a = {}", "{a=".repeat(deep)), "p").errors.is_empty());
    assert!(!check(&format!("[{}a]\n", "a.".repeat(deep)), "p").errors.is_empty());
    assert!(!check(&format!("{}a = 1\n", "a.".repeat(deep)), "p").errors.is_empty());
}
