//! Turns bytes into segments between two ends, gives each to an engine and to the model, and compares
//! what an outsider sees: verdict, state, timeout, what is left of it, ends and counters.
//!
//! The first two bytes are the switches; each segment takes six bytes, which name numbers relative to
//! what the model knows, so that most of them fall near a bound of the window.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::engine::{
    BATCH_MAX, Engine, EngineConfig, Frame, SessionFilter, SessionView, Verdict,
};
use tidegate_dataplane::fragment::{FragmentConfig, FragmentNote};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::policy::{self, Policy};
use tidegate_dataplane::route::{NextHop, PortId, PortInfo, Route, Snapshot, SnapshotBuilder};
use tidegate_dataplane::session::EndReason;
use tidegate_dataplane::time::Now;

use super::model::{ACK, FIN, Fate, INITIAL_MS, Model, RST, SERVICE_MS, SYN, Segment, Side, Switches, reach};

const CLIENT: [u8; 4] = [10, 1, 0, 2];
const SERVER: [u8; 4] = [10, 2, 0, 2];
/// Ports of the node towards client and server.
const SIDES: [PortId; 2] = [PortId(0), PortId(1)];
/// Bytes of a segment's description.
const STEP: usize = 6;
/// When an input begins.
const START_MS: u64 = 1_000_000;

thread_local! {
    static NODE: RefCell<Node> = RefCell::new(Node::new());
}

/// Runs one input. `tell` gets a line for each segment.
///
/// # Panics
/// When engine and model differ.
pub fn run(data: &[u8], mut tell: impl FnMut(String)) {
    let [a, b, steps @ ..] = data else { return };
    let switches = switches(*a, *b);
    tell(format!("{switches:?}"));
    NODE.with_borrow_mut(|node| {
        node.begin(switches);
        let mut model = Model::new(switches);
        let mut now = START_MS;
        for step in steps.as_chunks::<STEP>().0 {
            now += [0, 0, 1, 900, 2_100, 5_100, 11_000, 21_000][usize::from(step[5] >> 5)];
            let segment = segment(step, &model);
            let fate = model.arrive(&segment, now);
            tell(format!("{now} {segment:?} -> {fate:?} {:?}", model.shown(now)));
            node.compare(&segment, fate, &model, now);
        }
    });
}

fn switches(a: u8, b: u8) -> Switches {
    let bit = |n: u8| a >> n & 1 == 1;
    // What the policy refuses is never in force.
    Switches {
        syn_check: bit(0) || bit(1),
        strict_syn_check: bit(1),
        sequence_check: !bit(2) || bit(3),
        rst_sequence_check: bit(3),
        rst_invalidate: bit(4),
        fin_invalidate: bit(5),
        half_close_time_wait: bit(6),
        both_ways: bit(7),
        time_wait_s: [Some(10), Some(50), None][usize::from(b) % 3],
    }
}

/// Flags that pass the parser: others never reach the tracker.
const FLAGS: [u8; 8] = [SYN, SYN | ACK, ACK, ACK | 8, FIN | ACK, RST, RST | ACK, ACK | 0x20];
const LENGTHS: [u32; 8] = [0, 0, 1, 10, 100, 1000, 1460, 5];
const SCALES: [Option<u8>; 4] = [None, Some(0), Some(7), Some(15)];
const FACTORS: [u32; 8] = [1, 1, 1, 2, 100, 1460, 66_000, 1 << 20];

fn segment(step: &[u8; STEP], model: &Model) -> Segment {
    let from_client = step[0] & 1 == 0;
    let flags = FLAGS[usize::from(step[0] >> 1 & 7)];
    let first = if from_client { 1_000 } else { 4_294_967_000 };
    let (own, other) = match &model.session {
        Some(s) => {
            let w = usize::from(s.client_began() != from_client);
            (s.sides[w], s.sides[1 - w])
        }
        None => (Side::default(), Side::default()),
    };
    let next = if own.sent == 0 { first } else { own.sent };
    let seq = match step[1] & 15 {
        0..=5 if flags & SYN != 0 && own.syn_number.is_none() => first,
        0..=5 => next,
        6 => other.acked.unwrap_or(0),
        7 | 8 => other.granted,
        9 => next.wrapping_sub(reach(other.largest_window()) as u32),
        10 => next.wrapping_sub(LENGTHS[usize::from(step[0] >> 4 & 7)]),
        11 => own.syn_number.unwrap_or(first),
        12 => first.wrapping_add(90_000),
        13 => 0,
        14 => next.wrapping_sub(1),
        _ => u32::from(step[2]) << 24,
    };
    let ack = match step[3] & 15 {
        0..=7 => other.sent,
        8 | 9 => own.acked.unwrap_or(0),
        10 => other.sent.wrapping_sub(reach(own.largest_window()) as u32),
        11 => other.syn_number.unwrap_or(0).wrapping_add(1),
        12 => other.sent.wrapping_sub(1),
        13 => 0,
        14 => other.granted,
        _ => u32::from(step[4]) << 24,
    };
    Segment {
        from_client,
        flags,
        seq: moved(seq, step[1], step[2]),
        ack: if flags & ACK == 0 { 0 } else { moved(ack, step[3], step[4]) },
        payload: LENGTHS[usize::from(step[0] >> 4 & 7)],
        window: [60_000, 0, 1, 10, 500, 8_000, 65_535, u16::from(step[4]) * 257][usize::from(step[5] & 7)],
        scale: SCALES[usize::from(step[5] >> 3 & 3)].filter(|_| flags & SYN != 0),
    }
}

