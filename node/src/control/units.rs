//! Numbers with units, as filters take them.

use super::error::ApiError;

/// Units of bytes: powers of 1000 and of 1024.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// A duration in milliseconds: plain seconds, or such as `30s`, `5m`, `2h`, `1d 12h`.
pub(super) fn duration_ms(flag: &str, text: &str) -> Result<u64, ApiError> {
    let plain = text.trim().parse::<u64>().ok().and_then(|s| s.checked_mul(1000));
    let with_unit =
        || humantime::parse_duration(text.trim()).ok().and_then(|d| d.as_millis().try_into().ok());
    plain.or_else(with_unit).ok_or_else(|| {
        ApiError::usage(format!("--{flag} {text}: no duration\n  help: seconds, or such as 30s, 5m, 2h, 1d"))
    })
}

/// A number of packets.
pub(super) fn count(flag: &str, text: &str) -> Result<u64, ApiError> {
    text.trim()
        .parse()
        .map_err(|_| ApiError::usage(format!("--{flag} {text}: no number\n  help: such as 1000")))
}

/// A number of bytes: plain, or such as `10kB` (1000) or `10KiB` (1024).
pub(super) fn bytes(flag: &str, text: &str) -> Result<u64, ApiError> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = if unit.is_empty() {
        Some(1)
    } else {
        BYTE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f)
    };
    let value = number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
    value.ok_or_else(|| {
        ApiError::usage(format!(
            "--{flag} {text}: no number of bytes\n  help: such as 1500, 10kB, 5MiB; units: B, kB, MB, GB, TB (powers \
             of 1000), KiB, MiB, GiB, TiB (of 1024)"
        ))
    })
}
