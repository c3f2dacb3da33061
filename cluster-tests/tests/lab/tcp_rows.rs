//! Rows J4 to J8, with segments that an outsider sends and sees. Timeouts are told apart by what `session list`
//! shows of them; a switch is turned by a reload, so that each part stands beside its opposite.

use std::time::Duration;

use etherparse::TcpOptionElement::{MaximumSegmentSize, Noop};
use tidegate_lab::lab::DEFAULT_POLICY;
use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, HttpServer, churn, fetch, make_file};

use crate::common::raw::{SOON, Segment, raw_pair, v4, v6};
use crate::common::tcp::From::{Client, Server};
use crate::common::tcp::{CLIENT, SERVER, Talk, WINDOW, policy};
use crate::common::{ip, lab, pause};

/// The next numbers of both sides after the handshake.
const C: u32 = CLIENT + 1;
const S: u32 = SERVER + 1;

/// Red when the SYN-ACK does not restart the initial timeout, when the handshake's end does not bring the
/// service's, when a half-open session does not go, or when a refused one gets the service's timeout.
#[test]
fn j4_each_handshake_packet_restarts_the_initial_timeout() {
    let lab = lab("j4", |_| ());
    let pair = raw_pair(&lab);
    policy(&lab, DEFAULT_POLICY, "[tcp]\ninitial_timeout = 30");
    let talk = Talk::new(&lab, &pair, 6000);
    talk.passes(Client, "S", CLIENT, 0, 0);
    let before = talk.ends_at_s();
    pause(Duration::from_millis(1500));
    talk.passes(Server, "SA", SERVER, C, 0);
    assert_eq!(talk.state(), ("syn_received".into(), 30.0));
    assert!(talk.ends_at_s() > before + 1.0, "the SYN-ACK restarts it");
    let before = talk.ends_at_s();
    pause(Duration::from_millis(1500));
    talk.passes(Client, "S", CLIENT, 0, 0);
    assert!(talk.ends_at_s() > before + 1.0, "so does the SYN again");
    talk.passes(Client, "A", C, S, 0);
    assert_eq!(talk.state(), ("established".into(), 1800.0));

    let refused = Talk::new(&lab, &pair, 6001);
    refused.passes(Client, "S", CLIENT, 0, 0);
    refused.passes(Server, "AR", 0, C, 0);
    assert_eq!(refused.state(), ("reset".into(), 30.0));

    policy(&lab, DEFAULT_POLICY, "[tcp]\ninitial_timeout = 4");
    let short = Talk::new(&lab, &pair, 6002);
    short.passes(Client, "S", CLIENT, 0, 0);
    short.is_gone();
    short.stopped(Server, "SA", SERVER, C, 0, "tcp_no_session");
}

/// Red when a RST ends the session with the switch off, does not end it with the switch on, or an inexact one
/// counts.
#[test]
fn j5_an_exact_rst_ends_the_session_when_it_is_to() {
    let lab = lab("j5", |_| ());
    let pair = raw_pair(&lab);
    for (port, on) in [(6000, false), (6010, true)] {
        policy(&lab, DEFAULT_POLICY, &format!("[tcp]\nrst_invalidate = {on}"));
        for (n, from, exact) in [(0, Client, C), (1, Server, S)] {
            let talk = Talk::new(&lab, &pair, port + n);
            talk.connect();
            talk.passes(from, "R", exact + 100, 0, 0);
            talk.passes(from, "R", exact.wrapping_sub(100), 0, 0);
            assert_eq!(talk.state(), ("established".into(), 1800.0), "an inexact RST closes nothing");
            talk.passes(from, "R", exact, 0, 0);
            if on {
                assert_eq!(talk.session(), None);
                talk.stopped(Client, "A", C, S, 10, "tcp_no_session");
            } else {
                assert_eq!(talk.state(), ("reset".into(), 1800.0), "it keeps its timeout");
            }
        }
    }
}

