//! A peer's stream, written by an outlet and by a forger.

use super::*;
use crate::replication::message::{ENVELOPE_BYTES, Kind, NameKind, open};
use crate::replication::outlet::Outlet;
use crate::replication::record::{CopyRecord, EndRecord};
use tidegate_dataplane::addr::{Addr, ICMP_QUERY_PORT, proto};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::EndReason;
use tidegate_dataplane::session::copy::{Birth, EndNote, SessionCopy};
use tidegate_dataplane::session::record::{SessionId, WingFacts};
use tidegate_dataplane::session::tcp::fact;

const TELLER: Boot = Boot { node: 2, boot: 200 };
const ME: Boot = Boot { node: 1, boot: 100 };
/// The teller has been up for a day when the link comes up, this node for an hour.
const UPTIME_MS: u64 = 86_400_000;
const UP_AT: Now = Now(3_600_000);

fn config() -> InletConfig {
    InletConfig {
        teller: TELLER,
        me: ME,
        stream: 0,
        shards: 2,
        uptime_ms: UPTIME_MS,
        up_at: UP_AT,
        records_per_s_max: 1_000_000,
    }
}

fn names() -> Names {
    let mut names = Names::default();
    // Other numbers than at the receiver.
    names.zone("unused").unwrap();
    names.zone("trust").unwrap();
    names.zone("untrust").unwrap();
    names.rule("trust/untrust/web").unwrap();
    names.application("https").unwrap();
    names
}

fn v6(n: u64) -> Addr {
    Addr(0x2001_0db8 << 96 | u128::from(n))
}

pub(in crate::replication) fn copy(names: &mut Names, counter: u64) -> SessionCopy {
    let tuple = Tuple {
        src: Addr::from_v4([10, 0, 0, 1]),
        dst: Addr::from_v4([192, 0, 2, 9]),
        src_port: 1024 + (counter % 60_000) as u16,
        dst_port: 443,
        protocol: proto::TCP,
    };
    let wing = WingFacts {
        seq_max: 5,
        ack_max: 6,
        edge_max: 70_000,
        window_max: 65_535,
        isn: 4,
        mss: 1460,
        bits: fact::SYN | fact::SYN_ACKED,
        scale_plus_1: 8,
    };
    SessionCopy {
        birth: Birth {
            id: SessionId { origin: TELLER.node, boot: TELLER.boot, counter },
            tuple,
            zones: [names.zone("trust").unwrap(), names.zone("untrust").unwrap()],
            rule: names.rule("trust/untrust/web").unwrap(),
            application: names.application("https").unwrap(),
            revision: 7,
            supersedes: None,
        },
        facts: [wing, wing],
        sighted: [true, false],
        age_ms: 12,
        created_age_ms: 1000,
        packets: [3, 4],
        bytes: [180, 6000],
    }
}

fn end(copy: &SessionCopy) -> EndNote {
    EndNote {
        id: copy.birth.id,
        tuple: copy.birth.tuple,
        reason: EndReason::Closed,
        age_ms: 3,
        bits: [fact::FIN | fact::FIN_ACKED, fact::FIN],
    }
}

fn body(outlet: &mut Outlet) -> Vec<u8> {
    let (_, frame) = outlet.finish().expect("something was said");
    assert!(matches!(open(&[&frame[..], &[0]].concat()), Err(FrameError::Left(1))));
    assert!(matches!(open(&frame[..frame.len() - 1]), Err(FrameError::Short)));
    let (kind, body) = open(&frame).unwrap();
    assert_eq!(kind, Kind::Batch);
    body.to_vec()
}

/// Even source ports to shard 0, odd ones to shard 1.
fn shard_of(tuple: &Tuple) -> u16 {
    tuple.src_port % 2
}

struct Receiver {
    inlet: Inlet,
    names: Names,
    learned: u32,
}

impl Receiver {
    fn new() -> Self {
        Receiver { inlet: Inlet::new(config()), names: Names::default(), learned: 0 }
    }

    fn read(&mut self, body: &[u8]) -> Result<Decoded, InletError> {
        let mut names = PeerNames { names: &mut self.names, learned: &mut self.learned };
        self.inlet.read(body, UP_AT, &mut names, &shard_of)
    }
}

