//! `policy check|show|diff|export|reload`.

use super::Output;
use super::output::{note_unanswered, or_dash, print, print_facts, print_json, print_table};
use crate::api::{PolicyCheck, PolicyDiff, PolicyReload, PolicyShow, PolicyText};
use crate::client::{Client, with_query};
use crate::diagnostic::Severity;
use crate::exit::{Exit, Failure};
use std::path::Path;

/// `policy check FILE`: no daemon. Findings are the verb's data, so they go to stdout.
pub(super) fn check(file: &Path, output: Output) -> Result<Exit, Failure> {
    let (name, text) = read(file)?;
    let (found, _) = crate::daemon::policy::check(&name, &text);
    let count = |s: Severity| found.iter().filter(|d| d.severity == s).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let ok = errors == 0;
    if output == Output::Json {
        print_json(&PolicyCheck { file: name, ok, errors, warnings, diagnostics: found })?;
    } else {
        let mut all: String = found.iter().map(|d| d.render(Some(&text))).collect();
        let verdict = if ok { "ok" } else { "cannot be put in force" };
        all.push_str(&format!("{name}: {verdict} ({errors} errors, {warnings} warnings)\n"));
        print(&all)?;
    }
    Ok(if ok { Exit::Ok } else { Exit::Usage })
}

/// `policy show`.
pub(super) async fn show(
    client: &Client,
    output: Output,
    revision: Option<u32>,
    effective: bool,
) -> Result<Exit, Failure> {
    let query = serde_json::json!({ "effective": effective, "revision": revision });
    let p: PolicyShow = client.get(&with_query("/v1/policy", &query)?).await?;
    if output == Output::Json {
        print_json(&p)?;
        return Ok(note_unanswered(&p.unanswered_workers));
    }
    print_facts(&[
        ("revision", p.revision.to_string()),
        ("sha-256", p.sha256.clone()),
        ("source", p.source.clone()),
        ("in force since", p.loaded_at.clone().unwrap_or_else(|| "not in force on this node".to_owned())),
    ])?;
    print("\n")?;
    let wide = output == Output::Wide;
    let header: &[&str] = if wide {
        &[
            "FROM",
            "TO",
            "RULE",
            "SOURCE",
            "DESTINATION",
            "APPLICATION",
            "ACTION",
            "TTL",
            "LOG",
            "ENABLED",
            "HITS",
        ]
    } else {
        &["FROM", "TO", "RULE", "APPLICATION", "ACTION", "HITS"]
    };
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    print_table(
        header,
        p.rules.iter().map(|r| {
            let mut row = vec![r.from.clone(), r.to.clone(), r.name.clone()];
            if wide {
                row.extend([r.source.join(" "), r.destination.join(" ")]);
            }
            row.extend([r.application.join(" "), r.action.clone()]);
            if wide {
                row.extend([or_dash(r.session_ttl.as_deref()), yes(r.log), yes(r.enabled)]);
            }
            row.push(if r.enabled { or_dash(r.hits) } else { "disabled".to_owned() });
            row
        }),
    )?;
    print(&match p.default_deny_hits {
        Some(hits) => format!("default: deny, {hits} hits\n"),
        None => "default: deny\n".to_owned(),
    })?;
    if !p.effective.is_empty() {
        print("\n")?;
        print_table(
            &["SETTING", "VALUE", "FROM"],
            p.effective.iter().map(|s| vec![s.key.clone(), s.value.clone(), s.from.clone()]),
        )?;
    }
    Ok(note_unanswered(&p.unanswered_workers))
}

/// `policy reload`.
pub(super) async fn reload(client: &Client, output: Output) -> Result<Exit, Failure> {
    let r: PolicyReload = client.post("/v1/policy/reload", &serde_json::json!({})).await?;
    for warning in &r.warnings {
        eprint!("{}", warning.render(None));
    }
    match output {
        Output::Json => print_json(&r)?,
        _ => print(&format!("policy revision {} in force, from {}\n", r.revision, r.source))?,
    }
    Ok(note_unanswered(&r.unanswered_workers))
}

fn read(file: &Path) -> Result<(String, String), Failure> {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((name, text)),
        Err(e) => Err(Failure::usage(format!("cannot read {name}: {e}\n  help: name a policy file"))),
    }
}

/// One side of a difference: what it is called, and its text.
struct Side {
    label: String,
    revision: Option<u32>,
    file: Option<String>,
    text: String,
}

async fn revision(client: &Client, number: Option<u32>) -> Result<Side, Failure> {
    let query = serde_json::json!({ "revision": number });
    let p: PolicyText = client.get(&with_query("/v1/policy/text", &query)?).await?;
    let in_force = if number.is_none() { " in force" } else { "" };
    Ok(Side {
        label: format!("revision {}{in_force}", p.revision),
        revision: Some(p.revision),
        file: None,
        text: p.text,
    })
}

fn valid_file(file: &Path) -> Result<Side, Failure> {
    let (name, text) = read(file)?;
    let (found, checked) = crate::daemon::policy::check(&name, &text);
    if checked.is_none() {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        return Err(Failure::usage(errors.map(|d| d.render(Some(&text))).collect::<String>()));
    }
    Ok(Side { label: name.clone(), revision: None, file: Some(name), text })
}

/// `policy diff FILE|REV [REV]`.
pub(super) async fn diff(
    client: &Client,
    output: Output,
    first: &str,
    second: Option<u32>,
) -> Result<Exit, Failure> {
    let named = match first.parse() {
        Ok(number) => revision(client, Some(number)).await?,
        Err(_) if second.is_some() => {
            return Err(Failure::usage(format!(
                "{first} is no revision\n  help: two revisions, or one file, which is compared with the policy in force"
            )));
        }
        Err(_) => valid_file(Path::new(first))?,
    };
    let (before, after) = match second {
        Some(second) => (named, revision(client, Some(second)).await?),
        None => (revision(client, None).await?, named),
    };
    let diff = similar::TextDiff::from_lines(before.text.as_str(), after.text.as_str())
        .unified_diff()
        .header(&before.label, &after.label)
        .to_string();
    match output {
        Output::Json => print_json(&PolicyDiff {
            revision: before.revision.unwrap_or_default(),
            file: after.file,
            with_revision: after.revision,
            changed: before.text != after.text,
            diff,
        })?,
        _ => print(&diff)?,
    }
    Ok(Exit::Ok)
}

/// `policy export [REV]`.
pub(super) async fn export(client: &Client, output: Output, revision: Option<u32>) -> Result<Exit, Failure> {
    let query = serde_json::json!({ "revision": revision });
    let policy: PolicyText = client.get(&with_query("/v1/policy/text", &query)?).await?;
    match output {
        Output::Json => print_json(&policy)?,
        _ => print(&policy.text)?,
    }
    Ok(Exit::Ok)
}
