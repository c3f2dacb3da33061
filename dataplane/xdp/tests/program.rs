//! What the XDP program passes to the kernel and what it drops without a socket, frame by frame, as
//! the kernel itself runs it. Needs root.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use tidegate_xdp::program::Program;

const MINE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LOCAL: &[&str] = &["10.0.0.1", "192.0.2.7", "fd00::1"];

fn program() -> Program {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(uid, 0, "this test loads an XDP program: run `make test`, which uses sudo");
    Program::load(&addresses(LOCAL)).unwrap()
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

fn ethernet(to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = to.to_vec();
    f.extend([2, 0, 0, 0, 0, 2]);
    f.extend(ethertype.to_be_bytes());
    f.extend(payload);
    f
}

fn ipv4(to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2];
    p.extend(to.parse::<std::net::Ipv4Addr>().unwrap().octets());
    p.extend(payload);
    let len = p.len() as u16;
    p[2..4].copy_from_slice(&len.to_be_bytes());
    ethernet(MINE, 0x0800, &p)
}

fn ipv6(to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((payload.len() as u16).to_be_bytes());
    p.extend([next, 255]);
    p.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend(to.parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend(payload);
    ethernet(MINE, 0x86dd, &p)
}

fn udp(port: u16) -> Vec<u8> {
    let mut u = vec![0, 67];
    u.extend(port.to_be_bytes());
    u.extend([0, 8, 0, 0]);
    u
}

fn solicitation(target: &str) -> Vec<u8> {
    let mut n = vec![135, 0, 0, 0, 0, 0, 0, 0];
    n.extend(target.parse::<std::net::Ipv6Addr>().unwrap().octets());
    n
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    let mut f = frame[..12].to_vec();
    f.extend([0x81, 0, 0, 5]);
    f.extend(&frame[12..]);
    f
}

// Each line is red when its rule in bpf/tidegate.bpf.c is taken out, or when a rule passes more than it
// says: the second half is what the kernel would forward if its forwarding were on.
#[test]
fn what_is_for_this_node_passes_and_nothing_else() {
    let program = program();
    let passes: &[(&str, Vec<u8>)] = &[
        ("ARP", ethernet([0xff; 6], 0x0806, &[0; 28])),
        ("IPv4 to this node", ipv4("10.0.0.1", 1, &[8, 0, 0, 0])),
        ("IPv4 to this node's other address", ipv4("192.0.2.7", 6, &[0; 20])),
        ("a later fragment to this node", {
            let mut f = ipv4("10.0.0.1", 17, &[0; 8]);
            f[14 + 6] = 0;
            f[14 + 7] = 100;
            f
        }),
        ("VRRP", ipv4("224.0.0.18", 112, &[0; 8])),
        ("an answer of a DHCP server", ipv4("255.255.255.255", 17, &udp(68))),
        ("IPv6 to this node", ipv6("fd00::1", 58, &[128, 0, 0, 0])),
        ("a solicitation of this node's address", ipv6("ff02::1:ff00:1", 58, &solicitation("fd00::1"))),
        ("a unicast solicitation", ipv6("fd00::1", 58, &solicitation("fd00::1"))),
        ("an advertisement to a link-local address", ipv6("fe80::1", 58, &[136, 0, 0, 0])),
        ("a report to a transient link-local group", ipv6("ff12::16", 58, &[143, 0, 0, 0])),
        ("LLDP", ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[2, 7, 4])),
        ("spanning tree", ethernet([1, 0x80, 0xc2, 0, 0, 0], 0x0026, &[0x42, 0x42, 3])),
    ];
    for (what, frame) in passes {
        assert!(program.would_pass(frame).unwrap(), "{what} must pass");
    }
    let transit: &[(&str, Vec<u8>)] = &[
        ("IPv4 transit", ipv4("10.0.1.2", 17, &udp(53))),
        ("IPv4 transit to a neighbour of an address", ipv4("10.0.0.3", 6, &[0; 20])),
        ("a directed broadcast", ipv4("10.0.0.255", 17, &udp(68))),
        ("another broadcast", ipv4("255.255.255.255", 17, &udp(137))),
        ("IPv4 multicast", ipv4("239.1.1.1", 17, &udp(5000))),
        ("IPv4 link-local", ipv4("169.254.1.1", 17, &udp(53))),
        ("IPv6 transit", ipv6("fd00:1::2", 17, &udp(53))),
        ("neighbour discovery in transit", ipv6("fd00:1::2", 58, &solicitation("fd00:1::2"))),
        ("IPv6 multicast of a wider scope", ipv6("ff05::2", 17, &udp(547))),
        ("site-local", ipv6("fec0::1", 17, &udp(53))),
        ("tagged, to this node's address", tagged(&ipv4("10.0.0.1", 1, &[8, 0, 0, 0]))),
        ("tagged ARP", tagged(&ethernet([0xff; 6], 0x0806, &[0; 28]))),
        ("another EtherType", ethernet(MINE, 0x88b5, &[0; 46])),
        ("a group beside the reserved ones", ethernet([1, 0x80, 0xc2, 0, 0, 0x21], 0x88cc, &[0; 46])),
    ];
    for (what, frame) in transit {
        assert!(!program.would_pass(frame).unwrap(), "{what} must not pass");
    }
    let s = program.stats();
    assert_eq!((s.pass_arp, s.pass_local, s.pass_link_local, s.pass_link_control), (1, 5, 5, 2));
    assert_eq!(s.drop_no_socket, transit.len() as u64);
}

// Red when a header is read past the frame's end (the verifier refuses that), or when a frame too short
// to say whose it is goes to the kernel.
#[test]
fn cut_frames_do_not_pass() {
    let program = program();
    for whole in [ipv4("10.0.0.1", 17, &udp(68)), ipv6("fd00::1", 17, &udp(68))] {
        let header = if whole[12] == 0x08 { 34 } else { 54 };
        for cut in 14..=whole.len() {
            assert_eq!(program.would_pass(&whole[..cut]).unwrap(), cut >= header, "cut at {cut}");
        }
    }
    let dhcp = ipv4("255.255.255.255", 17, &udp(68));
    for cut in 14..dhcp.len() {
        assert!(!program.would_pass(&dhcp[..cut]).unwrap(), "DHCP cut at {cut}");
    }
}

// Red when an address that this node has lost still passes, or a new one does not.
#[test]
fn local_addresses_follow() {
    let mut program = program();
    let to = |a: &str| ipv4(a, 1, &[8, 0, 0, 0]);
    program.set_local(&addresses(&["10.0.0.9", "fd00::9"])).unwrap();
    assert!(program.would_pass(&to("10.0.0.9")).unwrap());
    assert!(program.would_pass(&ipv6("fd00::9", 58, &[128, 0, 0, 0])).unwrap());
    assert!(!program.would_pass(&to("10.0.0.1")).unwrap());
    assert!(!program.would_pass(&ipv6("fd00::1", 58, &[128, 0, 0, 0])).unwrap());
    let many: BTreeSet<IpAddr> = (0..1500u32).map(|n| IpAddr::V4((0x0a10_0000 + n).into())).collect();
    let e = program.set_local(&many).unwrap_err().to_string();
    assert!(e.contains("1500 local addresses"), "{e}");
    // A set that was refused is not forgotten half: the next one is right again.
    program.set_local(&addresses(LOCAL)).unwrap();
    assert!(program.would_pass(&to("10.0.0.1")).unwrap());
    assert!(!program.would_pass(&to("10.16.0.5")).unwrap());
}
