//! Verbs: parse, ask the daemon, print. Data goes to stdout, everything else to stderr.

mod args;
mod import;
mod output;
mod policy;
mod session;
mod status;
mod watch;

pub use args::{Cli, ImportVendor, Output, PolicyVerb, PortVerb, SessionVerb, Verb};

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
            SessionVerb::List { filter, limit, sort } => {
                session::list(&client, output, SessionQuery { limit, sort, ..filter }).await
            }
            SessionVerb::Watch { filter } => watch::watch(&client, output, filter).await,
            SessionVerb::Show { id } => session::show(&client, output, &id).await,
            SessionVerb::Summary { filter } => session::summary(&client, output, filter).await,
            SessionVerb::Clear { filter, all } => session::clear(&client, output, filter, all, yes).await,
        },
        Verb::Policy(PolicyVerb::Show { effective }) => policy::show(&client, output, effective).await,
        Verb::Policy(PolicyVerb::Diff { file }) => policy::diff(&client, output, &file).await,
        Verb::Policy(PolicyVerb::Export) => policy::export(&client, output).await,
        Verb::Policy(PolicyVerb::Reload) => policy::reload(&client, output).await,
        Verb::Run { .. }
        | Verb::Completions { .. }
        | Verb::Version
        | Verb::Policy(PolicyVerb::Check { .. } | PolicyVerb::Import { .. }) => {
            unreachable!("handled without a daemon")
        }
    }
}
