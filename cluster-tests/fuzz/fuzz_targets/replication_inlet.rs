//! Hostile frames against the receiving end of replication: envelope, acknowledgements, batches.
//!
//! The first byte chooses: 0, a whole frame; 1, the body of an acknowledgement; otherwise the items of a batch, whose
//! number is right. What passes must be what the parser would have let through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;
use tidegate_sync::replication::message::open;
use tidegate_sync::replication::{Back, Inlet, InletConfig, Item, PeerNames};

const UP_AT: Now = Now(3_600_000);

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    match how {
        0 => drop(open(rest)),
        1 => {
            if let Ok(back) = Back::read(rest) {
                let frame = back.frame();
                let (_, body) = open(&frame).expect("it was written here");
                assert_eq!(Back::read(body).expect("it was written here"), back);
            }
        }
        _ => batch(rest),
    }
});

fn batch(items: &[u8]) {
    let config = InletConfig {
        teller: Boot { node: 2, boot: 200 },
        me: Boot { node: 1, boot: 100 },
        stream: 0,
        shards: 3,
        uptime_ms: 86_400_000,
        up_at: UP_AT,
        records_per_s_max: 1_000,
    };
    let (mut names, mut learned) = (Names::default(), 0);
    let mut table = PeerNames { names: &mut names, learned: &mut learned };
    let shard_of = |tuple: &Tuple| tuple.src_port % 3;
    let body = [&1_u64.to_le_bytes()[..], items].concat();
    let Ok(decoded) = Inlet::new(config).read(&body, UP_AT, &mut table, &shard_of) else { return };
    assert_eq!(decoded.shards.len(), 3);
    let records = decoded.records;
    let mut taken = 0;
    for (shard, item) in
        decoded.shards.iter().enumerate().flat_map(|(n, part)| part.iter().map(move |i| (n, i)))
    {
        let tuples: Vec<Tuple> = match item {
            Item::Copy(copy) => {
                assert!(copy.facts.iter().all(|wing| wing.scale_plus_1 <= 15 && wing.bits < 128));
                assert!(
                    copy.packets
                        .iter()
                        .zip(copy.bytes)
                        .all(|(packets, bytes)| (*packets == 0) == (bytes == 0))
                );
                vec![copy.birth.tuple]
            }
            Item::End(end) => vec![end.tuple],
            Item::Ask { questions, .. } => questions.iter().map(|question| question.tuple).collect(),
            _ => Vec::new(),
        };
        taken += tuples.len() as u64;
        for tuple in tuples {
            assert_eq!(usize::from(shard_of(&tuple)), shard);
            assert_eq!(tuple.src.is_v4(), tuple.dst.is_v4());
        }
    }
    assert_eq!(taken + decoded.refused_total(), records.copies + records.ends + records.questions);
}
