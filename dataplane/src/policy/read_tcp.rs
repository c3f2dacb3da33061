//! Reads `[tcp]` (J4 to J7) and `[mss]` (J8).

use super::model::{MssSettings, TcpSettings, TimeWaitSetting};
use super::reader::{Keys, Section, at, kind};
use super::report::Reporter;
use toml::de::DeValue;

const TCP: Keys = Keys {
    known: &[
        "initial_timeout",
        "rst_invalidate",
        "fin_invalidate",
        "time_wait",
        "half_close_time_wait",
        "syn_check",
        "strict_syn_check",
        "sequence_check",
        "rst_sequence_check",
    ],
    later: &["syn_check_in_tunnel"],
    node: &[],
};

const MSS: Keys = Keys { known: &["all_tcp"], later: &["tunnel", "gre_in", "gre_out"], node: &[] };

/// J4 to J7.
pub(super) fn tcp(root: &Section<'_>, r: &mut Reporter<'_>) -> TcpSettings {
    let mut t = TcpSettings::default();
    let Some((at, table)) = root.table("tcp", r) else { return t };
    let section = Section::open(table, at, "[tcp]".into(), TCP, r);
    if let Some(seconds) = section.integer("initial_timeout", 4..=300, r) {
        t.initial_timeout_s = seconds;
    }
    for (key, value) in [
        ("rst_invalidate", &mut t.rst_invalidate),
        ("fin_invalidate", &mut t.fin_invalidate),
        ("half_close_time_wait", &mut t.half_close_time_wait),
        ("syn_check", &mut t.syn_check),
        ("strict_syn_check", &mut t.strict_syn_check),
        ("sequence_check", &mut t.sequence_check),
        ("rst_sequence_check", &mut t.rst_sequence_check),
    ] {
        if let Some(switch) = section.boolean(key, r) {
            *value = switch;
        }
    }
    close(&section, &mut t, r);
    checks(&section, &t, r);
    t
}

/// J6: `time_wait`, and switches that leave nothing of each other.
fn close(section: &Section<'_>, t: &mut TcpSettings, r: &mut Reporter<'_>) {
    let place = |key| section.get(key).map_or(section.at, at);
    if let Some(setting) = time_wait(section, r) {
        t.time_wait = setting;
        if t.fin_invalidate && !t.half_close_time_wait {
            let message =
                "`time_wait` has no effect: `fin_invalidate` ends a session when its close completes";
            r.warn(place("time_wait"), message, None);
        }
    }
    if t.half_close_time_wait && t.time_wait == TimeWaitSetting::Ageout {
        let message = "`half_close_time_wait` has no effect: `time_wait` is \"ageout\"";
        r.warn(place("half_close_time_wait"), message, None);
    }
}

/// J7: a check that stands on another which is off.
fn checks(section: &Section<'_>, t: &TcpSettings, r: &mut Reporter<'_>) {
    for (key, on, needs, needed) in [
        ("strict_syn_check", t.strict_syn_check, "syn_check", t.syn_check),
        ("rst_sequence_check", t.rst_sequence_check, "sequence_check", t.sequence_check),
    ] {
        if on && !needed {
            let message = format!("`{key}` in [tcp] needs `{needs}`, which is off");
            let help = format!("switch `{needs}` on, or `{key}` off");
            r.error(section.get(key).map_or(section.at, at), message, help);
        }
    }
}

fn time_wait(section: &Section<'_>, r: &mut Reporter<'_>) -> Option<TimeWaitSetting> {
    let value = section.get("time_wait")?;
    match value.get_ref() {
        DeValue::String(text) if text == "ageout" => Some(TimeWaitSetting::Ageout),
        DeValue::Integer(_) => section.integer("time_wait", 2..=600, r).map(TimeWaitSetting::Seconds),
        _ => {
            let message = format!(
                "`time_wait` in [tcp] is {}, not an integer from 2 to 600 or \"ageout\"",
                kind(value)
            );
            let help = "write seconds, or \"ageout\" to keep the service timeout";
            r.error(at(value), message, help.to_string());
            None
        }
    }
}

/// J8.
pub(super) fn mss(root: &Section<'_>, r: &mut Reporter<'_>) -> MssSettings {
    let Some((at, table)) = root.table("mss", r) else { return MssSettings::default() };
    let section = Section::open(table, at, "[mss]".into(), MSS, r);
    MssSettings { all_tcp: section.integer("all_tcp", 64..=65_535, r).map(|bytes| bytes as u16) }
}
