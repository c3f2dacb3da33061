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

#[test]
fn each_session_is_listed_once_though_the_nodes_believe_different_things() {
    // Red when each node answers by its own view: what node 1 made is listed by node 1 and by who believes it dead.
    let mut c = Cluster::new(3);
    for port in 4000..4064 {
        c.of(1).verdict(OUT, udp(true, port, 53, 8));
    }
    c.talk();
    c.view(2, &[2, 3]);
    c.view(3, &[1, 3]);
    let listed = |c: &mut Cluster, whose: &dyn Fn(u16) -> Whose| {
        let of = |lab: &Lab, node| {
            let filter = SessionFilter { whose: whose(node), ..SessionFilter::default() };
            let mut out = Vec::new();
            assert_eq!(lab.engine.list(0, u32::MAX, &filter, lab.now, &mut out), None);
            out.len()
        };
        (1..=3).map(|node| of(c.of(node), node)).collect::<Vec<_>>()
    };
    let own = listed(&mut c, &|_| Whose::Own);
    assert!(own.iter().sum::<usize>() > 64, "{own:?}");
    for alive in [&[1, 2, 3][..], &[2, 3], &[1, 3], &[2]] {
        let by = |node| Whose::OwnBy(View::new(boot(node), [], alive.iter().map(|n| boot(*n)), 0).into());
        let one = listed(&mut c, &by);
        assert_eq!(one.iter().sum::<usize>(), 64, "{one:?}");
    }
}
