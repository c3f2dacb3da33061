//! The worker's loop over the in-memory twin, one pass at a time and without threads, so that every
//! order of events can be had.

mod fragments;

use super::*;
use crate::area::AreaConfig;
use crate::audit::Round;
use crate::stats::FrameAudit;
use crate::twin::{TwinQueue, Wire};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use tidegate_dataplane::addr::Addr;
use tidegate_dataplane::drops::{DropCounters, DropReason};
use tidegate_dataplane::engine::{Frame, Outbox};
use tidegate_dataplane::fragment::{Datagram, FragmentNote, Settled};

const FRAMES: u32 = 64;
const RING: usize = 16;
const RING_BETWEEN: usize = 12;
const PORTS: u8 = 2;

/// Obeys the frame: its first byte is what to do, the second a port or a worker.
const DROP: u8 = 0;
const TRANSMIT: u8 = 1;
const HAND_OVER: u8 = 2;
const AWAIT: u8 = 3;
const ANSWER: u8 = 4;
const EVENT: u8 = 5;
/// The second byte is a datagram.
const AWAIT_FIRST: u8 = 6;
const FIRST: u8 = 7;
const NO_FIRST: u8 = 8;
/// How long a fragment waits.
const FRAGMENT_MS: u64 = 200;

struct Script {
    index: u16,
    resolved: Arc<AtomicBool>,
    outbox: Outbox,
    events: Vec<Event>,
    drops: DropCounters,
    failed: u32,
    settled: Vec<Settled>,
}

impl Pipeline for Script {
    fn process(&mut self, frames: &mut [PortFrame], verdicts: &mut ArrayVec<Verdict, BATCH_MAX>, now: Now) {
        verdicts.clear();
        for frame in frames {
            let noted = frame.note().is_some();
            let data = frame.data();
            let (what, arg) = (data[0], data[1]);
            let next_hop = Addr::from(std::net::IpAddr::from([10, 0, 0, arg]));
            verdicts.push(match what {
                TRANSMIT => Verdict::Transmit(PortId(arg)),
                HAND_OVER if u16::from(arg) == self.index => Verdict::Transmit(PortId(1)),
                HAND_OVER => Verdict::Handover(arg.into()),
                AWAIT if self.resolved.load(Relaxed) => Verdict::Transmit(PortId(1)),
                AWAIT => Verdict::AwaitNeighbour { port: PortId(1), next_hop },
                AWAIT_FIRST if noted => Verdict::Transmit(PortId(1)),
                AWAIT_FIRST => {
                    Verdict::AwaitFragment { datagram: Datagram(arg.into()), until: Now(now.0 + FRAGMENT_MS) }
                }
                FIRST | NO_FIRST => {
                    let note = FragmentNote { src_port: arg.into(), ..FragmentNote::default() };
                    let outcome = if what == FIRST { Ok(note) } else { Err(DropReason::FragmentOverlap) };
                    self.settled.push(Settled { datagram: Datagram(arg.into()), outcome });
                    Verdict::Drop(DropReason::PolicyDeny)
                }
                ANSWER => {
                    self.outbox.push(frame.port(), |out| {
                        out[..4].copy_from_slice(&[ANSWER, arg, 0xaa, 0xbb]);
                        Some(4)
                    });
                    Verdict::Consumed
                }
                EVENT => {
                    self.events.push(Event::NeighbourMissing { port: PortId(0), next_hop });
                    Verdict::Drop(DropReason::NoRoute)
                }
                _ => Verdict::Drop(DropReason::PolicyDeny),
            });
        }
    }

    fn sweep(&mut self, _: Now) {}

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn take_events(&mut self, each: &mut dyn FnMut(Event)) {
        self.events.drain(..).for_each(each);
    }

    fn next_settled(&mut self) -> Option<Settled> {
        self.settled.pop()
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    fn neighbour_failed(&mut self, _: &PortFrame, _: Now) {
        self.failed += 1;
    }
}

struct Bench {
    area: Arc<Area>,
    workers: Vec<Worker<Script, TwinQueue>>,
    tasks: Vec<SyncSender<Task<Script, TwinQueue>>>,
    /// By worker, by port.
    wires: Vec<Vec<Wire>>,
    resolved: Arc<AtomicBool>,
    now: u64,
}

impl Bench {
    fn new(workers: u16) -> Bench {
        Bench::with_frames(workers, FRAMES)
    }