/// A number, moved by a small amount times a factor, either way.
fn moved(number: u32, how: u8, amount: u8) -> u32 {
    let by = u32::from(amount).wrapping_mul(FACTORS[usize::from(how >> 4 & 7)]);
    if how & 15 == 15 {
        number
    } else if how >> 7 == 0 {
        number.wrapping_add(by)
    } else {
        number.wrapping_sub(by)
    }
}

struct Buffer {
    port: PortId,
    bytes: Vec<u8>,
}

impl Frame for Buffer {
    fn port(&self) -> PortId {
        self.port
    }
    fn data(&self) -> &[u8] {
        &self.bytes
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn note(&self) -> Option<FragmentNote> {
        None
    }
    fn set_note(&mut self, _: FragmentNote) {
        unreachable!("only fragments have a note")
    }
}

/// One engine between the two ends, and the policies that it was given so far.
struct Node {
    engine: Engine,
    names: Names,
    policies: BTreeMap<Switches, Arc<Policy>>,
    /// When the last packet came.
    last: Now,
    /// Counters when the input began.
    ended: [u64; EndReason::ALL.len()],
    ignored: u64,
    learned: u64,
}

impl Node {
    fn new() -> Node {
        let config = EngineConfig {
            shard: 0,
            shards: 1,
            capacity: 16,
            hash_key: [1, 2],
            node_id: 1,
            boot: 1,
            icmp_errors_per_s: 0,
            fragments: FragmentConfig { datagrams: 1, timeout_ms: 1_000 },
        };
        let mut names = Names::default();
        for zone in ["client", "server"] {
            names.zone(zone).expect("a first zone");
        }
        let mut engine = Engine::new(config, Arc::new(Snapshot::empty())).expect("a small table");
        engine.set_routes(Arc::new(routes(&names)));
        Node {
            engine,
            names,
            policies: BTreeMap::new(),
            last: Now(0),
            ended: Default::default(),
            ignored: 0,
            learned: 0,
        }
    }

    fn begin(&mut self, switches: Switches) {
        // What the last packet of the last input left is not expired at its time, nor under its policy.
        self.engine.clear(0, u32::MAX, &SessionFilter::default(), self.last);
        let revision = self.policies.len() as u32 + 1;
        let names = &mut self.names;
        let policy = self.policies.entry(switches).or_insert_with(|| {
            let text = policy_text(&switches);
            let file = policy::check(&text, "model").file.expect("a right policy");
            Arc::new(policy::compile(&file, revision, names).expect("a small policy"))
        });
        self.engine.set_policy(policy.clone());
        let counters = self.engine.counters();
        self.ended = counters.ended;
        (self.ignored, self.learned) = (counters.tcp_ignored, counters.tcp_relearned);
    }