/// Red when one of the switches of a close is ignored: the timeouts after the first FIN, the second, and the
/// last acknowledgement; or when what comes late lengthens it.
#[test]
fn j6_a_close_has_the_timeouts_of_its_switches() {
    let lab = lab("j6", |_| ());
    let pair = raw_pair(&lab);
    let service = 1800.0;
    for (port, switches, after_fin, after_second, after_last) in [
        (6000, "time_wait = 100", service, 100.0, Some(2.0)),
        (6001, "time_wait = \"ageout\"", service, service, Some(service)),
        (6002, "time_wait = 100\nhalf_close_time_wait = true", 100.0, 100.0, Some(2.0)),
        (6003, "fin_invalidate = true", service, 150.0, None),
    ] {
        policy(&lab, DEFAULT_POLICY, &format!("[tcp]\n{switches}"));
        let talk = Talk::new(&lab, &pair, port);
        talk.connect();
        talk.passes(Client, "AF", C, S, 0);
        assert_eq!(talk.state(), ("half_closed".into(), after_fin), "{switches}");
        talk.passes(Server, "A", S, C + 1, 100);
        talk.passes(Server, "AF", S + 100, C + 1, 0);
        assert_eq!(talk.state(), ("time_wait".into(), after_second), "{switches}");
        let before = talk.ends_at_s();
        pause(Duration::from_millis(1100));
        talk.passes(Server, "AF", S + 100, C + 1, 0);
        talk.passes(Server, "A", S, C + 1, 100);
        assert!(talk.ends_at_s() < before + 0.5, "{switches}: a FIN again, or late data, lengthened it");
        talk.passes(Client, "A", C + 1, S + 101, 0);
        match after_last {
            Some(2.0) => talk.is_gone(),
            Some(timeout) => assert_eq!(talk.state(), ("closed".into(), timeout), "{switches}"),
            None => assert_eq!(talk.session(), None, "{switches}"),
        }
    }
}

/// Red when a SYN in a closed session falls into the old one, or one in a live session begins another.
#[test]
fn j6_a_new_syn_in_a_closed_session_starts_a_new_one() {
    let lab = lab("j6syn", |_| ());
    let pair = raw_pair(&lab);
    let talk = Talk::new(&lab, &pair, 6000);
    talk.connect();
    let id = |talk: &Talk<'_>| talk.session().unwrap()["id"].clone();
    let old = id(&talk);
    talk.passes(Client, "S", 70_000_000, 0, 0);
    assert_eq!((id(&talk), talk.state()), (old.clone(), ("established".into(), 1800.0)));
    talk.passes(Client, "AF", C, S, 0);
    talk.passes(Server, "AF", S, C + 1, 0);
    talk.passes(Client, "S", 70_000_000, 0, 0);
    assert_ne!(id(&talk), old);
    assert_eq!(talk.state().0, "syn_sent");
    talk.passes(Server, "SA", 9_000, 70_000_001, 0);
    talk.passes(Client, "A", 70_000_001, 9_001, 0);
    assert_eq!(talk.state().0, "established");
}

/// Red when `syn_check` is ignored either way, or `tcp_rst` answers without being asked to, or not at all.
#[test]
fn j7_syn_check_and_its_answer() {
    let lab = lab("j7syn", |_| ());
    let pair = raw_pair(&lab);
    let silent = Talk::new(&lab, &pair, 6000);
    for flags in ["A", "SA", "AF", "R"] {
        silent.stopped(Client, flags, 5, 7, 0, "tcp_no_session");
    }
    assert_eq!(silent.arrives(Server, Duration::ZERO), None, "nobody answers");

    let telling = DEFAULT_POLICY.replace("\"permit\"", "\"permit\"\ntcp_rst = true");
    policy(&lab, &telling, "");
    let told = Talk::new(&lab, &pair, 6001);
    told.stopped(Client, "A", 5, 7_777, 10, "tcp_no_session");
    let rst = told.arrives(Server, SOON).expect("a RST");
    assert_eq!((rst.flags.as_str(), rst.seq, rst.checksums_right), ("R", 7_777, true));
    told.stopped(Client, "R", 5, 0, 0, "tcp_no_session");
    assert_eq!(told.arrives(Server, Duration::from_millis(300)), None, "a RST is not answered");

    policy(&lab, DEFAULT_POLICY, "[tcp]\nsyn_check = false");
    let picked_up = Talk::new(&lab, &pair, 6002);
    picked_up.passes(Client, "A", 5, 7, 10);
    picked_up.passes(Server, "A", 7, 15, 10);
    assert_eq!(picked_up.state(), ("established".into(), 1800.0));
}

