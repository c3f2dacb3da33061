//! Before a shared session ages, its owner asks the others, and waits a bounded moment
//! (`spec/replication.md`, "Who decides").

use super::Shard;
use crate::replication::message::QUESTIONS_MAX;
use std::collections::VecDeque;
use tidegate_dataplane::engine::{Engine, Peer, Question};
use tidegate_dataplane::table::SlotId;
use tidegate_dataplane::time::Now;

/// Most askings that wait at a time. Sessions beyond stay until there is a place: they forward, and age later.
const ASKINGS_MAX: usize = 64;

/// One asking: the same questions to every peer.
#[derive(Debug)]
struct Asked {
    number: u64,
    until: Now,
    sessions: Vec<(SlotId, Question)>,
    /// Answers that are still to come, by peer.
    missing: Vec<(Peer, u32)>,
    /// Linked peers that could not be asked yet: what goes to them waits.
    unasked: Vec<Peer>,
    /// A living peer has no link: nothing is settled early.
    unheard: bool,
}

/// Everything that is asked.
#[derive(Debug, Default)]
pub(super) struct Asking {
    asked: VecDeque<Asked>,
    number: u64,
}

impl Asking {
    /// Sessions that wait for answers.
    pub(super) fn waiting(&self) -> u64 {
        self.asked.iter().map(|asked| asked.sessions.len() as u64).sum()
    }

    /// A peer has answered that many questions of an asking.
    pub(super) fn answered(&mut self, peer: Peer, number: u64, count: u32) {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.number == number) else { return };
        if let Some((_, missing)) = asked.missing.iter_mut().find(|(of, _)| *of == peer) {
            *missing = missing.saturating_sub(count);
        }
    }
}

impl Shard {
    /// Settles what is answered or has waited long enough, and asks what the engine's sweep wants to know. After a
    /// pause neither, until what was queued meanwhile is applied.
    pub(super) fn ask(&mut self, engine: &mut Engine, now: Now) {
        if self.held {
            return;
        }
        self.ask_the_rest(now);
        self.asking.asked.retain(|asked| {
            let all_asked = !asked.unheard && asked.unasked.is_empty();
            let answered = all_asked && asked.missing.iter().all(|(_, missing)| *missing == 0);
            if !answered && now < asked.until {
                return true;
            }
            asked.sessions.iter().for_each(|(slot, question)| engine.settle(*slot, question.id, now));
            false
        });
        if self.asking.asked.len() >= ASKINGS_MAX {
            return;
        }
        let mut sessions = Vec::new();
        engine.take_questions(QUESTIONS_MAX, &mut sessions);
        if sessions.is_empty() {
            return;
        }
        self.asking.number += 1;
        let (number, count) = (self.asking.number, sessions.len() as u32);
        let alive = engine.view().map_or(0, |view| view.alive().iter().filter(|b| **b != view.me).count());
        let linked = self.lines.iter().flatten().filter(|line| line.link.is_some());
        let unasked: Vec<Peer> = linked.map(|line| line.peer).collect();
        let unheard = unasked.len() < alive;
        let until = Now(now.0 + self.config.answer_ms);
        let missing = unasked.iter().map(|peer| (*peer, count)).collect();
        self.asking.asked.push_back(Asked { number, until, sessions, missing, unasked, unheard });
        self.ask_the_rest(now);
    }

    /// Asks the peers that what is told to them kept from being asked so far; their time to answer begins now.
    fn ask_the_rest(&mut self, now: Now) {
        for asked in &mut self.asking.asked {
            let line = |peer: &Peer| self.lines.get(usize::from(peer.0)).and_then(|line| line.as_deref());
            if !asked.unasked.iter().filter_map(line).any(|line| line.link.is_none() || line.may_ask()) {
                continue;
            }
            let questions: Vec<Question> = asked.sessions.iter().map(|(_, question)| *question).collect();
            let (number, until) = (asked.number, &mut asked.until);
            asked.unasked.retain(|peer| {
                let line = self.lines.get_mut(usize::from(peer.0)).and_then(|line| line.as_deref_mut());
                let Some(line) = line.filter(|line| line.link.is_some()) else { return false };
                if !line.may_ask() {
                    return true;
                }
                if line.outlet.is_empty() {
                    line.first_at = now;
                }
                line.outlet.ask(number, &questions);
                line.sent.questions += questions.len() as u64;
                *until = Now(now.0 + self.config.answer_ms);
                false
            });
        }
    }
}
