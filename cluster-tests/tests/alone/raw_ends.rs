//! The raw ends that other tests stand on: what is sent at one arrives at the other as it is.

use crate::common::lab;
use crate::common::raw::{QUIET, SOON, Segment, raw_pair, v4, v6};
use etherparse::TcpOptionElement;

/// Red when a raw end changes what it sends or misreads what arrives: then no other test with raw packets
/// could be believed.
#[test]
fn what_one_raw_end_sends_the_other_sees() {
    let lab = lab("raw", |_| ());
    let pair = raw_pair(&lab);
    for (port, (client, server)) in [(6001, v4(&pair)), (6002, v6(&pair))] {
        pair.forget();
        let options = [TcpOptionElement::MaximumSegmentSize(1234)];
        let syn = Segment { flags: "S", seq: 77, window: 1000, options: &options, ..Segment::default() };
        pair.client.tcp((client, 5001), (server, port), &syn);
        let seen = pair.server.tcp_arrival(port, SOON).expect("the SYN arrives");
        assert_eq!((seen.source, seen.source_port, seen.destination), (client, 5001, server));
        assert_eq!((seen.flags.as_str(), seen.seq, seen.window, seen.mss), ("S", 77, 1000, Some(1234)));
        assert!(seen.checksums_right);
        // Nobody answers for the server but the test.
        assert_eq!(pair.client.tcp_arrival(5001, QUIET), None);
        let answer = Segment { flags: "SA", seq: 900, ack: 78, window: 1000, ..Segment::default() };
        pair.server.tcp((server, port), (client, 5001), &answer);
        let seen = pair.client.tcp_arrival(5001, SOON).expect("the answer arrives");
        assert_eq!((seen.flags.as_str(), seen.seq, seen.ack), ("SA", 900, 78));
    }
}
