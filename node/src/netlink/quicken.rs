//! How soon the kernel notices, on a port, that a neighbour has silently changed its MAC.
//!
//! A router of the kernel's own confirms a neighbour by its upper layers; ours never will, because the
//! kernel does not see what is forwarded. With its defaults a silent change would black-hole a
//! neighbour for up to 54 s (45 s reachable, 5 s delay, three probes). On ports the first two are
//! shortened; a value that somebody has set lower stays.

use std::path::Path;

/// Mean time that a confirmed neighbour counts as reachable (the kernel draws 0.5 to 1.5 times this).
const REACHABLE_MS: u64 = 10_000;
/// Seconds between the first use of a stale neighbour and its first probe.
const DELAY_S: u64 = 1;

/// Shortens the neighbour timers of an interface; `root` is `/proc/sys/net`. What cannot be set stays
/// as it is: only the time to notice suffers.
pub fn quicken(root: &Path, interface: &str) {
    for family in ["ipv4", "ipv6"] {
        let dir = root.join(family).join("neigh").join(interface);
        lower(&dir.join("base_reachable_time_ms"), REACHABLE_MS);
        lower(&dir.join("delay_first_probe_time"), DELAY_S);
    }
}

fn lower(path: &Path, most: u64) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    if text.trim().parse::<u64>().is_ok_and(|now| now > most)
        && let Err(error) = std::fs::write(path, most.to_string())
    {
        tracing::debug!(path = %path.display(), %error, "cannot shorten a neighbour timer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_only_ever_shortened() {
        // Write without looking and an operator's 5 s would become 10 s.
        let root = std::env::temp_dir().join(format!("tidegate-neigh-{}", std::process::id()));
        let dir = root.join("ipv4/neigh/eth0.7");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("base_reachable_time_ms"), "30000\n").unwrap();
        std::fs::write(dir.join("delay_first_probe_time"), "1\n").unwrap();
        quicken(&root, "eth0.7");
        let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("base_reachable_time_ms"), "10000");
        assert_eq!(read("delay_first_probe_time"), "1\n");
        std::fs::remove_dir_all(root).unwrap();
    }
}
