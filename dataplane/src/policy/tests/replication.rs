//! `[replication]` and what rules say of it: the inequalities of `spec/replication.md`, what a rule's word
//! is worth, and what the settings mean in milliseconds.

use super::diagnostics::{ALL, PAIR};
use super::*;
use crate::policy::{OnTimeout, SetupAck};

fn with(settings: &str) -> CheckReport {
    check(&format!("{PAIR}{ALL}[replication]\n{settings}\n"), "p")
}

/// The errors, then the warnings, with the line within the settings.
fn findings(settings: &str) -> Vec<String> {
    let report = with(settings);
    report.errors.iter().chain(&report.warnings).map(|d| format!("{} {}", d.line - 13, d.message)).collect()
}

fn rule(more: &str) -> String {
    format!("{PAIR}{}{more}\n", ALL)
}

/// Goes red when a value is not what the file says, or a default is another one.
#[test]
fn settings_are_read_and_have_defaults() {
    let none = Fixture::new(&format!("{PAIR}{ALL}"));
    let s = none.policy.replication();
    assert_eq!((s.heartbeat_interval_ms, s.heartbeat_misses, s.detection_ms()), (20, 5, 100));
    assert_eq!((s.setup_ack, s.setup_ack_on_timeout), (SetupAck::None, OnTimeout::Release));
    assert!(s.setup_ack_timeout_ms > s.detection_ms());
    assert_eq!((s.park_ms, s.min_age_s), (None, 0));
    for (protocol, synced) in
        [(6, true), (17, true), (132, true), (47, true), (50, true), (1, false), (58, false)]
    {
        assert_eq!(s.protocols.holds(protocol), synced, "{protocol}");
    }
    let all = Fixture::new(&format!(
        "{PAIR}{ALL}[replication]\nheartbeat_interval_ms = 100\nheartbeat_misses = 3\nsetup_ack = \"all\"\n\
         setup_ack_timeout_ms = 400\nsetup_ack_on_timeout = \"drop\"\npark_ms = 60\nprotocols = [\"tcp\", 58]\n\
         min_age_s = 9\n"
    ));
    let s = all.policy.replication();
    assert_eq!((s.detection_ms(), s.setup_ack, s.setup_ack_timeout_ms), (300, SetupAck::All, 400));
    assert_eq!((s.setup_ack_on_timeout, s.park_ms, s.min_age_s), (OnTimeout::Drop, Some(60), 9));
    assert_eq!(s.protocols.iter().collect::<Vec<_>>(), [6, 58]);
}

/// Goes red when the parking time that nobody configured leaves its bounds, or one that was is changed.
#[test]
fn parking_follows_the_round_trip_within_its_bounds() {
    let unset = *Fixture::new(&format!("{PAIR}{ALL}")).policy.replication();
    for (round_trip_us, ms) in
        [(0, 20), (200, 20), (9_400, 20), (9_600, 21), (40_000, 81), (100_000, 200), (u64::MAX, 200)]
    {
        assert_eq!(unset.parking_ms(round_trip_us), ms, "{round_trip_us}");
    }
    let set = Fixture::new(&format!("{PAIR}{ALL}[replication]\npark_ms = 500\n"));
    assert_eq!(set.policy.replication().parking_ms(1_000_000), 500);
}

/// Goes red when an inequality is not checked, or one that holds is refused.
#[test]
fn inequalities_are_checked() {
    for (settings, message) in [
        (
            "heartbeat_interval_ms = 1000\nheartbeat_misses = 11",
            "2 a dead node would be seen after 11000 ms (heartbeat_interval_ms x heartbeat_misses), which is \
             above 10000 ms",
        ),
        (
            "park_ms = 1",
            "1 `park_ms` is 1: a packet would be dropped before its session can come, as peers are told within \
             1 ms and a round trip",
        ),
    ] {
        assert_eq!(findings(settings), [message], "{settings}");
    }
    let slow = "heartbeat_interval_ms = 1000\nheartbeat_misses = 5\n[timeouts]\nudp = 5";
    assert_eq!(
        findings(slow),
        [
            "2 a dead node is seen after 5000 ms, but sessions may idle for 5 s only (timeouts.udp): they would be \
          over before anybody else may decide so"
        ]
    );
    for fine in ["heartbeat_interval_ms = 1000\nheartbeat_misses = 5", "park_ms = 0", "park_ms = 20"] {
        assert_eq!(findings(fine), [""; 0], "{fine}");
    }
    assert_eq!(findings(&format!("protocols = [6]\n{slow}")), [""; 0], "UDP is not replicated here");
}

