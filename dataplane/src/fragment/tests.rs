//! Torture for the fragment cache: what passes, what is refused and why, and that nothing grows.

use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

const CONFIG: FragmentConfig = FragmentConfig { datagrams: 8, timeout_ms: 1_000 };
const PORTS: FragmentNote = FragmentNote { src_port: 4000, dst_port: 53, protocol: 17 };

fn ip(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key(id: u32) -> DatagramKey {
    DatagramKey { src: ip("10.1.0.2"), dst: ip("10.2.0.2"), id, protocol: 17, zone: ZoneId(1) }
}

/// Payload from `offset` to `end`, in bytes.
fn piece(offset: u32, end: u32, more: bool) -> Piece {
    Piece { id: 0, offset, len: end - offset, more, next_header: 17 }
}

struct Bench {
    cache: FragmentCache,
    now: Now,
}

impl Bench {
    fn new(config: FragmentConfig) -> Bench {
        Bench { cache: FragmentCache::try_new(config).unwrap(), now: Now(5_000) }
    }

    fn send(&mut self, key: DatagramKey, piece: Piece) -> Checked {
        let first = (piece.offset == 0).then_some(PORTS);
        // A poor hash, so that entries share buckets.
        self.cache.check(&key, u64::from(key.id / 3), &piece, first, self.now)
    }

    /// What becomes of the fragments of one datagram, by their last byte and whether more follow.
    fn run(&mut self, id: u32, pieces: &[(u32, u32, bool)]) -> Vec<Result<(), DropReason>> {
        let verdict = |checked| match checked {
            Checked::Forward(note) => {
                assert_eq!(note, PORTS);
                Ok(())
            }
            Checked::Await { .. } => Ok(()),
            Checked::Drop(reason) => Err(reason),
        };
        pieces.iter().map(|(a, b, more)| verdict(self.send(key(id), piece(*a, *b, *more)))).collect()
    }

    fn settled(&mut self) -> Vec<Settled> {
        std::iter::from_fn(|| self.cache.next_settled()).collect()
    }
}

/// What a shape is, and its fragments by first byte, end, and whether more follow.
type Shape<'a> = (&'a str, &'a [(u32, u32, bool)]);

const OVERLAP: Result<(), DropReason> = Err(DropReason::FragmentOverlap);
const INCONSISTENT: Result<(), DropReason> = Err(DropReason::FragmentInconsistent);
const DUPLICATE: Result<(), DropReason> = Err(DropReason::FragmentDuplicate);

// Red when any kind of overlap passes, or what comes after one passes: another receiver would put another
// datagram together.
#[test]
fn overlaps_refuse_the_rest_of_their_datagram() {
    let first = (0, 64, true);
    let shapes: [Shape<'_>; 8] = [
        ("over the end of the first", &[first, (56, 120, true)]),
        ("over the header, RFC 1858", &[first, (8, 32, true)]),
        ("inside", &[(0, 800, true), (400, 408, true)]),
        ("around", &[(64, 128, true), (8, 256, true)]),
        ("same begin, longer", &[first, (0, 72, true)]),
        ("same begin, shorter", &[first, (0, 56, true)]),
        ("same end", &[first, (32, 64, true)]),
        ("two at once", &[first, (64, 128, true), (32, 96, true)]),
    ];
    for (what, pieces) in shapes {
        let mut b = Bench::new(CONFIG);
        let verdicts = b.run(1, pieces);
        assert!(verdicts[..pieces.len() - 1].iter().all(Result::is_ok), "{what}");
        assert_eq!(verdicts[pieces.len() - 1], OVERLAP, "{what}");
        assert_eq!(b.run(1, &[(1024, 1032, true), (1032, 1040, false)]), [OVERLAP; 2], "{what}");
        assert_eq!(b.cache.counters().refused, 1);
    }
}

// Red when a teardrop passes: a fragment that ends before the one before it does, or a last one in the middle.
#[test]
fn ends_that_contradict_each_other_are_refused() {
    let shapes: [Shape<'_>; 6] = [
        ("two ends", &[(8, 16, false), (24, 32, false)]),
        ("two ends, less than a unit apart", &[(8, 15, false), (8, 14, false)]),
        ("beyond the end", &[(0, 8, true), (16, 24, false), (24, 32, true)]),
        ("more behind the end", &[(16, 24, false), (16, 24, true)]),
        ("an end before what was seen", &[(0, 8, true), (24, 32, true), (8, 16, false)]),
        ("an end where more was promised", &[(8, 16, true), (8, 16, false)]),
    ];
    for (what, pieces) in shapes {
        let mut b = Bench::new(CONFIG);
        let verdicts = b.run(1, pieces);
        assert_eq!(verdicts[pieces.len() - 1], INCONSISTENT, "{what}");
        assert!(verdicts[..pieces.len() - 1].iter().all(Result::is_ok), "{what}");
        assert_eq!(b.run(1, &[(0, 8, true)]), [INCONSISTENT], "{what}");
    }
    let mut b = Bench::new(CONFIG);
    b.run(1, &[(0, 8, true)]);
    let other = Piece { next_header: 6, ..piece(8, 16, false) };
    assert_eq!(b.send(key(1), other), Checked::Drop(DropReason::FragmentInconsistent));
}

// Red when a repeated fragment spoils its datagram, or is forwarded a second time.
#[test]
fn an_exact_repetition_is_dropped_alone() {
    let mut b = Bench::new(CONFIG);
    let pieces = [(8, 16, true), (8, 16, true), (0, 8, true), (0, 8, true), (16, 19, false)];
    assert_eq!(b.run(1, &pieces), [Ok(()), DUPLICATE, Ok(()), DUPLICATE, Ok(())]);
    assert_eq!((b.cache.counters().completed, b.cache.counters().refused), (1, 0));
}

// Red when a datagram of 64 KiB does not pass in reverse, its parts are not released with the ports of the
// first, or a complete datagram keeps its entry.
#[test]
fn a_reversed_datagram_waits_for_its_first() {
    let mut b = Bench::new(CONFIG);
    let ends: Vec<u32> = (0..45).map(|n| ((n + 1) * 1_480).min(65_515)).collect();
    let mut waiting = None;
    for n in (1..45).rev() {
        let checked = b.send(key(9), piece(n * 1_480, ends[n as usize], n < 44));
        let Checked::Await { datagram, until } = checked else { panic!("fragment {n}: {checked:?}") };
        assert_eq!(*waiting.get_or_insert(datagram), datagram);
        assert_eq!(until, Now(b.now.0 + 1_000));
    }
    assert!(b.settled().is_empty());
    assert_eq!(b.cache.in_use(), 1);
    assert_eq!(b.send(key(9), piece(0, 1_480, true)), Checked::Forward(PORTS));
    assert_eq!(b.settled(), [Settled { datagram: waiting.unwrap(), outcome: Ok(PORTS) }]);
    assert_eq!((b.cache.in_use(), b.cache.counters().completed), (0, 1));
    // The identification is free for the next datagram.
    assert!(matches!(b.send(key(9), piece(1_480, 2_960, true)), Checked::Await { .. }));
}

// Red when one datagram may make any number of fragments wait.
#[test]
fn waiting_is_bounded_for_each_datagram() {
    let mut b = Bench::new(CONFIG);
    for n in 1..=u32::from(WAITING_MAX) {
        assert!(matches!(b.send(key(1), piece(n * 8, n * 8 + 8, true)), Checked::Await { .. }));
    }
    assert_eq!(b.run(1, &[(8_000, 8_008, true)]), [Err(DropReason::FragmentQueueFull)]);
    assert!(matches!(b.send(key(2), piece(8, 16, true)), Checked::Await { .. }), "another one may");
}

// Red when fragments of different datagrams are taken together: by protocol, addresses, identification or zone.
#[test]
fn datagrams_are_told_apart_by_every_part_of_their_key() {
    let all = [
        key(1),
        key(2),
        DatagramKey { protocol: 6, ..key(1) },
        DatagramKey { zone: ZoneId(2), ..key(1) },
        DatagramKey { src: ip("10.1.0.3"), ..key(1) },
        DatagramKey { dst: ip("10.2.0.3"), ..key(1) },
        DatagramKey { src: key(1).dst, dst: key(1).src, ..key(1) },
    ];
    let mut b = Bench::new(CONFIG);
    assert_eq!(b.send(all[0], piece(0, 8, true)), Checked::Forward(PORTS));
    for other in &all[1..] {
        assert!(matches!(b.send(*other, piece(8, 16, true)), Checked::Await { .. }), "{other:?}");
    }
    assert_eq!(b.send(all[0], piece(8, 16, true)), Checked::Forward(PORTS));
    assert_eq!(b.cache.in_use(), 7);
}

// Red when a datagram is remembered beyond its time: its identification would stay spoiled for whoever uses it
// next, or its memory taken.
#[test]
fn a_datagram_is_forgotten_when_its_time_is_over() {
    let mut b = Bench::new(CONFIG);
    assert_eq!(b.run(1, &[(0, 16, true), (8, 24, true)])[1], OVERLAP);
    b.run(2, &[(0, 8, true)]);
    b.now = Now(b.now.0 + 999);
    b.cache.expire(b.now);
    assert_eq!(b.cache.in_use(), 2);
    assert_eq!(b.run(1, &[(0, 8, true)]), [OVERLAP], "a refused one is not restarted by its fragments");
    b.now = Now(b.now.0 + 1);
    assert_eq!(b.run(1, &[(0, 8, true)]), [Ok(())], "also before the sweep comes");
    b.cache.expire(b.now);
    assert_eq!(b.cache.in_use(), 1);
    assert_eq!(b.cache.counters().expired, 1, "the refused one was counted before");
}

// Red when a full cache refuses new datagrams, lets another one go than the oldest, or forgets to say so to
// those that wait.
#[test]
fn a_full_cache_lets_the_oldest_datagram_go() {
    let mut b = Bench::new(CONFIG);
    let Checked::Await { datagram, .. } = b.send(key(0), piece(8, 16, true)) else { panic!() };
    for id in 1..8 {
        b.run(id, &[(0, 8, true)]);
    }
    assert!(b.settled().is_empty());
    b.run(8, &[(0, 8, true)]);
    assert_eq!(b.settled(), [Settled { datagram, outcome: Err(DropReason::FragmentEvicted) }]);
    assert_eq!((b.cache.in_use(), b.cache.capacity(), b.cache.counters().evicted), (8, 8, 1));
    assert_eq!(b.run(1, &[(8, 16, false)]), [Ok(())], "the second oldest is still there");
}

// Red when memory grows with the number of datagrams, or a flood of them stops those that are sound: each of
// these comes while a thousand others do.
#[test]
fn a_million_datagrams_leave_no_trace() {
    let mut b = Bench::new(FragmentConfig { datagrams: 2_048, timeout_ms: 1_000 });
    let mut passed = 0;
    for n in 0..1_000_000u32 {
        b.now = Now(5_000 + u64::from(n / 1_000));
        let flood =
            DatagramKey { src: Addr::from_v4((n.wrapping_mul(2_654_435_761)).to_be_bytes()), ..key(n) };
        let hash = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        b.cache.check(&flood, hash, &piece(8 * (n % 100), 8 * (n % 100) + 8, true), None, b.now);
        let sound = DatagramKey { zone: ZoneId(9), ..key(n / 1_000) };
        let one = match n % 1_000 {
            0 => piece(0, 800, true),
            500 => piece(800, 1_600, true),
            999 => piece(1_600, 1_700, false),
            _ => continue,
        };
        passed += u32::from(b.send(sound, one) == Checked::Forward(PORTS));
        assert!(b.cache.in_use() <= b.cache.capacity());
        b.settled();
    }
    assert_eq!(passed, 3_000);
    assert_eq!(b.cache.counters().completed, 1_000);
    assert!(b.cache.counters().evicted > 900_000);
    b.now = Now(b.now.0 + 1_000);
    for _ in 0..8 {
        b.cache.expire(b.now);
    }
    assert_eq!(b.cache.in_use(), 0);
}

proptest! {
    // Red when the order in which sound fragments come matters, or those of one datagram disturb another's.
    #[test]
    fn sound_datagrams_pass_in_any_order(
        cuts in prop::collection::vec((1..100u32, 0..6u32), 2..60),
        tail in 1..9u32,
        order in any::<u64>(),
    ) {
        let mut ends = [0u32; 6];
        let mut pieces: Vec<(u32, Piece)> = Vec::new();
        for (units, id) in &cuts {
            let begin = ends[*id as usize];
            ends[*id as usize] += units * 8;
            pieces.push((*id, piece(begin, begin + units * 8, true)));
        }
        for id in 0..6 {
            let end = ends[id as usize];
            if end > 0 {
                pieces.push((id, piece(end, end + tail, false)));
            }
        }
        let datagrams = ends.iter().filter(|end| **end > 0).count() as u64;
        pieces.sort_by_key(|(id, p)| {
            (u64::from(*id) << 32 | u64::from(p.offset)).wrapping_add(order).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let mut b = Bench::new(CONFIG);
        let mut waiting: Vec<Datagram> = Vec::new();
        let mut forwarded = 0;
        for (id, piece) in &pieces {
            match b.send(key(*id), *piece) {
                Checked::Forward(note) => {
                    prop_assert_eq!(note, PORTS);
                    forwarded += 1;
                }
                Checked::Await { datagram, .. } => waiting.push(datagram),
                Checked::Drop(reason) => prop_assert!(false, "{:?}", reason),
            }
            for Settled { datagram, outcome } in b.settled() {
                prop_assert_eq!(outcome, Ok(PORTS));
                forwarded += waiting.iter().filter(|w| **w == datagram).count();
                waiting.retain(|w| *w != datagram);
            }
        }
        prop_assert_eq!(forwarded, pieces.len());
        prop_assert_eq!((b.cache.in_use(), b.cache.counters().completed), (0, datagrams));
    }
}
