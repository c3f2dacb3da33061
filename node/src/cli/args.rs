//! The command line: verbs, filters, and help that teaches.

use super::args_cluster::ClusterVerb;
use super::args_policy::PolicyVerb;
use crate::api::SessionQuery;
use crate::config::SOCKET_DEFAULT;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A session-aware firewall node: run it, look into it, change its policy.
#[derive(Parser, Debug)]
#[command(
    name = "tidegate",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true
)]
#[command(after_help = "\
Examples:
  tidegate run --config /etc/tidegate/node.toml   start the node in the foreground
  tidegate status                                 is everything as it should be?
  tidegate session list --protocol tcp --destination-port 443
  tidegate policy check policy.toml               every mistake in the file, no daemon needed
  tidegate policy apply policy.toml               agreed on by the cluster, enforced by every node
  tidegate cluster members                        who is in the cluster, and how it is with them
  tidegate drops                                  why were packets not forwarded?

Exit codes: 0 ok, 1 error, 2 usage or configuration, 3 no daemon reached or no
quorum, 4 refused without confirmation, 5 degraded.")]
pub struct Cli {
    /// Control socket of the daemon.
    #[arg(long, global = true, value_name = "SOCKET", env = "TIDEGATE_CONTROL", default_value = SOCKET_DEFAULT)]
    pub control: PathBuf,
    /// Output: a table, a wider table, or JSON for scripts.
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Do not ask before a change that cannot be undone.
    #[arg(long, global = true)]
    pub yes: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Output format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// The columns that matter most.
    Table,
    /// All columns.
    Wide,
    /// JSON, snake_case, units in names.
    Json,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run the node in the foreground until SIGTERM or SIGINT.
    ///
    /// Checks the configuration and the needed capabilities first, and says what to do if something
    /// is wrong. Logs go to stderr. Needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN and,
    /// where locked memory is limited, CAP_IPC_LOCK.
    #[command(after_help = "Example:\n  tidegate run --config deploy/examples/node.toml")]
    Run {
        /// The node's configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// What runs, what forwards, what is wrong. Exit code 5 if anything is.
    Status,
    /// The ports that the dataplane has taken over.
    #[command(subcommand)]
    Port(PortVerb),
    /// Sessions: every flow that is let through has one, for both directions.
    #[command(subcommand)]
    Session(Box<SessionVerb>),
    /// The policy: check a file, apply it to the cluster, look at what is in force and what was before.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// The cluster: form it, see who is in it, let nodes in and out.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Why packets were dropped: every reason with its count.
    #[command(
        after_help = "Examples:\n  tidegate drops\n  tidegate drops --nonzero\n  tidegate drops -o json"
    )]
    Drops {
        /// Leave out reasons that no packet was dropped for.
        #[arg(long)]
        nonzero: bool,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

/// `port`.
#[derive(Subcommand, Debug)]
pub enum PortVerb {
    /// Every configured port: interface, state, addresses, packets. `-o wide` adds MAC, MTU, drops.
    List,
}

/// `session`.
#[derive(Subcommand, Debug)]
pub enum SessionVerb {
    /// List sessions, all or those that the filters name. They stream: `| head` is cheap.
    #[command(after_help = "\
Examples:
  tidegate session list --protocol udp --destination-port 53
  tidegate session list --source-prefix 10.1.0.0/24 --limit 20
  tidegate session list --sort bytes:desc --limit 10
  tidegate session list --state established --min-duration 2h --interface eth0
  tidegate session list --policy trust/untrust/web -o json")]
    List {
        /// Which sessions.
        #[command(flatten)]
        filter: SessionQuery,
        /// At most so many. With --sort 1000, if not given, and at most 100000.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Sort by duration, idle, remaining, timeout, packets, bytes, protocol, state, source, destination,
        /// source-port or destination-port; with :desc the largest first.
        #[arg(long, value_name = "FIELD[:desc]")]
        sort: Option<String>,
    },
    /// Everything about one session, both wings.
    #[command(after_help = "Example:\n  tidegate session show 1-6b01a2c3-42")]
    Show {
        /// Session id, as `session list` prints it.
        id: String,
    },
    /// Tell of sessions as they come, change their state and end, until Ctrl-C.
    ///
    /// With -o json one object a line. When more happens than is read, events are left out, and a line says
    /// how many.
    #[command(after_help = "\
Examples:
  tidegate session watch --destination-port 443
  tidegate session watch --policy trust/untrust/web -o json")]
    Watch {
        /// Which sessions.
        #[command(flatten)]
        filter: SessionQuery,
    },
    /// How many sessions there are, by protocol and state, and how full the table is.
    Summary {
        /// Which sessions to count.
        #[command(flatten)]
        filter: SessionQuery,
    },
    /// End sessions at once. Their next packets are judged anew, as first packets.
    ///
    /// Asks first on a terminal, and says if your own SSH connection would go. Without a terminal it
    /// refuses (exit code 4) unless --yes is given.
    #[command(after_help = "\
Examples:
  tidegate session clear --id 1-6b01a2c3-42
  tidegate session clear --protocol tcp --destination-port 8000-8099
  tidegate session clear --all --yes")]
    Clear {
        /// Which sessions.
        #[command(flatten)]
        filter: SessionQuery,
        /// Every session; takes no filter beside it.
        #[arg(long, conflicts_with = "SessionQuery")]
        all: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        // clap's own check: duplicate flags or bad conflicts turn it red.
        Cli::command().debug_assert();
    }
}
