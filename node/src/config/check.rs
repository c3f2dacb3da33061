//! From what was written to what is meant: ranges, choices, duplicates, defaults.

use super::raw;
use super::{
    CAPACITY_DEFAULT, CAPACITY_RANGE, Config, FRAGMENT_DATAGRAMS_RANGE, FRAGMENT_TIMEOUT_MS_RANGE,
    FRAMES_PER_PORT, FRAMES_RANGE, FRAMES_TOTAL_MAX, FramesConfig, PartialChecksums, PortConfig, Role,
    SOCKET_DEFAULT, Select, WORKERS_MAX, WorkersConfig,
};
use crate::diagnostic::{Diagnostic, nearest};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use tidegate_dataplane::fragment::FragmentConfig;
use tidegate_dataplane::route::PORTS_MAX;
use toml::Spanned;

/// Most letters of an interface name (IFNAMSIZ less its final NUL).
const IFNAME_LEN_MAX: usize = 15;
/// Most letters of a socket path: `sun_path` less its final NUL, and `.new` while it is made.
const SOCKET_PATH_LEN_MAX: usize = 103;

/// Collects findings while the parts are checked.
pub(super) struct Checker<'a> {
    file: &'a str,
    text: &'a str,
    /// Whether everything written was read: only then can something be called missing.
    read_whole: bool,
    findings: &'a mut Vec<Diagnostic>,
}

/// Checks all parts; every finding goes to `findings`.
pub(super) fn check(
    path: &Path,
    file: &str,
    text: &str,
    raw: raw::File,
    read_whole: bool,
    findings: &mut Vec<Diagnostic>,
) -> Option<Config> {
    let mut c = Checker { file, text, read_whole, findings };
    let raw::File { policy, node, cluster, port, workers, table, frames, fragments, control, metrics, log } =
        raw;
    let node = node.unwrap_or_default();
    let name = match node.name {
        Some(_) => c.name(node.name, "node.name", 0..0),
        None => Some(host_name()),
    };
    let node_id = c.number(node.id, "node.id", 1..=u16::MAX).unwrap_or(1);
    let role = c.role(node.role);
    if role == Role::Witness {
        let sections = [span(&workers), span(&table), span(&frames), span(&fragments)];
        c.witness(&port, sections, policy.as_ref().map(Spanned::span));
    }
    let may_lack_policy = role == Role::Witness || cluster.is_some();
    let cluster = c.cluster(cluster.unwrap_or_default());
    let ports = if role == Role::Witness { Vec::new() } else { c.ports(port) };
    let workers = c.workers(inner(workers));
    let capacity = c.number(inner(table).capacity, "table.capacity", CAPACITY_RANGE);
    let frames = c.frames(inner(frames), ports.len(), workers.count);
    let fragments = c.fragments(inner(fragments));
    let control_socket = c.socket(control.unwrap_or_default().socket);
    let metrics_listen = metrics.and_then(|m| c.listen(m.listen));
    let log = c.log(log.unwrap_or_default());
    let policy = match policy {
        None if may_lack_policy => None,
        policy => c.policy(policy, path),
    };
    Some(Config {
        file: path.to_owned(),
        name: name?,
        node_id,
        role,
        cluster,
        ports,
        workers,
        capacity: capacity.unwrap_or(CAPACITY_DEFAULT),
        frames,
        fragments,
        control_socket,
        metrics_listen,
        log_level: log.level,
        log_format: log.format,
        log_rate_per_s: log.rate_per_s,
        syslog: log.syslog,
        policy,
    })
}

fn span<T>(section: &Option<Spanned<T>>) -> Option<Range<usize>> {
    section.as_ref().map(Spanned::span)
}

fn inner<T: Default>(section: Option<Spanned<T>>) -> T {
    section.map(Spanned::into_inner).unwrap_or_default()
}

