//! Coordinators alone by tables, and several of them on a network that loses, delays and cuts.

use super::*;
use crate::replication::detect::State;
use crate::replication::heartbeat::Heard;

const CONFIG: CoordinatorConfig =
    CoordinatorConfig { detect: DetectConfig { interval_ms: 20, misses: 5 }, shards: 2 };
const ME: Boot = Boot { node: 1, boot: 10 };
const B: Boot = Boot { node: 2, boot: 20 };
const C: Boot = Boot { node: 3, boot: 30 };
const PATIENCE: u64 = 3_000;

fn orders(it: &mut Coordinator) -> Vec<Order> {
    std::iter::from_fn(|| it.poll_order()).collect()
}

fn in_view(it: &Coordinator) -> (Vec<u16>, Vec<u16>) {
    let nodes = |boots: &[Boot]| boots.iter().map(|b| b.node).collect();
    (nodes(it.view().alive()), nodes(it.view().in_sync()))
}

/// A heartbeat of a node that hears these.
fn beat(from: Boot, in_sync: bool, hears: &[Boot]) -> Heartbeat {
    let heard = |it: &Boot| Heard { it: *it, age_ms: 0, in_sync: true, mutual: true };
    Heartbeat {
        from,
        in_sync,
        workers_ok: true,
        owned: 0,
        used: 0,
        capacity: 9,
        view: 0,
        heard: hears.iter().map(heard).collect(),
    }
}

/// Lets time pass, with these heartbeats in each interval.
fn run(it: &mut Coordinator, from: u64, to: u64, beats: &[Heartbeat]) {
    for now in (from..to).step_by(10) {
        it.tick(Now(now));
        beats.iter().for_each(|beat| it.heard(beat, Now(now)));
    }
}

fn member(nodes: &[u16]) -> Coordinator {
    let mut it = Coordinator::new(ME, CONFIG, Now(0));
    it.set_members(nodes, Now(0));
    it
}

fn applied(it: &mut Coordinator, node: u16, link: u64, number: u64, now: u64) {
    (0..2).for_each(|shard| it.resync_applied(shard, node, link, number, Now(now)));
}

/// A node in sync with B, by link 1, at time 1000.
fn synced() -> Coordinator {
    let mut it = member(&[1, 2]);
    it.link_up(B, 1, Now(0));
    applied(&mut it, 2, 1, 1, 0);
    run(&mut it, 0, 1_000, &[beat(B, true, &[ME])]);
    assert!(it.is_in_sync());
    orders(&mut it);
    it
}

#[test]
fn a_founder_is_in_sync_at_once_and_a_stranger_never() {
    let it = member(&[1]);
    assert!(it.is_in_sync());
    assert_eq!(in_view(&it), (vec![1], vec![1]));
    // A node that has joined but does not know the members yet is no founder.
    let mut it = member(&[]);
    run(&mut it, 0, 10 * PATIENCE, &[]);
    assert!(!it.is_in_sync());
    it.set_members(&[2, 3], Now(10 * PATIENCE));
    run(&mut it, 10 * PATIENCE, 20 * PATIENCE, &[]);
    assert!(!it.is_in_sync());
}

#[test]
fn a_lone_survivor_is_in_sync_after_patience() {
    let mut it = member(&[1, 2]);
    run(&mut it, 0, PATIENCE, &[]);
    assert!(!it.is_in_sync(), "the other one may come yet");
    it.tick(Now(PATIENCE));
    assert!(it.is_in_sync());
    assert!(orders(&mut it).contains(&Order::Resume));
    // So is one whose peer is alive but knows no more than itself.
    let mut it = member(&[1, 2]);
    it.link_up(B, 1, Now(0));
    run(&mut it, 0, PATIENCE + 10, &[beat(B, false, &[ME])]);
    assert_eq!((it.is_in_sync(), in_view(&it)), (true, (vec![1, 2], vec![1])));
}

