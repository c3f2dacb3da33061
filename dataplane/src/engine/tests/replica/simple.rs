//! The plain way: what one node does, the others have.

use super::*;
use crate::session::EndReason;

#[test]
fn a_session_that_one_node_makes_is_on_all_and_passes_there_and_its_end_is_everywhere() {
    // Red when births, facts or ends are not logged, or a copy is stored without its facts.
    let mut c = Cluster::new(3);
    c.of(1).connect(4000, 80);
    c.talk();
    assert_eq!(c.counts(), [1, 1, 1]);
    for node in 1..=3 {
        let s = c.of(node).only();
        assert_eq!((s.state, s.owner), (State::Established, Some(boot(1))), "node {node}");
        assert_eq!((s.wings[0].packets, s.wings[1].packets), (2, 1), "node {node}");
    }
    let v = c.of(2).verdict(OUT, tcp(true, 4000, 80, ACK, 1001, 5001, 10));
    assert_eq!(v, Verdict::Transmit(IN), "a copy has no way out of its own, and finds one");
    let strange = c.of(3).verdict(IN, tcp(true, 4000, 80, ACK, 1001, 5001, 10));
    assert!(matches!(strange, Verdict::Drop(_)), "the zones of a copy bind");
    c.talk();
    assert_eq!(c.of(1).only().wings[0].packets, 3, "the owner has heard of the packet");
    let filter = SessionFilter::default();
    let now = c.of(2).now;
    assert_eq!(c.of(2).engine.clear(0, u32::MAX, &filter, now).1, 0, "only the owner clears");
    assert_eq!(c.of(1).engine.clear(0, u32::MAX, &filter, now).1, 1);
    c.talk();
    assert_eq!(c.counts(), [0, 0, 0]);
    assert_eq!(
        c.of(2).engine.counters().ended,
        [0; EndReason::ALL.len()],
        "an end counts where it was decided"
    );
}

#[test]
fn nothing_is_told_twice_for_nothing() {
    // Red when a copy that was applied is logged again: two nodes would talk for ever.
    let mut c = Cluster::new(2);
    c.of(1).connect(4000, 80);
    c.talk();
    let heads = |c: &Cluster| c.nodes.iter().map(|l| l.engine.log_head()).collect::<Vec<_>>();
    let before = heads(&c);
    c.talk();
    assert_eq!(heads(&c), before);
    assert_eq!(before[1], 1, "a replica that has seen no packet has said nothing");
}

#[test]
fn copies_agree_in_what_verify_compares_and_idle_ones_go_everywhere() {
    // Red when a field that must agree is not told, or a replica is never let go.
    let mut c = Cluster::new(3);
    c.of(1).connect(4000, 80);
    c.of(2).verdict(OUT, udp(true, 4001, 7777, 1));
    c.talk();
    c.of(3).verdict(IN, udp(false, 4001, 7777, 1));
    c.talk();
    let fields = c.fields();
    assert!(fields[0].len() == 2 && fields.iter().all(|f| *f == fields[0]), "{fields:?}");
    c.wait_ms(65_000);
    assert_eq!(c.counts(), [1, 1, 1]);
}
