//! What the seeds really contained.
// One line says what several of them are.
#![allow(missing_docs)]

use crate::sim::tally::counts;

counts! {
    /// Seconds of virtual time.
    virtual_seconds: 3_500,
    /// Packets that hosts sent, and of those what they sent again.
    packets: 1_500_000,
    repetitions: 100_000,
    /// Packets that a node forwarded, and that it dropped.
    forwarded: 1_500_000,
    packets_dropped: 25_000,
    /// Packets that were led to a node that did not run.
    packets_to_the_dead: 40_000,
    /// Segments of live connections that were refused in calm, because what they answer took another node.
    out_of_window: 0,
    /// Sessions that were set up.
    sessions: 200_000,
    /// Ends of sessions and copies, and of those by age.
    ends: 150_000,
    aged: 150_000,
    /// The most sessions on one node, summed over seeds.
    most_sessions: 50_000,
    /// Connections that were opened again with the same ports, and that were reset by a host.
    reopened: 15_000,
    resets: 850,
    /// Connections that failed in troubled times.
    failures: 1_000,
    /// Changes of the packets' ways.
    moves: 3_500,
    /// Nodes that were started, that crashed, and that stood still for a while.
    starts: 700,
    crashes: 350,
    freezes: 250,
    /// Cuts of the network, both ways and one way; times of bad weather.
    cuts: 300,
    one_way_cuts: 300,
    storms: 250,
    /// Policy revisions, and of those such that deny live sessions.
    policies: 200,
    denials: 100,
    /// Times when very many flows began at once.
    floods: 150,
    /// Datagrams between nodes that were lost, doubled or spoilt.
    datagrams_lost: 85_000,
    datagrams_twice: 35_000,
    datagrams_spoilt: 5_500,
    /// Links between nodes; batches that they carried, and bytes.
    links: 1_000,
    batches: 1_500_000,
    batch_bytes: 300_000_000,
    /// Times when a worker's ring stayed full.
    rings_full: 40_000,
    /// Ends that no younger copy undoes, and of those by an operator.
    final_ends: 25_000,
    cleared: 1_500,
    /// Sessions that were seen without an owner for a moment.
    orphans: 35_000,
    /// Sessions that were compared between nodes.
    sessions_compared: 25_000,
}