impl Checker<'_> {
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        let d = Diagnostic::error(self.file, self.text, span, message).suggest(suggestion);
        self.findings.push(d);
    }

    pub(super) fn missing(&mut self, near: Range<usize>, key: &str, suggestion: &str) {
        if self.read_whole {
            self.error(near, format!("`{key}` is missing"), suggestion);
        }
    }

    pub(super) fn number<T>(
        &mut self,
        at: Option<Spanned<i64>>,
        key: &str,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
    {
        let at = at?;
        match T::try_from(*at.get_ref()).ok().filter(|n| range.contains(n)) {
            Some(n) => Some(n),
            None => {
                let (low, high) = (range.start(), range.end());
                let message = format!("`{key}` is {}, which is out of range", at.get_ref());
                self.error(at.span(), message, format!("write a number from {low} to {high}"));
                None
            }
        }
    }

    fn name(&mut self, at: Option<Spanned<String>>, key: &str, near: Range<usize>) -> Option<String> {
        let Some(at) = at else {
            self.missing(near, key, "add it, for example name = \"edge-1\" (letters, digits, - and _)");
            return None;
        };
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let (span, name) = (at.span(), at.into_inner());
        if name.is_empty() || name.len() > 63 || !name.chars().all(ok) {
            let message = format!("`{key}` is \"{name}\", which is no name");
            self.error(span, message, "use 1 to 63 letters, digits, - or _");
            return None;
        }
        Some(name)
    }

    fn ports(&mut self, raw: Vec<Spanned<raw::Port>>) -> Vec<PortConfig> {
        if raw.is_empty() {
            self.missing(0..0, "[[port]]", "add one [[port]] for each network interface to forward between");
        }
        if let Some(over) = raw.get(PORTS_MAX) {
            self.error(over.span(), format!("more than {PORTS_MAX} ports"), "remove some");
        }
        let mut ports: Vec<PortConfig> = Vec::new();
        for at in raw {
            let span = at.span();
            let name_span = at.get_ref().name.as_ref().map_or(span.clone(), Spanned::span);
            let Some(port) = self.port(span, at.into_inner()) else { continue };
            if ports.iter().any(|p| p.name == port.name) {
                let message = format!("two ports are called \"{}\"", port.name);
                self.error(name_span.clone(), message, "give each port a name of its own");
            }
            if let Some(other) = ports.iter().find(|p| p.select == port.select) {
                let message =
                    format!("ports \"{}\" and \"{}\" select the same interface", other.name, port.name);
                self.error(name_span, message, "each interface can be one port only");
            }
            ports.push(port);
        }
        ports
    }

    fn port(&mut self, span: Range<usize>, raw: raw::Port) -> Option<PortConfig> {
        let raw::Port { name, zone, interface, address, prefix, partial_checksums } = raw;
        let name = self.name(name, "port.name", span.clone());
        let zone = match zone {
            Some(_) => self.name(zone, "port.zone", span.clone()),
            None => {
                self.missing(span.clone(), "port.zone", "add zone = \"...\", a zone that the policy names");
                None
            }
        };
        let select = self.select(span, interface, address, prefix);
        let partial_checksums = self.partial_checksums(partial_checksums);
        Some(PortConfig { name: name?, zone: zone?, select: select?, partial_checksums })
    }

    fn select(
        &mut self,
        span: Range<usize>,
        interface: Option<Spanned<String>>,
        address: Option<Spanned<String>>,
        prefix: Option<Spanned<String>>,
    ) -> Option<Select> {
        const HOW: &str =
            "write exactly one of interface = \"eth0\", address = \"10.1.0.1\", prefix = \"10.1.0.0/24\"";
        let given: Vec<_> = [&interface, &address, &prefix].into_iter().flatten().collect();
        if given.len() > 1 {
            self.error(given[1].span(), "the port selects its interface in more than one way", HOW);
            return None;
        }
        if let Some(at) = interface {
            let ok = |n: &str| !n.is_empty() && n.len() <= IFNAME_LEN_MAX && !n.contains(['/', ' ', ':']);
            if !ok(at.get_ref()) {
                let message = format!("\"{}\" is no interface name", at.get_ref());
                self.error(at.span(), message, "use a name that `ip link` prints, at most 15 letters");
                return None;
            }
            return Some(Select::Interface(at.into_inner()));
        }
        if let Some(at) = address {
            let parsed = at.get_ref().parse().ok();
            if parsed.is_none() {
                let message = format!("\"{}\" is no IP address", at.get_ref());
                self.error(at.span(), message, "write an address without a prefix length, such as 10.1.0.1");
            }
            return parsed.map(Select::Address);
        }
        if let Some(at) = prefix {
            let parsed = at.get_ref().parse::<ipnet::IpNet>().ok();
            match parsed {
                None => {
                    let message = format!("\"{}\" is no prefix", at.get_ref());
                    self.error(at.span(), message, "write one such as 10.1.0.0/24 or 2001:db8:1::/64");
                }
                Some(p) if p.trunc() != p => {
                    let message = format!("\"{p}\" has bits set behind its prefix length");
                    self.error(at.span(), message, format!("write \"{}\"", p.trunc()));
                    return None;
                }
                Some(_) => {}
            }
            return parsed.map(Select::Prefix);
        }
        self.missing(span, "port.interface", HOW);
        None
    }

    fn partial_checksums(&mut self, at: Option<Spanned<toml::Value>>) -> PartialChecksums {
        let Some(at) = at else { return PartialChecksums::Auto };
        match at.get_ref() {
            toml::Value::Boolean(true) => PartialChecksums::On,
            toml::Value::Boolean(false) => PartialChecksums::Off,
            toml::Value::String(word) if word == "auto" => PartialChecksums::Auto,
            other => {
                let message = format!("`port.partial_checksums` is {other}");
                self.error(at.span(), message, "write \"auto\", true or false");
                PartialChecksums::Auto
            }
        }
    }

    fn workers(&mut self, raw: raw::Workers) -> WorkersConfig {
        let raw::Workers { count, cpus, spin_us } = raw;
        let count = self.number(count, "workers.count", 1..=WORKERS_MAX).unwrap_or(1);
        let spin_us = self.number(spin_us, "workers.spin_us", 0..=1_000_000).unwrap_or(50);
        let cpus = cpus.and_then(|at| {
            let span = at.span();
            let all: Vec<Option<u16>> =
                at.into_inner().into_iter().map(|n| self.number(Some(n), "workers.cpus", 0..=1023)).collect();
            let cpus: Option<Vec<u16>> = all.into_iter().collect();
            match cpus {
                Some(cpus) if cpus.len() != usize::from(count) => {
                    let message = format!("`workers.cpus` names {} CPUs for {count} workers", cpus.len());
                    self.error(
                        span,
                        message,
                        format!("name {count}, one for each worker, or set workers.count"),
                    );
                    None
                }
                other => other,
            }
        });
        WorkersConfig { count, cpus, spin_us }
    }

    fn frames(&mut self, raw: raw::Frames, ports: usize, workers: u16) -> FramesConfig {
        let raw::Frames { per_worker, size_bytes } = raw;
        let size = size_bytes.as_ref().map_or(2048, |at| *at.get_ref());
        if let Some(at) = size_bytes.filter(|at| ![2048, 4096].contains(at.get_ref())) {
            let message = format!("`frames.size_bytes` is {}", at.get_ref());
            self.error(at.span(), message, "write 2048 (MTU up to 1778) or 4096 (MTU up to 3826)");
        }
        let most = FRAMES_TOTAL_MAX / u32::from(workers);
        let default = (FRAMES_PER_PORT * ports as u32).clamp(2 * FRAMES_PER_PORT, most);
        let range = *FRAMES_RANGE.start()..=most;
        let per_worker = self.number(per_worker, "frames.per_worker", range).unwrap_or(default);
        FramesConfig { per_worker, size_bytes: if size == 4096 { 4096 } else { 2048 } }
    }

    fn fragments(&mut self, raw: raw::Fragments) -> FragmentConfig {
        let raw::Fragments { datagrams, timeout_ms } = raw;
        let default = FragmentConfig::default();
        let datagrams = self.number(datagrams, "fragments.datagrams", FRAGMENT_DATAGRAMS_RANGE);
        let timeout_ms = self.number(timeout_ms, "fragments.timeout_ms", FRAGMENT_TIMEOUT_MS_RANGE);
        FragmentConfig {
            datagrams: datagrams.unwrap_or(default.datagrams),
            timeout_ms: timeout_ms.unwrap_or(default.timeout_ms),
        }
    }

    fn socket(&mut self, at: Option<Spanned<String>>) -> PathBuf {
        let Some(at) = at else { return PathBuf::from(SOCKET_DEFAULT) };
        let path = PathBuf::from(at.get_ref());
        if !path.is_absolute() || at.get_ref().len() > SOCKET_PATH_LEN_MAX || path.file_name().is_none() {
            let message = format!("`control.socket` is \"{}\", which cannot be a socket", at.get_ref());
            let help = format!(
                "write an absolute path of at most {SOCKET_PATH_LEN_MAX} bytes, such as {SOCKET_DEFAULT}"
            );
            self.error(at.span(), message, help);
        }
        path
    }

    fn listen(&mut self, at: Option<Spanned<String>>) -> Option<std::net::SocketAddr> {
        let Some(at) = at else {
            self.missing(0..0, "metrics.listen", "add listen = \"127.0.0.1:9477\", or remove [metrics]");
            return None;
        };
        let parsed = at.get_ref().parse().ok();
        if parsed.is_none() {
            let message =
                format!("`metrics.listen` is \"{}\", which is no address with a port", at.get_ref());
            self.error(at.span(), message, "write one such as 127.0.0.1:9477 or [::1]:9477");
        }
        parsed
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        at: Option<Spanned<String>>,
        key: &str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let at = at?;
        let found = known.iter().find(|(w, _)| w == at.get_ref()).map(|(_, v)| *v);
        if found.is_none() {
            let words: Vec<&str> = known.iter().map(|(w, _)| *w).collect();
            let help = match nearest(at.get_ref(), words.iter().copied()) {
                Some(w) => format!("did you mean \"{w}\"?"),
                None => format!("one of: {}", words.join(", ")),
            };
            self.error(at.span(), format!("`{key}` is \"{}\"", at.get_ref()), help);
        }
        found
    }

    fn policy(&mut self, at: Option<Spanned<String>>, path: &Path) -> Option<PathBuf> {
        match at {
            Some(at) if !at.get_ref().is_empty() => {
                Some(path.parent().unwrap_or(Path::new("")).join(at.get_ref()))
            }
            Some(at) => {
                self.error(
                    at.span(),
                    "`policy` is empty",
                    "name the policy file, such as policy = \"policy.toml\"",
                );
                None
            }
            None => {
                self.missing(
                    0..0,
                    "policy",
                    "add policy = \"policy.toml\" above the first [section], or [cluster] if this node gets its policy from a cluster",
                );
                None
            }
        }
    }
}

/// The machine's name without its domain, as far as it can be a node's name.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let short = host.split('.').next().unwrap_or_default();
    let name: String =
        short.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').take(63).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}
