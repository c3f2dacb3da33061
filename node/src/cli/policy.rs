//! `policy check|show|reload`.

use super::Output;
use super::output::{note_unanswered, or_dash, print, print_facts, print_json, print_table};
use crate::api::{PolicyCheck, PolicyDiff, PolicyReload, PolicyShow, PolicyText};
use crate::client::Client;
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
pub(super) async fn show(client: &Client, output: Output, effective: bool) -> Result<Exit, Failure> {
    let path = if effective { "/v1/policy?effective=true" } else { "/v1/policy" };
    let p: PolicyShow = client.get(path).await?;
    if output == Output::Json {
        print_json(&p)?;
        return Ok(note_unanswered(&p.unanswered_workers));
    }
    print_facts(&[
        ("revision", p.revision.to_string()),
        ("source", p.source.clone()),
        ("in force since", p.loaded_at.clone()),
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
            row.push(if r.enabled { r.hits.to_string() } else { "disabled".to_owned() });
            row
        }),
    )?;
    print(&format!("default: deny, {} hits\n", p.default_deny_hits))?;
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

/// `policy diff FILE`.
pub(super) async fn diff(client: &Client, output: Output, file: &Path) -> Result<Exit, Failure> {
    let (name, text) = read(file)?;
    let (found, checked) = crate::daemon::policy::check(&name, &text);
    if checked.is_none() {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        return Err(Failure::usage(errors.map(|d| d.render(Some(&text))).collect::<String>()));
    }
    let in_force: PolicyText = client.get("/v1/policy/text").await?;
    let label = format!("revision {} in force", in_force.revision);
    let diff = similar::TextDiff::from_lines(in_force.text.as_str(), text.as_str())
        .unified_diff()
        .header(&label, &name)
        .to_string();
    let changed = in_force.text != text;
    match output {
        Output::Json => print_json(&PolicyDiff { revision: in_force.revision, file: name, changed, diff })?,
        _ => print(&diff)?,
    }
    Ok(Exit::Ok)
}

/// `policy export`.
pub(super) async fn export(client: &Client, output: Output) -> Result<Exit, Failure> {
    let in_force: PolicyText = client.get("/v1/policy/text").await?;
    match output {
        Output::Json => print_json(&in_force)?,
        _ => print(&in_force.text)?,
    }
    Ok(Exit::Ok)
}
