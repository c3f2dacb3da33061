//! Records as a syslog server sees them, and a server or watcher that does not keep up.

use super::record::Clock;
use super::syslog::{Encoder, Kind};
use super::*;
use crate::api::FlowRecord;
use crate::config::{SyslogConfig, Transport};
use crate::daemon::twin;
use std::net::SocketAddr;
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::engine::{Happened, SessionEvent, SessionFilter};
use tidegate_dataplane::names::{AppId, RuleId, ZoneId};
use tidegate_dataplane::route::PortId;
use tidegate_dataplane::session::record::SessionId;
use tidegate_dataplane::session::{EndReason, State};
use tidegate_dataplane::time::Now;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

fn server(server: SocketAddr, transport: Transport) -> SyslogConfig {
    SyslogConfig { server, transport, facility: 16, rate_per_s: 3, enterprise_number: 32_473 }
}

fn event(counter: u64, what: Happened) -> SessionEvent {
    let address = |last| std::net::IpAddr::from([10, 0, 0, last]).into();
    SessionEvent {
        what,
        at: Now(7_500),
        logged: true,
        id: SessionId { origin: 1, boot: 0xab, counter },
        tuple: Tuple { src: address(1), dst: address(2), src_port: 1024, dst_port: 53, protocol: 17 },
        zones: [ZoneId(0), ZoneId(1)],
        ports: [Some(PortId(0)), Some(PortId(1))],
        state: State::Replied,
        rule: RuleId(0),
        application: AppId(0),
        revision: 3,
        packets: [2, 1],
        bytes: [120, 60],
        created: Now(5_000),
        remaining_ms: Some(0),
    }
}

#[test]
fn a_record_is_a_message_of_rfc_5424() {
    // The golden text: PRI is facility 16 times 8 plus severity 6, values are escaped, nil fields left out.
    let config = server("192.0.2.9:514".parse().unwrap(), Transport::Udp);
    let record = FlowRecord {
        time: "2026-01-02T03:04:05.678Z".into(),
        id: Some("1-ab-7".into()),
        protocol: "udp".into(),
        reason: Some("aged".into()),
        source: "10.0.0.1".into(),
        source_port: Some(1024),
        destination: "10.0.0.2".into(),
        destination_port: Some(53),
        from_zone: "trust".into(),
        to_zone: "un]tr\"u\\st".into(),
        policy: "trust/untrust/dns".into(),
        started_at: Some("2026-01-02T03:03:05.000Z".into()),
        duration_s: Some(60.678),
        packets: 2,
        bytes: 120,
        reply_packets: 1,
        reply_bytes: 60,
        ..FlowRecord::default()
    };
    let encoder = Encoder::new("edge 1", &config);
    let pid = std::process::id();
    assert_eq!(
        encoder.record(Kind::Close, &record, 0),
        format!(
            "<134>1 2026-01-02T03:04:05.678Z edge1 tidegate {pid} SESSION_CLOSE [tidegate@32473 session=\"1-ab-7\" \
             reason=\"aged\" start=\"2026-01-02T03:03:05.000Z\" end=\"2026-01-02T03:04:05.678Z\" duration_s=\"60.678\" \
             protocol=\"udp\" source=\"10.0.0.1\" source_port=\"1024\" destination=\"10.0.0.2\" destination_port=\"53\" \
             from_zone=\"trust\" to_zone=\"un\\]tr\\\"u\\\\st\" policy=\"trust/untrust/dns\" packets=\"2\" bytes=\"120\" \
             reply_packets=\"1\" reply_bytes=\"60\"] session closed"
        )
    );
    let refused = FlowRecord { id: None, packets: 1, ..record };
    let text = encoder.record(Kind::Deny, &refused, 9);
    assert!(text.starts_with("<133>1 ") && text.contains(" FLOW_DENY ["), "{text}");
    assert!(
        text.contains("left_out=\"9\"") && !text.contains("reply_") && !text.contains("session="),
        "{text}"
    );
}

struct Rig {
    inlet: Inlet,
    outlet: Outlet,
    logs: Arc<Logs>,
    hub: Arc<Hub>,
    node: Arc<crate::daemon::node::Node>,
    dir: std::path::PathBuf,
    _tasks: tokio::task::JoinSet<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn rig(name: &str, servers: Vec<SyslogConfig>) -> Rig {
    let dir = twin::folder(name);
    let (node, mut tasks) = twin::node(&dir, 1, 1_000, &[]);
    let config = crate::config::Config { syslog: servers, ..node.config.clone() };
    let (mut inlets, outlet) = rings(1);
    let logs = Arc::new(Logs::start(&config, &mut tasks));
    let hub = Hub::new(node.workers.clone());
    Rig { inlet: inlets.remove(0), outlet, logs, hub, node, dir, _tasks: tasks }
}

impl Rig {
    fn pass(&mut self) {
        self.outlet.pass(&self.hub, &self.logs, &self.node.policy, Clock { start: self.node.started });
    }

