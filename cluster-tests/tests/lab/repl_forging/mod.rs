//! A member with a valid certificate that forges sessions: what it says is refused and counted, nothing comes of it, and
//! the others go on replicating.

mod forger;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidegate_dataplane::addr::{Addr, Tuple, proto};
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::EndReason;
use tidegate_dataplane::session::copy::{Birth, EndNote, SessionCopy};
use tidegate_dataplane::session::record::{SessionId, WingFacts};
use tidegate_dataplane::session::tcp::fact;
use tidegate_lab::lab::{DEFAULT_POLICY, Member};
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Streams, UdpEcho, udp_flows};
use tidegate_sync::replication::message::{Kind, envelope};
use tidegate_sync::replication::outlet::Outlet;
use tidegate_sync::replication::{Back, ResyncWhy};

use crate::common::repl::{replicating, wait_in_sync, wait_verified};
use crate::common::{EACH_TRY, PATIENCE, TRIES, TestLab, eventually, ip};
use forger::{Forger, UPTIME};

/// The one that forges; the others are judged.
const LIAR: u32 = 3;
const HONEST: [u32; 2] = [1, 2];
/// The number of a session that no node has got to.
const NEVER_MADE: u64 = (1 << 36) - 1;

/// Sessions that nobody forged: idle UDP ones, and TCP connections that are in use.
struct Victims<'a> {
    lab: &'a TestLab,
    _echo: UdpEcho,
    streams: Streams,
    next: u16,
}

/// A session's identity and what of it does not change while it is idle, at one node.
type Held = BTreeMap<String, String>;

impl<'a> Victims<'a> {
    const UDP: u16 = 5300;
    const TCP: u16 = 7000;
    const EACH: u16 = 50;

