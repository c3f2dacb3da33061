use super::*;

const ME: Boot = Boot { node: 1, boot: 10 };
const B: Boot = Boot { node: 2, boot: 20 };
const C: Boot = Boot { node: 3, boot: 30 };

#[test]
fn every_state_and_input() {
    // The table of the module's head, cell by cell. Any other state in a cell is red.
    use Input::{Good, Hung as NotRunning, NotHeard, Reborn, Silence};
    use State::{Alive, Hung, OneWay, Silent, Unknown};
    let inputs = [Good, NotHeard, NotRunning, Silence, Reborn];
    let table = [
        (Unknown, [Alive, OneWay, Hung, Unknown, Unknown]),
        (OneWay, [Alive, OneWay, Hung, Silent, Unknown]),
        (Hung, [Alive, OneWay, Hung, Silent, Unknown]),
        (Alive, [Alive, OneWay, Hung, Silent, Unknown]),
        (Silent, [Alive, OneWay, Hung, Silent, Unknown]),
    ];
    for (state, row) in table {
        for (input, expected) in inputs.into_iter().zip(row) {
            assert_eq!(next(state, input), expected, "{state:?} and {input:?}");
        }
    }
}

fn heard(it: Boot, age_ms: u16, mutual: bool) -> Heard {
    Heard { it, age_ms, in_sync: true, mutual }
}

fn beat(from: Boot, list: &[Heard]) -> Heartbeat {
    Heartbeat {
        from,
        in_sync: true,
        workers_ok: true,
        owned: 0,
        used: 0,
        capacity: 0,
        view: 0,
        heard: list.iter().copied().collect(),
    }
}

fn detector() -> Detector {
    Detector::new(ME, DetectConfig { interval_ms: 20, misses: 5 })
}

fn alive(d: &Detector, now: u64) -> Vec<(u16, u32, bool)> {
    d.alive(Now(now)).iter().map(|l| (l.it.node, l.it.boot, l.direct)).collect()
}

#[test]
fn alive_is_who_hears_me_and_runs_until_the_last_miss() {
    let mut d = detector();
    let mutual = beat(B, &[heard(ME, 3, false)]);
    d.heard(&beat(B, &[]), Now(1_000));
    assert_eq!(alive(&d, 1_000), [], "it does not hear me");
    assert_eq!(d.hearing(Now(1_004)).as_slice(), [Heard { mutual: false, ..heard(B, 4, false) }]);
    d.heard(&mutual, Now(1_010));
    assert_eq!(alive(&d, 1_010), [(2, 20, true)]);
    d.tick(Now(1_109));
    assert_eq!(alive(&d, 1_109), [(2, 20, true)], "99 ms of silence are no death");
    d.tick(Now(1_110));
    assert_eq!(alive(&d, 1_110), [], "100 ms are one");
    assert!(d.hearing(Now(1_110)).is_empty());
    d.heard(&mutual, Now(1_200));
    assert_eq!(alive(&d, 1_200), [(2, 20, true)], "back");
    d.heard(&Heartbeat { workers_ok: false, ..mutual.clone() }, Now(1_210));
    assert_eq!(alive(&d, 1_210), [], "its workers hang");
    assert!(d.hearing(Now(1_210)).is_empty(), "so nobody vouches for it");
    // It hears another boot of this node: not this one.
    d.heard(&beat(B, &[heard(Boot { boot: 9, ..ME }, 0, true)]), Now(1_220));
    assert_eq!(alive(&d, 1_220), []);
}

#[test]
fn a_new_boot_ends_the_old_one_and_an_old_one_nothing() {
    let mut d = detector();
    d.heard(&beat(B, &[heard(ME, 0, true)]), Now(10));
    let reborn = Boot { boot: 21, ..B };
    d.is_present(reborn);
    assert_eq!(alive(&d, 10), [], "a handshake of the new boot proves the death of the old one");
    d.heard(&beat(B, &[heard(ME, 0, true)]), Now(20));
    assert_eq!((alive(&d, 20), d.outdated()), (vec![], 1));
    d.heard(&beat(reborn, &[heard(ME, 0, true)]), Now(30));
    assert_eq!(alive(&d, 30), [(2, 21, true)]);
}

#[test]
fn a_third_node_vouches_for_what_it_heard_itself_and_no_longer_than_that() {
    let mut d = detector();
    let vouching = |list: &[Heard]| {
        let mut all = vec![heard(ME, 0, true)];
        all.extend(list);
        beat(B, &all)
    };
    d.heard(&vouching(&[heard(C, 40, true)]), Now(1_000));
    assert_eq!(alive(&d, 1_000), [(2, 20, true), (3, 30, false)]);
    d.heard(&vouching(&[heard(C, 60, true)]), Now(1_020));
    assert_eq!(alive(&d, 1_059).len(), 2, "99 ms old");
    assert_eq!(alive(&d, 1_060).len(), 1, "100 ms old: no rumour outlives a detection time");
    // What B hears is not mutual: C does not hear B.
    d.heard(&vouching(&[heard(C, 0, false)]), Now(1_060));
    assert_eq!(alive(&d, 1_060).len(), 1);
    // C itself says that its workers hang: nobody's word helps. It says that it does not hear me: B's word does.
    d.heard(&vouching(&[heard(C, 0, true)]), Now(1_070));
    d.heard(&Heartbeat { workers_ok: false, ..beat(C, &[]) }, Now(1_071));
    assert_eq!(alive(&d, 1_071).len(), 1);
    d.heard(&beat(C, &[heard(B, 0, true)]), Now(1_072));
    assert_eq!(alive(&d, 1_072), [(2, 20, true), (3, 30, false)]);
    // Of another boot of C only C can tell.
    d.heard(&vouching(&[heard(Boot { boot: 99, ..C }, 0, true)]), Now(1_080));
    assert_eq!(alive(&d, 1_080).len(), 1);
    // A node that does not hear me is no witness.
    d.heard(&beat(B, &[heard(C, 0, true)]), Now(1_090));
    assert_eq!(alive(&d, 1_090), []);
}