#[test]
fn a_newcomer_waits_for_every_living_node_in_sync_and_every_shard() {
    let mut it = member(&[1, 2, 3]);
    it.link_up(B, 1, Now(0));
    // C has no link yet, but B hears it.
    let beats = [beat(B, true, &[ME, C])];
    run(&mut it, 0, 2 * PATIENCE, &beats);
    assert_eq!(in_view(&it), (vec![1, 2, 3], vec![2, 3]));
    applied(&mut it, 2, 1, 7, 2 * PATIENCE);
    assert!(!it.is_in_sync(), "C has not sent anything");
    assert_eq!(it.status(Now(2 * PATIENCE)).missing, [3]);
    it.link_up(C, 2, Now(2 * PATIENCE));
    it.resync_applied(0, 3, 2, 4, Now(2 * PATIENCE));
    it.resync_applied(0, 3, 2, 4, Now(2 * PATIENCE));
    // Of another resync, another link, and a shard that there is not.
    it.resync_applied(1, 3, 2, 3, Now(2 * PATIENCE));
    it.resync_applied(1, 3, 1, 4, Now(2 * PATIENCE));
    it.resync_applied(2, 3, 2, 4, Now(2 * PATIENCE));
    assert!(!it.is_in_sync(), "one shard has not applied it");
    it.resync_applied(1, 3, 2, 4, Now(2 * PATIENCE));
    assert!(it.is_in_sync());
    assert_eq!(in_view(&it).1, [1, 2, 3]);
}

#[test]
fn a_death_is_one_view_and_one_order_and_a_broken_link_is_none() {
    let mut it = synced();
    it.link_down(2, 1, Now(1_000));
    run(&mut it, 1_000, 2_000, &[beat(B, true, &[ME])]);
    assert_eq!(orders(&mut it), [], "heartbeats go on");
    assert_eq!(it.status(Now(2_000)).peers[0].link, None);
    run(&mut it, 2_000, 2_090, &[]);
    assert_eq!(orders(&mut it), []);
    run(&mut it, 2_090, 2_200, &[]);
    let alone = Arc::new(View::new(ME, [], [ME], 100));
    let expected = [Order::Event(Event::Down { it: B }), Order::View(alone), Order::Died { it: B }];
    assert_eq!(orders(&mut it), expected);
    assert!(it.is_in_sync());
}

#[test]
fn a_new_boot_is_a_death_and_has_to_be_caught_up_with() {
    let mut it = synced();
    let reborn = Boot { boot: 21, ..B };
    it.link_up(reborn, 2, Now(1_000));
    assert!(orders(&mut it).contains(&Order::Died { it: B }));
    run(&mut it, 1_000, 1_100, &[beat(reborn, false, &[ME])]);
    assert_eq!(in_view(&it), (vec![1, 2], vec![1]));
    assert!(!it.status(Now(1_100)).peers[0].caught_up);
    // What the old boot still had on its way changes nothing.
    it.heard(&beat(B, true, &[ME]), Now(1_100));
    it.link_down(2, 1, Now(1_100));
    assert_eq!(in_view(&it), (vec![1, 2], vec![1]));
    assert_eq!(it.status(Now(1_100)).peers[0].link, Some(2));
}

#[test]
fn a_peer_that_does_not_hear_me_is_none() {
    let mut it = synced();
    it.heard(&beat(B, true, &[]), Now(1_000));
    assert_eq!(in_view(&it), (vec![1], vec![1]));
    assert_eq!(it.status(Now(1_000)).peers[0].state, State::OneWay);
    it.heard(&beat(B, true, &[ME]), Now(1_010));
    assert_eq!(in_view(&it), (vec![1, 2], vec![1, 2]));
}

