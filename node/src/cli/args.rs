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
  tidegate sync status                            do all nodes hold all sessions?
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
    /// Replication of sessions: how far each node is, and having all of them sent again.
    #[command(subcommand)]
    Sync(SyncVerb),
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

/// `sync`.
#[derive(Subcommand, Debug)]
pub enum SyncVerb {
    /// Who is there, who is in sync, and how far each peer is behind. Exit code 5 if anything is not as it should be.
    ///
    /// LAG is changes that were not sent to the peer yet; PENDING what it has not acknowledged. `-o wide` adds records
    /// by kind, resyncs by reason, and what was refused.
    #[command(after_help = "Examples:\n  tidegate sync status\n  tidegate sync status -o wide")]
    Status,
    /// Exchange all sessions with the peers anew. Interrupts nothing; needed only when `session verify` finds something.
    #[command(after_help = "Examples:\n  tidegate sync resync\n  tidegate sync resync --peer fw-2")]
    Resync {
        /// Only with this peer: name or number.
        #[arg(long, value_name = "NODE")]
        peer: Option<String>,
    },
}

/// `session`.
#[derive(Subcommand, Debug)]
pub enum SessionVerb {
    /// List sessions, all or those that the filters name. They stream: `| head` is cheap.
    ///
    /// In a cluster every node answers for the sessions that it owns, whichever node is asked. A node that does not
    /// answer is named, and the exit code is 5.
    #[command(after_help = "\
Examples:
  tidegate session list --protocol udp --destination-port 53
  tidegate session list --source-prefix 10.1.0.0/24 --limit 20
  tidegate session list --sort bytes:desc --limit 10
  tidegate session list --state established --min-duration 2h --interface eth0
  tidegate session list --node fw-2
  tidegate session list --local
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
        /// Only the table of this node: copies of sessions that other nodes own too.
        #[arg(long)]
        local: bool,
    },
    /// Everything about one session, both wings.
    #[command(after_help = "Example:\n  tidegate session show 1-6b01a2c3-42")]
    Show {
        /// Session id, as `session list` prints it.
        id: String,
        /// As this node's table has it, also if another node owns it.
        #[arg(long)]
        local: bool,
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
        /// Only what happens in the table of this node.
        #[arg(long)]
        local: bool,
    },
    /// How many sessions there are, by protocol and state, and how full the table is.
    ///
    /// Sums over all nodes of the cluster, each of which counts the sessions that it owns; then each node by itself.
    #[command(
        after_help = "Examples:\n  tidegate session summary\n  tidegate session summary --node fw-2 --protocol udp"
    )]
    Summary {
        /// Which sessions to count.
        #[command(flatten)]
        filter: SessionQuery,
        /// Only the table of this node: copies of sessions that other nodes own too.
        #[arg(long)]
        local: bool,
    },
    /// Do all nodes hold the same sessions? Compares digests, then names sessions and fields that differ.
    ///
    /// What is on its way between nodes is given a moment. Sessions whose protocol or rule is not replicated are
    /// left out. Exit code 5 when sessions differ, 3 when a node does not answer.
    #[command(after_help = "Examples:\n  tidegate session verify\n  tidegate session verify -o json")]
    Verify,
    /// End sessions at once. Their next packets are judged anew, as first packets.
    ///
    /// In a cluster on all nodes, each of which ends the sessions that it owns; --node names one of them.
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
