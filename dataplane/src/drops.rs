//! Why a packet was not forwarded: every reason, each with a counter. `tidegate drops` prints them.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped. One packet, one reason, one count.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The stable name that the CLI, JSON and metrics print.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for an operator.
            pub fn describe(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than its Ethernet header.
    EthernetTruncated = "ethernet_truncated",
    /// The frame is no unicast frame for this port (its destination MAC is a group or somebody else's).
    NotForUs = "not_for_us",
    /// The EtherType is neither IPv4 nor IPv6 nor a VLAN tag.
    UnknownEtherType = "unknown_ethertype",
    /// A VLAN tag is cut short, or more than two are stacked.
    VlanMalformed = "vlan_malformed",
    /// The frame carries a VLAN tag (802.1Q or QinQ); tagged transit is not forwarded.
    VlanTransit = "vlan_transit",
    /// The IPv4 header is cut short, its lengths contradict each other, or its version is wrong.
    Ipv4Malformed = "ipv4_malformed",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// An IPv4 option is malformed.
    Ipv4Options = "ipv4_options",
    /// An IPv4 source route option (RFC 7126) is refused.
    Ipv4SourceRoute = "ipv4_source_route",
    /// The IPv6 header is cut short, its lengths contradict each other, or its version is wrong.
    Ipv6Malformed = "ipv6_malformed",
    /// An IPv6 extension header is malformed, out of place, or there are more than eight.
    Ipv6Extensions = "ipv6_extensions",
    /// An IPv6 routing header of type 0 (RFC 5095), or one with segments left, is refused.
    Ipv6RoutingHeader = "ipv6_routing_header",
    /// A source or destination address that no transit packet may have (RFC 1812, RFC 6890).
    Martian = "martian",
    /// The fragment offset, length or flags contradict each other.
    FragmentMalformed = "fragment_malformed",
    /// The first fragment does not hold the whole upper-layer header.
    FragmentTiny = "fragment_tiny",
    /// A fragment that overlaps another of its datagram, and every later one of that datagram (RFC 5722).
    FragmentOverlap = "fragment_overlap",
    /// A fragment that contradicts others of its datagram (two ends, bytes beyond the end, another protocol), and every later one of that datagram.
    FragmentInconsistent = "fragment_inconsistent",
    /// A fragment that repeats one of its datagram exactly.
    FragmentDuplicate = "fragment_duplicate",
    /// Too many fragments of one datagram, or of all, already wait for a first fragment.
    FragmentQueueFull = "fragment_queue_full",
    /// The first fragment did not come within the time that others wait for it (`fragments.timeout_ms`).
    FragmentTimeout = "fragment_timeout",
    /// A fragment that waited while its datagram had to make room for newer ones (`fragments.datagrams`).
    FragmentEvicted = "fragment_evicted",
    /// A later fragment of a datagram whose first one was not forwarded.
    FragmentUntracked = "fragment_untracked",
    /// The TCP header is cut short or its data offset is wrong.
    TcpMalformed = "tcp_malformed",
    /// A combination of TCP flags that no stack sends (SYN with FIN or RST, FIN with RST, neither SYN, RST nor ACK).
    TcpFlags = "tcp_flags",
    /// The UDP header is cut short or its length is wrong.
    UdpMalformed = "udp_malformed",
    /// The SCTP header is cut short or a chunk is malformed.
    SctpMalformed = "sctp_malformed",
    /// The ICMP message is cut short.
    IcmpMalformed = "icmp_malformed",
    /// The GRE or ESP header is cut short or of an unknown version.
    TunnelMalformed = "tunnel_malformed",
    /// The upper-layer checksum is wrong.
    L4Checksum = "l4_checksum",
    /// Source and destination are the same address and port.
    Land = "land",
    /// The packet is for one of this node's own addresses; the kernel answers those.
    ForThisNode = "for_this_node",
    /// The port that it came in by belongs to no zone.
    NoZone = "no_zone",
    /// A session has this tuple, but bound to another ingress zone (J1).
    ZoneMismatch = "zone_mismatch",
    /// No route leads to the destination.
    NoRoute = "no_route",
    /// The route is a blackhole, unreachable or prohibit route.
    RouteRefused = "route_refused",
    /// The egress port is down.
    PortDown = "port_down",
    /// The next hop did not answer the neighbour request in time.
    NeighbourUnresolved = "neighbour_unresolved",
    /// Too many packets already wait for neighbours.
    NeighbourQueueFull = "neighbour_queue_full",
    /// The TTL or hop limit ran out.
    TtlExpired = "ttl_expired",
    /// Larger than the MTU of the egress port and must not be fragmented.
    TooBig = "too_big",
    /// Denied by a rule.
    PolicyDeny = "policy_deny",
    /// Rejected by a rule; the sender was told.
    PolicyReject = "policy_reject",
    /// No rule matched; the default is deny.
    PolicyDefault = "policy_default",
    /// The session was permitted once and the policy in force denies it now.
    PolicyRevoked = "policy_revoked",
    /// A TCP packet that starts no session and belongs to none (J7 `tcp.syn_check`).
    TcpNoSession = "tcp_no_session",
    /// A TCP segment outside the window of its connection (J7 `tcp.sequence_check`).
    TcpOutOfWindow = "tcp_out_of_window",
    /// A RST outside the window of its connection (J7 `tcp.rst_sequence_check`).
    TcpRstOutOfWindow = "tcp_rst_out_of_window",
    /// Payload before the TCP handshake was done (J7 `tcp.strict_syn_check`).
    TcpEarlyData = "tcp_early_data",
    /// An ICMP error that is about no session of ours, or contradicts it.
    IcmpErrorUnmatched = "icmp_error_unmatched",
    /// An ICMP reply without its query.
    IcmpReplyUnmatched = "icmp_reply_unmatched",
    /// The session table is full (J14).
    TableFull = "table_full",
    /// No peer acknowledged the new session in time, and policy drops its packets then (`replication.setup_ack`), or it ended while they waited.
    SetupUnacknowledged = "setup_unacknowledged",
    /// Too many packets already wait for peers to hold a session (`replication.setup_ack`).
    SetupQueueFull = "setup_queue_full",
    /// The ring to the worker that owns the flow is full.
    HandoverFull = "handover_full",
    /// The transmit ring of the egress port is full, or the port has no transmit queue.
    TransmitFull = "transmit_full",
    /// No policy is loaded.
    NoPolicy = "no_policy",
}

/// How many reasons there are.
pub const DROP_REASONS: usize = DropReason::ALL.len();

/// One counter for each reason. Plain numbers: each worker has its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounters([u64; DROP_REASONS]);

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters([0; DROP_REASONS])
    }
}

impl DropCounters {
    /// Counts one packet.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many packets were dropped for that reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &DropCounters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.get(*r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_in_order() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
            assert!(r.describe().trim().ends_with('.'));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DROP_REASONS);
    }
}