#[test]
fn workers_that_hang_and_a_full_table_are_not_in_sync() {
    let mut it = synced();
    it.set_local(false, 1, 2, 3);
    it.tick(Now(1_000));
    assert!(!it.is_in_sync());
    let mut said = beat(ME, true, &[]);
    it.say(&mut said, Now(1_000));
    assert_eq!((said.workers_ok, said.in_sync, said.owned, said.hears(B)), (false, false, 1, true));
    it.set_local(true, 1, 2, 3);
    it.room(1, 2, false, Now(1_000));
    assert_eq!((it.is_in_sync(), in_view(&it).1), (false, vec![2]));
    it.room(0, 2, true, Now(1_000));
    assert!(!it.is_in_sync(), "another shard still lacks room");
    it.room(1, 2, true, Now(1_000));
    assert_eq!((it.is_in_sync(), in_view(&it).1), (true, vec![1, 2]));
    // With the peer goes what it lacked room for: the survivor of two is in sync.
    it.room(1, 2, false, Now(1_000));
    run(&mut it, 1_000, 1_200, &[]);
    assert_eq!((it.is_in_sync(), in_view(&it)), (true, (vec![1], vec![1])));
    let mut it = synced();
    // A peer without room is shown so, by its link's word, whatever its heartbeats say.
    it.peer_room(2, false);
    assert!(!it.status(Now(1_000)).peers[0].in_sync);
    it.peer_room(2, true);
    assert!(it.status(Now(1_000)).peers[0].in_sync);
}

#[test]
fn after_a_short_pause_nothing_is_missing_and_nobody_is_dead() {
    let mut it = synced();
    it.tick(Now(1_400));
    assert!(!it.is_in_sync(), "what it holds may be old");
    assert_eq!(in_view(&it), (vec![1, 2], vec![2]), "it was this process that was silent");
    // B never missed it: the queue holds all that was sent.
    run(&mut it, 1_400, 1_480, &[beat(B, true, &[ME])]);
    assert!(!it.is_in_sync());
    run(&mut it, 1_480, 1_520, &[beat(B, true, &[ME])]);
    assert!(it.is_in_sync());
    let done = orders(&mut it);
    assert!(done.contains(&Order::Resume) && !done.iter().any(|o| matches!(o, Order::Died { .. })));
    assert!(!done.iter().any(|o| matches!(o, Order::AskResync { .. })));
    // A worker alone was stopped: the same.
    it.worker_paused(Now(1_520));
    assert!(!it.is_in_sync());
    run(&mut it, 1_520, 1_700, &[beat(B, true, &[ME])]);
    assert!(it.is_in_sync() && orders(&mut it).contains(&Order::Resume));
}

#[test]
fn after_a_long_pause_all_is_sent_again_before_anything_ages() {
    let mut it = synced();
    // Queued heartbeats show that B had taken it for dead; now B hears it again.
    it.heard(&beat(B, true, &[]), Now(9_000));
    run(&mut it, 9_000, 12_000, &[beat(B, true, &[ME])]);
    assert!(!it.is_in_sync());
    let done = orders(&mut it);
    assert_eq!(done.iter().filter(|o| matches!(o, Order::AskResync { .. })).count(), 1, "asked once");
    assert!(done.contains(&Order::AskResync { node: 2, why: AskWhy::Paused }));
    assert!(!done.contains(&Order::Resume) && !done.contains(&Order::Died { it: B }));
    applied(&mut it, 2, 1, 2, 12_000);
    assert!(it.is_in_sync() && orders(&mut it).contains(&Order::Resume));
    // B died while this process was stopped: it goes on alone, after B had its chance.
    it.tick(Now(20_000));
    run(&mut it, 20_000, 20_090, &[]);
    assert!(!it.is_in_sync());
    run(&mut it, 20_090, 20_400, &[]);
    assert!(it.is_in_sync());
    assert!(orders(&mut it).contains(&Order::Died { it: B }));
}