    fn with_frames(workers: u16, frames: u32) -> Bench {
        let config = AreaConfig { workers, frames_per_worker: frames, frame_bytes: 2048 };
        let (area, pools) = Area::new(config).unwrap();
        let bells: Arc<[Bell]> = (0..workers).map(|_| Bell::new().unwrap()).collect();
        let resolved = Arc::new(AtomicBool::new(false));
        let mut bench =
            Bench { area, workers: Vec::new(), tasks: Vec::new(), wires: Vec::new(), resolved, now: 0 };
        for ((index, pool), links) in (0..).zip(pools).zip(Links::mesh(&bells, frames, RING_BETWEEN)) {
            let (send, tasks) = sync_channel(8);
            bench.tasks.push(send);
            let pipeline = Script {
                index,
                resolved: Arc::clone(&bench.resolved),
                outbox: Outbox::default(),
                events: Vec::new(),
                drops: DropCounters::default(),
                failed: 0,
                settled: Vec::new(),
            };
            let mut room = 3;
            let sink: EventSink = Box::new(move |_| {
                room -= 1;
                room >= 0
            });
            let area = Arc::clone(&bench.area);
            let idle = Idle { spin_us: 0, sleep_ms: 60_000 };
            bench.workers.push(Worker::new(Parts { index, area, pipeline, pool, links, tasks, sink, idle }));
            bench.wires.push((0..PORTS).map(|_| Wire::new().unwrap()).collect());
        }
        for worker in 0..workers {
            for port in 0..PORTS {
                bench.open(worker, port);
            }
        }
        bench.settle();
        bench
    }

    fn open(&mut self, worker: u16, port: u8) {
        let w = usize::from(worker);
        let io = TwinQueue::new(&self.area, PortId(port), self.wires[w][usize::from(port)].clone(), RING);
        let queue = Queue { port: PortId(port), queue: worker.into(), io };
        self.workers[w].install(vec![queue], PortId(port), Egress::Queue(worker.into()));
    }

    fn close(&mut self, worker: u16, port: u8) {
        for queue in self.workers[usize::from(worker)].remove(PortId(port)) {
            for frame in queue.io.close() {
                let home = usize::from(self.area.home(&frame));
                self.workers[home].pool.push(frame);
            }
        }
    }

    fn send(&self, worker: usize, port: usize, what: u8, arg: u8) {
        self.wires[worker][port].send(&[what, arg, 1, 2, 3, 4]);
    }

    fn pass(&mut self, worker: usize) -> bool {
        self.workers[worker].pass(Now(self.now))
    }

