//! Flipped bits and truncated files: refused, or read exactly as written.

use super::disk::Disk;
use super::*;
use std::sync::mpsc;
use std::time::Duration;

/// A life's store as a crash leaves it, and as an orderly end does; and what is in it. Without an
/// unsynced commit index at its end, so that nothing may be read otherwise.
fn images() -> (Vec<Vec<u8>>, View) {
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    let mut model = View::default();
    let fill =
        [Call::Compact(snapshot(250, 6, 700_000)), append(entries(296..=330, 8, 9_000), hard(8, 1, 290))];
    for call in life().into_iter().chain(fill) {
        call.make(&mut store).unwrap();
        call.tell(&mut model);
    }
    let crashed = disk.image();
    store.close().unwrap();
    (vec![crashed, disk.image()], model)
}

#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    unharmed: usize,
}

/// Opens each image that `damage` makes, on a thread of its own, so that a hang is seen as one.
fn open_all(
    model: &View,
    count: usize,
    mut damage: impl FnMut(usize) -> (String, Vec<u8>) + Send + 'static,
) -> Tally {
    let (told, opened) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for number in 0..count {
            let (what, image) = damage(number);
            let disk = Disk::of(&image);
            let seen = RaftStore::open(disk.clone()).map(|mut store| {
                let seen = view(&store);
                // What was opened must also be fit to go on with.
                let next = hard(9, 2, 290);
                append(entries(331..=340, 9, 500), next).make(&mut store).unwrap();
                store.abandon();
                (seen, view(&RaftStore::open(disk).unwrap()))
            });
            told.send((what, seen)).unwrap();
        }
    });
    let mut after = model.clone();
    append(entries(331..=340, 9, 500), hard(9, 2, 290)).tell(&mut after);
    let mut tally = Tally::default();
    for number in 0..count {
        match opened.recv_timeout(Duration::from_secs(60)) {
            Ok((what, Ok((seen, later)))) => {
                assert!(seen.as_ref().is_ok_and(|seen| seen == model), "{what}: read otherwise");
                assert!(later.is_ok_and(|later| later == after), "{what}: later read otherwise");
                tally.unharmed += 1;
            }
            Ok((_, Err(StoreError::Corrupt(_)))) => tally.refused += 1,
            Ok((what, Err(error))) => panic!("{what}: {error}"),
            Err(error) => panic!("image {number} hangs or panics: {error}"),
        }
    }
    worker.join().unwrap();
    tally
}

fn flip(image: &[u8], bit: usize) -> (String, Vec<u8>) {
    let mut image = image.to_vec();
    image[bit / 8] ^= 1 << (bit % 8);
    (format!("bit {} of byte {}", bit % 8, bit / 8), image)
}

#[test]
fn every_bit_of_the_headers() {
    // Red without our header's checksum, and without the mark: redb goes back a transaction when a commit
    // slot is damaged.
    let (images, model) = images();
    for image in images {
        let ours = (0..40).chain(508..548).chain(1_020..1_060);
        let bits: Vec<usize> =
            ours.chain(4_096..4_096 + 330).flat_map(|byte| byte * 8..byte * 8 + 8).collect();
        let tally = open_all(&model, bits.len(), move |number| flip(&image, bits[number]));
        assert!(tally.refused > 1_000 && tally.unharmed > 100, "{tally:?}");
    }
}

#[test]
fn bits_all_over_the_file() {
    // Red without the mark, and without both redb's check on opening and our checksums: either suffices
    // for a single bit, redb reads changed bytes as they are.
    const FLIPS: usize = 3_000;
    let (images, model) = images();
    for (image, seed) in images.into_iter().zip([11, 12]) {
        let used: Vec<usize> = image
            .chunks(4_096)
            .enumerate()
            .filter(|(_, p)| p.iter().any(|b| *b != 0))
            .map(|(number, _)| number * 4_096)
            .collect();
        let mut random = Random(seed);
        let tally = open_all(&model, FLIPS, move |_| {
            let page = used[random.below(used.len())];
            flip(&image, (page + random.below(4_096)) * 8 + random.below(8))
        });
        assert!(tally.refused > FLIPS / 4 && tally.unharmed > 0, "{tally:?}");
    }
}

#[test]
fn many_bytes_at_once() {
    // Zeroed or noisy stretches of 1 byte to 64 KiB, as bad media leave them.
    const DAMAGES: usize = 600;
    let (images, model) = images();
    for (image, seed) in images.into_iter().zip([21, 22]) {
        let mut random = Random(seed);
        let tally = open_all(&model, DAMAGES, move |_| {
            let mut image = image.clone();
            let from = random.below(image.len());
            let to = (from + (1 << random.below(17))).min(image.len());
            let noise = random.below(2) == 0;
            image[from..to].iter_mut().for_each(|b| *b = if noise { random.next() as u8 } else { 0 });
            (format!("bytes {from}..{to}, noise {noise}"), image)
        });
        assert!(tally.refused > DAMAGES / 5, "{tally:?}");
    }
}

#[test]
fn every_kind_of_truncation() {
    // Red when a file that ends after our header is taken for a new store.
    let (images, model) = images();
    for image in images {
        let mut lengths: Vec<usize> = (0..4_096 + 400).step_by(37).collect();
        lengths.extend((0..image.len()).step_by(4_096));
        lengths.extend((0..image.len()).step_by(10_007));
        lengths.extend([image.len() - 1, 4_095, 4_096, 4_097, 8_192]);
        let tally = open_all(&model, lengths.len(), move |number| {
            let length = lengths[number];
            (format!("cut to {length}"), image[..length].to_vec())
        });
        // What is cut off may have been empty.
        assert!(tally.refused > 500 && tally.unharmed < 10, "{tally:?}");
    }
}

#[test]
fn an_older_copy_of_redbs_part_is_noticed() {
    // The mark is one ahead of the state record. Red when it is not compared.
    let disk = Disk::default();
    let mut store = RaftStore::create(disk.clone(), ID).unwrap();
    let life = life();
    life[..8].iter().for_each(|call| call.make(&mut store).unwrap());
    let old = disk.image();
    life[8].make(&mut store).unwrap();
    store.abandon();
    let mixed = [&disk.image()[..4_096], &old[4_096..]].concat();
    let error = RaftStore::open(Disk::of(&mixed)).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("finished 7")), "{error}");
}

#[test]
fn damage_while_it_is_open_is_noticed_when_it_is_read() {
    // Red when reads trust redb: it hands out, or panics on, what rotted under it.
    let (images, model) = images();
    let (mut random, mut noticed) = (Random(31), 0);
    for _ in 0..300 {
        let disk = Disk::of(&images[0]);
        let store = RaftStore::open_with_cache(disk.clone(), 0).unwrap();
        let at = 12_288 + random.below(images[0].len() - 12_288 - 64);
        redb::StorageBackend::write(&disk, at as u64, &[0x5A; 64]).unwrap();
        match view(&store) {
            Ok(seen) => assert_eq!(seen, model),
            Err(error) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                noticed += 1;
                // It stays failed.
                assert!(view(&store).is_err());
            }
        }
    }
    assert!(noticed > 10, "only {noticed} of 300 were noticed");
}
