// SPDX-License-Identifier: Apache-2.0
//
// The second wall of "fail closed": decides, before the kernel's stack sees a frame, whether it is
// for this node (kernel) or in transit (AF_XDP, or nowhere).
//
// The program is attached through netlink, so it outlives the process. A socket that goes away
// with its process leaves `xsks_map` by itself; from then on the redirect below finds no socket
// and the frame is dropped, while ARP, neighbour discovery and the node's own addresses go on.
//
// Whatever is passed to the kernel must be of a kind that the kernel does not forward, even with
// its forwarding switched on by hand: an address of this node, or a link-local scope.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 64
#define LOCAL_MAX 1024
#define DHCP_CLIENT 68

// The order of `Counter` in src/program.rs.
enum counter {
	PASS_LOCAL,
	PASS_ARP,
	PASS_LINK_LOCAL,
	PASS_LINK_CONTROL,
	DROP_NO_SOCKET,
	COUNTERS,
};

struct address6 {
	__u32 word[4];
};

// Looked up by this name when a socket is created: do not rename.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LOCAL_MAX);
	__type(key, __u32);
	__type(value, __u8);
} local_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LOCAL_MAX);
	__type(key, struct address6);
	__type(value, __u8);
} local_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += 1;
}

static __always_inline int pass(__u32 which)
{
	count(which);
	return XDP_PASS;
}

// Transit, and everything that the engine counts as a drop of its own reason.
static __always_inline int to_socket(struct xdp_md *ctx)
{
	long action = bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_DROP);

	if (action != XDP_REDIRECT)
		count(DROP_NO_SOCKET);
	return action;
}

static __always_inline int ipv4(struct xdp_md *ctx, struct iphdr *ip, void *end)
{
	__u32 destination;

	if ((void *)(ip + 1) > end)
		return to_socket(ctx);
	destination = ip->daddr;
	if (bpf_map_lookup_elem(&local_v4, &destination))
		return pass(PASS_LOCAL);
	// 224.0.0.0/24: local network control (RFC 5771 section 4), never forwarded.
	if ((destination & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000))
		return pass(PASS_LINK_LOCAL);
	// An answer of a DHCP server to a client on this node; other broadcasts are not for us.
	if (destination == bpf_htonl(0xffffffff) && ip->protocol == 17 && ip->ihl == 5) {
		struct udphdr *udp = (void *)(ip + 1);

		if ((void *)(udp + 1) <= end && udp->dest == bpf_htons(DHCP_CLIENT))
			return pass(PASS_LINK_LOCAL);
	}
	return to_socket(ctx);
}

static __always_inline int ipv6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	struct address6 destination;
	const __u8 *bytes = (const __u8 *)&destination;

	if ((void *)(ip + 1) > end)
		return to_socket(ctx);
	__builtin_memcpy(&destination, &ip->daddr, sizeof(destination));
	// Link-local scope, multicast (ff02::/16, flags aside) or unicast (fe80::/10): neighbour
	// discovery, listener reports, DHCPv6. A router forwards neither (RFC 4291 section 2.5.6).
	// Neighbour discovery to a global address is for one of ours, or not for us.
	if ((bytes[0] == 0xff && (bytes[1] & 0x0f) == 0x02) ||
	    (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80))
		return pass(PASS_LINK_LOCAL);
	if (bpf_map_lookup_elem(&local_v6, &destination))
		return pass(PASS_LOCAL);
	return to_socket(ctx);
}

SEC("xdp")
int tidegate_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return to_socket(ctx);
	// 01:80:c2:00:00:00 to 0f: LLDP, LACP, spanning tree (IEEE 802.1Q table 8-1), never bridged.
	if (eth->h_dest[0] == 0x01 && eth->h_dest[1] == 0x80 && eth->h_dest[2] == 0xc2 &&
	    eth->h_dest[3] == 0 && eth->h_dest[4] == 0 && eth->h_dest[5] <= 0x0f)
		return pass(PASS_LINK_CONTROL);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_ARP):
		return pass(PASS_ARP);
	case bpf_htons(ETH_P_IP):
		return ipv4(ctx, (struct iphdr *)(eth + 1), end);
	case bpf_htons(ETH_P_IPV6):
		return ipv6(ctx, (struct ipv6hdr *)(eth + 1), end);
	default:
		return to_socket(ctx);
	}
}

char _license[] SEC("license") = "Apache-2.0";
