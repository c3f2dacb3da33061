//! Fragments that no stack would send: attacks, disorder, and very many of them.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{IpNumber, Ipv4Header, UdpHeader};
use tidegate_lab::traffic::UdpEcho;

use crate::common::fragments::{ETHERNET, Part, arrived, asking, datagram, echoed, frame_of, part, sum};
use crate::common::raw::{RawPair, SOON, raw_pair, v4, v6};
use crate::common::{TestLab, eventually, lab, now};

struct Torture {
    lab: TestLab,
    pair: RawPair,
    id: u32,
}

impl Torture {
    fn new(test: &str, queues: u32) -> Torture {
        let lab = lab(test, |spec| spec.queues = queues);
        let pair = raw_pair(&lab);
        Torture { lab, pair, id: 100 }
    }

    fn send(&self, (from, to): (IpAddr, IpAddr), part: &Part<'_>) {
        self.pair.client.wire.send(&frame_of(&self.pair.client, from, to, part)).unwrap();
    }

    /// Sends parts of one datagram, by first byte, end, and whether more follow; which of them arrived, by
    /// first byte, and how many were dropped for `reason`. It looks on for a while when as many as expected did.
    fn run(
        &mut self,
        ends: (IpAddr, IpAddr),
        parts: &[(usize, usize, bool)],
        reason: &str,
        (passing, dropping): (usize, u64),
    ) -> (Vec<u32>, u64) {
        self.id += 1;
        let whole = datagram(5_300, 4_000);
        let before = self.lab.drops(reason).unwrap();
        for (first, end, more) in parts {
            self.send(ends, &part(self.id, *first as u32, *more, &whole[*first..*end]));
        }
        let dropped = || self.lab.drops(reason).unwrap() - before;
        eventually("what is to be dropped is", SOON, || (dropped() >= dropping).then_some(()));
        let arrived = arrived(&self.pair.server, self.id, passing);
        for (offset, _, payload) in &arrived {
            let first = *offset as usize;
            assert_eq!(payload[..], whole[first..first + payload.len()], "bytes as they were sent");
        }
        (arrived.into_iter().map(|(offset, ..)| offset).collect(), dropped())
    }
}

/// Red when any shape of attack by fragments (RFC 1858, RFC 3128, RFC 5722; teardrop, ping of death) passes
/// whole, is not counted under its own reason, or when an exact repetition spoils its datagram.
#[test]
fn torture_is_dropped_under_its_own_reason() {
    let mut t = Torture::new("fragtort", 2);
    let ways = [v4(&t.pair), v6(&t.pair)];
    type Row<'a> = (&'a str, &'a [(usize, usize, bool)], &'a str, &'a [u32], u64);
    let rows: [Row<'_>; 11] = [
        (
            "sound",
            &[(0, 800, true), (800, 1600, true), (1600, 1700, false)],
            "fragment_overlap",
            &[0, 800, 1600],
            0,
        ),
        (
            "reversed",
            &[(1600, 1700, false), (800, 1600, true), (0, 800, true)],
            "fragment_queue_full",
            &[0, 800, 1600],
            0,
        ),
        (
            "repeated",
            &[(0, 800, true), (0, 800, true), (800, 900, false)],
            "fragment_duplicate",
            &[0, 800],
            1,
        ),
        ("overlap", &[(0, 800, true), (792, 1600, true), (1600, 1700, false)], "fragment_overlap", &[0], 2),
        (
            "over the header",
            &[(0, 800, true), (8, 808, true), (808, 900, false)],
            "fragment_overlap",
            &[0],
            2,
        ),
        (
            "overlap before the first",
            &[(800, 1600, true), (792, 808, true), (0, 792, true)],
            "fragment_overlap",
            &[],
            3,
        ),
        ("teardrop", &[(0, 800, true), (400, 480, false)], "fragment_inconsistent", &[0], 1),
        (
            "two ends",
            &[(0, 800, true), (1600, 1700, false), (1704, 1800, false)],
            "fragment_inconsistent",
            &[0, 1600],
            1,
        ),
        (
            "beyond the end",
            &[(0, 800, true), (1600, 1700, false), (2400, 2480, true)],
            "fragment_inconsistent",
            &[0, 1600],
            1,
        ),
        ("tiny first", &[(0, 8, true), (8, 800, false)], "fragment_tiny", &[0, 8], 0),
        ("no whole units", &[(0, 800, true), (800, 1601, true)], "fragment_malformed", &[0], 1),
    ];
    for ends in ways {
        for (what, parts, reason, passes, dropped) in rows {
            let (mut arrived, counted) = t.run(ends, parts, reason, (passes.len(), dropped));
            arrived.sort_unstable();
            assert_eq!((&arrived[..], counted), (passes, dropped), "{what}, {}", ends.0);
        }
        // A TCP header cut in two, and a second fragment that would overwrite the flags.
        let tcp = [0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0];
        for (offset, end) in [(0, 16), (8, 16)] {
            let before = t.lab.drops("fragment_tiny").unwrap();
            let cut = Part { protocol: IpNumber::TCP, ..part(7, offset, true, &tcp[offset as usize..end]) };
            t.send(ends, &cut);
            eventually("a tiny fragment is counted", SOON, || {
                (t.lab.drops("fragment_tiny").unwrap() == before + 1).then_some(())
            });
        }
        // Ping of death: an end beyond 65,535.
        let before = t.lab.drops("fragment_malformed").unwrap();
        t.send(ends, &part(8, 65_528, false, &[0; 64]));
        eventually("a ping of death is counted", SOON, || {
            (t.lab.drops("fragment_malformed").unwrap() == before + 1).then_some(())
        });
    }
}