#[test]
fn the_smaller_side_of_a_cut_catches_up_and_the_larger_one_does_not() {
    let cut = |members: &[u16], after: Heartbeat, link: bool| {
        let mut it = member(members);
        it.link_up(B, 1, Now(0));
        applied(&mut it, 2, 1, 1, 0);
        it.link_up(C, 2, Now(0));
        applied(&mut it, 3, 2, 1, 0);
        run(&mut it, 0, 500, &[beat(B, true, &[ME, C]), beat(C, true, &[ME, B])]);
        if link {
            it.link_down(2, 1, Now(500));
            it.link_down(3, 2, Now(500));
        }
        run(&mut it, 500, 1_000, &[]);
        assert_eq!((it.is_in_sync(), in_view(&it)), (true, (vec![1], vec![1])));
        it.heard(&after, Now(1_000));
        orders(&mut it);
        it
    };
    let mut it = cut(&[1, 2, 3], beat(B, true, &[ME, C]), true);
    assert!(!it.is_in_sync(), "two were together on the other side");
    it.link_up(B, 3, Now(1_000));
    it.link_up(C, 4, Now(1_000));
    run(&mut it, 1_000, 1_050, &[beat(B, true, &[ME, C]), beat(C, true, &[ME, B])]);
    let asked = [2, 3].map(|node| Order::AskResync { node, why: AskWhy::CutOff });
    let done = orders(&mut it);
    assert!(asked.iter().all(|o| done.contains(o)), "{done:?}");
    applied(&mut it, 2, 3, 2, 1_050);
    assert!(!it.is_in_sync());
    applied(&mut it, 3, 4, 2, 1_050);
    assert!(it.is_in_sync());
    // One against one: both go on, for one of them has to.
    assert!(cut(&[1, 2, 3], beat(B, true, &[ME]), true).is_in_sync());
    // The links stood all the time: nothing was missed.
    assert!(cut(&[1, 2, 3], beat(B, true, &[ME, C]), false).is_in_sync());
}

#[test]
fn a_resync_is_started_once_when_views_agree_and_not_too_often() {
    let mut it = synced();
    let resyncs = |it: &mut Coordinator| {
        let number = |o| if let Order::Resync { number, .. } = o { Some(number) } else { None };
        orders(it).into_iter().filter_map(number).collect::<Vec<_>>()
    };
    it.resync_to(2, Now(1_000), Now(1_000));
    assert_eq!(resyncs(&mut it), [], "B's view is another one yet");
    let agreeing = Heartbeat { view: it.view().digest(), ..beat(B, true, &[ME]) };
    it.heard(&agreeing, Now(1_010));
    assert_eq!(resyncs(&mut it), [1]);
    // The other shards say the same before they get the order.
    it.resync_to(2, Now(1_009), Now(1_011));
    it.peer_wants(2, Now(1_200));
    run(&mut it, 1_200, 2_500, std::slice::from_ref(&agreeing));
    assert_eq!(resyncs(&mut it), []);
    it.peer_wants(2, Now(2_500));
    assert_eq!(resyncs(&mut it), [2]);
    // What is found missing while one is on its way: another one, after a rest. Red when that wish is forgotten, for
    // whoever wishes says so again ever more rarely.
    it.resync_to(2, Now(2_600), Now(2_600));
    run(&mut it, 2_600, 3_500, std::slice::from_ref(&agreeing));
    assert_eq!(resyncs(&mut it), []);
    run(&mut it, 3_500, 3_520, std::slice::from_ref(&agreeing));
    assert_eq!(resyncs(&mut it), [3]);
    // Views that never agree do not hold it up for ever.
    let other = Heartbeat { view: 1, ..agreeing };
    run(&mut it, 3_520, 5_000, std::slice::from_ref(&other));
    it.peer_wants(2, Now(5_000));
    run(&mut it, 5_000, 5_990, std::slice::from_ref(&other));
    assert_eq!(resyncs(&mut it), []);
    run(&mut it, 5_990, 6_020, std::slice::from_ref(&other));
    assert_eq!(resyncs(&mut it), [4]);
    // Not without a link, and not to a node that is no member.
    it.link_down(2, 1, Now(6_020));
    run(&mut it, 6_020, 8_000, &[other]);
    it.peer_wants(2, Now(8_000));
    it.peer_wants(9, Now(8_000));
    assert_eq!(resyncs(&mut it), []);
}

