//! TCP windows on more than one node (`spec/replication.md`): what nodes tell each other of where a connection is.

use super::*;

/// Both sides go on at a node, that far behind the handshake of `connect`, in steps that any window admits.
fn go_on(c: &mut Cluster, node: u16, at: u32) -> [Verdict; 2] {
    let lab = c.of(node);
    let up = lab.verdict(OUT, tcp(true, 4000, 80, ACK, 1001 + at, 5001 + at, 10));
    [up, lab.verdict(IN, tcp(false, 4000, 80, ACK, 5001 + at, 1011 + at, 0))]
}

fn pass(verdicts: [Verdict; 2]) -> bool {
    verdicts.iter().all(|v| matches!(v, Verdict::Transmit(_)))
}

#[test]
fn a_connection_that_comes_back_from_another_node_at_once_goes_on() {
    // Red when a node that sees a connection again does not tell, or who hears that keeps to the window that it saw
    // itself. Nobody hears: then it waits for what it saw to grow old.
    for hears in [true, false] {
        let mut c = Cluster::new(2);
        c.of(1).connect(4000, 80);
        c.talk();
        assert!(pass(go_on(&mut c, 1, 0)));
        // Megabytes later, through the other node, which has never seen it.
        for step in 0..3 {
            assert!(pass(go_on(&mut c, 2, 5_000_000 + step * 50_000)));
        }
        if hears {
            c.talk();
        }
        assert_eq!(pass(go_on(&mut c, 1, 9_000_000)), hears);
        c.nodes.iter_mut().for_each(|lab| lab.wait_ms(5_100));
        assert!(pass(go_on(&mut c, 1, 9_000_000)));
        assert!(pass(go_on(&mut c, 1, 9_050_000)));
        let forged = c.of(1).verdict(OUT, tcp(true, 4000, 80, ACK, 600_000_000, 14_050_000, 10));
        assert_eq!(dropped(forged), DropReason::TcpOutOfWindow, "and is checked again");
    }
}

#[test]
fn what_is_forged_through_another_node_opens_no_window() {
    // Red when a node that has seen nothing but forged segments tells that it sees the connection.
    let mut c = Cluster::new(2);
    c.of(1).connect(4000, 80);
    c.talk();
    for n in 0..5 {
        assert!(pass(go_on(&mut c, 1, n)));
        let forged = || tcp(true, 4000, 80, ACK, 600_000_000, 5001, 10);
        assert!(matches!(c.of(2).verdict(OUT, forged()), Verdict::Transmit(_)), "nobody knows better there");
        c.talk();
        assert_eq!(dropped(c.of(1).verdict(OUT, forged())), DropReason::TcpOutOfWindow);
    }
}
