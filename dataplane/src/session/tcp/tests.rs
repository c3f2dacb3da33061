//! The tables of TCP, each walked in full, and whole connections.

mod learned;
mod moves;
mod transfer;
mod windows;

use super::*;
use crate::packet::Tcp;
use crate::packet::tcp_flags::{ACK, FIN, PSH, RST, SYN, URG};

fn seg(flags: u8, seq: u32, ack: u32, len: u16) -> Tcp {
    Tcp { flags, seq, ack, payload_len: len, window: 60_000, ..Tcp::default() }
}

/// A connection as a session holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conn {
    wings: [WingFacts; 2],
    seen_ms: [u32; 2],
    now_ms: u32,
    /// Of a connection that may go on through other nodes.
    claims: Option<Claims>,
    /// A wing is seen here again.
    sighted: bool,
}

impl Conn {
    fn begin(t: &Tcp) -> Conn {
        let mut c = Conn { now_ms: 1_000_000, ..Conn::default() };
        c.see(0, t);
        c
    }

    /// A connection whose handshake is complete: client at 1001, server at 5001.
    fn established() -> Conn {
        let mut c = Conn::begin(&seg(SYN, 1000, 0, 0));
        assert_eq!(c.state(), State::SynSent);
        assert_eq!(c.see(1, &seg(SYN | ACK, 5000, 1001, 0)), Observation::Taken);
        assert_eq!(c.state(), State::SynReceived);
        assert_eq!(c.see(0, &seg(ACK, 1001, 5001, 0)), Observation::Taken);
        assert_eq!(c.state(), State::Established);
        c
    }

    fn see(&mut self, w: usize, t: &Tcp) -> Observation {
        self.see_piece(w, t, false)
    }

    fn see_piece(&mut self, w: usize, t: &Tcp, fragmented: bool) -> Observation {
        let (wings, seen_ms) = (&mut self.wings, &mut self.seen_ms);
        let mut connection = Connection { wings, seen_ms, claims: self.claims.as_mut(), sighted: false };
        let observation = connection.observe(w, t, self.now_ms, fragmented);
        self.sighted |= connection.sighted;
        observation
    }

    /// Sees a segment that must change nothing.
    fn see_in_vain(&mut self, w: usize, t: &Tcp) -> Observation {
        let before = self.wings;
        let observation = self.see(w, t);
        assert_eq!(self.wings, before, "{t:?}");
        observation
    }

    fn state(&self) -> State {
        derive(self.wings[0].bits, self.wings[1].bits)
    }
}

/// An independent statement of `derive`, by what an operator would say.
fn derive_in_words(a: u8, b: u8) -> State {
    let any = |bit| a & bit != 0 || b & bit != 0;
    let all = |bit| a & bit != 0 && b & bit != 0;
    let handshake_done = [a, b].iter().all(|w| w & fact::SYN_ACKED != 0 || w & fact::MID != 0);
    if any(fact::RST) {
        return State::Reset;
    }
    if all(fact::FIN) {
        return if all(fact::FIN_ACKED) { State::Closed } else { State::TimeWait };
    }
    if !handshake_done {
        return if all(fact::SYN) { State::SynReceived } else { State::SynSent };
    }
    if any(fact::FIN) { State::HalfClosed } else { State::Established }
}

#[test]
fn j4_j6_every_combination_of_facts_has_its_state() {
    // Red when any arm of `derive` is changed.
    for a in 0..=fact::ALL {
        for b in 0..=fact::ALL {
            assert_eq!(derive(a, b), derive_in_words(a, b), "{a:06b} {b:06b}");
        }
    }
}

/// How far along a connection is; merging facts may only raise it.
fn rank(s: State) -> u8 {
    match s {
        State::OneWay | State::Replied => 0,
        State::SynSent => 1,
        State::SynReceived => 2,
        State::Established => 3,
        State::HalfClosed => 4,
        State::TimeWait => 5,
        State::Closed => 6,
        State::Reset => 7,
    }
}