/// Why the one record of a batch is refused; `None` if it is taken.
fn doubt_of(decoded: &Decoded) -> Option<Doubt> {
    let taken: usize = decoded.shards.iter().map(Vec::len).sum();
    let doubt = Doubt::ALL.into_iter().find(|d| decoded.refused[*d as usize] > 0);
    assert_eq!(taken, usize::from(doubt.is_none()), "{decoded:?}");
    doubt
}

#[test]
fn what_is_said_arrives_by_name_at_its_shard() {
    let mut there = names();
    let (mut outlet, mut here) = (Outlet::new(4096), Receiver::new());
    let odd = copy(&mut there, 1);
    let mut even = copy(&mut there, 2);
    even.birth.tuple = Tuple { src: v6(1), dst: v6(2), ..even.birth.tuple };
    even.birth.supersedes = Some(odd.birth.id);
    even.bytes[1] = 7 << 33;
    even.packets[1] = 1 << 23;
    even.facts[1] = WingFacts::default();
    outlet.resync_begin(5, 55);
    outlet.copy(&odd, &there);
    outlet.copy(&even, &there);
    outlet.end(&end(&odd));
    outlet.answered(1, 9, 3);
    outlet.resync_end(5, 55);
    let decoded = here.read(&body(&mut outlet)).unwrap();
    assert_eq!((decoded.number, decoded.refused_total(), decoded.learned), (1, 0, true));
    assert_eq!(decoded.records, Records { copies: 2, ends: 1, questions: 0, names: 4 });

    let begin = Item::ResyncBegin { number: 5, view: 55 };
    let over = Item::ResyncEnd { number: 5, view: 55 };
    let here_copy = |of: &SessionCopy, names: &mut Names| {
        let mut of = *of;
        let known = copy(names, 0).birth;
        (of.birth.zones, of.birth.rule, of.birth.application) = (known.zones, known.rule, known.application);
        Item::Copy(of)
    };
    let (odd_here, even_here) = (here_copy(&odd, &mut here.names), here_copy(&even, &mut here.names));
    // A dictionary that passes numbers on as they are fails here: the receiver's differ.
    assert_eq!(decoded.shards[0], [begin.clone(), even_here, over.clone()]);
    assert_eq!(
        decoded.shards[1],
        [begin, odd_here, Item::End(end(&odd)), Item::Answered { number: 9, count: 3 }, over]
    );

    // The second batch says no name again.
    outlet.copy(&odd, &there);
    assert_eq!(here.read(&body(&mut outlet)).unwrap().records.names, 0);
}

#[test]
fn questions_go_to_their_shards() {
    let mut there = names();
    let questions: Vec<_> = (0..10)
        .map(|n| {
            let birth = copy(&mut there, n).birth;
            tidegate_dataplane::engine::Question { id: birth.id, tuple: birth.tuple, age_ms: 7 }
        })
        .collect();
    let mut outlet = Outlet::new(4096);
    outlet.ask(3, &questions);
    let decoded = Receiver::new().read(&body(&mut outlet)).unwrap();
    for (shard, part) in decoded.shards.iter().enumerate() {
        let [Item::Ask { number: 3, questions }] = &part[..] else { panic!("{part:?}") };
        assert_eq!(questions.len(), 5);
        assert!(questions.iter().all(|q| shard_of(&q.tuple) == shard as u16 && q.age_ms == 7));
    }
}

