// SPDX-License-Identifier: Apache-2.0
//
// Generator and sink of the benches.
//
// `generate` runs under BPF_PROG_TEST_RUN with live frames: every run rewrites the whole frame, since
// pages are recycled with whatever the receiver made of them (a TTL that decays to zero fakes a slow
// peer), and sends it out of the interface it was told. Flow numbers go round; each flow is one UDP
// tuple with correct checksums. `sink` counts and drops what carries our mark, in all and for a
// sample of flows. `pass` makes the receiving end of a veth pair take live frames for the kernel.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MARK 0x5467656e
#define SAMPLES 1024
// Flows that share a source address differ in their source port.
#define PORT_BITS 14
#define FIRST_PORT 1024
// What a paced generator is late beyond this, it leaves out.
#define LATE_MAX_NS 1000000

const volatile __u32 CLIENT_BASE = 0;
const volatile __u32 SERVER = 0;
const volatile __u32 SERVER_PORT = 0;
const volatile __u32 FLOWS = 1;
const volatile __u32 SAMPLE_EVERY = 1;
const volatile __u32 REVERSE = 0;
// Time between two frames, or 0: as fast as can be.
const volatile __u64 GAP_NS = 0;
const volatile __u32 IFINDEX = 0;
const volatile __u64 DESTINATION_MAC = 0;
const volatile __u64 SOURCE_MAC = 0;

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 mark;
	__be32 flow;
	__u8 rest[10];
} __attribute__((packed));

_Static_assert(sizeof(struct frame) == 60, "the smallest Ethernet frame, without its check sequence");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} frames SEC(".maps");

// One generator runs on one CPU at a time, though not always on the same.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} next_frame SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} due_ns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SAMPLES);
	__type(key, __u32);
	__type(value, __u64);
} samples SEC(".maps");

static __always_inline void set_mac(__u8 *to, __u64 mac)
{
	for (int i = 0; i < 6; i++)
		to[i] = mac >> (8 * (5 - i));
}

static __always_inline __u32 halves(__u32 word)
{
	return (word >> 16) + (word & 0xffff);
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = halves(sum);
	return ~halves(sum);
}

// Waits until the next frame is due.
static __always_inline void wait_due(__u64 *due)
{
	__u64 now = bpf_ktime_get_ns();

	if (*due + LATE_MAX_NS < now)
		*due = now - LATE_MAX_NS;
	for (int i = 0; i < 4096 && bpf_ktime_get_ns() < *due; i++)
		;
	*due += GAP_NS;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0, number, client, client_port, source, destination, source_port, destination_port;
	__u64 *next, *due;
	__u32 addresses;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	next = bpf_map_lookup_elem(&next_frame, &zero);
	due = bpf_map_lookup_elem(&due_ns, &zero);
	if (!next || !due)
		return XDP_ABORTED;
	if (GAP_NS)
		wait_due(due);
	number = *next % FLOWS;
	*next += 1;
	client = CLIENT_BASE + (number >> PORT_BITS);
	client_port = FIRST_PORT + (number & ((1 << PORT_BITS) - 1));
	source = REVERSE ? SERVER : client;
	destination = REVERSE ? client : SERVER;
	source_port = REVERSE ? SERVER_PORT : client_port;
	destination_port = REVERSE ? client_port : SERVER_PORT;
	addresses = halves(source) + halves(destination);

	set_mac(frame->eth.h_dest, DESTINATION_MAC);
	set_mac(frame->eth.h_source, SOURCE_MAC);
	frame->eth.h_proto = bpf_htons(ETH_P_IP);
	frame->ip.version = 4;
	frame->ip.ihl = 5;
	frame->ip.tos = 0;
	frame->ip.tot_len = bpf_htons(46);
	frame->ip.id = 0;
	frame->ip.frag_off = bpf_htons(0x4000);
	frame->ip.ttl = 64;
	frame->ip.protocol = 17;
	frame->ip.check = bpf_htons(fold(0x4500 + 46 + 0x4000 + (64 << 8 | 17) + addresses));
	frame->ip.saddr = bpf_htonl(source);
	frame->ip.daddr = bpf_htonl(destination);
	frame->udp.source = bpf_htons(source_port);
	frame->udp.dest = bpf_htons(destination_port);
	frame->udp.len = bpf_htons(26);
	frame->udp.check = bpf_htons(
		fold(addresses + 17 + 26 + 26 + source_port + destination_port + halves(MARK) + halves(number)));
	frame->mark = bpf_htonl(MARK);
	frame->flow = bpf_htonl(number);
	__builtin_memset(frame->rest, 0, sizeof(frame->rest));
	// A sum of zero is sent as all ones (RFC 768).
	if (!frame->udp.check)
		frame->udp.check = 0xffff;
	return bpf_redirect(IFINDEX, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0, number, slot;
	__u64 *count;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end || frame->mark != bpf_htonl(MARK) ||
	    frame->eth.h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	count = bpf_map_lookup_elem(&frames, &zero);
	if (count)
		*count += 1;
	number = bpf_ntohl(frame->flow);
	if (number % SAMPLE_EVERY == 0) {
		slot = number / SAMPLE_EVERY;
		count = bpf_map_lookup_elem(&samples, &slot);
		if (count)
			__sync_fetch_and_add(count, 1);
	}
	return XDP_DROP;
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