/// Red when the switch is ignored either way, or the segment that completes the handshake may carry nothing.
#[test]
fn j7_strict_syn_check_refuses_early_payload() {
    let lab = lab("j7strict", |_| ());
    let pair = raw_pair(&lab);
    let lenient = Talk::new(&lab, &pair, 6000);
    lenient.passes(Client, "S", CLIENT, 0, 20);
    lenient.passes(Server, "SA", SERVER, CLIENT + 21, 20);
    policy(&lab, DEFAULT_POLICY, "[tcp]\nstrict_syn_check = true");
    let strict = Talk::new(&lab, &pair, 6001);
    strict.stopped(Client, "S", CLIENT, 0, 20, "tcp_early_data");
    assert_eq!(strict.session(), None);
    strict.passes(Client, "S", CLIENT, 0, 0);
    strict.stopped(Server, "SA", SERVER, C, 20, "tcp_early_data");
    strict.passes(Server, "SA", SERVER, C, 0);
    strict.passes(Client, "A", C, S, 20);
    assert_eq!(strict.state().0, "established");
    strict.passes(Server, "A", S, C + 20, 20);
}

/// Red when the switch is ignored either way, when what is outside the window closes or counts, or when what a
/// stack may send (keep-alive, probe, late data) is dropped.
#[test]
fn j7_sequence_check_drops_what_is_outside_the_window() {
    let lab = lab("j7seq", |_| ());
    let pair = raw_pair(&lab);
    let (edge, past) = (u32::from(WINDOW), 1_000_000);
    let outside = [
        ("A", C + edge + 1, S, 10),
        ("A", C.wrapping_sub(past), S, 10),
        ("A", C, S + 1, 10),
        ("A", C, S.wrapping_sub(past), 10),
        ("AF", C + edge + 1, S, 0),
        ("SA", 77, S + 5, 0),
    ];
    let checked = Talk::new(&lab, &pair, 6000);
    checked.connect();
    for (flags, seq, ack, len) in outside {
        if flags == "SA" {
            checked.passes(Client, flags, seq, ack, len);
        } else {
            checked.stopped(Client, flags, seq, ack, len, "tcp_out_of_window");
        }
        assert_eq!(checked.state(), ("established".into(), 1800.0));
    }
    for (flags, seq, ack, len) in [
        ("A", C - 1, S, 0),
        ("A", C - 1, S, 1),
        ("A", C + 500, S, 10),
        ("A", C, S, 500),
        ("AU", C + 510, S, 1),
    ] {
        checked.passes(Client, flags, seq, ack, len);
    }
    checked.passes(Server, "A", S, C + 511, 10);

    policy(&lab, DEFAULT_POLICY, "[tcp]\nsequence_check = false");
    let unchecked = Talk::new(&lab, &pair, 6001);
    unchecked.connect();
    for (flags, seq, ack, len) in outside {
        unchecked.passes(Client, flags, seq, ack, len);
        assert_eq!(unchecked.state(), ("established".into(), 1800.0), "{flags} {seq} {ack}");
    }
}

/// Red when the switch is ignored either way, or a RST that is not exact closes.
#[test]
fn j7_rst_sequence_check_drops_a_rst_outside_the_window() {
    let lab = lab("j7rst", |_| ());
    let pair = raw_pair(&lab);
    let beyond = C + u32::from(WINDOW) + 1;
    for (port, on) in [(6000, false), (6001, true)] {
        policy(&lab, DEFAULT_POLICY, &format!("[tcp]\nrst_invalidate = true\nrst_sequence_check = {on}"));
        let talk = Talk::new(&lab, &pair, port);
        talk.connect();
        if on {
            talk.stopped(Client, "R", beyond, 0, 0, "tcp_rst_out_of_window");
        } else {
            talk.passes(Client, "R", beyond, 0, 0);
        }
        talk.passes(Client, "R", C + 1, 0, 0);
        assert_eq!(talk.state(), ("established".into(), 1800.0));
        talk.passes(Client, "R", C, 0, 0);
        assert_eq!(talk.session(), None);
    }
}

/// Red when a check is taken that stands on one which is off, or the refusal does not say where.
#[test]
fn j7_policy_check_refuses_a_check_without_its_ground() {
    let lab = lab("j7check", |_| ());
    let file = lab.plan().nodes[0].policy.with_file_name("wrong.toml");
    for (wrong, line) in [
        ("[tcp]\nsyn_check = false\nstrict_syn_check = true", 3),
        ("[tcp]\nsequence_check = false\nrst_sequence_check = true", 3),
        ("[tcp]\nsyn_check_in_tunnel = true", 2),
        ("[mss]\ntunnel = 1400", 2),
    ] {
        std::fs::write(&file, format!("{wrong}\n")).unwrap();
        let checked = lab.tidegate(&["policy", "check", &file.display().to_string()]).unwrap();
        assert_eq!(checked.code, Some(2), "{wrong}");
        let said = checked.stdout + &checked.stderr;
        assert!(said.contains(&format!("wrong.toml:{line}:")), "{said}");
    }
}

