//! `policy apply|rollback|confirm|history`.

use super::Output;
use super::cluster::note_old;
use super::output::{duration, print, print_json, print_table};
use crate::api::{ApplyRequest, ConfirmRequest, PolicyApplied, PolicyHistory, RollbackRequest};
use crate::client::Client;
use crate::diagnostic::{Diagnostic, Severity};
use crate::exit::{Exit, Failure};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// What `policy apply` was told.
pub(super) struct Apply<'a> {
    pub(super) file: &'a Path,
    pub(super) dry_run: bool,
    pub(super) confirm_within: Option<Duration>,
    pub(super) base: Option<u32>,
}

fn ms(duration: Option<Duration>) -> Option<u64> {
    duration.map(|d| d.as_millis() as u64)
}

/// A policy file, or stdin for `-`; and what to call it.
fn read(file: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        ("stdin".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(e) => Err(Failure::usage(format!("cannot read {name}: {e}\n  help: name a policy file"))),
    }
}

/// `policy apply FILE`. Checked here first: findings show the line that they are about.
pub(super) async fn apply(client: &Client, output: Output, asked: Apply<'_>) -> Result<Exit, Failure> {
    let Apply { file, dry_run, confirm_within, base } = asked;
    let (file, text) = read(file)?;
    let (found, checked) = crate::daemon::policy::check(&file, &text);
    if checked.is_none() {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        let all: String = errors.map(|d| d.render(Some(&text))).collect();
        return Err(Failure::usage(format!("{all}{file} cannot be put in force; nothing was changed")));
    }
    let request =
        ApplyRequest { file, text: text.clone(), base, dry_run, confirm_within_ms: ms(confirm_within) };
    let applied: PolicyApplied = client.post("/v1/policy/apply", &request).await?;
    say_warnings(&applied.warnings, Some(&text));
    report(output, &applied, "applied")
}

/// `policy rollback REV`.
pub(super) async fn rollback(
    client: &Client,
    output: Output,
    revision: u32,
    confirm_within: Option<Duration>,
    base: Option<u32>,
) -> Result<Exit, Failure> {
    let request = RollbackRequest { revision, base, confirm_within_ms: ms(confirm_within) };
    let applied: PolicyApplied = client.post("/v1/policy/rollback", &request).await?;
    say_warnings(&applied.warnings, None);
    report(output, &applied, &format!("the text of revision {revision}"))
}

/// `policy confirm [REV]`.
pub(super) async fn confirm(client: &Client, output: Output, revision: Option<u32>) -> Result<Exit, Failure> {
    let applied: PolicyApplied = client.post("/v1/policy/confirm", &ConfirmRequest { revision }).await?;
    report(output, &applied, "confirmed")
}

fn say_warnings(warnings: &[Diagnostic], text: Option<&str>) {
    for warning in warnings {
        eprint!("{}", warning.render(text));
    }
}

fn report(output: Output, a: &PolicyApplied, how: &str) -> Result<Exit, Failure> {
    if output == Output::Json {
        print_json(a)?;
    } else if a.dry_run {
        print(a.diff.as_deref().unwrap_or_default())?;
        let verdict = if a.unchanged { "the same; nothing would change" } else { "it can be applied" };
        eprintln!("compared with revision {}: {verdict}", a.revision);
    } else {
        print(&in_words(a, how))?;
    }
    for n in a.nodes.iter().filter(|n| !n.enforced) {
        let why = n.problem.as_deref().unwrap_or("no answer");
        match n.connected {
            true => eprintln!("tidegate: {} does not enforce revision {} yet: {why}", n.node, a.revision),
            false => eprintln!(
                "tidegate: {} is not connected ({why}): while it runs alone it enforces what it last knew, and takes revision {} when it is back",
                n.node, a.revision
            ),
        }
    }
    let late = a.nodes.iter().any(|n| n.connected && !n.enforced);
    Ok(if late { Exit::Degraded } else { Exit::Ok })
}

fn in_words(a: &PolicyApplied, how: &str) -> String {
    let mut text = match a.unchanged {
        true => format!("unchanged: revision {} is in force already\n", a.revision),
        false => format!("revision {} in force ({how})\n", a.revision),
    };
    for n in a.nodes.iter().filter(|n| n.enforced) {
        text.push_str(&format!("{}: enforced\n", n.node));
    }
    if let Some(s) = a.confirm_within_s {
        text.push_str(&format!(
            "on trial: `tidegate policy confirm` within {} keeps it\n",
            duration(Some(s))
        ));
    }
    text
}

/// `policy history`.
pub(super) async fn history(client: &Client, output: Output) -> Result<Exit, Failure> {
    let h: PolicyHistory = client.get("/v1/policy/history").await?;
    if output == Output::Json {
        print_json(&h)?;
        note_old(h.current);
        return Ok(Exit::Ok);
    }
    let wide = output == Output::Wide;
    let mut header = vec!["REVISION", "STATE", "FROM", "AT", "BY", "NODE"];
    if wide {
        header.extend(["BYTES", "TEXT", "SHA-256"]);
    }
    print_table(
        &header,
        h.revisions.iter().map(|r| {
            let state = match (r.in_force, r.standing.as_str()) {
                (true, "confirmed") => "in force".to_owned(),
                (true, standing) => format!("in force, {standing}"),
                (false, "confirmed") => "before".to_owned(),
                (false, "expired") => "not confirmed in time".to_owned(),
                (false, standing) => standing.to_owned(),
            };
            let from = r.rollback_to.map_or(r.source.clone(), |to| format!("rollback to {to}"));
            let mut row =
                vec![r.revision.to_string(), state, from, r.at.clone(), r.by.clone(), r.via.clone()];
            if wide {
                let kept = if r.text_kept { "kept" } else { "dropped" };
                row.extend([r.bytes.to_string(), kept.to_owned(), r.sha256.clone()]);
            }
            row
        }),
    )?;
    note_old(h.current);
    Ok(Exit::Ok)
}
