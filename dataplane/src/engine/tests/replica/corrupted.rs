//! What `session verify` finds when one field of one session is false.

use super::*;

#[test]
fn each_falsified_field_is_found_and_named_and_nothing_else_is() {
    // Red when a field that must agree is not part of the digest, or a bucket's list shows another.
    let names = ["from_zone", "to_zone", "first.facts", "reply.facts", "first.mss", "reply.mss"];
    for name in names.into_iter().chain(["first.scale", "reply.scale", "supersedes"]) {
        let mut c = Cluster::new(2);
        c.of(1).connect(4000, 80);
        c.of(1).connect(4001, 80);
        c.talk();
        let sums = |lab: &Lab| {
            let mut sums = VerifySums::default();
            lab.engine.verify_sums(0, u32::MAX, lab.now, &|zone| u64::from(zone.0), &mut sums);
            sums
        };
        assert_eq!(sums(&c.nodes[0]), sums(&c.nodes[1]));
        let id = c.of(1).sessions()[1].id;
        assert!(c.of(2).engine.corrupt(id, Corruption::named(name).unwrap()));
        let (one, two) = (sums(&c.nodes[0]), sums(&c.nodes[1]));
        assert_eq!(one.differing(&two).count(), 1, "{name}");
        let fields = c.fields();
        let list = |f: &SessionFields| f.list(&|zone| zone.0.to_string());
        let differing: Vec<_> = (fields[0].iter().zip(&fields[1]))
            .flat_map(|(a, b)| list(a).into_iter().zip(list(b)).filter(|(a, b)| a != b).collect::<Vec<_>>())
            .map(|(a, _)| (a.0, id))
            .collect();
        assert_eq!(differing, [(name, id)]);
    }
}