/// Red when a later fragment passes without its first, is kept forever, or makes the first of another flow or of
/// a denied one carry it.
#[test]
fn fragments_without_a_permitted_first_do_not_pass() {
    let mut t = Torture::new("fragfirst", 1);
    let ends = v4(&t.pair);
    let (arrived_alone, _) =
        t.run(ends, &[(800, 1600, true), (1600, 1700, false)], "fragment_timeout", (0, 0));
    assert!(arrived_alone.is_empty());
    // They wait, or have waited in vain.
    let held = || sum(&t.lab, "tidegate_worker_held_fragments", &[]);
    eventually("both wait", SOON, || {
        (held() == 2 || t.lab.drops("fragment_timeout").unwrap() == 2).then_some(())
    });
    // Port 9 is denied: not even a later fragment passes.
    let denied = datagram(9, 2_000);
    t.send(ends, &part(77, 0, true, &denied[..800]));
    t.send(ends, &part(77, 800, false, &denied[800..]));
    for reason in ["policy_deny", "fragment_untracked"] {
        eventually(reason, SOON, || (t.lab.drops(reason).unwrap() == 1).then_some(()));
    }
    assert!(arrived(&t.pair.server, 77, 0).is_empty());
    // From the other side the same datagram is another one.
    let whole = datagram(5_300, 2_000);
    t.send(ends, &part(78, 0, true, &whole[..800]));
    assert_eq!(arrived(&t.pair.server, 78, 1).len(), 1);
    let forged = frame_of(&t.pair.server, ends.0, ends.1, &part(78, 792, true, &whole[792..800]));
    t.pair.server.wire.send(&forged).unwrap();
    t.send(ends, &part(78, 800, false, &whole[800..]));
    assert_eq!(arrived(&t.pair.server, 78, 1).len(), 1, "it is not spoiled");
    eventually("what waits in vain is dropped", SOON, || {
        (t.lab.drops("fragment_timeout").unwrap() == 3).then_some(())
    });
    eventually("nothing waits any more", SOON, || (held() == 0).then_some(()));
    eventually("the cache is empty again", SOON, || {
        (sum(&t.lab, "tidegate_fragments_in_use_datagrams", &[]) == 0).then_some(())
    });
}

/// Red when an atomic fragment (RFC 6946) is taken for a part of the datagram whose identification it has: it
/// would be dropped as an overlap, and the datagram with it.
#[test]
fn an_atomic_fragment_is_a_packet_of_its_own() {
    let t = Torture::new("fragatom", 1);
    let ends = v6(&t.pair);
    let whole = datagram(5_300, 1_600);
    let mut alone = Vec::new();
    let (IpAddr::V6(from), IpAddr::V6(to)) = ends else { panic!("IPv6") };
    let header = UdpHeader::without_ipv4_checksum(4_000, 5_300, 5).unwrap();
    let checksum = header.calc_checksum_ipv6_raw(from.octets(), to.octets(), b"alone").unwrap();
    UdpHeader { checksum, ..header }.write(&mut alone).unwrap();
    alone.extend(b"alone");
    t.send(ends, &part(9, 0, true, &whole[..800]));
    t.send(ends, &part(9, 0, false, &alone));
    t.send(ends, &part(9, 800, false, &whole[800..]));
    let arrived: Vec<_> = arrived(&t.pair.server, 9, 3).into_iter().map(|a| (a.0, a.1)).collect();
    assert_eq!(arrived, [(0, true), (0, false), (800, false)]);
}