/// A record that is true, and what makes it impossible. Each line is taken without its check.
#[test]
fn what_cannot_be_true_is_refused_by_itself() {
    type Lie = (Doubt, fn(&mut SessionCopy));
    let lies: &[Lie] = &[
        (Doubt::Tuple, |c| c.birth.tuple.src = Addr::from_v4([127, 0, 0, 1])),
        (Doubt::Tuple, |c| c.birth.tuple.dst = Addr::from_v4([224, 0, 0, 1])),
        (Doubt::Tuple, |c| c.birth.tuple.src_port = 0),
        (Doubt::Tuple, |c| c.birth.tuple.protocol = proto::ESP),
        (Doubt::Tuple, |c| c.birth.tuple.protocol = proto::ICMP),
        (Doubt::Tuple, |c| {
            c.birth.tuple =
                Tuple { dst_port: c.birth.tuple.src_port, dst: c.birth.tuple.src, ..c.birth.tuple }
        }),
        (Doubt::Tuple, |c| c.birth.tuple = Tuple { src: v6(1), ..c.birth.tuple }),
        (Doubt::Tuple, |c| c.birth.tuple = Tuple { src: v6(1), dst: Addr(1), ..c.birth.tuple }),
        (Doubt::Age, |c| c.age_ms = 4_000_000_000),
        (Doubt::Age, |c| c.created_age_ms = u64::MAX),
        // Younger than the teller's boot, and made by an earlier one.
        (Doubt::Identity, |c| c.birth.id.boot = 199),
        (Doubt::Identity, |c| c.birth.id.boot = 201),
        // The same of this node.
        (Doubt::Identity, |c| c.birth.id = SessionId { origin: ME.node, boot: 99, counter: 1 }),
        // Older than the boot that is said to have made it.
        (Doubt::Identity, |c| c.created_age_ms = 2 * UPTIME_MS),
        (Doubt::Identity, |c| c.birth.supersedes = Some(c.birth.id)),
        (Doubt::Facts, |c| c.facts[0].bits = 128),
        (Doubt::Facts, |c| c.facts[1].scale_plus_1 = 16),
        (Doubt::Facts, |c| c.facts[0].window_max = u32::MAX),
        (Doubt::Facts, |c| c.birth.tuple.protocol = proto::UDP),
        // Only TCP has wings that are sighted.
        (Doubt::Facts, |c| {
            c.birth.tuple.protocol = proto::UDP;
            c.facts = [WingFacts { bits: fact::MID, ..Default::default() }, WingFacts::default()];
        }),
        (Doubt::Counters, |c| c.packets[0] = u64::MAX),
        (Doubt::Counters, |c| c.bytes[0] = 1 << 40),
        (Doubt::Counters, |c| c.bytes[1] = 3),
        (Doubt::Counters, |c| (c.packets[0], c.bytes[0]) = (1 << 50, 1 << 56)),
    ];
    let mut there = names();
    let (mut outlet, mut here) = (Outlet::new(4096), Receiver::new());
    for (n, (doubt, lie)) in lies.iter().enumerate() {
        let truth = copy(&mut there, n as u64);
        let mut lied = truth;
        lie(&mut lied);
        outlet.copy(&lied, &there);
        assert_eq!(doubt_of(&here.read(&body(&mut outlet)).unwrap()), Some(*doubt), "lie {n}");
        outlet.copy(&truth, &there);
        assert_eq!(doubt_of(&here.read(&body(&mut outlet)).unwrap()), None, "truth {n}");
    }
}

#[test]
fn what_looks_odd_and_can_be_true_is_taken() {
    let truths: &[fn(&mut SessionCopy)] = &[
        // Of the teller's earlier boot, and of this node's.
        |c| (c.birth.id.boot, c.created_age_ms) = (199, UPTIME_MS + 1),
        |c| {
            (c.birth.id, c.created_age_ms) =
                (SessionId { origin: ME.node, boot: 99, counter: 1 }, UP_AT.0 + 1);
        },
        // Of a third node.
        |c| c.birth.id = SessionId { origin: 3, boot: 1, counter: u64::MAX },
        |c| {
            c.birth.tuple.protocol = proto::ICMP;
            c.birth.tuple.dst_port = ICMP_QUERY_PORT;
            c.facts = [WingFacts { bits: fact::MID, ..Default::default() }, WingFacts::default()];
            c.sighted = [false; 2];
        },
        |c| {
            c.birth.tuple = Tuple { src: v6(1), dst: v6(2), src_port: 0, dst_port: 0, protocol: 89 };
            c.facts = Default::default();
            c.sighted = [false; 2];
        },
        |c| (c.packets, c.bytes) = ([0, 0], [0, 0]),
        |c| c.birth.application = Default::default(),
    ];
    let mut there = names();
    let (mut outlet, mut here) = (Outlet::new(4096), Receiver::new());
    for (n, odd) in truths.iter().enumerate() {
        let mut told = copy(&mut there, n as u64);
        odd(&mut told);
        outlet.copy(&told, &there);
        assert_eq!(doubt_of(&here.read(&body(&mut outlet)).unwrap()), None, "truth {n}");
    }
}

