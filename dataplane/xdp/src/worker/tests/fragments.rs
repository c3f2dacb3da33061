//! Frames that wait for the first fragment of their datagram.

use super::*;
use tidegate_dataplane::fragment::WAITING_MAX;

// Red when fragments do not go on once their first has come, without its note, out of order, or when
// those of another datagram go with them.
#[test]
fn fragments_wait_for_their_first_and_leave_in_order() {
    let mut b = Bench::new(1);
    for port in 0..6 {
        b.wires[0][0].send(&[AWAIT_FIRST, 1 + port % 2, port, 0, 0, 0]);
    }
    b.settle();
    assert_eq!(b.workers[0].fragments.len(), 6);
    assert_eq!(b.workers[0].report().0.held_fragments, 6);
    assert!(b.audit().is_whole());
    b.send(0, 0, FIRST, 1);
    b.settle();
    let order: Vec<u8> = b.wires[0][1].take().iter().map(|f| f[2]).collect();
    assert_eq!(order, [0, 2, 4]);
    b.send(0, 0, NO_FIRST, 2);
    b.settle();
    assert!(b.wires[0][1].take().is_empty());
    assert_eq!(b.dropped(0, DropReason::FragmentOverlap), 3);
    assert!(b.audit().is_whole());
    // A frame's next packet has no note of the one before.
    for _ in 0..2 * FRAMES {
        b.send(0, 0, AWAIT_FIRST, 3);
        b.pass(0);
    }
    b.settle();
    assert!(b.wires[0][1].take().is_empty());
}

// Red when a fragment waits forever, or more wait than there are places, or the youngest is dropped for want of
// one: fragments whose first never comes would then keep all others out.
#[test]
fn waiting_fragments_are_bounded_in_time_and_places() {
    let mut b = Bench::with_frames(1, 512);
    let places = usize::from(WAITING_MAX);
    for n in 0..places as u8 + 3 {
        b.wires[0][0].send(&[AWAIT_FIRST, n / 8, n, 0, 0, 0]);
        b.pass(0);
    }
    assert_eq!(b.dropped(0, DropReason::FragmentQueueFull), 3);
    assert_eq!(b.workers[0].fragments.len(), places);
    b.send(0, 0, FIRST, 0);
    b.settle();
    let left: Vec<u8> = b.wires[0][1].take().iter().map(|f| f[2]).collect();
    assert_eq!(left, [3, 4, 5, 6, 7], "the oldest three made room");
    b.now += FRAGMENT_MS;
    b.pass(0);
    assert_eq!(b.workers[0].fragments.len(), 0);
    assert_eq!(b.dropped(0, DropReason::FragmentTimeout) as usize, places - 5);
    assert!(b.audit().is_whole());
}
