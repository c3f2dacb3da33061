//! `cluster`.

use super::ask::{confirm, gate};
use super::output::{duration, or_dash, print, print_facts, print_json, print_table};
use super::{ClusterVerb, Output, TokenVerb};
use crate::api::{
    ClusterStatus, History, InitRequest, JoinRequest, Joined, MemberStatus, Members, Nothing, RecoverRequest,
    Recovery, Removal, RemoveRequest, RevokeRequest, Rotated, TokenCreated, TokenList, TokenRequest,
};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Longest file or stdin that may hold a token.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

pub(super) async fn ask(
    client: &Client,
    output: Output,
    yes: bool,
    verb: ClusterVerb,
) -> Result<Exit, Failure> {
    match verb {
        ClusterVerb::Init { name, node, addresses } => {
            let request = InitRequest { name, node, addresses };
            let joined: Joined = client.post("/v1/cluster/init", &request).await?;
            welcome(output, &joined, "founded")
        }
        ClusterVerb::Join { token, node, addresses } => {
            let request = JoinRequest { token: read_token(&token)?, node, addresses };
            let joined: Joined = client.post("/v1/cluster/join", &request).await?;
            welcome(output, &joined, "joined")
        }
        ClusterVerb::Token(TokenVerb::Create { ttl, role }) => {
            create_token(client, output, ttl, role.name()).await
        }
        ClusterVerb::Token(TokenVerb::List) => list_tokens(client, output).await,
        ClusterVerb::Token(TokenVerb::Revoke { id }) => {
            let Nothing {} = client.post("/v1/cluster/tokens/revoke", &RevokeRequest { id }).await?;
            match output {
                Output::Json => print_json(&Nothing {})?,
                _ => print("the token is revoked\n")?,
            }
            Ok(Exit::Ok)
        }
        ClusterVerb::Status => status(client, output).await,
        ClusterVerb::Members => members(client, output).await,
        ClusterVerb::History => history(client, output).await,
        ClusterVerb::Remove { node } => remove(client, output, yes, node).await,
        ClusterVerb::Rotate => rotate(client, output).await,
        ClusterVerb::Recover { force: _ } => recover(client, output, yes).await,
        ClusterVerb::Reissue { .. } => unreachable!("handled without a daemon"),
    }
}

/// A token as it is, from a file, or from stdin.
fn read_token(given: &str) -> Result<String, Failure> {
    let failed = |what: &str, e: std::io::Error| {
        Failure::usage(format!(
            "cannot read the token from {what}: {e}\n  help: `tidegate cluster token create` prints one"
        ))
    };
    let mut text = String::new();
    if given == "-" {
        let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|e| failed("stdin", e))?;
    } else if Path::new(given).exists() {
        let file = std::fs::File::open(given).map_err(|e| failed(given, e))?;
        file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(|e| failed(given, e))?;
    } else {
        text.push_str(given);
    }
    // What is printed around a token, such as an SSH banner, is not part of it.
    let token = text.split_whitespace().find(|word| word.starts_with("tidegate-join-"));
    Ok(token.map_or_else(|| text.trim().to_owned(), str::to_owned))
}

fn welcome(output: Output, joined: &Joined, how: &str) -> Result<Exit, Failure> {
    if output == Output::Json {
        print_json(joined)?;
        return Ok(Exit::Ok);
    }
    let Joined { cluster, node_id, node, role, policy_revision, .. } = joined;
    let policy = policy_revision.map_or(String::new(), |r| format!(", policy revision {r}"));
    print(&format!("{how} cluster {cluster} as {role} {node} (number {node_id}){policy}\n"))?;
    Ok(Exit::Ok)
}

async fn create_token(client: &Client, output: Output, ttl: Duration, role: &str) -> Result<Exit, Failure> {
    let request = TokenRequest { ttl_ms: ttl.as_millis() as u64, role: role.to_owned() };
    let created: TokenCreated = client.post("/v1/cluster/tokens", &request).await?;
    match output {
        Output::Json => print_json(&created)?,
        _ => {
            print(&format!("{}\n", created.token))?;
            eprintln!("good once, for a {}, until {} (id {})", created.role, created.expires_at, created.id);
        }
    }
    Ok(Exit::Ok)
}

async fn list_tokens(client: &Client, output: Output) -> Result<Exit, Failure> {
    let list: TokenList = client.get("/v1/cluster/tokens").await?;
    match output {
        Output::Json => print_json(&list)?,
        _ => print_table(
            &["ID", "ROLE", "STATE", "EXPIRES", "USED BY"],
            list.tokens.iter().map(|t| {
                vec![
                    t.id.clone(),
                    t.role.clone(),
                    t.state.clone(),
                    t.expires_at.clone(),
                    or_dash(t.used_by.as_deref()),
                ]
            }),
        )?,
    }
    note_old(list.current);
    Ok(Exit::Ok)
}