#[test]
fn a_flood_is_refused_until_the_second_is_over() {
    let mut there = names();
    let mut inlet = Inlet::new(InletConfig { records_per_s_max: 10, ..config() });
    let (mut table, mut learned) = (Names::default(), 0);
    let mut table = PeerNames { names: &mut table, learned: &mut learned };
    let mut outlet = Outlet::new(4096);
    let mut refused_at = |ms: u64| {
        (0..15).for_each(|n| outlet.copy(&copy(&mut there, n), &there.clone()));
        let now = Now(UP_AT.0 + ms);
        let decoded = inlet.read(&body(&mut outlet), now, &mut table, &shard_of).unwrap();
        decoded.refused[Doubt::Flood as usize]
    };
    // A limit on batches and not on time fails at the third.
    assert_eq!([refused_at(0), refused_at(999), refused_at(1000)], [5, 15, 5]);
}

#[test]
fn names_are_bounded_and_must_have_been_said() {
    let mut there = names();
    let mut here = Receiver::new();
    let wire = |names: &mut Names, text: &str, number: u32| {
        let mut outlet = Outlet::new(4096);
        outlet.copy(&copy(names, 0), names);
        let whole = body(&mut outlet);
        let mut rest = &whole[8..];
        let mut out = whole[..8].to_vec();
        while !rest.is_empty() {
            match read_item(&mut rest).unwrap() {
                WireItem::Name { kind, number: n, .. } if kind == NameKind::Rule as u8 => {
                    WireItem::Name { kind, number: number + n, text }.write(&mut out);
                }
                item => item.write(&mut out),
            }
        }
        out
    };
    // Not named by that number; with a name that no policy can have; with a number that no process has.
    let said_else = here.read(&wire(&mut there, "a/b/c", 1)).unwrap();
    assert_eq!(doubt_of(&said_else), Some(Doubt::Name));
    let bad = Receiver::new().read(&wire(&mut there, "a\nb", 0)).unwrap();
    assert_eq!(doubt_of(&bad), Some(Doubt::Name));
    let absurd = Receiver::new().read(&wire(&mut there, "a/b/c", 1 << 24));
    assert!(matches!(absurd, Err(InletError::Name { .. })), "{absurd:?}");

    // Peers do not use up the numbers that policies need; what is known stays known.
    let plain = wire(&mut there, "trust/untrust/web", 0);
    let mut full = Receiver { learned: LEARNED_MAX, ..Receiver::new() };
    assert_eq!(doubt_of(&full.read(&plain).unwrap()), Some(Doubt::NamesFull));
    assert_eq!(full.names.find_zone("trust"), None);
    let mut known = Receiver { learned: LEARNED_MAX, names: names(), ..Receiver::new() };
    assert_eq!(doubt_of(&known.read(&plain).unwrap()), None);
}

#[test]
fn broken_frames_and_lost_batches_close_the_link() {
    let mut there = names();
    let mut outlet = Outlet::new(4096);
    outlet.copy(&copy(&mut there, 1), &there);
    let first = body(&mut outlet);
    outlet.copy(&copy(&mut there, 2), &there);
    let second = body(&mut outlet);
    assert!(matches!(Receiver::new().read(&second), Err(InletError::Number { came: 2, expected: 1, .. })));
    let mut here = Receiver::new();
    here.read(&first).unwrap();
    assert!(matches!(here.read(&first), Err(InletError::Number { came: 1, expected: 2, .. })));
    // Every cut but those between items.
    let cuts = (0..first.len()).filter(|at| Receiver::new().read(&first[..*at]).is_ok()).count();
    assert!(cuts <= 5, "{cuts}");
    let unknown = [&first[..8], &[77]].concat();
    assert!(matches!(Receiver::new().read(&unknown), Err(InletError::Frame(FrameError::Item(77)))));
    let answer = [&first[..8], &[9, 2, 0], &[0; 12]].concat();
    assert!(matches!(Receiver::new().read(&answer), Err(InletError::Shard(2))));
    // A count of more questions than there are bytes.
    let huge = [&first[..8], &[8], &[0; 8], &[255; 4]].concat();
    assert!(matches!(Receiver::new().read(&huge), Err(InletError::Frame(FrameError::Short))));
    // A text that would take more memory than the limit allows.
    let huge = [&first[..8], &[1, 0], &[0; 4], &[255; 8]].concat();
    assert!(matches!(Receiver::new().read(&huge), Err(InletError::Frame(FrameError::Decode(_)))));
}

