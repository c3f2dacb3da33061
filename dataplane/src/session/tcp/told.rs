//! What another node tells of a connection, and what this one has seen of it itself.

use super::merge;
use crate::planted::{Fault, is_planted};
use crate::session::record::WingFacts;

/// What a teller knows of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Facts of both wings.
    pub facts: &'a [WingFacts; 2],
    /// Which wings it sees itself: where they are is what it saw, not what others told it.
    pub sighted: [bool; 2],
    /// When the last packet that it knows of came, in [`crate::time::Now::ms32`] of this node.
    pub at_ms: u32,
}

/// Merges what another node tells into what is known here of both wings.
///
/// Numbers in sequence space compare only while they are near, and what was told long ago in a fast flow is not. So
/// positions of a wing that was seen here stay, unless the teller has seen it later: then it goes on there, and where
/// it is here is learned again (`spec/replication.md`, "TCP windows on more than one node").
pub fn hear(wings: &mut [WingFacts; 2], seen_ms: &mut [u32; 2], heard: &Heard<'_>) {
    let mut told = *heard.facts;
    for w in 0..2 {
        let (own, told, seen_ms) = (&mut wings[w], &mut told[w], &mut seen_ms[w]);
        // In the same millisecond either may be: what is learned in vain costs less than a connection that waits.
        let later = *seen_ms == 0 || heard.at_ms.wrapping_sub(*seen_ms) as i32 >= 0;
        if heard.sighted[w] && later {
            *seen_ms = 0;
            own.seq_max = told.seq_max;
            if told.ack_max != 0 {
                (own.ack_max, own.edge_max) = (told.ack_max, told.edge_max);
            }
        } else if *seen_ms != 0 {
            (told.seq_max, told.ack_max, told.edge_max) = (own.seq_max, own.ack_max, own.edge_max);
        }
    }
    if is_planted(Fault::FactsReplaced) {
        *wings = told;
    }
    merge(wings, &told);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tcp::fact;

    fn at(number: u32) -> WingFacts {
        WingFacts {
            seq_max: number,
            ack_max: number,
            edge_max: number,
            bits: fact::MID,
            ..Default::default()
        }
    }

    fn hear_at(seen_ms: u32, sighted: bool, at_ms: u32, own: u32, told: u32) -> (u32, u32) {
        let (mut wings, mut seen) = ([at(own), at(own)], [seen_ms; 2]);
        let heard = Heard { facts: &[at(told); 2], sighted: [sighted; 2], at_ms };
        hear(&mut wings, &mut seen, &heard);
        assert_eq!(wings[0], at(wings[0].seq_max), "all of a position, or none of it");
        (wings[0].seq_max, seen[0])
    }

    #[test]
    fn a_wing_seen_here_keeps_its_position_anywhere_in_the_sequence_space() {
        // Red with the maximum instead: in sequence space what is old lies ahead of half of all.
        for own in [5u32, 0x7fff_fff0, 0x8000_0000, 0xffff_fff0] {
            for told in [own.wrapping_sub(9), own.wrapping_add(9), own ^ 0x4000_0000] {
                assert_eq!(hear_at(900, false, 1_000, own, told), (own, 900), "{own:#x} {told:#x}");
                assert_eq!(
                    hear_at(900, true, 899, own, told),
                    (own, 900),
                    "{own:#x} {told:#x}, seen earlier"
                );
            }
        }
    }

    #[test]
    fn a_wing_that_another_node_has_seen_later_is_where_that_one_says_and_learned_again() {
        // Red when a node holds a connection to what it saw itself, though it has gone on elsewhere.
        for own in [5u32, 0x7fff_fff0, 0x8000_0000, 0xffff_fff0] {
            for told in [own.wrapping_sub(9), own.wrapping_add(9), own ^ 0x4000_0000] {
                assert_eq!(hear_at(900, true, 900, own, told), (told, 0), "{own:#x} {told:#x}");
                assert_eq!(hear_at(0, true, 901, own, told), (told, 0), "{own:#x} {told:#x}, never seen");
            }
        }
        // Its clock has wrapped.
        assert_eq!(hear_at(u32::MAX - 5, true, 7, 100, 50), (50, 0));
    }
}