    fn compare(&mut self, segment: &Segment, fate: Fate, model: &Model, now: u64) {
        let port = SIDES[usize::from(!segment.from_client)];
        self.last = Now(now);
        let mut frames = [Buffer { port, bytes: frame(segment) }];
        let mut verdicts: ArrayVec<Verdict, BATCH_MAX> = ArrayVec::new();
        self.engine.outbox().clear();
        self.engine.process(&mut frames, &mut verdicts, Now(now));
        let got = match verdicts[0] {
            Verdict::Transmit(out) if out != port => Fate::Forwarded,
            Verdict::Drop(reason) => Fate::Dropped(reason.name()),
            other => panic!("model: {other:?}"),
        };
        assert_eq!(got, fate, "model: the verdicts differ");
        let mut views = Vec::new();
        self.engine.list(0, u32::MAX, &SessionFilter::default(), Now(now), &mut views);
        assert!(views.len() <= 1, "model: {} sessions", views.len());
        let shown = model.shown(now);
        let seen = views.first().map(|v| view(v, shown.map_or("", |s| s.state)));
        assert_eq!(seen, shown, "model: the sessions differ");
        let counters = self.engine.counters();
        for reason in EndReason::ALL {
            let n = counters.ended[reason as usize] - self.ended[reason as usize];
            let want = model.ended.get(reason.name()).copied().unwrap_or(0);
            assert_eq!(n, want, "model: ends differ: {}", reason.name());
        }
        let counted = (counters.tcp_ignored - self.ignored, counters.tcp_relearned - self.learned);
        assert_eq!(counted, (model.ignored, model.learned), "model: counters differ (ignored, learned)");
    }
}

/// What the engine lists; a state of the same name is the model's own text.
fn view(v: &SessionView, state: &'static str) -> super::model::Shown {
    super::model::Shown {
        state: if v.state.name() == state { state } else { v.state.name() },
        timeout_ms: v.timeout.and_then(|t| t.timeout_ms).unwrap_or(u64::MAX),
        remaining_ms: v.remaining_ms.unwrap_or(u64::MAX),
    }
}

fn policy_text(s: &Switches) -> String {
    let rule = |from: &str, to: &str| {
        format!(
            "[[rule]]\nname = \"r\"\nfrom = \"{from}\"\nto = \"{to}\"\nsource = \"any\"\ndestination = \"any\"\n\
             application = \"any\"\naction = \"permit\"\nsession_ttl = {}\n",
            SERVICE_MS / 1000
        )
    };
    let back = if s.both_ways { rule("server", "client") } else { String::new() };
    let time_wait = s.time_wait_s.map_or("\"ageout\"".into(), |s| s.to_string());
    format!(
        "[tcp]\ninitial_timeout = {}\nsyn_check = {}\nstrict_syn_check = {}\nsequence_check = {}\n\
         rst_sequence_check = {}\nrst_invalidate = {}\nfin_invalidate = {}\nhalf_close_time_wait = {}\n\
         time_wait = {time_wait}\n[[zone]]\nname = \"client\"\n[[zone]]\nname = \"server\"\n{}{back}",
        INITIAL_MS / 1000,
        s.syn_check,
        s.strict_syn_check,
        s.sequence_check,
        s.rst_sequence_check,
        s.rst_invalidate,
        s.fin_invalidate,
        s.half_close_time_wait,
        rule("client", "server"),
    )
}

fn routes(names: &Names) -> Snapshot {
    let mut b = SnapshotBuilder::new(1);
    for (port, zone, host) in [(SIDES[0], "client", CLIENT), (SIDES[1], "server", SERVER)] {
        let own = IpAddr::from([host[0], host[1], 0, 1]);
        b.port(PortInfo {
            id: port,
            name: zone.into(),
            mac: mac(port),
            mtu: 1600,
            up: true,
            zone: names.find_zone(zone),
            ipv4: Some(own.into()),
            ipv6: None,
            partial_checksums: false,
        });
        b.local(own.into());
        let next_hop = NextHop { port: Some(port), gateway: None, weight: 1, mtu: None };
        b.route(
            format!("{}.{}.0.0/24", host[0], host[1]).parse().expect("a prefix"),
            Route::Via(vec![next_hop]),
        );
        b.neighbour(port, Addr::from_v4(host), Mac([2, 0, 0, 0, 1, port.0]));
    }
    b.build()
}

fn mac(port: PortId) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0])
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn frame(s: &Segment) -> Vec<u8> {
    let (port, src, dst, ports) = if s.from_client {
        (SIDES[0], CLIENT, SERVER, [4000u16, 80])
    } else {
        (SIDES[1], SERVER, CLIENT, [80, 4000])
    };
    let mut l4 = Vec::with_capacity(24 + s.payload as usize);
    ports.iter().for_each(|p| l4.extend(p.to_be_bytes()));
    l4.extend(s.seq.to_be_bytes());
    l4.extend(s.ack.to_be_bytes());
    l4.extend([if s.scale.is_some() { 0x60 } else { 0x50 }, s.flags]);
    l4.extend(s.window.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(s.scale.iter().flat_map(|n| [1, 3, 3, *n]));
    l4.resize(l4.len() + s.payload as usize, 0);
    let ends = [src, dst].concat();
    let l4_sum = fold(sum(&l4) + sum(&ends) + 6 + l4.len() as u32);
    l4[16..18].copy_from_slice(&l4_sum);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + l4.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend(ends);
    let ip_sum = fold(sum(&ip));
    ip[10..12].copy_from_slice(&ip_sum);
    [&mac(port).0[..], &[2, 0, 0, 0, 1, port.0], &[8, 0], &ip, &l4].concat()
}
