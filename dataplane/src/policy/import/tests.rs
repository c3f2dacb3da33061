//! Imports as an operator sees them: the file that comes out, and what is said about each line.

use super::super::{Action, PolicyFile, Ttl, check};
use super::{Imported, Vendor, import};

/// The imported file, which must pass its own check.
fn checked(imported: &Imported) -> PolicyFile {
    let report = check(&imported.policy, "imported.toml");
    assert!(report.errors.is_empty(), "{:#?}\n{}", report.errors, imported.policy);
    report.file.unwrap()
}

fn lines(imported: &Imported) -> Vec<u32> {
    imported.not_taken.iter().map(|n| n.line).collect()
}

/// Red when a flow setting is mapped to another key, or forgotten without a word.
#[test]
fn junos_flow_settings_are_taken_over() {
    let text = "\
set security flow tcp-session rst-invalidate-session
set security flow tcp-session fin-invalidate-session
set security flow tcp-session no-syn-check
set security flow tcp-session no-sequence-check
set security flow tcp-session tcp-initial-timeout 40
set security flow tcp-session time-wait-state session-timeout 60
set security flow tcp-session time-wait-state apply-to-half-close-state
set security flow tcp-mss all-tcp mss 1350
set security flow aging early-ageout 20
set security flow tcp-session tcp-initial-timeout 3
set system host-name fw";
    let imported = import(Vendor::Junos, text);
    assert_eq!((imported.lines_taken, lines(&imported)), (8, vec![9, 10, 11]), "{imported:#?}");
    let file = checked(&imported);
    assert!(file.tcp.rst_invalidate && file.tcp.fin_invalidate && file.tcp.half_close_time_wait);
    assert!(!file.tcp.syn_check);
    assert_eq!(file.tcp.initial_timeout_s, 40);
    for key in ["sequence_check = false", "all_tcp = 1350", "time_wait = 60"] {
        assert!(imported.policy.contains(key), "{key}: {}", imported.policy);
    }
}

const RULES: &str = r#"
# a comment
set security address-book global address web-1 192.0.2.10/32
set security address-book global address web-2 192.0.2.11/32
set security address-book global address-set web address web-1
set security address-book global address-set web address web-2
set security address-book global address lab range-address 10.0.0.4 to 10.0.0.11
set security address-book global address cdn dns-name cdn.example.com
set applications application pg protocol tcp
set applications application pg destination-port 5432
set applications application pg inactivity-timeout never
set applications application rpc term t1 protocol udp
set applications application rpc term t1 rpc-program-number 100003
set security policies from-zone trust to-zone dmz policy web match source-address any
set security policies from-zone trust to-zone dmz policy web match destination-address web
set security policies from-zone trust to-zone dmz policy web match application [ junos-http junos-dns-udp ]
set security policies from-zone trust to-zone dmz policy web then permit
set security policies from-zone trust to-zone dmz policy web then log session-close
set security policies from-zone trust to-zone dmz policy db description "the database"
set security policies from-zone trust to-zone dmz policy db match source-address lab
set security policies from-zone trust to-zone dmz policy db match destination-address any-ipv4
set security policies from-zone trust to-zone dmz policy db match application pg
set security policies from-zone trust to-zone dmz policy db then reject
set security policies from-zone trust to-zone dmz policy nfs match source-address any
set security policies from-zone trust to-zone dmz policy nfs match destination-address any
set security policies from-zone trust to-zone dmz policy nfs match application rpc
set security policies from-zone trust to-zone dmz policy nfs then deny
set security policies global policy last match source-address any
set security policies global policy last match destination-address any
set security policies global policy last match application any
set security policies global policy last then deny
deactivate security policies global policy last
set security policies default-policy permit-all
"#;

