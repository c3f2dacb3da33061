//! Several engines that tell each other of sessions, without a network between them
//! (`spec/replication.md`).

use super::*;
use crate::session::owner::{Boot, View};

mod ageing;
mod collisions;
mod converge;
#[cfg(feature = "corrupt")]
mod corrupted;
mod fates;
mod found;
mod resyncs;
mod rights;
mod simple;
mod windows;

pub(super) fn boot(node: u16) -> Boot {
    Boot { node, boot: 7 }
}

/// Engines of nodes 1, 2, ..., with what each has read of the others' logs.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Lab>,
    /// Cursor of the second into the log of the first.
    cursors: Vec<Vec<u64>>,
    pub(super) mark: u32,
}

impl Cluster {
    pub(super) fn new(n: u16) -> Cluster {
        Cluster::with(n, POLICY)
    }

    pub(super) fn with(n: u16, policy: &str) -> Cluster {
        let mut nodes: Vec<Lab> = (1..=n).map(|node| Lab::of_node(node, policy)).collect();
        for lab in &mut nodes {
            lab.engine.enable_replication(ReplicationConfig::default()).unwrap();
        }
        let mut cluster = Cluster { nodes, cursors: vec![vec![1; n.into()]; n.into()], mark: 1 };
        let all: Vec<u16> = (1..=n).collect();
        (1..=n).for_each(|node| cluster.view(node, &all));
        cluster
    }

    /// Node `at` believes that these are alive and in sync.
    pub(super) fn view(&mut self, at: u16, alive: &[u16]) {
        let view = View::new(boot(at), [], alive.iter().map(|n| boot(*n)), 100);
        self.of(at).engine.set_view(Arc::new(view));
    }

    pub(super) fn of(&mut self, node: u16) -> &mut Lab {
        &mut self.nodes[usize::from(node) - 1]
    }

    pub(super) fn slot(node: u16) -> Peer {
        Peer(node as u8 - 1)
    }

    /// Takes what `from` has to tell `to` out of its log.
    pub(super) fn read(&mut self, from: u16, to: u16) -> Vec<Told> {
        let now = self.of(from).now;
        let mut cursor = self.cursors[usize::from(from) - 1][usize::from(to) - 1];
        let engine = &self.of(from).engine;
        let mut told = Vec::new();
        while cursor < engine.log_head() {
            match engine.next_change(&mut cursor, now).unwrap() {
                Some(Change::Session(slot)) => told.push(Told::Copy(engine.copy(slot, now).unwrap())),
                Some(Change::End(end)) => told.push(Told::End(end)),
                None => (),
            }
        }
        self.cursors[usize::from(from) - 1][usize::from(to) - 1] = cursor;
        told
    }

    /// Node `to` takes what node `from` told.
    pub(super) fn apply(&mut self, from: u16, to: u16, told: &Told) -> Applied {
        let mark = self.mark;
        let lab = self.of(to);
        match told {
            Told::Copy(copy) => lab.engine.apply_copy(Cluster::slot(from), boot(from), mark, copy, lab.now),
            Told::End(end) => lab.engine.apply_end(Cluster::slot(from), boot(from), end, lab.now),
        }
    }

    /// Everybody hears everything, until nobody has anything to say.
    pub(super) fn talk(&mut self) {
        for _ in 0..100 {
            let mut said = 0;
            for from in 1..=self.nodes.len() as u16 {
                for to in (1..=self.nodes.len() as u16).filter(|to| *to != from) {
                    for told in self.read(from, to) {
                        said += 1;
                        self.apply(from, to, &told);
                    }
                }
            }
            if said == 0 {
                return;
            }
        }
        panic!("the nodes never stop talking");
    }

    /// Time passes for all, with the sweep; they talk every 10 ms, and questions are asked and settled.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            for lab in &mut self.nodes {
                lab.wait_ms(10);
            }
            self.talk();
            self.ask();
        }
    }

    /// Carries every question to everybody, and settles it.
    pub(super) fn ask(&mut self) {
        for owner in 1..=self.nodes.len() as u16 {
            let mut questions = Vec::new();
            self.of(owner).engine.take_questions(usize::MAX, &mut questions);
            if questions.is_empty() {
                continue;
            }
            for to in (1..=self.nodes.len() as u16).filter(|to| *to != owner) {
                let lab = self.of(to);
                questions.iter().for_each(|(_, q)| lab.engine.answer(q, lab.now));
            }
            self.talk();
            let lab = self.of(owner);
            questions.iter().for_each(|(slot, q)| lab.engine.settle(*slot, q.id, lab.now));
        }
        self.talk();
    }

    /// How many sessions each node has.
    pub(super) fn counts(&self) -> Vec<usize> {
        self.nodes.iter().map(|lab| lab.sessions().len()).collect()
    }

    /// What all nodes agree in, session by session.
    pub(super) fn fields(&self) -> Vec<Vec<SessionFields>> {
        let of = |lab: &Lab| {
            let mut all = Vec::new();
            for bucket in 0..VERIFY_BUCKETS {
                lab.engine.verify_bucket(bucket, 0, u32::MAX, lab.now, &mut all, &mut Vec::new());
            }
            all.sort_by_key(|f| f.id);
            all
        };
        self.nodes.iter().map(of).collect()
    }
}

/// What one node tells another.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Told {
    Copy(crate::session::copy::SessionCopy),
    End(crate::session::copy::EndNote),
}