    /// Passes until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            let moved = (0..self.workers.len()).fold(false, |moved, w| self.pass(w) | moved);
            if !moved {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    fn audit(&mut self) -> FrameAudit {
        let round = Round::new(self.area.frames_total(), 1);
        for worker in &mut self.workers {
            worker.audit(&round);
        }
        round.result()
    }

    fn dropped(&self, worker: usize, reason: DropReason) -> u64 {
        self.workers[worker].pipeline.drops.get(reason)
    }
}

// Red when a hand-over goes to the wrong worker, is not processed there, or a frame does not go home.
#[test]
fn handovers_go_both_ways_and_frames_go_home() {
    let mut b = Bench::new(2);
    for _ in 0..5 {
        b.send(0, 0, HAND_OVER, 1);
        b.send(1, 0, HAND_OVER, 0);
    }
    b.settle();
    assert_eq!(b.wires[1][1].take().len(), 5, "sent by worker 1's queue");
    assert_eq!(b.wires[0][1].take().len(), 5, "sent by worker 0's queue");
    for w in &b.workers {
        assert_eq!((w.stats.handover_out, w.stats.handover_in), (5, 5));
    }
    let audit = b.audit();
    assert!(audit.is_whole(), "{audit:?}");
    // Every frame is home again: in its worker's pool or in a fill ring of that worker.
    for w in &b.workers {
        assert!(w.pool.iter().all(|f| b.area.home(f) == w.index));
    }
}

// Red when a full ring blocks, loses the frame, or is not counted.
#[test]
fn a_full_handover_ring_drops_and_counts() {
    let mut b = Bench::new(2);
    for _ in 0..RING_BETWEEN + 3 {
        b.send(0, 0, HAND_OVER, 1);
        b.pass(0);
    }
    // To a worker that does not exist.
    b.send(0, 0, HAND_OVER, 9);
    b.pass(0);
    assert_eq!(b.dropped(0, DropReason::HandoverFull), 4);
    assert_eq!(b.workers[0].stats.handover_full, 4);
    let audit = b.audit();
    assert!(audit.is_whole() && audit.in_rings == RING_BETWEEN as u32, "{audit:?}");
    b.settle();
    assert_eq!(b.wires[1][1].take().len(), RING_BETWEEN);
}

// Red when a frame that a full transmit ring refuses is lost or not counted.
#[test]
fn a_full_transmit_ring_drops_and_counts() {
    let mut b = Bench::new(1);
    b.wires[0][1].stall(true);
    for _ in 0..RING + 3 {
        b.send(0, 0, TRANSMIT, 1);
        b.pass(0);
    }
    assert_eq!(b.dropped(0, DropReason::TransmitFull), 3);
    assert_eq!(b.workers[0].report().1[1].stats.tx_full, 3);
    assert!(b.audit().is_whole());
    b.wires[0][1].stall(false);
    b.settle();
    assert_eq!(b.wires[0][1].take().len(), RING);
    assert_eq!(b.audit().lent, 2 * RING as u32, "only the fill rings have frames");
}

// Red when frames to a port that is not open are lost, or sent to another.
#[test]
fn a_closed_port_drops_and_counts() {
    let mut b = Bench::new(1);
    b.close(0, 1);
    b.send(0, 0, TRANSMIT, 1);
    b.send(0, 0, TRANSMIT, 200);
    b.settle();
    assert_eq!(b.dropped(0, DropReason::PortDown), 2);
    assert!(b.audit().is_whole());
    b.open(0, 1);
    b.settle();
    b.send(0, 0, TRANSMIT, 1);
    b.settle();
    assert_eq!(b.wires[0][1].take().len(), 1);
}

// Red when a queue has no frames to receive into before the pass after the one in which it was opened.
#[test]
fn a_port_takes_packets_as_soon_as_it_is_open() {
    let mut b = Bench::new(1);
    b.close(0, 0);
    b.open(0, 0);
    b.send(0, 0, TRANSMIT, 1);
    b.settle();
    assert_eq!(b.wires[0][1].take().len(), 1);
    assert_eq!(b.workers[0].report().1[0].stats.fill_empty, 0);
}

// Red when a worker without a queue of a port does not send through the one that has it.
#[test]
fn a_worker_without_a_queue_sends_through_another() {
    let mut b = Bench::new(2);
    b.close(1, 1);
    b.workers[1].install(Vec::new(), PortId(1), Egress::Via(0));
    b.send(1, 0, TRANSMIT, 1);
    b.settle();
    assert_eq!(b.wires[0][1].take().len(), 1);
    assert_eq!(b.workers[0].stats.transmit_for_others, 1);
    // A stale route in both directions is no loop: what was passed once is not passed on.
    b.close(0, 1);
    b.workers[0].install(Vec::new(), PortId(1), Egress::Via(1));
    b.send(1, 0, TRANSMIT, 1);
    b.settle();
    assert_eq!(b.dropped(0, DropReason::PortDown), 1);
    assert!(b.audit().is_whole());
}

// Red when packets of the engine's own are not sent, or sent by the wrong port.
#[test]
fn the_outbox_is_sent_by_its_port() {
    let mut b = Bench::new(1);
    b.send(0, 1, ANSWER, 7);
    b.settle();
    assert_eq!(b.wires[0][1].take(), [[ANSWER, 7, 0xaa, 0xbb]]);
    assert_eq!(b.workers[0].stats.outbox_dropped, 0);
    // Without a free frame it is left out, and counted.
    let pool = std::mem::take(&mut b.workers[0].pool);
    assert!(b.workers[0].pipeline.outbox.push(PortId(1), |_| Some(4)));
    b.pass(0);
    assert_eq!(b.workers[0].stats.outbox_dropped, 1);
    b.workers[0].pool.extend(pool);
    assert!(b.audit().is_whole());
}

// Red when held frames are not tried again after a command, or out of order.
#[test]
fn frames_wait_for_a_neighbour_and_leave_in_order() {
    let mut b = Bench::new(1);
    for arg in 1..=5 {
        b.send(0, 0, AWAIT, arg);
    }
    b.settle();
    assert_eq!(b.workers[0].hold.len(), 5);
    assert!(b.audit().is_whole());
    b.resolved.store(true, Relaxed);
    b.now += 1;
    b.pass(0);
    assert_eq!(b.workers[0].hold.len(), 5, "not tried at each pass");
    b.tasks[0].try_send(Box::new(|_, _| {})).map_err(|_| ()).unwrap();
    b.settle();
    let order: Vec<u8> = b.wires[0][1].take().iter().map(|f| f[1]).collect();
    assert_eq!(order, [1, 2, 3, 4, 5]);
}

// Red when a frame waits forever, when trying again makes it young, or when the bounds are off.
#[test]
fn waiting_for_a_neighbour_is_bounded_in_time_and_places() {
    let mut b = Bench::new(1);
    for _ in 0..hold::HELD_PER_HOP + 2 {
        b.send(0, 0, AWAIT, 1);
        b.pass(0);
    }
    assert_eq!(b.dropped(0, DropReason::NeighbourQueueFull), 2);
    for _ in 0..20 {
        b.now += hold::HELD_MS / 10;
        b.pass(0);
    }
    assert_eq!(b.workers[0].pipeline.failed as usize, hold::HELD_PER_HOP);
    assert_eq!(b.workers[0].hold.len(), 0);
    assert!(b.audit().is_whole());
}

// Red when an event that finds no room blocks the worker or is not counted.
#[test]
fn events_that_find_no_room_are_counted() {
    let mut b = Bench::new(1);
    for _ in 0..5 {
        b.send(0, 0, EVENT, 1);
    }
    b.settle();
    assert_eq!(b.workers[0].stats.events_left_out, 2, "the channel of this test takes three");
}

// Red when the spin does not shrink after sleeps that were long, or never grows again.
#[test]
fn spinning_adapts_to_what_it_wins() {
    let mut b = Bench::new(1);
    let w = &mut b.workers[0];
    w.idle.spin_us = 80;
    w.spin_us = 80;
    for _ in 0..10 {
        w.adapt_spin(Duration::from_millis(10));
    }
    assert_eq!(w.spin_us, 10);
    w.adapt_spin(Duration::from_micros(100));
    assert_eq!(w.spin_us, 80);
}

#[derive(Clone, Debug)]
enum Step {
    Send { worker: usize, port: usize, what: u8, arg: u8 },
    Pass(usize),
    Stall { worker: usize, port: usize, stalled: bool },
    Later(u64),
    Resolve(bool),
    Close { worker: u16, port: u8 },
    Open { worker: u16, port: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..3usize, 0..usize::from(PORTS));
    prop_oneof![
        8 => (place.clone(), DROP..=NO_FIRST, 0..4u8)
            .prop_map(|((worker, port), what, arg)| Step::Send { worker, port, what, arg }),
        8 => (0..3usize).prop_map(Step::Pass),
        1 => (place, any::<bool>()).prop_map(|((worker, port), stalled)| Step::Stall { worker, port, stalled }),
        1 => (0..500u64).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Resolve),
        1 => (0..3u16, 0..PORTS).prop_map(|(worker, port)| Step::Close { worker, port }),
        2 => (0..3u16, 0..PORTS).prop_map(|(worker, port)| Step::Open { worker, port }),
    ]
}

proptest! {
    // Red when any path loses a frame or makes it twice: with `free` left out anywhere in act.rs, or a
    // frame pushed to two places, within a few cases.
    #[test]
    fn no_order_of_events_loses_or_doubles_a_frame(steps in prop::collection::vec(step(), 1..400)) {
        let mut b = Bench::new(3);
        let mut open = [[true; PORTS as usize]; 3];
        for step in steps {
            match step {
                Step::Send { worker, port, what, arg } => b.send(worker, port, what, arg),
                Step::Pass(worker) => {
                    b.pass(worker);
                }
                Step::Stall { worker, port, stalled } => b.wires[worker][port].stall(stalled),
                Step::Later(ms) => b.now += ms,
                Step::Resolve(yes) => b.resolved.store(yes, Relaxed),
                Step::Close { worker, port } => {
                    b.close(worker, port);
                    open[usize::from(worker)][usize::from(port)] = false;
                }
                Step::Open { worker, port } => {
                    if !std::mem::replace(&mut open[usize::from(worker)][usize::from(port)], true) {
                        b.open(worker, port);
                    }
                }
            }
            let audit = b.audit();
            prop_assert!(audit.is_whole(), "{audit:?}");
        }
    }
}