    fn numbers(&self) -> (u64, u64) {
        let server = self.logs.numbers().remove(1);
        (server.sent, server.left_out)
    }
}

#[tokio::test]
async fn a_udp_server_gets_what_the_rate_allows_and_then_the_count_of_the_rest() {
    // Without the bound it gets ten records; without the count the last message is a record.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut rig = rig("sys-udp", vec![server(socket.local_addr().unwrap(), Transport::Udp)]);
    for n in 0..10 {
        assert!(rig.inlet.push(Event::Session(event(n, Happened::Created))));
    }
    rig.pass();
    let mut buffer = [0; 2048];
    let mut messages = Vec::new();
    for _ in 0..3 {
        let n = socket.recv(&mut buffer).await.unwrap();
        messages.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
    }
    assert!(messages.iter().all(|m| m.contains("SESSION_CREATE")), "{messages:?}");
    let last = loop {
        rig.pass();
        match tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await {
            Ok(n) => break String::from_utf8_lossy(&buffer[..n.unwrap()]).into_owned(),
            Err(_) => continue,
        }
    };
    assert!(last.contains("LEFT_OUT") && last.contains("left_out=\"7\""), "{last}");
    assert_eq!(rig.numbers(), (4, 7));
}

/// Reads one message by its count (RFC 6587).
async fn framed(stream: &mut tokio::net::TcpStream) -> String {
    let mut length = String::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b' ' => break,
            digit => length.push(char::from(digit)),
        }
    }
    let mut message = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut message).await.unwrap();
    String::from_utf8(message).unwrap()
}

#[tokio::test]
async fn a_tcp_server_gets_counted_frames_also_after_it_was_away() {
    // Write without a count, or give up when the connection breaks, and this fails or hangs.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut rig = rig("sys-tcp", vec![server(listener.local_addr().unwrap(), Transport::Tcp)]);
    rig.inlet.push(Event::Session(event(1, Happened::Created)));
    rig.pass();
    let (mut stream, _) = listener.accept().await.unwrap();
    let message = framed(&mut stream).await;
    assert!(message.contains("session=\"1-ab-1\"") && message.ends_with("session created"), "{message}");
    drop(stream);
    rig.inlet.push(Event::Session(event(1, Happened::Ended(EndReason::Aged))));
    rig.pass();
    let (mut stream, _) = listener.accept().await.unwrap();
    let message = framed(&mut stream).await;
    assert!(message.contains("SESSION_CLOSE") && message.contains("duration_s=\"2.500\""), "{message}");
}

#[tokio::test]
async fn a_server_that_is_gone_costs_a_bounded_queue_and_its_records_are_counted() {
    // Wait for the server, or queue without a bound, and this hangs or the count is wrong.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = SyslogConfig { rate_per_s: 100_000, ..server(gone, Transport::Tcp) };
    let mut rig = rig("sys-gone", vec![config]);
    for n in 0..5_000 {
        assert!(rig.inlet.push(Event::Session(event(n, Happened::Created))));
    }
    rig.pass();
    assert_eq!(rig.numbers(), (0, 5_000 - 1_024));
}

#[tokio::test]
async fn a_full_ring_refuses_and_the_loss_is_told_to_logs_and_watchers() {
    // Block, grow, or lose the count, and this fails.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut rig = rig("sys-ring", vec![server(socket.local_addr().unwrap(), Transport::Udp)]);
    let mut watch = rig.hub.watch(SessionFilter::default()).await.unwrap();
    let taken =
        (0..RING as u64 + 5).filter(|n| rig.inlet.push(Event::Session(event(*n, Happened::Created)))).count();
    assert_eq!(taken, RING);
    assert!(rig.inlet.push(Event::LeftOut(95)));
    rig.pass();
    let Some(Heard::LeftOut(lost)) = watch.next().await else { panic!("the loss comes first") };
    // 100 before the ring, and what the watcher's own queue could not hold.
    assert_eq!(lost, 100 + (RING as u64 - 4_096));
    let mut heard = 0;
    while let Some(Heard::Event(_)) = watch.try_next() {
        heard += 1;
    }
    assert_eq!(heard, 4_096);
    // One of the three that the rate allows says what was lost; two are records.
    assert_eq!(rig.numbers().1, 100 + RING as u64 - 2);
}

#[tokio::test]
async fn a_watcher_hears_only_what_it_means() {
    // Hand everything to everybody, and the second event comes too.
    let mut rig = rig("watch-filter", Vec::new());
    let ended =
        SessionFilter { id: Some(SessionId { origin: 1, boot: 0xab, counter: 2 }), ..Default::default() };
    let mut watch = rig.hub.watch(ended).await.unwrap();
    for n in 1..=2 {
        rig.inlet.push(Event::Session(event(n, Happened::Created)));
    }
    rig.pass();
    let Some(Heard::Event(heard)) = watch.try_next() else { panic!("nothing heard") };
    assert_eq!(heard.id.counter, 2);
    assert!(watch.try_next().is_none());
}
