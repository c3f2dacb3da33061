//! What the seeds really contained.
// One line says what several of them are.
#![allow(missing_docs)]

use crate::sim::tally::counts;

counts! {
    /// Seconds of virtual time.
    virtual_seconds: 1,
    /// Packets that hosts sent, and of those what they sent again.
    packets: 1,
    repetitions: 1,
    /// Packets that a node forwarded, and that it dropped.
    forwarded: 1,
    packets_dropped: 1,
    /// Packets that were led to a node that did not run.
    packets_to_the_dead: 1,
    /// Segments of live connections that were refused in calm, because what they answer took another node.
    out_of_window: 0,
    /// Sessions that were set up.
    sessions: 1,
    /// Ends of sessions and copies, and of those by age.
    ends: 1,
    aged: 1,
    /// The most sessions on one node, summed over seeds.
    most_sessions: 1,
    /// Connections that were opened again with the same ports, and that were reset by a host.
    reopened: 1,
    resets: 1,
    /// Connections that failed in troubled times.
    failures: 1,
    /// Changes of the packets' ways.
    moves: 1,
    /// Nodes that were started, that crashed, and that stood still for a while.
    starts: 1,
    crashes: 1,
    freezes: 1,
    /// Cuts of the network, both ways and one way; times of bad weather.
    cuts: 1,
    one_way_cuts: 1,
    storms: 1,
    /// Policy revisions, and of those such that deny live sessions.
    policies: 1,
    denials: 1,
    /// Times when very many flows began at once.
    floods: 1,
    /// Datagrams between nodes that were lost, doubled or spoilt.
    datagrams_lost: 1,
    datagrams_twice: 1,
    datagrams_spoilt: 1,
    /// Links between nodes; batches that they carried, and bytes.
    links: 1,
    batches: 1,
    batch_bytes: 1,
    /// Times when a worker's ring stayed full.
    rings_full: 1,
    /// Ends that no younger copy undoes, and of those by an operator.
    final_ends: 1,
    cleared: 1,
    /// Sessions that were seen without an owner for a moment.
    orphans: 1,
    /// Sessions that were compared between nodes.
    sessions_compared: 1,
}
