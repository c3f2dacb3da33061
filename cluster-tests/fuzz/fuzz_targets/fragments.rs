//! Any sequence of fragments against the parser and the fragment cache, and beside them a model that compares
//! everything with everything.
//!
//! Seven bytes are one fragment: which datagram and protocol, how far it begins and how long it is, whether
//! more follow, how much time has passed. It is written as a packet and read by the parser, so that what is
//! wrong by itself never gets to the cache.
#![no_main]

mod fragment_model;

use fragment_model::{Fate, Model, Part};
use libfuzzer_sys::fuzz_target;
use tidegate_dataplane::fragment::{
    Checked, DatagramKey, FragmentCache, FragmentConfig, FragmentNote, Settled, WAITING_MAX,
};
use tidegate_dataplane::names::ZoneId;
use tidegate_dataplane::packet::{L4, Packet, ParseOptions, checksum, parse};
use tidegate_dataplane::time::Now;

const CONFIG: FragmentConfig = FragmentConfig { datagrams: 5, timeout_ms: 100 };
const STEP_LEN: usize = 7;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// An unfinished chain of headers: not what the first fragment names.
const OPTIONS: u8 = 60;

fuzz_target!(|data: &[u8]| {
    let mut cache = FragmentCache::try_new(CONFIG).unwrap();
    let mut model = Model::new(CONFIG.datagrams as usize, u64::from(CONFIG.timeout_ms), WAITING_MAX.into());
    let mut now = 0;
    for step in data.chunks_exact(STEP_LEN) {
        now += u64::from(step[6] & 0x3f);
        if step[6] & 0x40 != 0 {
            cache.expire(Now(now));
            model.sweep(now);
        }
        let frame = frame(step);
        let Ok(packet) = parse(&frame, ParseOptions::default()) else { continue };
        let Some(piece) = packet.fragment.piece() else { continue };
        holds_its_header(&packet, &frame);
        let key = DatagramKey::new(&packet, &piece, ZoneId(u8::from(step[0] & 0x80 != 0).into()));
        let first = (packet.l4_info != L4::LaterFragment).then_some(FragmentNote {
            src_port: packet.tuple.src_port,
            dst_port: packet.tuple.dst_port,
            protocol: packet.tuple.protocol,
        });
        let part = Part {
            begin: piece.offset,
            end: piece.offset + piece.len,
            more: piece.more,
            next_header: piece.next_header,
            first,
        };
        let (expected, told) = model.check(key, part, now);
        // A poor hash: entries share buckets.
        let checked = cache.check(&key, u64::from(key.id & 1), &piece, first, Now(now));
        match (checked, expected) {
            (Checked::Await { datagram, until }, Fate::Await { until: wanted }) => {
                assert_eq!(until, Now(wanted));
                model.named(key, datagram);
            }
            (Checked::Forward(note), Fate::Forward(wanted)) => assert_eq!(note, wanted),
            (Checked::Drop(reason), Fate::Drop(wanted)) => assert_eq!(reason, wanted),
            (checked, expected) => panic!("{checked:?} where {expected:?} was expected, for {part:?}"),
        }
        let mut settled: Vec<_> = std::iter::from_fn(|| cache.next_settled()).collect();
        settled.reverse();
        let told: Vec<_> =
            told.into_iter().map(|(datagram, outcome)| Settled { datagram, outcome }).collect();
        assert_eq!(settled, told);
        assert!(cache.in_use() <= cache.capacity());
        assert_eq!(cache.in_use() as usize, model.len());
    }
});

/// RFC 1858, RFC 3128: the ports and flags come in the first fragment, and no other may overwrite them.
fn holds_its_header(packet: &Packet, frame: &[u8]) {
    let piece = packet.fragment.piece().unwrap();
    let header = match piece.next_header {
        TCP => 20,
        _ => 8,
    };
    if piece.offset == 0 {
        let least =
            if piece.next_header == TCP { u32::from(frame[usize::from(packet.l4) + 12] >> 4) * 4 } else { 8 };
        assert!(piece.len >= least.max(header) || piece.next_header == OPTIONS, "{packet:?}");
    } else {
        assert!(piece.offset >= header, "{packet:?}");
    }
}

/// The packet that seven bytes stand for.
fn frame(step: &[u8]) -> Vec<u8> {
    let (which, begin, len) =
        (step[0], u16::from_be_bytes([step[1], step[2]]), u16::from_be_bytes([step[3], step[4]]));
    // Near the begin mostly, sometimes anywhere.
    let begin = if begin & 0x8000 != 0 { begin & 0x1fff } else { begin & 0x1f };
    let len = if len & 0x8000 != 0 { usize::from(len % 1_480) } else { usize::from(len & 0x3f) * 8 };
    let more = step[5] & 1 != 0;
    let tcp = which & 0x10 != 0;
    let payload = payload(tcp, begin == 0, len, step[5] >> 4);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if which & 0x20 != 0 {
        let next = if which & 0x40 != 0 {
            OPTIONS
        } else if tcp {
            TCP
        } else {
            UDP
        };
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16 + 8).to_be_bytes());
        frame.extend([44, 64]);
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, which & 1]);
        frame.extend([next, 0]);
        frame.extend((begin << 3 | u16::from(more)).to_be_bytes());
        frame.extend([0, 0, 0, which & 7]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((payload.len() as u16 + 20).to_be_bytes());
        frame.extend([0, which & 7]);
        frame.extend((begin | u16::from(more) << 13).to_be_bytes());
        frame.extend([64, if tcp { TCP } else { UDP }, 0, 0, 10, 1, 0, 2, 10, 2, 0, which & 1]);
        let sum = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// What a first fragment begins with is a sound header, as far as there is room for one.
fn payload(tcp: bool, first: bool, len: usize, ports: u8) -> Vec<u8> {
    let mut payload = vec![0x5a; len];
    let udp_header = [0x10, ports, 0x20, 1, 0xff, 0xff, 1, 1];
    let tcp_header = [0x10, ports, 0x20, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    if first {
        let header = if tcp { &tcp_header[..] } else { &udp_header[..] };
        let n = header.len().min(len);
        payload[..n].copy_from_slice(&header[..n]);
    }
    payload
}