#[test]
fn who_is_no_member_any_more_is_forgotten() {
    let mut it = synced();
    it.set_members(&[1], Now(1_000));
    assert_eq!(in_view(&it), (vec![1], vec![1]));
    it.heard(&beat(B, true, &[ME]), Now(1_010));
    it.link_up(B, 2, Now(1_010));
    assert_eq!(in_view(&it), (vec![1], vec![1]));
    assert!(it.status(Now(1_010)).peers.is_empty());
    // Nor does anybody's word bring in who is none.
    let mut it = synced();
    it.heard(&beat(B, true, &[ME, Boot { node: 9, boot: 1 }]), Now(1_000));
    assert_eq!(in_view(&it).0, [1, 2]);
}

/// Several coordinators, each of which says a heartbeat in a third of an interval.
struct Net {
    nodes: Vec<Coordinator>,
    /// Heartbeats on their way: when they come, to whom.
    wire: Vec<(u64, usize, Heartbeat)>,
    cut: Vec<(usize, usize)>,
    loss_percent: u64,
    delay_ms: u64,
    seed: u64,
    now: u64,
    deaths: usize,
}

impl Net {
    fn new(nodes: u16, loss_percent: u64, seed: u64) -> Self {
        let me = |n: u16| Boot { node: n, boot: 1 };
        let all: Vec<u16> = (1..=nodes).collect();
        let one = |n: &u16| {
            let mut it = Coordinator::new(me(*n), CoordinatorConfig { shards: 1, ..CONFIG }, Now(0));
            it.set_members(&all, Now(0));
            for other in all.iter().filter(|o| *o != n) {
                it.link_up(me(*other), 1, Now(0));
                it.resync_applied(0, *other, 1, 1, Now(0));
            }
            it
        };
        let nodes = all.iter().map(one).collect();
        Net { nodes, wire: Vec::new(), cut: Vec::new(), loss_percent, delay_ms: 1, seed, now: 0, deaths: 0 }
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            let now = Now(self.now);
            let (due, wire) = std::mem::take(&mut self.wire).into_iter().partition(|w| w.0 <= self.now);
            self.wire = wire;
            let due: Vec<(u64, usize, Heartbeat)> = due;
            due.iter().for_each(|(_, to, beat)| self.nodes[*to].heard(beat, now));
            for from in 0..self.nodes.len() {
                // Each a third of an interval, and none at the same time as another.
                if (self.now + 2 * from as u64).is_multiple_of(7) {
                    self.say(from, now);
                }
                self.nodes[from].tick(now);
                let died = orders(&mut self.nodes[from]);
                self.deaths += died.iter().filter(|o| matches!(o, Order::Died { .. })).count();
            }
        }
    }

    fn say(&mut self, from: usize, now: Now) {
        let mut said = beat(ME, false, &[]);
        self.nodes[from].say(&mut said, now);
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let lost = self.random() % 100 < self.loss_percent || self.cut.contains(&(from, to));
            if !lost {
                let late = self.random() % 3;
                self.wire.push((self.now + self.delay_ms + late, to, said.clone()));
            }
        }
    }

    fn views(&self) -> Vec<Vec<u16>> {
        self.nodes.iter().map(|n| in_view(n).0).collect()
    }
}