    fn start(lab: &'a TestLab) -> Victims<'a> {
        let echo = UdpEcho::start(&lab.server(), lab.server_v4(Self::UDP)).unwrap();
        let pace = Duration::from_millis(50);
        let address = lab.server_v4(Self::TCP);
        let streams = Streams::open(&lab.client(), &lab.server(), address, 20, pace).unwrap();
        let mut victims = Victims { lab, _echo: echo, streams, next: 20_000 };
        victims.more_are_replicated();
        victims
    }

    /// What is made through node1 is at node2 too.
    fn more_are_replicated(&mut self) {
        let ports = self.next..self.next + Self::EACH;
        let lab = self.lab;
        let address = lab.server_v4(Self::UDP);
        let answered = udp_flows(&lab.client(), address, ports.clone(), TRIES, EACH_TRY).unwrap();
        assert_eq!(answered.len(), usize::from(Self::EACH));
        self.next = ports.end;
        let wanted = usize::from(self.next - 20_000);
        eventually("node2 holds what node1 made", PATIENCE, || {
            (self.held(2).len() == wanted && self.held(1) == self.held(2)).then_some(())
        });
    }

    /// The idle ones, as a node holds them itself.
    fn held(&self, node: u32) -> Held {
        let port = Self::UDP.to_string();
        let sessions = local(self.lab.at(node), &["--protocol", "udp", "--destination-port", &port]);
        let one = |session: &Value| {
            let text = |field: &str| session[field].to_string();
            let wings = ["forward", "reply"].map(|wing| {
                let end = |field: &str| session[wing][field].to_string();
                ["source", "source_port", "destination", "destination_port", "zone"].map(end).join(" ")
            });
            let fields =
                ["state", "from_zone", "to_zone", "policy", "timeout_s", "origin", "owner"].map(text);
            (id(session).to_string(), format!("{wings:?} {fields:?}"))
        };
        sessions.iter().map(one).collect()
    }

    /// One of the idle ones, as its node would tell of it.
    fn one(&self, names: &mut Names) -> SessionCopy {
        let port = Self::UDP.to_string();
        let sessions = local(self.lab.at(1), &["--protocol", "udp", "--destination-port", &port]);
        let session = &sessions[0];
        let client_port = session["forward"]["source_port"].as_u64().unwrap() as u16;
        let seen = WingFacts { bits: fact::MID, ..WingFacts::default() };
        let mut copy = copy(self.lab, names, id(session), client_port);
        (copy.birth.tuple.dst_port, copy.facts) = (Self::UDP, [seen, seen]);
        copy
    }
}

fn local(member: Member<'_>, filter: &[&str]) -> Vec<Value> {
    member.sessions(&[&["--local"], filter].concat()).unwrap()
}

fn id(session: &Value) -> SessionId {
    session["id"].as_str().unwrap().parse().unwrap()
}

fn names() -> Names {
    let mut names = Names::default();
    for zone in ["outside", "inside", "a zone\nof no policy"] {
        names.zone(zone).unwrap();
    }
    names.rule("outside/inside/client-to-server").unwrap();
    names
}

/// A UDP session of the lab that could be.
fn copy(lab: &TestLab, names: &mut Names, id: SessionId, client_port: u16) -> SessionCopy {
    let tuple = Tuple {
        src: Addr::from(ip(&lab.plan().client.ipv4)),
        dst: Addr::from(ip(&lab.plan().server.ipv4)),
        src_port: client_port,
        dst_port: 9_999,
        protocol: proto::UDP,
    };
    SessionCopy {
        birth: Birth {
            id,
            tuple,
            zones: ["outside", "inside"].map(|zone| names.zone(zone).unwrap()),
            rule: names.rule("outside/inside/client-to-server").unwrap(),
            application: Default::default(),
            revision: 1,
            supersedes: None,
        },
        facts: [WingFacts { bits: fact::MID, ..WingFacts::default() }, WingFacts::default()],
        sighted: [false; 2],
        age_ms: 5,
        created_age_ms: 1_000,
        packets: [1, 0],
        bytes: [60, 0],
    }
}

/// A session that the liar could have made, and what makes it impossible.
type Lie = (&'static str, fn(&mut SessionCopy, &mut Names));
const LIES: [Lie; 16] = [
    ("tuple", |c, _| c.birth.tuple.src = Addr::from_v4([127, 0, 0, 1])),
    ("tuple", |c, _| c.birth.tuple.dst = Addr::from_v4([224, 0, 0, 1])),
    ("tuple", |c, _| (c.birth.tuple.src_port, c.birth.tuple.dst_port) = (0, 0)),
    ("tuple", |c, _| c.birth.tuple.protocol = proto::ESP),
    ("name", |c, names| c.birth.zones[0] = names.find_zone("a zone\nof no policy").unwrap()),
    ("age", |c, _| c.age_ms = u32::MAX),
    ("age", |c, _| c.created_age_ms = u64::MAX),
    // An earlier boot of the liar's, that began before the present one and made it just now; and one that is to come.
    ("identity", |c, _| c.birth.id.boot -= 1),
    ("identity", |c, _| c.birth.id.boot += 1),
    ("identity", |c, _| c.created_age_ms = 2 * UPTIME.as_millis() as u64),
    ("identity", |c, _| c.birth.supersedes = Some(c.birth.id)),
    ("facts", |c, _| c.facts[0].bits = 128),
    ("facts", |c, _| c.facts[0].window_max = u32::MAX),
    ("facts", |c, _| c.facts[1].bits = fact::RST),
    ("counters", |c, _| c.packets[0] = u64::MAX),
    ("counters", |c, _| c.bytes[0] = u64::MAX),
];

/// What a node counted of the liar, by what an operator looks at; `sync status` and metrics must say the same.
struct Counted<'a> {
    member: Member<'a>,
    before: BTreeMap<String, u64>,
    violations: u64,
}

impl<'a> Counted<'a> {
    fn at(member: Member<'a>) -> Counted<'a> {
        let (before, violations) = read(member);
        Counted { member, before, violations }
    }

    /// Records that were refused, by reason; and how often the protocol was broken.
    fn since(&self) -> (BTreeMap<String, u64>, u64) {
        let (mut now, violations) = read(self.member);
        for (reason, count) in &mut now {
            *count -= self.before.get(reason).unwrap_or(&0);
        }
        now.retain(|_, count| *count > 0);
        (now, violations - self.violations)
    }
}

fn read(member: Member<'_>) -> (BTreeMap<String, u64>, u64) {
    let status = member.json(&["sync", "status"]).unwrap();
    let name = format!("node{LIAR}");
    let peers = status["peers"].as_array().unwrap();
    let peer = peers.iter().find(|peer| peer["node"] == name.as_str()).expect("the liar is a member");
    let reasons = peer["refused_by_reason"].as_object().unwrap();
    let reasons: BTreeMap<_, _> =
        reasons.iter().map(|(reason, count)| (reason.clone(), count.as_u64().unwrap())).collect();
    let metrics = member.metrics().unwrap();
    for (reason, count) in &reasons {
        let labels = [("peer", name.as_str()), ("reason", reason.as_str())];
        let scraped = metrics.sum("tidegate_sync_peer_records_refused_total", &labels);
        assert!(
            scraped >= Some(*count as f64),
            "{reason}: {count} in `sync status`, {scraped:?} in the metrics"
        );
    }
    let violations = metrics.sum("tidegate_cluster_messages_refused_total", &[]).unwrap();
    (reasons, violations as u64)
}

/// Counts by reason, as [`Counted::since`] has them.
fn reasons(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    of.iter().for_each(|(reason, count)| *sums.entry((*reason).to_owned()).or_default() += count);
    sums
}

/// Goes red when a record that its teller may not tell, or that cannot be true, is taken or not counted; when a flood or
/// garbage stops a node, or the exchange between the others; or when it costs anybody a session.
#[test]
fn what_a_member_forges_is_refused_and_counted_and_nothing_comes_of_it() {
    let policy = format!("{DEFAULT_POLICY}\n[timeouts]\nudp = 600\n");
    let lab = replicating("forging", 3, |spec| spec.policy = Some(policy));
    let mut victims = Victims::start(&lab);
    lab.at(LIAR).terminate().unwrap();
    let pids = HONEST.map(|node| lab.at(node).pid());
    let before = HONEST.map(|node| victims.held(node));
    let forger = Forger::instead_of(lab.at(LIAR), 3);
    let me = forger.me();
    let boots = HONEST.map(|node| {
        let status = lab.at(node).json(&["sync", "status"]).unwrap();
        u32::try_from(status["boot"].as_u64().unwrap()).unwrap()
    });
    eventually("the others take it for one that is in sync", PATIENCE, || {
        let sees = |node: u32| {
            let status = lab.at(node).json(&["sync", "status"]).unwrap();
            let view = status["view"].as_array().unwrap().clone();
            view.iter().any(|one| {
                one["node_id"] == u64::from(me.node) && one["boot"] == me.boot && one["in_sync"] == true
            })
        };
        HONEST.into_iter().all(sees).then_some(())
    });
    // An honest node's own earlier boots can be told apart only once it has been up for longer than a record may wait.
    eventually("node1 has been up for a while", PATIENCE, || {
        (lab.at(1).json(&["status"]).unwrap()["uptime_s"].as_f64().unwrap() > 15.0).then_some(())
    });

    let mut names = names();
    let counted = HONEST.map(|node| Counted::at(lab.at(node)));
    let victim = victims.one(&mut names);
    for (node, counted) in HONEST.into_iter().zip(&counted) {
        let other = 3 - node;
        let boot_of = |node: u32| boots[node as usize - 1];
        let born = |origin: u32, boot: u32| SessionId { origin: origin as u16, boot, counter: NEVER_MADE };
        let mut own = |port: u16| {
            let id = SessionId { origin: me.node, boot: me.boot, counter: port.into() };
            copy(&lab, &mut names, id, port)
        };
        let mut expected: Vec<(&str, u64)> = Vec::new();
        // What cannot be true, of sessions of its own.
        let mut lies = Vec::new();
        for (at, (reason, lie)) in LIES.iter().enumerate() {
            lies.push((own(40_000 + at as u16), *lie));
            expected.push((reason, 1));
        }
        // What it may not tell: births of the other node's boot, of this node's, and of this node's boot before.
        let claimed = [
            ("birth_of_another", born(other, boot_of(other))),
            ("never_made", born(node, boot_of(node))),
            ("identity", born(node, boot_of(node) - 1)),
        ];
        let claimed = claimed.map(|(reason, id)| {
            expected.push((reason, 1));
            copy(&lab, &mut names, id, 41_000)
        });
        // Another birth of a session that is there, and the claim that it has aged.
        let mut reborn = victim;
        reborn.birth.zones.swap(0, 1);
        let aged = EndNote {
            id: victim.birth.id,
            tuple: victim.birth.tuple,
            reason: EndReason::Aged,
            age_ms: 0,
            bits: [0; 2],
        };
        expected.extend([("absurd", 1), ("not_owner", 1)]);
        for (mut one, lie) in lies {
            lie(&mut one, &mut names);
            forger.tell(node, |outlet| outlet.copy(&one, &names));
        }
        forger.tell(node, |outlet| {
            claimed.iter().chain([&reborn]).for_each(|one| outlet.copy(one, &names));
            outlet.end(&aged);
        });
        assert_eq!(counted.since(), (reasons(&expected), 0), "node{node}");
    }
    assert_eq!(HONEST.map(|node| victims.held(node)), before);

    // A flood of what is refused, and of wishes.
    let counted = HONEST.map(|node| Counted::at(lab.at(node)));
    let mut absurd = copy(&lab, &mut names, SessionId { origin: me.node, boot: me.boot, counter: 1 }, 42_000);
    absurd.birth.tuple.src = Addr::from_v4([127, 0, 0, 1]);
    for _ in 0..100 {
        for node in HONEST {
            let flood = |outlet: &mut Outlet| (0..400).for_each(|_| outlet.copy(&absurd, &names));
            forger.hand_over(node, flood);
            (0..10).for_each(|_| forger.say_back(node, Back::Wants { why: ResyncWhy::Operator }));
        }
    }
    victims.more_are_replicated();
    for (node, counted) in HONEST.into_iter().zip(&counted) {
        forger.tell(node, |outlet| outlet.copy(&absurd, &names));
        assert_eq!(counted.since(), (reasons(&[("tuple", 40_001)]), 0), "node{node}");
    }

    // Garbage: each closes the link, and the link comes again.
    let counted = Counted::at(lab.at(1));
    let frame = |kind: Kind, body: &[u8]| [&envelope(kind, body.len())[..], body].concat();
    let body = |bytes: &[u8]| [&1_u64.to_le_bytes()[..], bytes].concat();
    let garbage: Vec<u8> = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let batches = [
        garbage.clone(),
        vec![0; 200_000],
        // A body that is shorter than it says, a batch out of order, an item of no kind, and one that is cut off.
        frame(Kind::Batch, &body(&[]))[..10].to_vec(),
        frame(Kind::Batch, &77_u64.to_le_bytes()),
        frame(Kind::Batch, &body(&[200, 1, 2, 3])),
        frame(Kind::Batch, &body(&[2, 1, 2, 3])),
    ];
    let backs = [garbage[..1_000].to_vec(), Back::Ack { stream: 9, number: 1 }.frame()];
    let broken = (batches.len() + backs.len()) as u64;
    batches.into_iter().for_each(|batch| forger.break_by_batch(1, batch));
    backs.into_iter().for_each(|back| forger.break_by_back(1, back));
    assert_eq!(counted.since(), (BTreeMap::new(), broken));
    victims.more_are_replicated();

    // Whoever was there is there, and nobody else.
    for (node, before) in HONEST.into_iter().zip(&before) {
        let held = victims.held(node);
        let lost: Vec<_> = before.iter().filter(|(id, what)| held.get(*id) != Some(what)).collect();
        assert_eq!(lost, Vec::<(&String, &String)>::new(), "node{node}");
        for port in ["40000-40099", "41000", "42000"] {
            let forged = local(lab.at(node), &["--protocol", "udp", "--source-port", port]);
            assert_eq!(forged, Vec::<Value>::new(), "node{node}: forged");
        }
        assert!(!lab.at(node).log().unwrap().contains("panicked"), "node{node}");
    }
    assert_eq!(HONEST.map(|node| lab.at(node).pid()), pids);
    assert!(HONEST.iter().all(|node| !lab.at(*node).has_ended()));
    victims.streams.go_on(PATIENCE).unwrap();
    drop(forger);
    lab.at(LIAR).start(&Stop::default()).unwrap();
    wait_in_sync(&lab);
    wait_verified(lab.at(1));
}