/// Red when the MSS of a SYN or SYN-ACK is not lowered, is raised, or its checksum is wrong afterwards; the option
/// begins at even and odd offsets.
#[test]
fn j8_the_mss_is_lowered_on_the_wire() {
    let lab = lab("j8", |_| ());
    let pair = raw_pair(&lab);
    for (limit, port) in [(None, 6000), (Some(1200), 6100)] {
        let extra = limit.map_or(String::new(), |bytes| format!("[mss]\nall_tcp = {bytes}"));
        policy(&lab, DEFAULT_POLICY, &extra);
        let cases = [(1460, false), (1460, true), (1200, true), (536, true), (65_535, false)];
        for (n, (client, server)) in [v4(&pair), v6(&pair)].into_iter().enumerate() {
            for (m, (offered, odd)) in cases.into_iter().enumerate() {
                pair.forget();
                let options = [Noop, MaximumSegmentSize(offered)];
                let options = if odd { &options[..] } else { &options[1..] };
                let from = port + (n * 10 + m) as u16;
                let syn = Segment { flags: "S", seq: 7, window: 1000, options, ..Segment::default() };
                pair.client.tcp((client, from), (server, 80), &syn);
                let seen = pair.server.tcp_arrival(80, SOON).expect("the SYN");
                let want = limit.map_or(offered, |limit: u16| limit.min(offered));
                assert_eq!((seen.mss, seen.checksums_right), (Some(want), true), "{limit:?} {offered} {odd}");
                let answer = Segment { flags: "SA", seq: 9, ack: 8, ..syn.clone() };
                pair.server.tcp((server, 80), (client, from), &answer);
                let seen = pair.client.tcp_arrival(from, SOON).expect("the SYN-ACK");
                assert_eq!((seen.mss, seen.checksums_right), (Some(want), true), "{limit:?} {offered} {odd}");
            }
        }
    }
}

/// Red when a bound of the window is narrower than what real stacks do: without the scale a transfer runs out of its
/// window, without room for late segments its retransmissions are dropped.
#[test]
fn j7_real_connections_under_loss_lose_nothing_to_the_checks() {
    const BYTES: u64 = 60_000_000;
    let lab = lab("j7real", |_| ());
    policy(&lab, DEFAULT_POLICY, "[tcp]\nrst_sequence_check = true");
    let file = std::env::temp_dir().join(format!("tidegate-lab-loss-{}", std::process::id()));
    let sent = make_file(&file, BYTES, 9).unwrap();
    for host in [lab.client(), lab.server()] {
        for (hook, percent) in [("input", 2), ("output", 1)] {
            host.run(|| {
                let chain =
                    format!("type filter hook {hook} priority 0; numgen random mod 100 < {percent} drop;");
                let rules = format!("table inet loss_{hook} {{ chain {hook} {{ {chain} }}; }}");
                let done = std::process::Command::new("nft").arg(rules).status().unwrap();
                assert!(done.success());
            })
            .unwrap();
        }
    }
    let plan = Churn {
        connections: 500,
        concurrency: 16,
        sources: vec![ip(&lab.plan().client.ipv4)],
        server: lab.server_v4(0).ip(),
        ports: (8000..8004).collect(),
    };
    let report = churn(&lab.client(), &lab.server(), &plan, &Stop::default()).unwrap();
    assert!(report.completed > 0 && report.retransmissions > 0, "{report:?}");
    for address in [lab.server_v4(8080), lab.server_v6(8080)] {
        let server = HttpServer::start(&lab.server(), address, &file).unwrap();
        let got = fetch(&lab.client(), address, &Stop::default(), |_| ());
        drop(server);
        assert_eq!(got.unwrap(), (BYTES, sent.clone()));
    }
    std::fs::remove_file(&file).unwrap();
    for reason in ["tcp_out_of_window", "tcp_rst_out_of_window"] {
        assert_eq!(lab.drops(reason).unwrap(), 0, "{reason}");
    }
}