/// Red when a rule loses a part of what it matches on, or order, log flag, action or activity.
#[test]
fn junos_policies_become_rules() {
    let imported = import(Vendor::Junos, RULES);
    let file = checked(&imported);
    let names: Vec<_> = file.rules.iter().map(|r| (&*r.name, r.action, r.log, r.enabled)).collect();
    let expected = [
        ("web", Action::Permit, true, true),
        ("db", Action::Reject, false, true),
        ("last", Action::Deny, false, false),
        ("default-policy", Action::Permit, false, true),
    ];
    assert_eq!(names, expected);
    assert!(
        imported.policy.contains(r#"prefixes = ["192.0.2.10/32", "192.0.2.11/32"]"#),
        "{}",
        imported.policy
    );
    assert!(imported.policy.contains(r#"prefixes = ["10.0.0.4/30", "10.0.0.8/30"]"#), "{}", imported.policy);
    assert!(imported.policy.contains(r#"application = ["http", "junos-dns-udp"]"#), "{}", imported.policy);
    assert!(imported.policy.contains(r#"inactivity_timeout = "never""#));
    assert_eq!(file.zones.iter().map(|z| &*z.name).collect::<Vec<_>>(), ["trust", "dmz"]);
}

/// Red when a policy that is only half understood is taken over: without its application it would match more.
#[test]
fn a_policy_with_an_unknown_part_is_left_out_as_a_whole() {
    let imported = import(Vendor::Junos, RULES);
    // The name that is resolved by DNS, the RPC application, and all four lines of the policy that needs it.
    assert_eq!(lines(&imported), [8, 12, 13, 24, 25, 26, 27], "{:#?}", imported.not_taken);
    let said = &imported.not_taken.last().unwrap().reason;
    assert!(said.contains("nfs") && said.contains("may permit what it denies"), "{said}");
    assert!(!imported.policy.contains("nfs"));
}

/// Red when what is inactive in the source acts here all the same, or is passed over without a word.
#[test]
fn what_is_deactivated_is_as_if_it_were_not_there() {
    let text = "\
deactivate security flow tcp-session rst-invalidate-session
set security flow tcp-session rst-invalidate-session
set security flow tcp-session fin-invalidate-session
set security address-book global address a 10.0.0.1/32
set security address-book global address b 10.0.0.2/32
set security address-book global address-set both address a
set security address-book global address-set both address b
deactivate security address-book global address-set both address b
set security policies from-zone x to-zone y policy p match source-address both
set security policies from-zone x to-zone y policy p match destination-address any
set security policies from-zone x to-zone y policy p match application any
set security policies from-zone x to-zone y policy p then permit
set security policies from-zone x to-zone y policy p then log session-init
deactivate security policies from-zone x to-zone y policy p then log
set security policies from-zone x to-zone junos-host policy q match source-address any";
    let imported = import(Vendor::Junos, text);
    assert_eq!(lines(&imported), [2, 7, 13, 15], "{:#?}", imported.not_taken);
    let file = checked(&imported);
    assert!(!file.tcp.rst_invalidate && file.tcp.fin_invalidate);
    assert!(imported.policy.contains(r#"prefixes = ["10.0.0.1/32"]"#), "{}", imported.policy);
    assert!(!file.rules[0].log && file.rules[0].enabled);
    assert!(file.zones.iter().all(|zone| &*zone.name != "junos-host"));
}

/// Red when a policy for the firewall itself becomes a rule for transit, or is passed over without a word.
#[test]
fn policies_for_the_firewall_itself_are_listed() {
    let text = "\
set security policies from-zone x to-zone junos-host policy p match source-address any
set security policies from-zone junos-host to-zone x policy p then permit
deactivate security policies from-zone x to-zone junos-host policy p
set security policies global policy g match source-address any
set security policies global policy g match destination-address any
set security policies global policy g match application any
set security policies global policy g match to-zone [ y junos-host ]
set security policies global policy g then permit";
    let imported = import(Vendor::Junos, text);
    assert_eq!(lines(&imported), [1, 2, 3, 4, 5, 6, 7, 8], "{:#?}", imported.not_taken);
    let own = [0, 1, 2, 6].map(|i| &*imported.not_taken[i].reason);
    assert_eq!(own, ["it is about traffic of the firewall itself"; 4]);
    let file = checked(&imported);
    assert!(file.rules.is_empty() && file.zones.iter().all(|zone| !zone.name.contains("host")));
}

/// Red when a `deactivate` that finds nothing is counted as taken, makes a rule of its own, takes everything with
/// it, or leaves a policy as it is of which it was to take something away.
#[test]
fn a_deactivate_that_finds_nothing_is_listed() {
    let text = "\
set security flow tcp-session no-syn-check
deactivate
deactivate security flow tcp-session rst-invalidate-session
deactivate security policies from-zone x to-zone y policy gone
deactivate security policies from-zone x to-zone y policy p match source-address a
set security address-book global address a 10.0.0.1/32
set security address-book global address b 10.0.0.2/32
set security policies from-zone x to-zone y policy p match source-address [ a b ]
set security policies from-zone x to-zone y policy p match destination-address any
set security policies from-zone x to-zone y policy p match application any
set security policies from-zone x to-zone y policy p then permit
deactivate security flow tcp-session no-syn";
    let imported = import(Vendor::Junos, text);
    assert_eq!(lines(&imported), [2, 3, 4, 5, 8, 9, 10, 11, 12], "{:#?}", imported.not_taken);
    assert_eq!(imported.lines_taken, 3);
    assert!(imported.not_taken[0].reason.contains("no `set` line"), "{:#?}", imported.not_taken);
    assert!(imported.not_taken[4].reason.contains("line 5, no `set` line"), "{:#?}", imported.not_taken);
    let file = checked(&imported);
    assert!(!file.tcp.syn_check && file.rules.is_empty());
}

/// Red when a renamed object is renamed in one place only, or without a note.
#[test]
fn names_that_the_file_cannot_hold_are_changed_everywhere_and_noted() {
    let text = "\
set security address-book global address 10.1.0.0/16 10.1.0.0/16
set applications application ssh protocol tcp destination-port 2222
set security policies from-zone a to-zone b policy p!q match source-address 10.1.0.0/16
set security policies from-zone a to-zone b policy p!q match destination-address any
set security policies from-zone a to-zone b policy p!q match application ssh
set security policies from-zone a to-zone b policy p!q then permit";
    let imported = import(Vendor::Junos, text);
    let file = checked(&imported);
    assert!(imported.not_taken.is_empty(), "{:#?}", imported.not_taken);
    assert_eq!(file.rules.len(), 1);
    assert!(imported.policy.contains(r#"application = ["ssh_2"]"#), "{}", imported.policy);
    assert!(imported.policy.contains(r#"source = ["10.1.0.0_16"]"#), "{}", imported.policy);
    assert_eq!(imported.notes.len(), 2, "{:#?}", imported.notes);
}

/// Red when the vendor's 3600 s is not written out, an entry changes its meaning, or a bad one is taken.
#[test]
fn f1_f2_fortios_session_ttl_is_taken_over() {
    let text = "\
config system session-ttl
    config port
        edit 7
            set protocol 6
            set timeout 7200
            set start-port 22
            set end-port 23
        next
        edit 8
            set protocol 17
            set timeout never
        next
        edit 9
            set protocol 1
            set start-port 5
            set end-port 6
        next
    end
end
config system global
    set hostname fw
end";
    let imported = import(Vendor::FortiOs, text);
    assert_eq!(lines(&imported), [13, 14, 15, 16, 17, 20, 21, 22], "{:#?}", imported.not_taken);
    let file = checked(&imported);
    assert_eq!(file.session_ttl.default, Some(Ttl::Seconds(3600)));
    let ports: Vec<_> = file.session_ttl.ports.iter().map(|p| (p.id, p.protocol, p.timeout)).collect();
    assert_eq!(ports, [(7, 6, Ttl::Seconds(7200)), (8, 17, Ttl::Never)]);
}

/// Red when text that is no configuration panics, or is passed over without a word.
#[test]
fn nonsense_is_listed_line_by_line() {
    for vendor in [Vendor::Junos, Vendor::FortiOs] {
        for text in [
            "x",
            "set",
            "set \"",
            "set security policies from-zone",
            "end\nnext\nedit",
            "deactivate security policies",
        ] {
            let imported = import(vendor, text);
            assert_eq!(imported.not_taken.len(), text.lines().count(), "{vendor:?} {text}: {imported:?}");
            checked(&imported);
        }
    }
}