#[test]
fn facts_only_grow_and_the_state_never_moves_backwards() {
    // Red when `derive` lets an added fact lower the state (a stale record would reopen a session).
    for a in 0..=fact::ALL {
        for b in 0..=fact::ALL {
            for bit in [fact::SYN, fact::SYN_ACKED, fact::FIN, fact::FIN_ACKED, fact::RST, fact::MID] {
                assert!(rank(derive(a | bit, b)) >= rank(derive(a, b)), "{a:06b}|{bit:06b} {b:06b}");
                assert!(rank(derive(a, b | bit)) >= rank(derive(a, b)), "{a:06b} {b:06b}|{bit:06b}");
            }
        }
    }
}

#[test]
fn j4_j6_timeout_by_state_as_a_table() {
    // Red when `rule_for` gives a state another timeout.
    use Rule::*;
    let table = [
        // state, plain, ageout, half_close, both
        (State::OneWay, [Service, Service, Service, Service]),
        (State::Replied, [Service, Service, Service, Service]),
        (State::SynSent, [Initial, Initial, Initial, Initial]),
        (State::SynReceived, [Initial, Initial, Initial, Initial]),
        (State::Established, [Service, Service, Service, Service]),
        (State::HalfClosed, [Service, Service, TimeWait, Service]),
        (State::TimeWait, [TimeWait, Service, TimeWait, Service]),
        (State::Closed, [LastAck, Service, LastAck, Service]),
        (State::Reset, [Service, Service, Service, Service]),
    ];
    for (state, want) in table {
        for (i, (ageout, half)) in
            [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
        {
            assert_eq!(rule_for(state, ageout, half), want[i], "{state:?} ageout={ageout} half_close={half}");
        }
    }
}

#[test]
fn j6_late_packets_never_lengthen_a_close() {
    // Red when `restarts_timer` returns true for a closing state.
    for state in State::ALL {
        for closed in [false, true] {
            for half in [false, true] {
                let want = match state {
                    State::TimeWait | State::Closed => false,
                    State::HalfClosed => !(half && closed),
                    _ => true,
                };
                assert_eq!(restarts_timer(state, closed, half), want, "{state:?} {closed} {half}");
            }
        }
    }
}

/// A connection in each state, and what either side sends next: (state, client's number, server's).
fn in_every_state() -> Vec<(&'static str, Conn, [u32; 2])> {
    let after = |steps: &[(usize, Tcp)]| {
        let mut c = Conn::established();
        steps.iter().for_each(|(w, t)| assert_eq!(c.see(*w, t), Observation::Taken));
        c
    };
    let syn_sent = Conn::begin(&seg(SYN, 1000, 0, 0));
    let mut syn_received = syn_sent.clone();
    syn_received.see(1, &seg(SYN | ACK, 5000, 1001, 0));
    let fin = (0, seg(FIN | ACK, 1001, 5001, 0));
    let reply_fin = (1, seg(FIN | ACK, 5001, 1002, 0));
    let last_ack = (0, seg(ACK, 1002, 5002, 0));
    vec![
        ("SynSent", syn_sent, [1001, 5000]),
        ("SynReceived", syn_received, [1001, 5001]),
        ("Established", after(&[]), [1001, 5001]),
        ("HalfClosed", after(&[fin]), [1002, 5001]),
        ("HalfClosed by the server", after(&[(1, seg(FIN | ACK, 5001, 1001, 0))]), [1001, 5002]),
        ("TimeWait", after(&[fin, reply_fin]), [1002, 5002]),
        ("Closed", after(&[fin, reply_fin, last_ack]), [1002, 5002]),
        ("Reset", after(&[(0, seg(RST, 1001, 0, 0))]), [1001, 5001]),
    ]
}

#[test]
fn j4_j5_j6_every_state_flag_and_direction_leads_where_the_table_says() {
    // Red when any transition of `observe` changes. One row for each state and direction; the columns
    // are segments in place: SYN with another number, SYN ACK, ACK, FIN ACK, RST, RST ACK. Taken or
    // learned (t, l), ignored (i), outside (o), a new connection (n), and the state behind it.
    let flags = [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK];
    #[rustfmt::skip]
    let table = [
        ("SynSent", 0, "n SynSent|i SynSent|l SynSent|l SynSent|t Reset|t Reset"),
        ("SynSent", 1, "t SynReceived|t SynReceived|i SynSent|i SynSent|o SynSent|t Reset"),
        ("SynReceived", 0, "i SynReceived|i SynReceived|t Established|t HalfClosed|t Reset|t Reset"),
        ("SynReceived", 1, "i SynReceived|t SynReceived|t SynReceived|t SynReceived|t Reset|t Reset"),
        ("Established", 0, "i Established|i Established|t Established|t HalfClosed|t Reset|t Reset"),
        ("Established", 1, "i Established|i Established|t Established|t HalfClosed|t Reset|t Reset"),
        ("HalfClosed", 0, "i HalfClosed|i HalfClosed|t HalfClosed|t HalfClosed|t Reset|t Reset"),
        ("HalfClosed", 1, "i HalfClosed|i HalfClosed|t HalfClosed|t TimeWait|t Reset|t Reset"),
        ("HalfClosed by the server", 0, "i HalfClosed|i HalfClosed|t HalfClosed|t TimeWait|t Reset|t Reset"),
        ("HalfClosed by the server", 1, "i HalfClosed|i HalfClosed|t HalfClosed|t HalfClosed|t Reset|t Reset"),
        ("TimeWait", 0, "n TimeWait|i TimeWait|t Closed|t Closed|t Reset|t Reset"),
        ("TimeWait", 1, "n TimeWait|i TimeWait|t TimeWait|t TimeWait|t Reset|t Reset"),
        ("Closed", 0, "n Closed|i Closed|t Closed|t Closed|t Reset|t Reset"),
        ("Closed", 1, "n Closed|i Closed|t Closed|t Closed|t Reset|t Reset"),
        ("Reset", 0, "n Reset|i Reset|t Reset|t Reset|t Reset|t Reset"),
        ("Reset", 1, "n Reset|i Reset|t Reset|t Reset|t Reset|t Reset"),
    ];
    let makers = in_every_state();
    assert_eq!(table.len(), makers.len() * 2);
    for (name, w, row) in table {
        let (_, made, next) = makers.iter().find(|(n, _, _)| *n == name).unwrap();
        let cells: Vec<&str> = row.split('|').collect();
        assert_eq!(cells.len(), flags.len());
        for (flags, want) in flags.into_iter().zip(cells) {
            // PSH and URG say nothing about a connection.
            for more in [0, PSH, URG, PSH | URG] {
                let seq = if flags & SYN != 0 { 90_000 } else { next[w] };
                let ack = if flags & ACK != 0 { next[1 - w] } else { 0 };
                let mut c = made.clone();
                let letter = match c.see(w, &seg(flags | more, seq, ack, 0)) {
                    Observation::Taken => 't',
                    Observation::Learned => 'l',
                    Observation::Ignored => 'i',
                    Observation::OutOfWindow | Observation::RstOutOfWindow => 'o',
                    Observation::NewConnection => 'n',
                };
                assert_eq!(format!("{letter} {:?}", c.state()), want, "{name} {w} {:#x}", flags | more);
                if matches!(letter, 'i' | 'o' | 'n') {
                    assert_eq!(c.wings, made.wings, "{name} {w} {flags:#x} changed something");
                }
            }
        }
    }
}

#[test]
fn j4_handshakes_in_all_their_shapes() {
    // Red when a SYN-ACK for another SYN is taken, or one of a legitimate shape is not.
    let syn_sent = || Conn::begin(&seg(SYN, 1000, 0, 0));
    assert_eq!(syn_sent().see_in_vain(1, &seg(SYN | ACK, 5000, 1002, 0)), Observation::OutOfWindow);
    assert_eq!(syn_sent().see_in_vain(1, &seg(RST | ACK, 0, 999, 0)), Observation::RstOutOfWindow);
    // The client's SYN again; with another number it is another connection.
    assert_eq!(syn_sent().see_in_vain(0, &seg(SYN, 1000, 0, 0)), Observation::Taken);
    // Half open: the server still has an old connection, says where it is, and is reset.
    let mut c = syn_sent();
    assert_eq!(c.see_in_vain(1, &seg(ACK, 70_000, 42, 0)), Observation::Ignored);
    assert_eq!(c.see_in_vain(0, &seg(RST, 42, 0, 0)), Observation::Ignored);
    assert_eq!(c.see(1, &seg(SYN | ACK, 5000, 1001, 0)), Observation::Taken);
    // Both open at once.
    let mut c = syn_sent();
    c.see(1, &seg(SYN, 5000, 0, 0));
    c.see(0, &seg(SYN | ACK, 1000, 5001, 0));
    assert_eq!(c.state(), State::SynReceived);
    c.see(1, &seg(SYN | ACK, 5000, 1001, 0));
    assert_eq!(c.state(), State::Established);
    // Data in the SYN, of which the server takes all or nothing (RFC 7413).
    for acked in [1001, 1101] {
        let mut c = Conn::begin(&seg(SYN, 1000, 0, 100));
        assert_eq!(c.see(1, &seg(SYN | ACK, 5000, acked, 0)), Observation::Taken);
        assert_eq!(c.see(1, &seg(ACK, 5001, acked, 1000)), Observation::Taken, "before the client's ACK");
        assert_eq!(c.see(0, &seg(ACK, acked, 5001, 100)), Observation::Taken);
        assert_eq!(c.state(), State::Established);
    }
    // A server that answers anew with another number, until the client has acknowledged one.
    let mut c = syn_sent();
    c.see(1, &seg(SYN | ACK, 5000, 1001, 0));
    assert_eq!(c.see(1, &seg(SYN | ACK, 3_000_000_000, 1001, 0)), Observation::Taken);
    assert_eq!(c.see(0, &seg(ACK, 1001, 3_000_000_001, 0)), Observation::Taken);
    assert_eq!(c.state(), State::Established);
    assert_eq!(c.see_in_vain(1, &seg(SYN | ACK, 5000, 1001, 0)), Observation::Ignored);
}

#[test]
fn j5_j6_a_reset_leaves_the_timeout_what_it_was() {
    // Red when `derive_base` counts the RST: a refused connection would get the service's long timeout.
    for (name, mut c, next) in in_every_state().into_iter().filter(|(n, _, _)| *n != "Reset") {
        let before = c.state();
        c.see(0, &seg(RST, next[0], 0, 0));
        assert_eq!(c.state(), State::Reset, "{name}");
        assert_eq!(derive_base(c.wings[0].bits, c.wings[1].bits), before, "{name}");
    }
}

#[test]
fn j6_a_close_from_both_sides_ends_closed() {
    // Red when FIN acknowledgements are not recorded, or a crossing of FINs is not understood.
    let mut c = Conn::established();
    c.see(0, &seg(FIN | ACK, 1001, 5001, 0));
    c.see(1, &seg(ACK, 5001, 1002, 0));
    assert_eq!(c.state(), State::HalfClosed);
    c.see(1, &seg(FIN | ACK, 5001, 1002, 0));
    assert_eq!(c.state(), State::TimeWait);
    c.see(0, &seg(ACK, 1002, 5002, 0));
    assert_eq!(c.state(), State::Closed);
    let mut c = Conn::established();
    for (w, t) in
        [(0, seg(FIN | ACK, 1001, 5001, 0)), (1, seg(FIN | ACK, 5001, 1001, 0)), (0, seg(ACK, 1002, 5002, 0))]
    {
        c.see(w, &t);
        assert!(c.state() < State::Closed);
    }
    c.see(1, &seg(ACK, 5002, 1002, 0));
    assert_eq!(c.state(), State::Closed);
}

#[test]
fn copies_merge_in_any_order_to_the_same_facts() {
    // Red when `merge` takes the newer record instead of the greater fact.
    let segments = [
        (0, seg(SYN, 1000, 0, 0)),
        (1, seg(SYN | ACK, 5000, 1001, 0)),
        (0, seg(ACK, 1001, 5001, 50)),
        (1, seg(ACK, 5001, 1051, 70)),
        (0, seg(FIN | ACK, 1051, 5071, 0)),
    ];
    let mut copies = Vec::new();
    let mut c = Conn { now_ms: 1, ..Conn::default() };
    for (w, t) in segments {
        c.see(w, &t);
        copies.push(c.wings);
    }
    for i in 0..copies.len() {
        for j in 0..copies.len() {
            let (mut ab, mut ba) = (copies[i], copies[j]);
            for k in 0..2 {
                ab[k].merge(&copies[j][k]);
                ba[k].merge(&copies[i][k]);
            }
            assert_eq!(ab, ba);
            assert_eq!(ab, copies[i.max(j)], "the later copy holds all facts of the earlier one");
        }
    }
}
