//! Verbs: parse, ask the daemon, print. Data goes to stdout, everything else to stderr.

mod apply;
mod args;
mod args_cluster;
mod args_policy;
mod ask;
mod cluster;
mod import;
mod output;
mod policy;
mod reissue;
mod session;
mod status;
mod sync;
mod watch;

pub use args::{Cli, Output, PortVerb, SessionVerb, SyncVerb, Verb};
pub use args_cluster::{ClusterVerb, MemberRole, TokenVerb};
pub use args_policy::{ImportVendor, PolicyVerb};

use crate::api::{SessionQuery, Version};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors and go to stdout; a failed print changes nothing.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("tidegate: {}", failure.message.trim_end());
            }
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let Cli { control, output, yes, verb } = cli;
    match verb {
        Verb::Run { config } => crate::daemon::run(&config).map(|()| Exit::Ok),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Ok)
        }
        Verb::Version => {
            let version = Version::current();
            match output {
                Output::Json => output::print_json(&version)?,
                _ => output::print(&format!("tidegate {}\n", version.version))?,
            }
            Ok(Exit::Ok)
        }
        Verb::Policy(PolicyVerb::Check { file }) => policy::check(&file, output),
        Verb::Policy(PolicyVerb::Import { from, file }) => import::import(from, &file, output),
        Verb::Cluster(ClusterVerb::Reissue { config }) => reissue::reissue(&config, output),
        verb => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Failure::error(format!("cannot start: {e}")))?;
            runtime.block_on(ask(verb, Client::new(control), output, yes))
        }
    }
}

async fn ask(verb: Verb, client: Client, output: Output, yes: bool) -> Result<Exit, Failure> {
    match verb {
        Verb::Status => status::status(&client, output).await,
        Verb::Port(PortVerb::List) => status::ports(&client, output).await,
        Verb::Drops { nonzero } => status::drops(&client, output, nonzero).await,
        Verb::Session(verb) => match *verb {
            SessionVerb::List { filter, limit, sort, local } => {
                session::list(&client, output, SessionQuery { limit, sort, local, ..filter }).await
            }
            SessionVerb::Watch { filter, local } => {
                watch::watch(&client, output, SessionQuery { local, ..filter }).await
            }
            SessionVerb::Show { id, local } => session::show(&client, output, &id, local).await,
            SessionVerb::Summary { filter, local } => {
                session::summary(&client, output, SessionQuery { local, ..filter }).await
            }
            SessionVerb::Clear { filter, all } => session::clear(&client, output, filter, all, yes).await,
            SessionVerb::Verify => sync::verify(&client, output).await,
        },
        Verb::Sync(SyncVerb::Status) => sync::status(&client, output).await,
        Verb::Sync(SyncVerb::Resync { peer }) => sync::resync(&client, output, peer).await,
        Verb::Cluster(verb) => cluster::ask(&client, output, yes, verb).await,
        Verb::Policy(verb) => ask_policy(verb, &client, output).await,
        Verb::Run { .. } | Verb::Completions { .. } | Verb::Version => {
            unreachable!("handled without a daemon")
        }
    }
}

async fn ask_policy(verb: PolicyVerb, client: &Client, output: Output) -> Result<Exit, Failure> {
    match verb {
        PolicyVerb::Apply { file, dry_run, confirm_within, base } => {
            apply::apply(client, output, apply::Apply { file: &file, dry_run, confirm_within, base }).await
        }
        PolicyVerb::Confirm { revision } => apply::confirm(client, output, revision).await,
        PolicyVerb::Rollback { revision, confirm_within, base } => {
            apply::rollback(client, output, revision, confirm_within, base).await
        }
        PolicyVerb::History => apply::history(client, output).await,
        PolicyVerb::Show { revision, effective } => policy::show(client, output, revision, effective).await,
        PolicyVerb::Diff { first, second } => policy::diff(client, output, &first, second).await,
        PolicyVerb::Export { revision } => policy::export(client, output, revision).await,
        PolicyVerb::Reload => policy::reload(client, output).await,
        PolicyVerb::Check { .. } | PolicyVerb::Import { .. } => unreachable!("handled without a daemon"),
    }
}
