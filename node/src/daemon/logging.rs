//! Logs go to stderr, as readable lines or as JSON.

use crate::config::{LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Starts logging for the process. A second call changes nothing.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Of the libraries only warnings are of use; the netlink ones warn of every attribute that is newer
    // than they are, with each message.
    let filter = EnvFilter::builder().parse_lossy(format!(
        "warn,netlink_packet_route=error,netlink_proto=error,tidegate={level},tidegate_xdp={level},\
         tidegate_sync={level},tidegate_sync_net={level}"
    ));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a second start in one process (tests) fails, and then logging is on already.
    drop(result);
}
