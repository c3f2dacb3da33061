//! `policy`: the command line.

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// `policy`.
#[derive(Subcommand, Debug)]
pub enum PolicyVerb {
    /// Check a policy file without a daemon: every error and warning, with file, line and column.
    ///
    /// Exit code 0 if it could be put in force (warnings are allowed), 2 if not.
    #[command(
        after_help = "Examples:\n  tidegate policy check policy.toml\n  tidegate policy check policy.toml -o json"
    )]
    Check {
        /// The policy file.
        file: PathBuf,
    },
    /// Put a policy in force on every node of the cluster. Ask any node; it answers for all.
    ///
    /// The file is checked first; one with errors changes nothing (exit code 2). Then the cluster agrees on it
    /// as the next revision, and each node is waited for until its engines enforce it: a packet sees the old
    /// policy or the new one, never a mix, and live sessions are judged again before their next packet. The
    /// same text again changes nothing (exit code 0). Exit code 3: no quorum, nothing was changed, or the outcome
    /// is not known (the message says which). Exit code 5: agreed on, but a connected node does not enforce it
    /// yet; a node that is not connected is named and catches up by itself.
    ///
    /// With --confirm-within the policy is on trial: without a `policy confirm` in time every node goes back
    /// to the last confirmed one by itself, also when it cannot reach the others any more.
    #[command(after_help = "\
Examples:
  tidegate policy apply policy.toml --dry-run
  tidegate policy apply policy.toml --confirm-within 5m    then: tidegate policy confirm
  tidegate policy apply policy.toml --base 41              only if revision 41 is still in force
  tidegate policy apply policy.toml -o json | jq .revision")]
    Apply {
        /// The policy file; `-` reads it from stdin.
        file: PathBuf,
        /// Check it and print what would change; change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Fall back to the last confirmed policy unless confirmed in this time, such as 30s or 5m.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        confirm_within: Option<Duration>,
        /// The revision that must be in force now: another one means that somebody else was faster.
        #[arg(long, value_name = "REV")]
        base: Option<u32>,
    },
    /// Keep a policy that was applied with --confirm-within.
    Confirm {
        /// Which revision; without it the one that waits.
        #[arg(value_name = "REV")]
        revision: Option<u32>,
    },
    /// The policy in force on this node: revision, source, rules in order, and how often each matched.
    #[command(
        after_help = "Examples:\n  tidegate policy show\n  tidegate policy show --effective\n  tidegate policy show 41"
    )]
    Show {
        /// Another revision of the cluster's policy (without hits).
        #[arg(value_name = "REV")]
        revision: Option<u32>,
        /// Also print every flow setting in force and where it comes from.
        #[arg(long)]
        effective: bool,
    },
    /// Compare a policy file, or an earlier revision, with the policy in force; or two revisions.
    ///
    /// Prints a unified diff, nothing when they are the same: `-` is in force (or in the first revision), `+` is
    /// in the file (or in the other revision). A number is a revision; write ./41 for a file of that name. A file
    /// with errors is refused with its findings (exit code 2). Exit code 0 otherwise, whether or not they differ;
    /// scripts read `changed` of `-o json`.
    #[command(after_help = "\
Examples:
  tidegate policy diff policy.toml
  tidegate policy diff 41          what a rollback to revision 41 would change
  tidegate policy diff 41 42
  tidegate policy diff policy.toml -o json | jq .changed")]
    Diff {
        /// The policy file to compare with, or a revision.
        #[arg(value_name = "FILE|REV")]
        first: String,
        /// Another revision: compare the first with this one.
        #[arg(value_name = "REV")]
        second: Option<u32>,
    },
    /// Every policy revision of the cluster: when, by whom, and what became of it.
    History,
    /// Put the text of an earlier revision in force again, as a new revision.
    ///
    /// As `policy apply` of that text: checked, agreed on, waited for, with the same exit codes.
    #[command(
        after_help = "Examples:\n  tidegate policy diff 41\n  tidegate policy rollback 41 --confirm-within 5m"
    )]
    Rollback {
        /// The revision whose text comes back.
        #[arg(value_name = "REV")]
        revision: u32,
        /// Fall back to the last confirmed policy unless confirmed in this time, such as 30s or 5m.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        confirm_within: Option<Duration>,
        /// The revision that must be in force now: another one means that somebody else was faster.
        #[arg(long, value_name = "REV")]
        base: Option<u32>,
    },
    /// Print the policy in force as it was written, comments and all.
    #[command(
        after_help = "Examples:\n  tidegate policy export > policy.toml\n  tidegate policy export 41 > before.toml"
    )]
    Export {
        /// Another revision of the cluster's policy.
        #[arg(value_name = "REV")]
        revision: Option<u32>,
    },
    /// Turn another firewall's configuration into a policy file, without a daemon.
    ///
    /// The policy file goes to stdout; every line that was not taken goes to stderr with its number and
    /// the reason. A rule of which one line is not understood is left out as a whole. Exit code 0 if the
    /// policy can be put in force, 1 if not, 2 if no line was taken.
    #[command(after_help = "\
Examples:
  tidegate policy import --from junos fw.set > policy.toml      (`show configuration | display set`)
  tidegate policy import --from fortios ttl.conf > policy.toml  (`config system session-ttl` ... `end`)
  tidegate policy import --from junos fw.set -o json | jq .not_taken")]
    Import {
        /// Whose configuration it is.
        #[arg(long, value_name = "VENDOR", value_enum)]
        from: ImportVendor,
        /// The configuration, as text.
        file: PathBuf,
    },
    /// Read the policy file again and put it in force, on a node that is in no cluster.
    ///
    /// A file with errors changes nothing: its findings are printed and the exit code is 2. A member of a
    /// cluster refuses: there a policy is agreed on, with `policy apply`.
    Reload,
}

/// `policy import --from`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ImportVendor {
    /// Juniper Junos, as lines that begin with `set`.
    Junos,
    /// Fortinet FortiOS, the `config system session-ttl` block.
    Fortios,
}

/// Plain seconds, or such as `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let plain = text.parse().ok().map(Duration::from_secs);
    let duration = plain.or_else(|| humantime::parse_duration(text).ok());
    duration.ok_or_else(|| "no duration; write seconds, or such as 30s, 5m, 1h".to_owned())
}
