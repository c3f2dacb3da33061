//! `session verify`: do all nodes hold the same sessions? Digests first, by buckets over a fixed hash of
//! identity; then the sessions of the buckets that differ, field by field.
//!
//! What is on its way is given a moment: only what differs in the same way twice counts.

use super::error::ApiError;
use super::members::{self, Member, NoAnswer};
use crate::api::{BucketSessions, DifferingSession, Digests, UnansweredNode, Verification, VerifiedNode};
use crate::daemon::node::Node;
use axum::Json;
use axum::extract::{Query, State};
use futures::future::join_all;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidegate_dataplane::engine::{Engine, SessionFields, VERIFY_BUCKETS, VerifySums};
use tidegate_dataplane::names::ZoneId;
use tidegate_dataplane::session::record::SessionId;

/// How often digests are compared before what differs is looked at, and the pause between two looks.
const ROUNDS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(400);
/// Buckets that are looked into, and sessions that are named, at most.
const BUCKETS_MAX: usize = 64;
const NAMED_MAX: usize = 1_000;
/// Slots that a worker walks for one command.
const SLICE: u32 = 2_048;

/// Which bucket is asked for.
#[derive(Deserialize)]
pub(super) struct Wanted {
    number: usize,
}

/// `GET /v1/verify/digests`, asked by members.
pub(super) async fn digests(State(node): State<Arc<Node>>) -> Result<Json<Digests>, ApiError> {
    own_digests(&node).await.map(Json).map_err(ApiError::degraded)
}

/// `GET /v1/verify/bucket`, asked by members.
pub(super) async fn bucket(
    State(node): State<Arc<Node>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<BucketSessions>, ApiError> {
    if wanted.number >= VERIFY_BUCKETS {
        return Err(ApiError::usage("no such bucket"));
    }
    own_bucket(&node, wanted.number).await.map(Json).map_err(ApiError::degraded)
}

/// A fixed hash of each zone's name, by its number here (FNV-1a).
fn zone_hashes(node: &Node) -> Arc<Vec<u64>> {
    let names = node.policy.names();
    let fnv = |text: &str| {
        text.bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    };
    let all = (0..u16::MAX).map(|n| names.zone_name(ZoneId(n))).take_while(|name| *name != "?");
    Arc::new(all.map(fnv).collect())
}

/// Walks all workers' tables in slices.
async fn walk<T: Send + 'static>(
    node: &Node,
    slice: impl Fn(&mut Engine, tidegate_dataplane::time::Now, u32) -> (T, Option<u32>) + Clone + Send + 'static,
    mut take: impl FnMut(T),
) -> Result<(), String> {
    for worker in 0..node.workers.count() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let slice = slice.clone();
            let answer = node.workers.call(worker, move |engine, now| slice(engine, now, at)).await;
            let (part, next) = answer.map_err(|e| e.to_string())?;
            take(part);
            cursor = next;
        }
    }
    Ok(())
}

async fn own_digests(node: &Node) -> Result<Digests, String> {
    let zones = zone_hashes(node);
    let mut sum = VerifySums::default();
    let slice = move |engine: &mut Engine, now, at| {
        let mut part = VerifySums::default();
        let zone = |id: ZoneId| zones.get(usize::from(id.0)).copied().unwrap_or(0);
        let next = engine.verify_sums(at, SLICE, now, &zone, &mut part);
        (part, next)
    };
    walk(node, slice, |part| sum.add(&part)).await?;
    Ok(Digests { buckets: sum.buckets })
}