/// What is shown without a quorum may be old.
pub(super) fn note_old(current: bool) {
    if !current {
        eprintln!("tidegate: no quorum: this is what this node last knew (see `tidegate cluster status`)");
    }
}

/// The cluster's lines of `status` and `cluster status`.
pub(super) fn facts(s: &ClusterStatus) -> Vec<(&'static str, String)> {
    let p = &s.policy;
    let leader = s.leader.as_ref().map_or("no leader".to_owned(), |l| format!("leader {l}"));
    let revision = |r: Option<u32>| r.map_or("none".to_owned(), |r| format!("revision {r}"));
    let mut policy = format!("{} agreed", revision(p.agreed_revision));
    if s.role == "node" {
        policy.push_str(&format!(", {} enforced here", revision(p.enforced_revision)));
    }
    if let Some(from) = p.fell_back_from {
        policy.push_str(&format!(" (revision {from} was not confirmed in time)"));
    }
    let connected = s.members.iter().filter(|m| m.connected).count();
    let mut facts = vec![
        ("cluster", format!("{} (generation {})", s.cluster, s.generation)),
        ("member", format!("{} {} (number {}), {}", s.role, s.node, s.node_id, s.standing.replace('_', " "))),
        ("raft", format!("{}, {leader}, term {}", s.raft_role, s.term)),
        ("quorum", if s.quorum { "yes" } else { "NO: changes are refused" }.to_owned()),
        ("members", format!("{connected} of {} connected", s.members.len())),
        ("agreed policy", policy),
    ];
    if let Some(pending) = &p.pending {
        let back = pending.fallback_revision.map_or("no policy".to_owned(), |r| format!("revision {r}"));
        facts.push((
            "on trial",
            format!(
                "revision {}: {} left, then {back} is in force again (`tidegate policy confirm` keeps it)",
                pending.revision,
                duration(Some(pending.remaining_s))
            ),
        ));
    }
    facts.push((
        "certificate",
        format!("until {} ({} left)", s.certificate_expires_at, left(s.certificate_remaining_s)),
    ));
    facts
}

fn left(s: i64) -> String {
    if s < 0 { "nothing".to_owned() } else { duration(Some(s as f64)) }
}

async fn status(client: &Client, output: Output) -> Result<Exit, Failure> {
    let s: ClusterStatus = client.get("/v1/cluster").await?;
    let sound = s.standing_note.is_none() && s.changes_refused.is_none() && s.policy.error.is_none();
    let exit = if sound { Exit::Ok } else { Exit::Degraded };
    if output == Output::Json {
        print_json(&s)?;
        return Ok(exit);
    }
    let mut facts = facts(&s);
    facts.extend(s.standing_note.iter().map(|note| ("degraded", note.clone())));
    facts.extend(s.changes_refused.iter().map(|why| ("degraded", why.clone())));
    facts.extend(s.policy.error.iter().map(|why| ("degraded", why.clone())));
    print_facts(&facts)?;
    print("\n")?;
    print_members(output, &s.members)?;
    Ok(exit)
}

async fn members(client: &Client, output: Output) -> Result<Exit, Failure> {
    let m: Members = client.get("/v1/cluster/members").await?;
    if output == Output::Json {
        print_json(&m)?;
    } else {
        print_members(output, &m.members)?;
        if output == Output::Wide && !m.removed.is_empty() {
            let all: Vec<_> = m.removed.iter().map(|r| format!("{} ({})", r.node, r.node_id)).collect();
            print(&format!("removed: {}\n", all.join(", ")))?;
        }
    }
    note_old(m.current);
    Ok(Exit::Ok)
}

