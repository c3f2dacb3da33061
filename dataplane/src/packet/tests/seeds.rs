//! The seeds of the fuzz target are the packets of these tests.

use super::builder::*;
use super::zoo;
use crate::addr::proto;
use std::path::PathBuf;

/// How the target treats a seed, in its first byte: checksums and lengths made right (bits 1 and 2), so
/// that what it mutates gets far; or as it is, on a port with partial checksums (bit 0).
const REPAIRED: u8 = 0b0110;
const AS_IT_IS: u8 = 0b1001;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut frames = zoo();
    let later = Ip { fragment: 0x2040, extra: vec![136, 4, 1, 2], ..Ip::new(v4(), proto::UDP) };
    frames.push(("v4 fragment".into(), later.frame(&[5; 80])));
    let extra = fragment_header(proto::TCP, 0, true).to_vec();
    let first = Ip { extra, ..Ip::new(v6(), 44) };
    frames.push(("v6 fragment".into(), first.frame(&tcp(v6(), 0x10, &[], b"1234", Sum::Right))));
    let tagged = [&[0, 5, 0x81, 0, 0, 6, 8, 0][..], &udp_frame(v4(), b"tagged")[14..]].concat();
    frames.push(("qinq".into(), ether(0x88a8, &tagged)));
    let partial = Ip::new(v4(), proto::TCP).frame(&tcp(v4(), 0x18, &[], b"data", Sum::Partial));
    let seed = |how: u8, frame: Vec<u8>| [vec![how], frame].concat();
    let mut seeds: Vec<_> =
        frames.into_iter().map(|(name, frame)| (name.replace(' ', "_"), seed(REPAIRED, frame))).collect();
    seeds.push(("v4_partial".into(), seed(AS_IT_IS, partial)));
    seeds
}

/// Red when a packet here has no seed, or another one than the committed; run with
/// `TIDEGATE_WRITE_SEEDS=1` to write them.
#[test]
fn the_committed_fuzz_seeds_are_these_packets() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../cluster-tests/fuzz/corpus/packet_parse");
    let write = std::env::var_os("TIDEGATE_WRITE_SEEDS").is_some();
    if write {
        std::fs::create_dir_all(&dir).unwrap();
    }
    for (name, seed) in seeds() {
        let file = dir.join(&name);
        if write {
            std::fs::write(&file, &seed).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap_or_default(), seed, "{}", file.display());
    }
}