#[test]
fn an_end_for_no_known_reason_is_refused() {
    let mut there = names();
    let told = end(&copy(&mut there, 1));
    let beyond = EndReason::ALL.len() as u8;
    for (reason, bits, doubt) in
        [(beyond - 1, 1, None), (beyond, 1, Some(Doubt::Reason)), (0, 128, Some(Doubt::Facts))]
    {
        let mut outlet = Outlet::new(4096);
        outlet.end(&told);
        let whole = body(&mut outlet);
        let WireItem::End4(end) = read_item(&mut &whole[8..]).unwrap() else { panic!() };
        let mut forged = whole[..8].to_vec();
        WireItem::End4(EndRecord { reason, bits: [bits, 0], ..end }).write(&mut forged);
        assert_eq!(doubt_of(&Receiver::new().read(&forged).unwrap()), doubt);
    }
}

/// Bytes of true batches, changed at random places by a fixed generator: whatever comes of it, no panic, no
/// more memory than a batch has, and nothing that the judge would not let pass.
#[test]
fn mutated_batches_never_panic() {
    let mut there = names();
    let mut outlet = Outlet::new(4096);
    outlet.resync_begin(1, 2);
    for n in 0..6 {
        let mut told = copy(&mut there, n);
        if n % 2 == 1 {
            told.birth.tuple = Tuple { src: v6(n), dst: v6(99), ..told.birth.tuple };
        }
        outlet.copy(&told, &there);
        outlet.end(&end(&told));
    }
    outlet.ask(4, &[]);
    outlet.answered(1, 4, 2);
    outlet.resync_end(1, 2);
    let whole = body(&mut outlet);
    let mut state = 0x5eed_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut taken, mut refused, mut broken) = (0, 0, 0);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=draw(3) {
            let at = 8 + draw(bytes.len() - 8);
            match draw(4) {
                0 => bytes[at] ^= 1 << draw(8),
                1 => bytes[at] = draw(256) as u8,
                2 => bytes.truncate(at.max(9)),
                _ => drop(bytes.splice(at..at, (0..draw(9)).map(|n| 37 * (n as u8 % 6)))),
            }
        }
        match Receiver::new().read(&bytes) {
            Ok(decoded) if decoded.refused_total() == 0 => taken += 1,
            Ok(_) => refused += 1,
            Err(_) => broken += 1,
        }
    }
    assert!(taken > 100 && refused > 100 && broken > 100, "{taken} {refused} {broken}");
}

/// `cargo test --release -p tidegate-sync codec_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods)] // Only here, time is measured.
fn codec_speed() {
    const RECORDS: u64 = 200_000;
    let mut there = names();
    let established: Vec<SessionCopy> = (0..RECORDS).map(|n| copy(&mut there, n)).collect();
    let births: Vec<SessionCopy> = established
        .iter()
        .map(|c| SessionCopy {
            facts: [c.facts[0], WingFacts::default()],
            packets: [1, 0],
            bytes: [60, 0],
            ..*c
        })
        .collect();
    for (what, copies) in [("established", &established), ("births", &births)] {
        let (mut outlet, mut here) = (Outlet::new(16 * 1024), Receiver::new());
        let mut bodies = Vec::new();
        let begin = std::time::Instant::now();
        for copy in copies {
            outlet.copy(copy, &there);
            if outlet.len() >= 16 * 1024 {
                bodies.push(outlet.finish().unwrap().1);
            }
        }
        bodies.extend(outlet.finish().map(|(_, frame)| frame));
        let encode = begin.elapsed();
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        let begin = std::time::Instant::now();
        let taken: usize = bodies
            .iter()
            .map(|frame| here.read(&frame[ENVELOPE_BYTES..]).unwrap())
            .map(|decoded| decoded.shards.iter().map(Vec::len).sum::<usize>())
            .sum();
        let decode = begin.elapsed();
        assert_eq!(taken as u64, RECORDS);
        let each = |t: std::time::Duration| t.as_nanos() as u64 / RECORDS;
        println!(
            "{what}: encode {} ns, decode {} ns, {} bytes a record",
            each(encode),
            each(decode),
            bytes as u64 / RECORDS
        );
    }
}

/// The shape of a copy on the wire does not grow unnoticed.
#[test]
fn a_record_is_small() {
    let mut there = names();
    let mut outlet = Outlet::new(4096);
    let told = copy(&mut there, 1);
    outlet.copy(&told, &there);
    let before = outlet.len();
    outlet.copy(&told, &there);
    assert!(outlet.len() - before < 125, "{}", outlet.len() - before);
    assert!(size_of::<CopyRecord<[u8; 16]>>() < 256);
}
