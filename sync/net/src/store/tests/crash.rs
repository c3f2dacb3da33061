//! Power failures: after each thing done to the disk, with what was not synced lost, kept in part, or torn.

use super::disk::{Disk, Op, redo};
use super::*;

/// What happens to a write that was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lost,
    Done,
    /// Each by its own luck.
    Some,
    /// Each sector by its own luck.
    Sectors,
    /// Cut at any byte.
    Cut,
}

/// What is left of `synced` and of operations that were not.
pub(super) fn after_crash(synced: &[u8], ops: &[Op], fate: Fate, random: &mut Random) -> Vec<u8> {
    let mut image = synced.to_vec();
    for op in ops {
        let luck = random.below(2) == 0;
        match (fate, op) {
            (Fate::Lost, _) => {}
            (Fate::Done, op) => redo(&mut image, op),
            (Fate::Some, op) | (_, op @ Op::SetLen(_)) if luck => redo(&mut image, op),
            (Fate::Sectors, Op::Write(at, data)) => {
                for (number, sector) in data.chunks(512).enumerate() {
                    if random.below(2) == 0 {
                        redo(&mut image, &Op::Write(at + number as u64 * 512, sector.to_vec()));
                    }
                }
            }
            (Fate::Cut, Op::Write(at, data)) => {
                redo(&mut image, &Op::Write(*at, data[..random.below(data.len() + 1)].to_vec()));
            }
            _ => {}
        }
    }
    image
}

/// Whether `seen` is `model` but for a commit index that need not have been synced.
pub(super) fn same(seen: &View, model: &View, synced_commit: u64) -> bool {
    let mut model = model.clone();
    let commit = seen.hard.commit;
    if (synced_commit..=model.hard.commit).contains(&commit) {
        model.hard.commit = commit;
    }
    *seen == model
}

/// Crashes at each operation; returns how many images went back and forward over the call in flight.
fn crash_everywhere(fates: &[Fate], seed: u64) -> (usize, usize) {
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    let created = disk.ops().len();
    let mut models = vec![view(&store).unwrap()];
    let mut synced = vec![0];
    for call in life() {
        call.make(&mut store).unwrap();
        disk.ack();
        let mut next = models.last().unwrap().clone();
        call.tell(&mut next);
        let unsynced = matches!(call, Call::Persist { must_sync: false, .. });
        synced.push(if unsynced { *synced.last().unwrap() } else { next.hard.commit });
        models.push(next);
    }
    let ops = disk.ops();
    store.abandon();
    let mut random = Random(seed);
    let (mut back, mut forward) = (0, 0);
    let (mut image, mut sync) = (Vec::new(), 0);
    for crash in created..=ops.len() {
        if crash == created || matches!(ops[crash - 1], Op::Sync) {
            ops[sync..crash].iter().for_each(|op| redo(&mut image, op));
            sync = crash;
        }
        let acked = ops[..crash].iter().filter(|op| matches!(op, Op::Ack)).count();
        for fate in fates {
            let image = after_crash(&image, &ops[sync..crash], *fate, &mut random);
            let store = RaftStore::open(Disk::of(&image))
                .unwrap_or_else(|e| panic!("crash {crash} in call {acked}, {fate:?}, seed {seed}: {e}"));
            let seen = view(&store).unwrap();
            let next = models.get(acked + 1).unwrap_or(&models[acked]);
            if same(&seen, &models[acked], synced[acked]) {
                back += 1;
            } else if same(&seen, next, synced[acked]) {
                forward += 1;
            } else {
                panic!(
                    "crash {crash} in call {acked}, {fate:?}, seed {seed}: {:?}, acknowledged {:?}",
                    seen.hard, models[acked].hard
                );
            }
        }
    }
    (back, forward)
}

#[test]
fn what_was_acknowledged_is_back_after_any_crash() {
    // Red when `persist` returns before its sync, or when a store in the middle of a write is refused or
    // mixed. Both sides of the call in flight must have been seen, or the disk tears nothing.
    let fates = [Fate::Lost, Fate::Done, Fate::Some, Fate::Sectors, Fate::Cut];
    for seed in [1, 2, 3] {
        let (back, forward) = crash_everywhere(&fates, seed);
        assert!(back > 500 && forward > 100, "{back} went back, {forward} forward");
    }
}

#[test]
fn a_crash_while_it_is_opened_again_loses_nothing() {
    // Opening repairs, and so writes. Red when a repair that was cut off leaves something unusable.
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    let mut model = View::default();
    for call in life() {
        call.make(&mut store).unwrap();
        call.tell(&mut model);
    }
    store.abandon();
    let image = disk.image();
    let disk = Disk::of(&image);
    RaftStore::open(disk.clone()).unwrap().close().unwrap();
    let ops = disk.ops();
    let mut random = Random(5);
    for crash in 0..=ops.len() {
        let sync = ops[..crash].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
        let mut synced = image.clone();
        ops[..sync].iter().for_each(|op| redo(&mut synced, op));
        for fate in [Fate::Lost, Fate::Done, Fate::Some, Fate::Sectors, Fate::Cut] {
            let image = after_crash(&synced, &ops[sync..crash], fate, &mut random);
            let store =
                RaftStore::open(Disk::of(&image)).unwrap_or_else(|e| panic!("crash {crash}, {fate:?}: {e}"));
            assert_eq!(view(&store).unwrap(), model, "crash {crash}, {fate:?}");
        }
    }
}
