//! Policies of any size, made from a seed: the same arguments give the same text.
//!
//! The shapes are those that firewalls grow into; in all of them prefixes overlap, and the last rule has no address
//! to narrow it, so that a flow of its application goes by all the others first.

use std::fmt::Write as _;

/// Application of the last rule: UDP to [`LAST_PORT`].
const LAST: &str = "last";
/// Destination port of the last rule's application; no other application holds it.
pub const LAST_PORT: u16 = 40_000;
/// Applications beside that one; number `n` is port [`FIRST_PORT`] plus `n` and the nine below it.
const APPLICATIONS: u32 = 200;
/// First destination port of the applications.
pub const FIRST_PORT: u16 = 1_000;

/// What the rules of a policy are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Sets, prefixes and `any` on both sides, a third each; services too.
    Mixed,
    /// A prefix of any length on both sides.
    Prefixes,
    /// A large address set on both sides.
    Sets,
    /// Any source, a narrow destination, a service.
    Servers,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 4] = [Shape::Mixed, Shape::Prefixes, Shape::Sets, Shape::Servers];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Mixed => "mixed",
            Shape::Prefixes => "prefixes",
            Shape::Sets => "sets",
            Shape::Servers => "servers",
        }
    }
}

/// A seeded sequence of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * u128::from(end)) >> 64) as u32
    }

    /// An IPv4 address of the space that policies are made for, 10.0.0.0/8.
    pub fn address(&mut self) -> u32 {
        10 << 24 | self.below(1 << 24)
    }
}

/// A policy from `outside` to `inside` with so many rules, the last of which permits UDP to [`LAST_PORT`] from and to
/// everywhere, and about so many prefixes in its address sets.
pub fn policy(shape: Shape, rules: u32, prefixes: u32, seed: u64) -> String {
    let mut draw = Draw::new(seed);
    let mut text = String::from("[[zone]]\nname = \"outside\"\n\n[[zone]]\nname = \"inside\"\n");
    let sets = (rules / 10).clamp(1, 1_000);
    for set in 0..sets {
        let list: Vec<_> = (0..(prefixes / sets).max(1)).map(|_| member(&mut draw)).collect();
        let _ = write!(text, "\n[[address_set]]\nname = \"set-{set}\"\nprefixes = {list:?}\n");
    }
    for application in 0..APPLICATIONS {
        let first = u32::from(FIRST_PORT) + application;
        let ports =
            if application % 4 == 0 { format!("\"{first}-{}\"", first + 9) } else { first.to_string() };
        let protocol = if application % 2 == 0 { "tcp" } else { "udp" };
        let _ = write!(
            text,
            "\n[[application]]\nname = \"app-{application}\"\n[[application.term]]\nprotocol = \"{protocol}\"\n\
             destination_port = {ports}\n"
        );
    }
    let _ = write!(
        text,
        "\n[[application]]\nname = \"{LAST}\"\n[[application.term]]\nprotocol = \"udp\"\ndestination_port = {LAST_PORT}\n"
    );
    for number in 0..rules - 1 {
        let [source, destination, application] = sides(shape, sets, &mut draw);
        let action = if draw.below(3) == 0 { "deny" } else { "permit" };
        rule(&mut text, &format!("rule-{number}"), [&source, &destination, &application], action);
    }
    rule(&mut text, "last", ["any", "any", LAST], "permit");
    text
}

/// Appends a rule from `outside` to `inside` with a source, a destination and an application.
pub fn rule(text: &mut String, name: &str, [source, destination, application]: [&str; 3], action: &str) {
    let _ = write!(
        text,
        "\n[[rule]]\nname = \"{name}\"\nfrom = \"outside\"\nto = \"inside\"\nsource = \"{source}\"\n\
         destination = \"{destination}\"\napplication = \"{application}\"\naction = \"{action}\"\n"
    );
}

/// Source, destination and application of a rule. Never all three are `any`.
fn sides(shape: Shape, sets: u32, draw: &mut Draw) -> [String; 3] {
    let application = |draw: &mut Draw| format!("app-{}", draw.below(APPLICATIONS));
    let set = |draw: &mut Draw| format!("set-{}", draw.below(sets));
    match shape {
        Shape::Mixed => {
            let mut side = || match draw.below(3) {
                0 => "any".to_owned(),
                1 => prefix(draw, 12, 32),
                _ => set(draw),
            };
            let (source, destination) = (side(), side());
            let open = source == "any" || destination == "any" || draw.below(3) > 0;
            let application = if open { application(draw) } else { "any".to_owned() };
            [source, destination, application]
        }
        Shape::Prefixes => [prefix(draw, 11, 32), prefix(draw, 11, 32), application(draw)],
        Shape::Sets => [set(draw), set(draw), application(draw)],
        Shape::Servers => ["any".to_owned(), prefix(draw, 20, 32), application(draw)],
    }
}

/// A prefix for an address set: hosts and small networks, one in fifty a large one around many others.
fn member(draw: &mut Draw) -> String {
    if draw.below(50) == 0 { prefix(draw, 16, 23) } else { prefix(draw, 24, 32) }
}

/// A random IPv4 prefix with a length from `shortest` to `longest`.
fn prefix(draw: &mut Draw, shortest: u32, longest: u32) -> String {
    let length = shortest + draw.below(longest - shortest + 1);
    let network = draw.address() & u32::MAX << (32 - length);
    format!("{}/{length}", std::net::Ipv4Addr::from(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when a policy has an error, a rule is lost, or a seed does not decide everything.
    #[test]
    fn policies_are_valid_and_a_seed_decides_them() {
        for shape in Shape::ALL {
            let text = policy(shape, 300, 3_000, 7);
            let report = tidegate_dataplane::policy::check(&text, "p");
            assert!(report.errors.is_empty(), "{:?}", report.errors);
            assert_eq!(report.file.map(|file| file.rules.len()), Some(300));
            assert_eq!(text, policy(shape, 300, 3_000, 7));
            assert_ne!(text, policy(shape, 300, 3_000, 8));
        }
    }
}
