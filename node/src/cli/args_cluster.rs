//! `cluster`: the command line.

use super::args_policy::duration;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// `cluster`.
#[derive(Subcommand, Debug)]
pub enum ClusterVerb {
    /// Found a cluster with this node as its first member.
    ///
    /// Makes the cluster's own certificate authority and this node's certificate, and takes the policy in force
    /// as revision 1. Nothing that is forwarded is interrupted. Other nodes come with `cluster token create` here
    /// and `cluster join` there.
    #[command(after_help = "\
Examples:
  tidegate cluster init --name edge --address 10.90.0.1
  tidegate cluster init --name edge --node fw-1 --address 10.90.0.1 --address 192.0.2.1:7400")]
    Init {
        /// The cluster's name: letters, digits, - and _.
        #[arg(long)]
        name: String,
        /// This node's name in it; without it the configured one. Log records of flows carry it from the next start on.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Where other nodes reach this one, IP[:PORT]; repeat it for each path, the best first.
        /// Without a port 7400 (UDP).
        #[arg(long = "address", value_name = "ADDR", required = true, num_args = 1..)]
        addresses: Vec<String>,
    },
    /// Make this node a member, by a token that a member created.
    ///
    /// The cluster's fingerprint in the token is checked before its secret is shown. From then on the cluster's
    /// policy is in force here, and not a file's. The same command again, after an answer that was lost, costs
    /// nothing.
    #[command(override_usage = "tidegate cluster join [OPTIONS] <TOKEN> --address <ADDR>...")]
    #[command(after_help = "\
Examples:
  tidegate cluster join tidegate-join-1-... --address 10.90.0.2
  tidegate cluster join token.txt --address 10.90.0.2
  ssh fw-1 tidegate cluster token create | tidegate cluster join - --address 10.90.0.2")]
    Join {
        /// The token, a file that holds it, or `-` for stdin.
        token: String,
        /// This node's name in the cluster; without it the configured one. Log records of flows carry it from the next
        /// start on.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Where other nodes reach this one, IP[:PORT]; repeat it for each path, the best first.
        /// Without a port 7400 (UDP).
        #[arg(long = "address", value_name = "ADDR", required = true, num_args = 1..)]
        addresses: Vec<String>,
    },
    /// Join tokens: each lets one node in, once.
    #[command(subcommand)]
    Token(TokenVerb),
    /// The cluster as this node sees it: leader, quorum, policy, certificate, members.
    Status,
    /// Every member: role, addresses, whether it is connected, and the policy revision that it enforces.
    Members,
    /// Every change that was agreed on: when, who asked, at which node, and what became of it.
    History,
    /// Remove a member for good; its number never returns. It denies everything from then on.
    ///
    /// Asks first on a terminal; without one it wants --yes (exit code 4). To come back, the node's cluster
    /// directory is moved away and the node joins anew.
    #[command(after_help = "Examples:\n  tidegate cluster remove fw-2\n  tidegate cluster remove 2 --yes")]
    Remove {
        /// Name or number.
        node: String,
    },
    /// New keys and certificates for all members, without losing a connection. They also renew themselves.
    Rotate,
    /// Carry the cluster on from this node alone, when the others are lost and there is no quorum.
    ///
    /// Starts a new generation with this node's copy of policy and history. All other members are fenced: one
    /// that comes back denies everything until it has joined anew. A change that the lost ones had agreed on
    /// without this node is gone. Refused while there is a quorum (exit code 4). Asks first on a terminal;
    /// without one it wants --yes.
    #[command(after_help = "Example:\n  tidegate cluster recover --force")]
    Recover {
        /// Yes, without a quorum.
        #[arg(long, required = true)]
        force: bool,
    },
    /// Issue this node's certificate anew, offline: for when all have expired. The daemon must be stopped.
    ///
    /// Needs the CA key, which every full member has. Works on the files of `cluster.directory`; start the daemon
    /// afterwards.
    #[command(after_help = "Example:\n  tidegate cluster reissue --config /etc/tidegate/node.toml")]
    Reissue {
        /// The node's configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// `cluster token`.
#[derive(Subcommand, Debug)]
pub enum TokenVerb {
    /// Print a new token. Whoever has it can join once: hand it over as one hands over a password.
    #[command(after_help = "\
Examples:
  tidegate cluster token create
  tidegate cluster token create --role witness --ttl 1h")]
    Create {
        /// How long it is good.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        ttl: Duration,
        /// What may join with it.
        #[arg(long, value_enum, default_value_t = MemberRole::Node)]
        role: MemberRole,
    },
    /// All tokens that may still matter, without their secrets.
    List,
    /// Take a token back.
    Revoke {
        /// Its id, as `cluster token list` prints it.
        id: String,
    },
}

/// `--role`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MemberRole {
    /// Forwards and votes.
    Node,
    /// Only votes: the third vote of a pair.
    Witness,
}

impl MemberRole {
    pub(super) fn name(self) -> &'static str {
        match self {
            MemberRole::Node => "node",
            MemberRole::Witness => "witness",
        }
    }
}
