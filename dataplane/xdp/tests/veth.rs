//! The whole path over real veth devices: program, sockets, workers. Needs root.
#![allow(clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use support::{INSIDE, Lab, OUTSIDE, eventually, shell, spawn_within, within};

/// How long what should come may take: it only ends a hang.
const WAIT: Duration = Duration::from_secs(60);

/// An echo server on UDP and one TCP connection that is read to its end and answered with its length.
fn serve(lab: &Lab) {
    spawn_within(&lab.server, || {
        let udp = UdpSocket::bind("[::]:7000").unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..n], from);
            }
        });
        let tcp = TcpListener::bind("[::]:7001").unwrap();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut all = Vec::new();
                    if stream.read_to_end(&mut all).is_ok() {
                        let _ = stream.write_all(&(all.len() as u64).to_be_bytes());
                    }
                });
            }
        });
    })
    .join()
    .unwrap();
}

/// Whether `n` datagrams from `n` ports are all echoed, each tried for a long time.
fn echo(lab: &Lab, server: &'static str, n: u16) -> bool {
    echo_within(lab, server, n, 200)
}

/// The same, each tried so often, three times a second.
fn echo_within(lab: &Lab, server: &'static str, n: u16, tries: u32) -> bool {
    within(&lab.client, move || {
        (0..n).all(|i| {
            let socket = UdpSocket::bind("[::]:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let target = (server.parse::<std::net::IpAddr>().unwrap(), 7000);
            let mut buffer = [0; 64];
            (0..tries).any(|_| {
                let sent = match target.0 {
                    std::net::IpAddr::V4(v4) => socket.send_to(&i.to_be_bytes(), (v4.to_ipv6_mapped(), 7000)),
                    std::net::IpAddr::V6(_) => socket.send_to(&i.to_be_bytes(), target),
                };
                sent.is_ok() && matches!(socket.recv(&mut buffer), Ok(2)) && buffer[..2] == i.to_be_bytes()
            })
        })
    })
}

/// Bytes that the server read of a TCP connection that sent `bytes`.
fn upload(lab: &Lab, server: &'static str, bytes: usize) -> u64 {
    within(&lab.client, move || {
        let address = (server.parse::<std::net::IpAddr>().unwrap(), 7001).into();
        let mut stream = TcpStream::connect_timeout(&address, WAIT).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&vec![7; bytes]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        u64::from_be_bytes(answer)
    })
}

// Red without redirect, bind, checksum completion, kicks of the tail, or the pass of ARP and ND.
#[test]
fn udp_tcp_and_ping_cross_two_ports() {
    let lab = Lab::new(1);
    let ports = lab.start(1);
    serve(&lab);
    for server in ["10.77.2.2", "fd77:2::2"] {
        assert!(echo(&lab, server, 20), "UDP to {server}");
        assert_eq!(upload(&lab, server, 8 << 20), 8 << 20, "TCP to {server}");
        let (ok, out) = shell(&lab.client, &format!("ping -c 3 -i 0.05 -W 20 {server}"));
        assert!(ok, "ping {server}: {out}");
    }
    for node in ["10.77.1.1", "10.77.2.1", "fd77:1::1"] {
        let (ok, out) = shell(&lab.client, &format!("ping -c 1 -W 20 {node}"));
        assert!(ok, "ping of the node itself at {node}: {out}");
    }
    let (stats, queues) = ports.stats().unwrap();
    assert_eq!(queues.len(), 2);
    for port in [OUTSIDE, INSIDE] {
        let s = &stats[&port];
        assert!(s.total.rx_packets > 100 && s.total.tx_packets > 100, "{s:?}");
        assert_eq!((s.total.invalid_descriptors, s.total.ledger_refused, s.total.kick_errors), (0, 0, 0));
        assert!(s.program.pass_arp > 0, "{s:?}");
    }
    assert!(stats[&OUTSIDE].program.pass_local >= 3, "the pings of the node itself");
    assert!(ports.workers().frame_audit().unwrap().is_whole());
}

/// The kernel's name of the XDP program on a port, read from outside.
fn program_on(lab: &Lab, port: &str) -> String {
    shell(&lab.node, &format!("ip -d link show dev {port} | grep -o 'prog/xdp.*' | head -1")).1
}

// Red when the program goes with the process (a bpf_link), passes transit without a socket, or when a
// leftover of ours is not replaced.
#[test]
fn the_program_stays_when_the_workers_go_and_drops_transit() {
    let lab = Lab::new(1);
    let ports = lab.start(1);
    serve(&lab);
    assert!(echo(&lab, "10.77.2.2", 1));
    drop(ports);
    // Also with kernel forwarding switched on by hand.
    assert!(
        shell(
            &lab.node,
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
        )
        .0
    );
    let left = program_on(&lab, "p0");
    assert!(left.contains("name tidegate_xdp"), "{left}");
    for server in ["10.77.2.2", "fd77:2::2"] {
        assert!(!shell(&lab.client, &format!("ping -c 2 -i 0.1 -W 1 {server}")).0, "{server} is transit");
    }
    for node in ["10.77.1.1", "10.77.2.1", "fd77:1::1"] {
        assert!(shell(&lab.client, &format!("ip neigh flush dev e0; ping -c 1 -W 20 {node}")).0, "{node}");
    }
    let ports = lab.start(1);
    assert!(echo(&lab, "10.77.2.2", 1), "a restart forwards");
    let now = program_on(&lab, "p0");
    assert!(now.contains("name tidegate_xdp") && now != left, "replaced: {left} {now}");
    let (_, removed) = within(&lab.node, move || {
        let info = ports.list()[&OUTSIDE].clone();
        drop(ports);
        (tidegate_xdp::program::detach(&info).unwrap(), tidegate_xdp::program::detach(&info).unwrap())
    });
    assert!(!removed, "nothing is left to remove");
    assert_eq!(program_on(&lab, "p0"), "");
}

// Red when a second daemon that does not get the sockets leaves its own program on the port: the first one is cut
// off from its packets then.
#[test]
fn a_daemon_that_finds_the_port_taken_leaves_the_other_one_forwarding() {
    let lab = Lab::new(1);
    let first = lab.start(1);
    serve(&lab);
    assert!(echo(&lab, "10.77.2.2", 1));
    let before = program_on(&lab, "p0");
    let second = lab.start_without_ports(1);
    let e = within(&lab.node, move || second.open(&Lab::spec(OUTSIDE)).unwrap_err()).to_string();
    assert!(e.contains("p0") && e.contains("Another process"), "{e}");
    assert_eq!(program_on(&lab, "p0"), before);
    let asked = first.clone();
    assert!(within(&lab.node, move || asked.is_sound(OUTSIDE)), "its program is there again");
    assert!(echo(&lab, "10.77.2.2", 5), "the first goes on");
}

// Red when somebody else's program is taken over, or the error does not name it and the way out.
#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let lab = Lab::new(1);
    let dir = std::env::temp_dir().join(format!("{}-xdp", lab.node));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, object) = (dir.join("other.c"), dir.join("other.o"));
    std::fs::write(
        &source,
        "__attribute__((section(\"xdp\"), used)) int somebody_elses(void *c) { return 2; }\n\
         char l[] __attribute__((section(\"license\"), used)) = \"GPL\";\n",
    )
    .unwrap();
    let built = std::process::Command::new("clang")
        .args(["-target", "bpf", "-O2", "-g", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status()
        .unwrap();
    assert!(built.success());
    let (ok, _) = shell(&lab.node, &format!("ip link set dev p0 xdpdrv obj {} sec xdp", object.display()));
    assert!(ok, "attach the other program");
    let _ = std::fs::remove_dir_all(&dir);
    let ports = lab.start_without_ports(1);
    let e = within(&lab.node, move || ports.open(&Lab::spec(OUTSIDE)).unwrap_err()).to_string();
    assert!(e.contains("somebody_elses") && e.contains("ip link set dev p0 xdp off"), "{e}");
    assert!(program_on(&lab, "p0").contains("somebody_elses"));
}

// Red when a hand-over, the way of a frame home, or the wake of a sleeping worker fails: the echo then
// misses every second flow. Sources vary, so both queues and both shards see packets of the other.
#[test]
fn two_queues_and_two_workers_hand_over_both_ways() {
    let lab = Lab::new(2);
    let ports = lab.start(2);
    serve(&lab);
    for server in ["10.77.2.2", "fd77:2::2"] {
        assert!(echo(&lab, server, 64), "{server}");
        assert_eq!(upload(&lab, server, 4 << 20), 4 << 20, "{server}");
    }
    let (workers, queues) = ports.workers().stats().unwrap();
    assert_eq!(queues.len(), 4);
    for w in &workers {
        assert!(w.handover_in > 0 && w.handover_out > 0, "{w:?}");
        assert_eq!(w.handover_full, 0);
    }
    let audit = ports.workers().frame_audit().unwrap();
    assert!(audit.is_whole() && audit.total == 2 * 4096, "{audit:?}");
}

// Red when a worker without a queue of the outgoing port cannot send: half of the flows are lost.
#[test]
fn more_workers_than_queues_send_through_each_other() {
    let lab = Lab::new(1);
    let ports = lab.start(2);
    serve(&lab);
    assert!(echo(&lab, "10.77.2.2", 32));
    let (workers, _) = ports.workers().stats().unwrap();
    assert!(workers[1].handover_in > 0, "{workers:?}");
    assert!(workers[0].transmit_for_others > 0, "{workers:?}");
    assert!(ports.workers().frame_audit().unwrap().is_whole());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

// Red when a closed socket keeps frames, a descriptor, a mapping or memory, when a deleted device takes
// a worker down, or when a port that is made again does not forward. (`close` checks every frame.)
#[test]
fn a_hundred_flaps_under_traffic_lose_nothing() {
    let lab = Lab::new(1);
    let ports = lab.start(1);
    serve(&lab);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = {
        let stop = std::sync::Arc::clone(&stop);
        spawn_within(&lab.client, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Fails while the link is gone.
                let _ = socket.send_to(&[1; 600], "10.77.2.2:7000");
                std::thread::sleep(Duration::from_micros(50));
            }
        })
    };
    // A port that is down for a moment needs no closing: its socket stays with the device.
    for port in ["p0", "p1"] {
        support::ip(&format!("-n {} link set {port} down", lab.node));
        std::thread::sleep(Duration::from_millis(50));
        support::ip(&format!("-n {} link set {port} up", lab.node));
        eventually("an echo after down and up", || echo(&lab, "10.77.2.2", 1));
    }
    let mut base = None;
    for round in 0..100 {
        let port = if round % 2 == 0 { OUTSIDE } else { INSIDE };
        if round % 4 < 2 {
            // Down, then deleted, under packets; the port is told afterwards, as netlink would.
            lab.delete_link(port);
            assert!(ports.close(port).unwrap());
            lab.make_link(port);
        } else {
            support::ip(&format!("-n {} link set p{} down", lab.node, port.0));
            assert!(ports.close(port).unwrap());
            support::ip(&format!("-n {} link set p{} up", lab.node, port.0));
            support::ip(&format!(
                "-n {} addr replace fd77:{}::1/64 dev p{} nodad",
                lab.node,
                port.0 + 1,
                port.0
            ));
        }
        lab.open(&ports, port);
        if round % 10 == 9 {
            assert!(echo(&lab, "10.77.2.2", 1), "forwards again after round {round}");
        }
        if round == 19 {
            base = Some((open_files(), mappings(), rss_kib()));
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    let (files, maps, rss) = base.unwrap();
    assert!(open_files() <= files + 4, "{} descriptors after {files}", open_files());
    assert!(mappings() <= maps + 8, "{} mappings after {maps}", mappings());
    assert!(rss_kib() < rss + 16 * 1024, "{} KiB after {rss}", rss_kib());
    let audit = ports.workers().frame_audit().unwrap();
    assert!(audit.is_whole(), "{audit:?}");
    eventually("an echo at the end", || echo(&lab, "10.77.2.2", 1));
    let stats = ports.stats().unwrap().0;
    assert!(
        stats[&INSIDE].total.kick_errors > 0,
        "no kick has met a deleted device: the test has lost its point"
    );
}

// Red when a port whose link is down cannot be opened, or stays deaf when it comes up.
#[test]
fn a_port_that_is_down_opens_and_works_once_it_is_up() {
    let lab = Lab::new(1);
    support::ip(&format!("-n {} link set p1 down", lab.node));
    let ports = lab.start(1);
    serve(&lab);
    assert!(!ports.list()[&INSIDE].up);
    assert!(!echo_within(&lab, "10.77.2.2", 1, 10));
    support::ip(&format!("-n {} link set p1 up", lab.node));
    eventually("an echo after the port came up", || echo(&lab, "10.77.2.2", 1));
    // An idle worker whose port went down sleeps: poll does not report a dead socket over and over.
    support::ip(&format!("-n {} link set p1 down", lab.node));
    let sleeps = || ports.workers().stats().unwrap().0[0].sleeps;
    let rests = |when: &str| {
        let (before, start) = (sleeps(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(500));
        let more = sleeps() - before;
        let took = start.elapsed();
        assert!(u128::from(more) < took.as_millis(), "{more} sleeps in {took:?} {when}");
    };
    rests("on a device that is down");
    lab.delete_link(INSIDE);
    rests("on a deleted device");
}

// Red when a leftover in the generic mode is met with the driver's (the kernel refuses both at once), or
// when packets do not flow in that mode.
#[test]
fn a_leftover_in_generic_mode_is_replaced_in_that_mode() {
    let lab = Lab::new(1);
    let object = concat!(env!("OUT_DIR"), "/tidegate.bpf.o");
    let (ok, out) = shell(&lab.node, &format!("ip link set dev p0 xdpgeneric obj {object} sec xdp 2>&1"));
    assert!(ok, "{out}");
    let left = program_on(&lab, "p0");
    assert!(left.contains("name tidegate_xdp"), "{left}");
    let ports = lab.start(1);
    serve(&lab);
    assert!(echo(&lab, "10.77.2.2", 5));
    assert!(program_on(&lab, "p0") != left, "replaced");
    assert!(shell(&lab.node, "ip -d link show dev p0").1.contains("xdpgeneric"));
    let sound = |port| {
        let ports = std::sync::Arc::clone(&ports);
        within(&lab.node, move || ports.is_sound(port))
    };
    assert!(sound(OUTSIDE) && sound(INSIDE));
    assert!(shell(&lab.node, "ip link set dev p0 xdpgeneric off").0);
    assert!(!sound(OUTSIDE) && sound(INSIDE), "taken off by hand");
}