#[test]
fn loss_of_a_third_kills_nobody() {
    // Red with one heartbeat in an interval: a false death each half minute or so.
    for seed in 0..20 {
        let mut net = Net::new(3, 30, seed);
        net.run(10_000);
        assert_eq!((net.deaths, net.views()), (0, vec![vec![1, 2, 3]; 3]), "seed {seed}");
        assert!(net.nodes.iter().all(Coordinator::is_in_sync), "seed {seed}");
    }
}

#[test]
fn a_cut_in_one_direction_is_one_in_both() {
    // Red when who is heard is alive, whatever it hears: node 1 would see two nodes, node 2 one.
    let mut net = Net::new(2, 0, 1);
    net.run(4_000);
    net.cut = vec![(0, 1)];
    // A detection time, and one heartbeat back.
    net.run(130);
    assert_eq!((net.views(), net.deaths), (vec![vec![1], vec![2]], 2));
    net.cut.clear();
    net.run(100);
    assert_eq!(net.views(), vec![vec![1, 2]; 2]);
    assert!(net.nodes.iter().all(Coordinator::is_in_sync));
}

#[test]
fn one_cut_pair_among_three_changes_nobodys_view() {
    // Red without the third node's word.
    for cut in [vec![(0, 1)], vec![(0, 1), (1, 0)]] {
        let mut net = Net::new(3, 10, 7);
        net.run(4_000);
        net.cut = cut;
        net.run(5_000);
        assert_eq!((net.views(), net.deaths), (vec![vec![1, 2, 3]; 3], 0));
        // The third one dies: now the two know nothing of each other, both within the time of detection.
        net.cut.extend([(2, 0), (2, 1), (0, 2), (1, 2)]);
        net.run(140);
        assert_eq!(net.views()[..2], [vec![1], vec![2]]);
    }
}

#[test]
fn all_see_a_death_within_the_time_of_detection_and_what_was_on_its_way() {
    let mut net = Net::new(4, 0, 3);
    net.run(4_000);
    net.cut = (0..3).map(|to| (3, to)).collect();
    net.run(90);
    assert_eq!(net.deaths, 0);
    // Rumours of each other's hearing it do not keep it alive for longer.
    net.run(40);
    assert_eq!(net.views()[..3], [vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3]]);
    let digests: Vec<u64> = net.nodes[..3].iter().map(|n| n.view().digest()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]));
}

/// A peer learns of a membership sooner than this node, and connects. Goes red when what comes of a node that is no
/// member yet is forgotten: then nothing is ever sent to it, or what it sent never counts.
#[test]
fn a_link_that_is_up_before_its_node_is_a_member_counts_when_it_is() {
    let mut it = member(&[1]);
    it.link_up(B, 1, Now(0));
    it.resync_to(2, Now(0), Now(0));
    run(&mut it, 0, 1_000, &[beat(B, false, &[])]);
    assert_eq!(in_view(&it), (vec![1], vec![1]), "nobody is alive who is no member");
    let sends = |it: &mut Coordinator| orders(it).iter().any(|o| matches!(o, Order::Resync { node: 2, .. }));
    assert!(!sends(&mut it));
    it.set_members(&[1, 2], Now(1_000));
    run(&mut it, 1_000, 3_000, &[beat(B, false, &[ME])]);
    assert!(sends(&mut it));
    // The other way round: it has sent everything before this node knows of either membership.
    let mut it = member(&[]);
    it.link_up(B, 1, Now(0));
    applied(&mut it, 2, 1, 1, 0);
    it.set_members(&[1, 2], Now(500));
    run(&mut it, 500, 1_000, &[beat(B, true, &[ME])]);
    assert!(it.is_in_sync());
    // A link that is no more by then is none.
    let mut it = member(&[1]);
    it.link_up(B, 1, Now(0));
    it.link_down(2, 1, Now(100));
    it.set_members(&[1, 2], Now(500));
    it.peer_wants(2, Now(500));
    run(&mut it, 500, 3_000, &[beat(B, false, &[ME])]);
    assert!(!sends(&mut it));
}
