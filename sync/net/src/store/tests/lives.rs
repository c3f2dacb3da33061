//! Random lives with many crashes each, against the model.

use super::crash::{Fate, after_crash, same};
use super::disk::{Disk, Op, redo};
use super::*;

/// A call that could follow.
fn next_call(model: &View, random: &mut Random) -> Call {
    let (base, commit) = (model.snapshot.get_metadata().clone(), model.hard.commit);
    let last = base.index + model.entries.len() as u64;
    let term_of = |index: u64| match index == base.index {
        true => base.term,
        false => model.entries[(index - base.index - 1) as usize].term,
    };
    let hard = model.hard.clone();
    let up_to =
        |from: u64, to: u64, random: &mut Random| from + random.below((to - from + 1) as usize) as u64;
    match random.below(10) {
        0 => append(Vec::new(), HardState { term: hard.term + 1, vote: up_to(0, 3, random), ..hard }),
        1 | 2 if last > commit => super::commit(HardState { commit: up_to(commit, last, random), ..hard }),
        3 if commit > base.index => {
            let index = up_to(base.index + 1, commit, random);
            Call::Compact(snapshot(index, term_of(index), random.below(200_000)))
        }
        4 if random.below(3) == 0 => Call::Persist {
            snapshot: Some(snapshot(last + up_to(1, 30, random), hard.term.max(1), random.below(90_000))),
            entries: Vec::new(),
            hard: None,
            must_sync: true,
        },
        _ => {
            let from = up_to(commit.max(base.index) + 1, last + 1, random);
            let to = from + up_to(0, 5, random);
            // A conflicting tail is of a newer term.
            let hard = HardState { term: hard.term + u64::from(from <= last), ..hard };
            let bytes = if random.below(20) == 0 { 60_000 } else { random.below(900) };
            append(entries(from..=to, hard.term, bytes), hard)
        }
    }
}

struct Life {
    image: Vec<u8>,
    model: View,
    /// The commit index that must be back at least.
    synced: u64,
    random: Random,
    crashes: usize,
    forward: usize,
}

impl Life {
    /// Opens the store, lives on for a few calls, and crashes: in a call, or after one.
    fn go_on(&mut self) {
        let disk = Disk::of(&self.image);
        let mut store = RaftStore::open(disk.clone()).unwrap();
        let seen = view(&store).unwrap();
        assert!(seen == self.model, "opened: {:?}, known: {:?}", seen.hard, self.model.hard);
        let mut flight = None;
        for _ in 0..1 + self.random.below(12) {
            let call = next_call(&self.model, &mut self.random);
            if self.random.below(6) == 0 {
                let count = self.random.below(6) as u64;
                if self.random.below(2) == 0 { disk.fail_sync_in(0) } else { disk.fail_write_in(count) }
            }
            if call.make(&mut store).is_err() {
                flight = Some(call);
                break;
            }
            call.tell(&mut self.model);
            if !matches!(call, Call::Persist { must_sync: false, .. }) {
                self.synced = self.model.hard.commit;
            }
        }
        self.crash(&disk, store, flight);
    }

    fn crash(&mut self, disk: &Disk, store: RaftStore, flight: Option<Call>) {
        let ops = disk.ops();
        store.abandon();
        let sync = ops.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
        ops[..sync].iter().for_each(|op| redo(&mut self.image, op));
        let fates = [Fate::Lost, Fate::Done, Fate::Some, Fate::Sectors, Fate::Cut];
        let fate = fates[self.random.below(fates.len())];
        self.image = after_crash(&self.image, &ops[sync..], fate, &mut self.random);
        let store = RaftStore::open(Disk::of(&self.image)).unwrap_or_else(|e| panic!("{fate:?}: {e}"));
        let seen = view(&store).unwrap();
        let mut next = self.model.clone();
        flight.iter().for_each(|call| call.tell(&mut next));
        if !same(&seen, &self.model, self.synced) {
            assert!(same(&seen, &next, self.synced), "{fate:?}, {flight:?}: {:?}", seen.hard);
            self.forward += 1;
        }
        self.crashes += 1;
        // What was found is synced by the opening.
        self.synced = self.synced.max(seen.hard.commit);
        self.model = seen;
    }
}

#[test]
fn random_lives_with_crashes() {
    // Red when any order of calls and crashes loses something acknowledged, or leaves a store that is refused.
    let (mut crashes, mut forward) = (0, 0);
    for seed in 1..=60 {
        let disk = Disk::default();
        let store = RaftStore::create(disk.clone(), ID).unwrap();
        let model = view(&store).unwrap();
        store.close().unwrap();
        let random = Random(seed * 7_919);
        let mut life = Life { image: disk.image(), model, synced: 0, random, crashes: 0, forward: 0 };
        for _ in 0..12 {
            life.go_on();
        }
        crashes += life.crashes;
        forward += life.forward;
    }
    assert!(crashes == 720 && forward > 20, "{crashes} crashes, {forward} went forward");
}
