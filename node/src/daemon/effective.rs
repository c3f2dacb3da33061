//! `policy show --effective`: every flow setting in force, and whether the file or a default set it.

use crate::api::Setting;
use crate::control::view::protocol_name;
use tidegate_dataplane::policy::{
    LogSettings, MssSettings, PolicyFile, Protocols, ReplicationSettings, SessionTtl, TcpSettings,
    TimeWaitSetting, Timeouts,
};

/// All of them, in the order of the file format.
pub(crate) fn settings(file: &PolicyFile) -> Vec<Setting> {
    let written: toml::Table = toml::from_str(file.text()).unwrap_or_default();
    let mut all = Vec::new();
    let mut add = |section: &str, key: &str, value: String| {
        let in_file = written.get(section).and_then(|s| s.get(key)).is_some();
        let from = if in_file { "file" } else { "default" };
        all.push(Setting { key: format!("{section}.{key}"), value, from: from.to_owned() });
    };
    // Destructured in full, so that a new setting cannot be forgotten.
    let Timeouts { tcp_s, udp_s, icmp_s, icmp_reply_s, sctp_s, other_s } = file.timeouts;
    for (key, value) in [
        ("tcp", tcp_s),
        ("udp", udp_s),
        ("icmp", icmp_s),
        ("icmp_reply", icmp_reply_s),
        ("sctp", sctp_s),
        ("other", other_s),
    ] {
        add("timeouts", key, format!("{value} s"));
    }
    let TcpSettings {
        initial_timeout_s,
        rst_invalidate,
        fin_invalidate,
        time_wait,
        half_close_time_wait,
        syn_check,
        strict_syn_check,
        sequence_check,
        rst_sequence_check,
    } = file.tcp;
    add("tcp", "initial_timeout", format!("{initial_timeout_s} s"));
    add("tcp", "rst_invalidate", rst_invalidate.to_string());
    add("tcp", "fin_invalidate", fin_invalidate.to_string());
    let time_wait = match time_wait {
        TimeWaitSetting::Seconds(s) => format!("{s} s"),
        TimeWaitSetting::Ageout => "ageout".to_owned(),
    };
    add("tcp", "time_wait", time_wait);
    add("tcp", "half_close_time_wait", half_close_time_wait.to_string());
    add("tcp", "syn_check", syn_check.to_string());
    add("tcp", "strict_syn_check", strict_syn_check.to_string());
    add("tcp", "sequence_check", sequence_check.to_string());
    add("tcp", "rst_sequence_check", rst_sequence_check.to_string());
    let MssSettings { all_tcp } = file.mss;
    add("mss", "all_tcp", all_tcp.map_or("unset (not lowered)".to_owned(), |b| format!("{b} bytes")));
    let LogSettings { default_deny } = file.log;
    add("log", "default_deny", default_deny.to_string());
    for (key, value) in replication(&file.replication) {
        add("replication", key, value);
    }
    let SessionTtl { default, ports } = &file.session_ttl;
    let default = default.map_or("unset (the protocol's own)".to_owned(), |t| format!("{t} s"));
    add("session_ttl", "default", default.replace("never s", "never"));
    for entry in ports {
        let ports = entry.ports.map_or("every port".to_owned(), |p| format!("port {p}"));
        let value =
            format!("protocol {}, {ports}: {} s", entry.protocol, entry.timeout).replace("never s", "never");
        all.push(Setting { key: format!("session_ttl.port {}", entry.id), value, from: "file".to_owned() });
    }
    all
}

fn replication(settings: &ReplicationSettings) -> [(&'static str, String); 8] {
    let ReplicationSettings {
        heartbeat_interval_ms,
        heartbeat_misses,
        setup_ack,
        setup_ack_timeout_ms,
        setup_ack_on_timeout,
        park_ms,
        protocols,
        min_age_s,
    } = settings;
    let parking = match park_ms {
        None => "unset (by the round trip, 20 to 200 ms)".to_owned(),
        Some(0) => "0 ms (off)".to_owned(),
        Some(ms) => format!("{ms} ms"),
    };
    [
        ("heartbeat_interval_ms", format!("{heartbeat_interval_ms} ms")),
        ("heartbeat_misses", heartbeat_misses.to_string()),
        ("setup_ack", setup_ack.name().to_owned()),
        ("setup_ack_timeout_ms", format!("{setup_ack_timeout_ms} ms")),
        ("setup_ack_on_timeout", setup_ack_on_timeout.name().to_owned()),
        ("park_ms", parking),
        ("protocols", names(protocols)),
        ("min_age_s", format!("{min_age_s} s")),
    ]
}

/// The protocols of a set, or those that it lacks, whichever is shorter.
fn names(set: &Protocols) -> String {
    let list = |numbers: Vec<u8>| numbers.into_iter().map(protocol_name).collect::<Vec<_>>().join(", ");
    let missing: Vec<u8> = (0..=u8::MAX).filter(|p| !set.holds(*p)).collect();
    match missing.len() {
        0 => "any".to_owned(),
        1..128 => format!("all but {}", list(missing)),
        _ => list(set.iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn j11_settings_say_where_they_come_from() {
        // Look at the value instead of the file, and a default that is written out says "default".
        let text = "[tcp]\ninitial_timeout = 20\n[mss]\nall_tcp = 1400\n[timeouts]\nudp = 30\n\
                    [replication]\nsetup_ack = \"one\"\npark_ms = 40\n";
        let report = tidegate_dataplane::policy::check(text, "p");
        let file = report.file.unwrap_or_else(|| panic!("{:?}", report.errors));
        let all = super::settings(&file);
        let find = |key: &str| all.iter().find(|s| s.key == key).map(|s| (s.value.clone(), s.from.clone()));
        assert_eq!(find("tcp.initial_timeout"), Some(("20 s".into(), "file".into())));
        assert_eq!(find("timeouts.udp"), Some(("30 s".into(), "file".into())));
        assert_eq!(find("timeouts.tcp"), Some(("1800 s".into(), "default".into())));
        assert_eq!(find("tcp.sequence_check"), Some(("true".into(), "default".into())));
        assert_eq!(find("replication.setup_ack"), Some(("one".into(), "file".into())));
        assert_eq!(find("replication.park_ms"), Some(("40 ms".into(), "file".into())));
        assert_eq!(find("replication.protocols"), Some(("all but icmp, icmpv6".into(), "default".into())));
        assert_eq!(find("mss.all_tcp"), Some(("1400 bytes".into(), "file".into())));
    }
}
