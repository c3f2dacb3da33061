//! Selective sync: which sessions other nodes hear of, and from which age.

use super::replica::{Cluster, Told};
use super::*;
use crate::session::EndReason;
use crate::session::copy::EndNote;

fn replicated(settings: &str) -> String {
    format!("{POLICY}[replication]\n{settings}\n")
}

fn of_rule(more: &str) -> String {
    POLICY.replace("\"permit\"", &format!("\"permit\"\n{more}"))
}

fn traffic(c: &mut Cluster) {
    let lab = c.of(1);
    lab.connect(4000, 80);
    assert_eq!(lab.verdict(OUT, udp(true, 4000, 53, 8)), Verdict::Transmit(IN));
    assert_eq!(lab.verdict(OUT, echo(CLIENT, SERVER, false, 7)), Verdict::Transmit(IN));
}

/// Protocols of the sessions that a node has.
fn protocols(lab: &Lab) -> Vec<u8> {
    let mut all: Vec<u8> = lab.sessions().iter().map(|s| s.wings[0].tuple.protocol).collect();
    all.sort_unstable();
    all
}

/// Red when policy does not decide what others hear of: ICMP is not told unless it is wanted.
#[test]
fn policy_says_what_is_told() {
    for (policy, told) in [
        (POLICY.to_string(), vec![6, 17]),
        (replicated("protocols = [\"icmp\", \"udp\"]"), vec![1, 17]),
        (replicated("protocols = \"any\""), vec![1, 6, 17]),
        (of_rule("sync = false"), vec![]),
        (of_rule("sync = true"), vec![1, 6, 17]),
    ] {
        let mut c = Cluster::with(2, &policy);
        traffic(&mut c);
        c.talk();
        assert_eq!(protocols(c.of(1)), [1, 6, 17]);
        assert_eq!(protocols(c.of(2)), told, "{policy}");
        let mut scanned = 0;
        c.of(1).engine.scan_owned(0, 1000, &mut |_| scanned += 1);
        assert_eq!(scanned, told.len(), "what a resync sends");
        let now = c.of(1).now;
        c.of(1).engine.clear(0, 1000, &SessionFilter::default(), now);
        let ends = c.read(1, 2).iter().filter(|t| matches!(t, Told::End(_))).count();
        assert_eq!(ends, told.len(), "{policy}");
    }
}

/// Red when what others keep to themselves is taken from a peer all the same, or ended by one.
#[test]
fn what_is_kept_here_is_not_taken_from_peers() {
    let mut c = Cluster::new(2);
    traffic(&mut c);
    c.of(2).policy(&of_rule("sync = false"));
    let told = c.read(1, 2);
    assert!(!told.is_empty());
    for t in &told {
        assert_eq!(c.apply(1, 2, t), Applied::Refused(Refusal::NotSynced));
    }
    assert!(c.of(2).sessions().is_empty());
    c.of(2).connect(5000, 80);
    let own = c.of(2).only();
    let end = EndNote {
        id: own.id,
        tuple: own.wings[0].tuple,
        reason: EndReason::Cleared,
        age_ms: 0,
        bits: [0; 2],
    };
    assert_eq!(c.apply(1, 2, &Told::End(end)), Applied::Refused(Refusal::NotSynced));
    assert_eq!(c.of(2).sessions().len(), 1);
}

/// Red when what lives on this node alone raises questions, or ages later than its timeout.
#[test]
fn what_is_kept_here_ages_exactly() {
    let mut c = Cluster::with(2, &of_rule("sync = false\nsession_ttl = 2"));
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4000, 53, 8)), Verdict::Transmit(IN));
    c.of(1).wait_ms(1_900);
    assert_eq!(c.of(1).sessions().len(), 1);
    c.of(1).wait_ms(1_200);
    assert_eq!(c.of(1).sessions().len(), 0);
    let mut questions = Vec::new();
    c.of(1).engine.take_questions(10, &mut questions);
    assert!(questions.is_empty());
    assert_eq!(c.of(1).engine.log_head(), 1);
}

/// Red when a session that policy wants told from now on stays unknown to others, or one that it wants kept from
/// now on is still told.
#[test]
fn a_change_of_policy_counts_from_the_next_packet() {
    let mut c = Cluster::with(2, &of_rule("sync = false"));
    traffic(&mut c);
    c.talk();
    assert_eq!(c.counts(), [3, 0]);
    for node in [1, 2] {
        c.of(node).policy(POLICY);
    }
    traffic(&mut c);
    c.talk();
    assert_eq!(protocols(c.of(2)), [6, 17]);
    for node in [1, 2] {
        c.of(node).policy(&of_rule("sync = false"));
    }
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4000, 53, 8)), Verdict::Transmit(IN));
    assert_eq!(c.of(1).verdict(OUT, tcp(true, 4000, 80, FIN | ACK, 1001, 5001, 0)), Verdict::Transmit(IN));
    assert_eq!(c.read(1, 2), []);
}

/// Red when a session is told before it has its age, never, or its end is told although its birth was not.
#[test]
fn sessions_are_told_when_they_are_old_enough() {
    let mut c = Cluster::with(2, &replicated("min_age_s = 5"));
    traffic(&mut c);
    assert_eq!(c.of(1).verdict(OUT, udp(true, 4001, 53, 8)), Verdict::Transmit(IN));
    c.talk();
    let young = c.of(1).sessions().iter().find(|s| s.wings[0].tuple.src_port == 4001).map(|s| s.id);
    c.wait_ms(3_000);
    let filter = SessionFilter { id: young, ..SessionFilter::default() };
    let now = c.of(1).now;
    assert_eq!(c.of(1).engine.clear(0, 1000, &filter, now).1, 1);
    c.wait_ms(1_900);
    assert_eq!(c.counts(), [3, 0]);
    assert_eq!(c.of(1).engine.tombstones().0, 0);
    c.wait_ms(2_000);
    assert_eq!(protocols(c.of(2)), [6, 17]);
}