/// Red when the fragments of one datagram are taken for another's, or only one datagram can be under way.
#[test]
fn interleaved_datagrams_pass() {
    let t = Torture::new("fraginter", 2);
    for ends in [v4(&t.pair), v6(&t.pair)] {
        let whole = datagram(5_300, 3_000);
        let ids: Vec<u32> = (1_000..1_016).collect();
        let cuts = [(0, 1_000), (1_000, 2_000), (2_000, whole.len())];
        for (first, end) in [cuts[1], cuts[0], cuts[2]] {
            for id in &ids {
                t.send(ends, &part(*id, first as u32, end < whole.len(), &whole[first..end]));
            }
        }
        let mut seen = vec![0; ids.len()];
        let start = now();
        while seen.iter().any(|n| *n < 3) && start.elapsed() < SOON {
            let Some(frame) = t.pair.server.wire.receive(SOON).unwrap() else { break };
            let id = if frame[12] == 8 {
                u32::from(frame[18]) << 8 | u32::from(frame[19])
            } else {
                frame.get(58..62).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
            };
            if let Some(n) = id.checked_sub(1_000).and_then(|n| seen.get_mut(n as usize)) {
                *n += 1;
            }
        }
        assert_eq!(seen, vec![3; ids.len()], "{}", ends.0);
    }
}

/// Red when a flood of fragments of a million datagrams makes the daemon grow, fills the cache for good, takes
/// all frames, or stops sound datagrams.
#[test]
fn a_million_datagrams_leave_memory_flat() {
    let mut t = Torture::new("fragmill", 1);
    let server = t.lab.server_v4(7);
    let _echo = UdpEcho::start(&t.lab.server(), server).unwrap();
    let socket = asking(&t.lab, server, 4_000);
    for length in [10, 20_000] {
        echoed(&socket, length).unwrap();
    }
    // Some may get lost in the flood, each of which is waited for in vain.
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let pid = t.lab.daemon().unwrap().process().pid;
    let (from, to) = v4(&t.pair);
    let payload = [0x5a; 64];
    let mut frame = frame_of(&t.pair.client, from, to, &part(0, 800, true, &payload));
    let mut resident = 0;
    let mut passed = 0;
    for n in 0..1_000_000u32 {
        if n % 50_000 == 0 {
            if n == 100_000 {
                resident = resident_kib(pid);
            }
            passed += u32::from(echoed(&socket, 20_000).is_ok());
        }
        // Source, identification and offset differ.
        frame[28..30].copy_from_slice(&((n >> 16) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&(n as u16).to_be_bytes());
        let mut header = Ipv4Header::from_slice(&frame[ETHERNET..]).unwrap().0;
        header.header_checksum = header.calc_header_checksum();
        frame[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
        // A full queue of the device is no failure.
        let _ = t.pair.client.wire.send(&frame);
    }
    let grown = resident_kib(pid).saturating_sub(resident);
    assert!(grown < 4_096, "the daemon grew by {grown} KiB");
    assert!(passed >= 15, "only {passed} of 20 sound datagrams came back during the flood");
    let capacity = sum(&t.lab, "tidegate_fragments_capacity_datagrams", &[]);
    assert!(sum(&t.lab, "tidegate_fragments_in_use_datagrams", &[]) <= capacity);
    let evicted = sum(&t.lab, "tidegate_fragments_datagrams_total", &[("result", "evicted")]);
    assert!(evicted > 100_000, "only {evicted} datagrams were given up: the test did not test");
    assert!(sum(&t.lab, "tidegate_worker_held_fragments", &[]) <= 256);
    // The end of the flood may still be under way.
    eventually("a sound datagram comes back", SOON, || echoed(&socket, 60_000).ok());
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the process lives");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