/// Goes red when waiting for peers is set up so that it does harm, or nothing, and nobody says so.
#[test]
fn waiting_that_harms_or_does_nothing_is_warned_about() {
    let wait = "setup_ack = \"one\"\n";
    for (settings, line, part) in [
        ("setup_ack_timeout_ms = 80".into(), 1, "has no effect"),
        ("setup_ack_on_timeout = \"drop\"".into(), 1, "has no effect"),
        (format!("{wait}setup_ack_timeout_ms = 1000"), 2, "clients repeat a SYN"),
        (format!("{wait}setup_ack_timeout_ms = 100\nsetup_ack_on_timeout = \"drop\""), 2, "are dropped"),
    ] {
        let found = findings(&settings);
        assert_eq!(found.len(), 1, "{settings}: {found:?}");
        assert!(
            found[0].starts_with(&format!("{line} ")) && found[0].contains(part),
            "{settings}: {found:?}"
        );
    }
    assert_eq!(
        findings(&format!("{wait}setup_ack_timeout_ms = 101\nsetup_ack_on_timeout = \"drop\"")),
        [""; 0]
    );
    let by_rule =
        check(&format!("{}[replication]\nsetup_ack_timeout_ms = 80\n", rule("setup_ack = \"one\"")), "p");
    assert_eq!(print(&by_rule), "", "a rule waits");
}

/// Goes red when a value that is none of the choices is taken, or the refusal names no way out.
#[test]
fn choices_and_lists_are_checked() {
    for (settings, message) in [
        ("setup_ack = \"any\"", "`setup_ack` in [replication] is `any`, not \"none\" or \"one\" or \"all\""),
        (
            "setup_ack_on_timeout = \"deny\"",
            "`setup_ack_on_timeout` in [replication] is `deny`, not \"release\" or \"drop\"",
        ),
        ("protocols = \"tcp\"", "`protocols` in [replication] is the string `tcp`, not a list"),
        ("protocols = []", "`protocols` in [replication] is empty: no session would be replicated"),
        (
            "protocols = [\"tpc\"]",
            "`protocol` in `protocols` of [replication] is `tpc`, not a protocol name or a number from 0 to 255",
        ),
        (
            "protocols = [256]",
            "`protocol` in `protocols` of [replication] is `256`, not a protocol name or a number from 0 to 255",
        ),
        (
            "heartbeat_interval_ms = 4",
            "`heartbeat_interval_ms` in [replication] is `4`, which is out of range: an integer from 5 to 1000",
        ),
    ] {
        let report = with(settings);
        assert_eq!(report.errors.len(), 1, "{}", print(&report));
        assert_eq!(report.errors[0].message, message);
    }
    assert_eq!(
        findings("protocols = [6, \"tcp\"]"),
        ["1 protocol 6 stands twice in `protocols` of [replication]"]
    );
    let any = Fixture::new(&format!("{PAIR}{ALL}[replication]\nprotocols = \"any\"\n"));
    assert_eq!(any.policy.replication().protocols.iter().count(), 256);
}

/// Goes red when a rule's own word does not come before the section's, or something waits for peers that
/// are never told.
#[test]
fn a_rule_decides_for_its_flows() {
    let tcp = tuple("10.0.0.1", "10.0.0.2", 6, 1, 2);
    let ping = tuple("10.0.0.1", "10.0.0.2", 1, 1, 2);
    use SetupAck::{All, None, One};
    for (of_rule, settings, of_tcp, of_ping) in [
        ("", "", (true, None), (false, None)),
        ("sync = false", "", (false, None), (false, None)),
        ("sync = true", "", (true, None), (true, None)),
        ("", "setup_ack = \"one\"", (true, One), (false, None)),
        ("sync = true", "setup_ack = \"one\"", (true, One), (true, One)),
        ("sync = false", "setup_ack = \"one\"", (false, None), (false, None)),
        ("setup_ack = \"all\"", "setup_ack = \"one\"", (true, All), (false, None)),
        ("setup_ack = \"none\"", "setup_ack = \"one\"", (true, None), (false, None)),
        ("", "protocols = [\"icmp\"]", (false, None), (true, None)),
    ] {
        let f = Fixture::new(&format!("{}[replication]\n{settings}\n", rule(of_rule)));
        let judged = |t| {
            let j = f.judge("a", "b", t);
            (j.sync, j.setup_ack)
        };
        assert_eq!((judged(&tcp), judged(&ping)), (of_tcp, of_ping), "{of_rule} / {settings}");
        let denied = f.judge("b", "a", &tcp);
        assert_eq!((denied.sync, denied.setup_ack), (false, None));
    }
    let errors = |text: &str| check(text, "p").errors.iter().map(|d| d.message.clone()).collect::<Vec<_>>();
    assert_eq!(
        errors(&rule("sync = false\nsetup_ack = \"one\"")),
        ["`setup_ack` in rule `all` waits for peers that `sync` keeps out"]
    );
    for key in ["sync = true", "setup_ack = \"none\""] {
        let found = errors(&rule(key).replace("permit", "deny"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with("goes with action = \"permit\" only"), "{found:?}");
    }
}
