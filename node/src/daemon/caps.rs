//! What the process may do, asked before it tries: a missing capability ends the start with advice,
//! not with an errno from the middle of it.

/// Capability numbers of `linux/capability.h`.
///
/// CAP_SYS_ADMIN and not CAP_BPF alone: creating a socket beside the attached program looks that program
/// up by its number, which the kernel grants to CAP_SYS_ADMIN only.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_ADMIN", 21)];
const IPC_LOCK: u32 = 14;
/// Locked memory that AF_XDP rings and small UMEMs need at least, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 256 << 20;

/// Capabilities are missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "missing {}: the dataplane cannot open AF_XDP sockets\n  help: run as root, or give the service \
     AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_IPC_LOCK (containers: cap_add \
     NET_ADMIN, NET_RAW, SYS_ADMIN, IPC_LOCK)",
    .0.join(", ")
)]
pub(super) struct Missing(pub Vec<String>);

/// Checks this process. A low limit on locked memory without CAP_IPC_LOCK is only warned about: newer
/// kernels account BPF memory differently, and only the attempt tells.
pub(super) fn check() -> Result<(), Missing> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let effective = effective(&status);
    if effective >> IPC_LOCK & 1 == 0 && memlock_bytes(&limits) < MEMLOCK_BYTES_MIN {
        tracing::warn!(
            "locked memory is limited and CAP_IPC_LOCK is missing: opening ports may fail; \
             set LimitMEMLOCK=infinity or give CAP_IPC_LOCK"
        );
    }
    let missing = missing(effective);
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// The soft limit, which privileged code may yet raise.
fn memlock_bytes(limits: &str) -> u64 {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max locked memory"));
    let soft = line.and_then(|l| l.split_whitespace().next()).unwrap_or("unlimited");
    soft.parse().unwrap_or(u64::MAX)
}

fn missing(effective: u64) -> Vec<String> {
    let has = |n: u32| effective >> n & 1 == 1;
    NEEDED.iter().filter(|(_, n)| !has(*n)).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        // Leave one out of NEEDED and its line fails.
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]);
        assert_eq!(missing(1 << 12 | 1 << 13), ["CAP_SYS_ADMIN"]);
        assert!(missing(1 << 12 | 1 << 13 | 1 << 21).is_empty());
    }

    #[test]
    fn the_kernels_words_are_read() {
        // A parser that misses the line would report every capability as missing.
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000003000\n"), 0x3000);
        assert_eq!(
            memlock_bytes("Max locked memory         8388608              8388608              bytes\n"),
            8_388_608
        );
        assert_eq!(
            memlock_bytes("Max locked memory         unlimited            unlimited            bytes\n"),
            u64::MAX
        );
    }
}