async fn own_bucket(node: &Node, number: usize) -> Result<BucketSessions, String> {
    let (mut found, mut idle): (Vec<SessionFields>, BTreeSet<String>) = Default::default();
    let slice = move |engine: &mut Engine, now, at| {
        let mut part = (Vec::new(), Vec::new());
        let next = engine.verify_bucket(number, at, SLICE, now, &mut part.0, &mut part.1);
        (part, next)
    };
    let take = |part: (Vec<SessionFields>, Vec<SessionId>)| {
        found.extend(part.0);
        idle.extend(part.1.iter().map(SessionId::to_string));
    };
    walk(node, slice, take).await?;
    let names = node.policy.names();
    let fields = |s: &SessionFields| {
        let list = s.list(&|zone| names.zone_name(zone).to_owned());
        list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    Ok(BucketSessions { sessions: found.iter().map(|s| (s.id.to_string(), fields(s))).collect(), idle })
}

/// All nodes' answers to one question; this node's first.
async fn all<T: serde::de::DeserializeOwned>(
    node: &Node,
    others: &[Member],
    own: impl Future<Output = Result<T, String>>,
    path: &str,
) -> (Vec<(u16, T)>, Vec<UnansweredNode>) {
    let asked = join_all(others.iter().map(|m| m.value::<T>(node, path.to_owned(), None)));
    let (own, answers) = tokio::join!(own, asked);
    let (mut given, mut silent) = (Vec::new(), Vec::new());
    match own {
        Ok(own) => given.push((node.id(), own)),
        Err(why) => silent.push(UnansweredNode { node: node.name(), node_id: node.id(), why }),
    }
    for (member, answer) in others.iter().zip(answers) {
        match answer {
            Ok(answer) => given.push((member.id, answer)),
            Err(NoAnswer::Silent(why)) => silent.push(member.unanswered(why)),
            Err(NoAnswer::NotFound) => silent.push(member.unanswered("it does not know the question")),
        }
    }
    (given, silent)
}

/// Buckets that are not the same on all nodes.
fn differing(digests: &[(u16, Digests)]) -> Vec<usize> {
    let Some(((_, first), rest)) = digests.split_first() else { return Vec::new() };
    (0..VERIFY_BUCKETS)
        .filter(|b| rest.iter().any(|(_, other)| other.buckets.get(*b) != first.buckets.get(*b)))
        .collect()
}

/// `GET /v1/sessions/verify`.
pub(super) async fn verify(State(node): State<Arc<Node>>) -> Result<Json<Verification>, ApiError> {
    let others = members::others(&node);
    let mut names: BTreeMap<u16, String> = others.iter().map(|m| (m.id, m.name.clone())).collect();
    names.insert(node.id(), node.name());
    let mut rounds = 0;
    let (digests, unanswered_nodes, unlike) = loop {
        rounds += 1;
        let (digests, silent) = all(&node, &others, own_digests(&node), "/v1/verify/digests").await;
        let unlike = differing(&digests);
        if unlike.is_empty() || rounds == ROUNDS {
            break (digests, silent, unlike);
        }
        tokio::time::sleep(PAUSE).await;
    };
    let mut found = Vec::new();
    if !unlike.is_empty() {
        let wanted = &unlike[..unlike.len().min(BUCKETS_MAX)];
        let before = look(&node, &others, wanted, &names).await;
        tokio::time::sleep(PAUSE).await;
        rounds += 1;
        let after = look(&node, &others, wanted, &names).await;
        found = after.into_iter().filter(|session| before.contains(session)).collect();
    }
    found.truncate(NAMED_MAX);
    let node_part = |(id, d): &(u16, Digests)| VerifiedNode {
        node: names.get(id).cloned().unwrap_or_default(),
        node_id: *id,
        sessions: d.buckets.iter().map(|(_, n)| u64::from(*n)).sum(),
    };
    Ok(Json(Verification {
        agree: found.is_empty() && unlike.len() <= BUCKETS_MAX,
        nodes: digests.iter().map(node_part).collect(),
        differing: found,
        differing_buckets: unlike.len() as u32,
        rounds,
        unanswered_nodes,
    }))
}

/// The sessions of these buckets that are not the same on all nodes that answer.
async fn look(
    node: &Node,
    others: &[Member],
    buckets: &[usize],
    names: &BTreeMap<u16, String>,
) -> Vec<DifferingSession> {
    let mut found = Vec::new();
    for number in buckets {
        let path = format!("/v1/verify/bucket?number={number}");
        let (answers, _) = all(node, others, own_bucket(node, *number), &path).await;
        found.extend(compare(&answers, names));
        if found.len() >= NAMED_MAX {
            break;
        }
    }
    found
}

fn compare(answers: &[(u16, BucketSessions)], names: &BTreeMap<u16, String>) -> Vec<DifferingSession> {
    let name = |id: &u16| names.get(id).cloned().unwrap_or_else(|| id.to_string());
    let ids: BTreeSet<&String> = answers.iter().flat_map(|(_, b)| b.sessions.keys()).collect();
    let differs = |id: &&String| {
        let mut session = DifferingSession { id: (*id).clone(), ..DifferingSession::default() };
        let mut values: BTreeMap<&String, BTreeMap<String, String>> = BTreeMap::new();
        for (node, bucket) in answers {
            match bucket.sessions.get(*id) {
                // It is about to go, and goes on one node after the other.
                None if bucket.idle.contains(*id) => return None,
                None => session.missing_on.push(name(node)),
                Some(fields) => {
                    for (field, value) in fields {
                        values.entry(field).or_default().insert(name(node), value.clone());
                    }
                }
            }
        }
        let unlike = values.into_iter().filter(|(_, v)| v.values().collect::<BTreeSet<_>>().len() > 1);
        session.fields = unlike.map(|(field, values)| (field.clone(), values)).collect();
        (!session.missing_on.is_empty() || !session.fields.is_empty()).then_some(session)
    };
    ids.iter().filter_map(differs).collect()
}

/// `POST /v1/test/corrupt?id=&field=`: falsifies one field of one session in this node's memory.
#[cfg(feature = "corrupt")]
pub(super) async fn corrupt(
    State(node): State<Arc<Node>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<bool>, ApiError> {
    use tidegate_dataplane::engine::Corruption;
    let id = query.get("id").and_then(|id| id.parse().ok()).ok_or_else(|| ApiError::usage("no id"))?;
    let field = query.get("field").and_then(|f| Corruption::named(f));
    let field = field.ok_or_else(|| ApiError::usage("no such field"))?;
    let (answers, _) = node.workers.all(move |engine, _| engine.corrupt(id, field)).await;
    Ok(Json(answers.into_iter().any(|(_, found)| found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(sessions: &[(&str, &[(&str, &str)])]) -> BucketSessions {
        let fields = |f: &[(&str, &str)]| f.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let sessions = sessions.iter().map(|(id, f)| ((*id).to_owned(), fields(f))).collect();
        BucketSessions { sessions, ..BucketSessions::default() }
    }

    #[test]
    fn what_differs_is_named_by_session_field_and_node() {
        // Compare ids alone and the field is missed; fields alone, and the missing session is.
        let names = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]);
        let here =
            bucket(&[("1-1-1", &[("zone", "x"), ("mss", "1")]), ("1-1-2", &[]), ("1-1-3", &[("mss", "2")])]);
        let there = bucket(&[("1-1-1", &[("zone", "y"), ("mss", "1")]), ("1-1-3", &[("mss", "2")])]);
        let found = compare(&[(1, here.clone()), (2, there)], &names);
        let of = |values: [&str; 2]| {
            BTreeMap::from([("a".to_owned(), values[0].to_owned()), ("b".to_owned(), values[1].to_owned())])
        };
        let unlike = DifferingSession {
            id: "1-1-1".to_owned(),
            missing_on: Vec::new(),
            fields: BTreeMap::from([("zone".to_owned(), of(["x", "y"]))]),
        };
        let missing = DifferingSession {
            id: "1-1-2".to_owned(),
            missing_on: vec!["b".to_owned()],
            fields: BTreeMap::new(),
        };
        assert_eq!(found, [unlike, missing]);
        assert_eq!(compare(&[(1, here.clone()), (2, here)], &names), []);
    }

    #[test]
    fn what_is_about_to_age_differs_nowhere() {
        // Red when a session is called missing that one node knows to be idle for a moment longer than another does:
        // wherever sessions age all the time, some would be.
        let names = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]);
        let here = bucket(&[("1-1-1", &[]), ("1-1-2", &[])]);
        let there = BucketSessions { idle: BTreeSet::from(["1-1-1".to_owned()]), ..Default::default() };
        let found = compare(&[(1, here), (2, there)], &names);
        assert_eq!(found.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["1-1-2"]);
    }
}