fn print_members(output: Output, members: &[MemberStatus]) -> Result<(), Failure> {
    let wide = output == Output::Wide;
    let mut header = vec!["ID", "NODE", "ROLE", "RAFT", "STATE", "POLICY", "ADDRESS"];
    if wide {
        header.extend(["RTT", "VERSION", "CERTIFICATE UNTIL", "JOINED", "POLICY SHA-256", "ALL ADDRESSES"]);
    }
    let rows = members.iter().map(|m| {
        let raft = match (m.leads, m.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let state = match (m.this_node, m.connected, &m.problem) {
            (true, ..) => "this node".to_owned(),
            (_, true, None) => "connected".to_owned(),
            (_, true, Some(why)) => format!("connected: {why}"),
            (_, false, why) => format!("LOST: {}", why.as_deref().unwrap_or("not reached")),
        };
        let policy = m.enforced_revision.map(|r| format!("revision {r}"));
        let mut row = vec![
            m.node_id.to_string(),
            m.node.clone(),
            m.role.clone(),
            raft.to_owned(),
            state,
            or_dash(policy),
            m.address.clone().or_else(|| m.addresses.first().cloned()).unwrap_or_default(),
        ];
        if wide {
            row.extend([
                or_dash(m.rtt_ms.map(|ms| format!("{ms:.1} ms"))),
                or_dash(m.version.as_deref()),
                or_dash(m.certificate_expires_at.as_deref()),
                m.joined_at.clone(),
                or_dash(m.enforced_sha256.as_deref()),
                m.addresses.join(" "),
            ]);
        }
        row
    });
    print_table(&header, rows)
}

async fn history(client: &Client, output: Output) -> Result<Exit, Failure> {
    let h: History = client.get("/v1/cluster/history").await?;
    match output {
        Output::Json => print_json(&h)?,
        _ => print_table(
            &["INDEX", "AT", "BY", "NODE", "WHAT", "OUTCOME"],
            h.entries.iter().map(|e| {
                vec![
                    e.index.to_string(),
                    e.at.clone(),
                    e.by.clone(),
                    e.via.clone(),
                    e.what.clone(),
                    e.outcome.clone(),
                ]
            }),
        )?,
    }
    note_old(h.current);
    Ok(Exit::Ok)
}

async fn remove(client: &Client, output: Output, yes: bool, node: String) -> Result<Exit, Failure> {
    gate(yes, "removing a member is for good")?;
    if !yes {
        let preview = RemoveRequest { node: node.clone(), preview: true };
        let Removal { member, .. } = client.post("/v1/cluster/remove", &preview).await?;
        let own = if member.this_node { " It is the node that you are asking." } else { "" };
        confirm(
            yes,
            &format!(
                "Remove {} {} (number {})? It denies everything from then on, and its number never returns.{own}",
                member.role, member.node, member.node_id
            ),
        )?;
    }
    let request = RemoveRequest { node, preview: false };
    let removal: Removal = client.post("/v1/cluster/remove", &request).await?;
    match output {
        Output::Json => print_json(&removal)?,
        _ => {
            let m = &removal.member;
            print(&format!("removed {} {} (number {})\n", m.role, m.node, m.node_id))?;
        }
    }
    Ok(Exit::Ok)
}

async fn rotate(client: &Client, output: Output) -> Result<Exit, Failure> {
    let rotated: Rotated = client.post("/v1/cluster/rotate", &Nothing {}).await?;
    match output {
        Output::Json => print_json(&rotated)?,
        _ => print_table(
            &["ID", "NODE", "CERTIFICATE UNTIL", "PROBLEM"],
            rotated.nodes.iter().map(|n| {
                vec![
                    n.node_id.to_string(),
                    n.node.clone(),
                    or_dash(n.certificate_expires_at.as_deref()),
                    or_dash(n.error.as_deref()),
                ]
            }),
        )?,
    }
    let failed = rotated.nodes.iter().any(|n| n.error.is_some());
    Ok(if failed { Exit::Degraded } else { Exit::Ok })
}

async fn recover(client: &Client, output: Output, yes: bool) -> Result<Exit, Failure> {
    gate(yes, "a recovery throws all other members out")?;
    let preview: Recovery = client.post("/v1/cluster/recover", &RecoverRequest { preview: true }).await?;
    let names: Vec<_> = preview.fenced.iter().map(|f| f.node.as_str()).collect();
    let fenced = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    confirm(
        yes,
        &format!(
            "Carry the cluster on from {} alone, with {}? This throws out: {fenced}.",
            preview.node,
            preview.policy_revision.map_or("no policy".to_owned(), |r| format!("policy revision {r}")),
        ),
    )?;
    let done: Recovery = client.post("/v1/cluster/recover", &RecoverRequest { preview: false }).await?;
    match output {
        Output::Json => print_json(&done)?,
        _ => print(&format!(
            "generation {} of the cluster begins with {} alone; fenced: {fenced}\n",
            done.generation, done.node
        ))?,
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_as_it_is_or_from_a_file() {
        // Take a file's name for the token, or the banner around it with it, and joining fails.
        let file = std::env::temp_dir().join(format!("tidegate-token-{}", std::process::id()));
        std::fs::write(&file, "Welcome!\n\ntidegate-join-1-abc\n").unwrap();
        assert_eq!(read_token("tidegate-join-1-abc").unwrap(), "tidegate-join-1-abc");
        assert_eq!(read_token(file.to_str().unwrap()).unwrap(), "tidegate-join-1-abc");
        std::fs::remove_file(file).unwrap();
    }
}
