//! The benches' generator and sink, before any figure depends on them.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use tidegate_lab::bench::bed::{Bed, Kind};
use tidegate_lab::bench::frames::{Direction, Flows, Generator, Pass, Sink, mac_of};
use tidegate_lab::lab::set_kernel_forwarding;
use tidegate_lab::sys::Stop;

use crate::common::{TestLab, kernel_lab};

/// A thousand flows through a lab's addresses, which are the same in every lab.
const FLOWS: Flows = Flows {
    count: 1000,
    client_base: Ipv4Addr::new(10, 82, 0, 0),
    server: Ipv4Addr::new(10, 81, 2, 10),
    server_port: 5000,
};

fn generate(lab: &TestLab, frames: u32) {
    let gateway = mac_of(&lab.node(), "outside").unwrap();
    // Neighbours first: what waits for them is queued, and only a little of it.
    let resolved =
        tidegate_lab::sys::run_in(Some(&lab.client()), "ping", &["-c", "1", &lab.plan().server.ipv4]);
    assert!(resolved.unwrap().success);
    let sent = lab.client().run(|| {
        let mut generator = Generator::load(&FLOWS, Direction::Forward, Duration::ZERO, "eth0", gateway)?;
        generator.send_gently(frames, Duration::from_micros(200))
    });
    sent.unwrap().unwrap();
}

/// Red when the generator's frames are lost between the ends, or the sink counts wrong: then no figure means
/// anything. Red, too, when kernel forwarding does not forward them, with which Tidegate is compared.
#[test]
fn every_frame_arrives_and_is_counted_by_its_flow() {
    let lab = kernel_lab("frames", |_| ());
    set_kernel_forwarding(&lab.node(), true).unwrap();
    let _pass = Pass::attach(&lab.node(), "outside").unwrap();
    let sink = Sink::attach(&lab.server(), "eth0", &FLOWS).unwrap();
    generate(&lab, 10_000);
    crate::common::eventually("all frames arrive", crate::common::PATIENCE, || {
        (sink.frames().unwrap() == 10_000).then_some(())
    });
    for (flow, frames) in sink.samples().unwrap() {
        assert_eq!(frames, 10, "flow {flow}");
    }
}

/// Red when a checksum, a length or a port in the generator's frames is wrong: the kernel's UDP drops them.
#[test]
fn the_frames_are_valid_udp() {
    let lab = kernel_lab("valid", |_| ());
    let _pass = Pass::attach(&lab.node(), "outside").unwrap();
    let socket = lab.server().run(|| UdpSocket::bind((FLOWS.server, FLOWS.server_port))).unwrap().unwrap();
    socket.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    // Each takes a whole page of the socket's buffer.
    generate(&lab, 20);
    let mut datagram = [0; 64];
    for number in 0..20 {
        let (length, from) = socket.recv_from(&mut datagram).expect("a valid datagram arrives");
        assert_eq!(length, 18);
        let (address, port) = FLOWS.client(number);
        assert_eq!(from, (address, port).into());
    }
}

/// Red when a peer that we compare with does not forward: a figure against it would flatter us.
#[test]
fn the_peers_forward() {
    for kind in [Kind::Raw, Kind::Conntrack] {
        let bed = Bed::make(kind, FLOWS, &Stop::default()).unwrap();
        let rate = bed.saturate(Duration::from_secs(1), &Stop::default()).unwrap();
        eprintln!("{}: {rate:.0} frames a second", kind.name());
        assert!(rate > 10_000.0, "{} forwards {rate} frames a second", kind.name());
    }
}
