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
    /// A living peer could not be asked: nothing is settled early.
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
        self.asking.asked.retain(|asked| {
            let answered = !asked.unheard && asked.missing.iter().all(|(_, missing)| *missing == 0);
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
        let questions: Vec<Question> = sessions.iter().map(|(_, question)| *question).collect();
        let alive = engine.view().map_or(0, |view| view.alive().iter().filter(|b| **b != view.me).count());
        let mut missing = Vec::new();
        for line in self.lines.iter_mut().flatten().filter(|line| line.may_ask()) {
            if line.outlet.is_empty() {
                line.first_at = now;
            }
            line.outlet.ask(number, &questions);
            line.sent.questions += u64::from(count);
            missing.push((line.peer, count));
        }
        let unheard = missing.len() < alive;
        let until = Now(now.0 + self.config.answer_ms);
        self.asking.asked.push_back(Asked { number, until, sessions, missing, unheard });
    }
}
