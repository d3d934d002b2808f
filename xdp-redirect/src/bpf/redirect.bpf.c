/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The XDP program: decides for each frame whether a worker or the kernel gets it.
 *
 * A worker gets what belongs to a virtual service: (a) packets addressed to one, (b) replies of NAT real servers (and of
 * others, if the operator wants those watched), (c) ICMP errors about either, or about the director's own tunnels to real
 * servers, (d) later fragments of either, and IPsec whose key exchange is a service. The kernel gets everything else: ARP,
 * neighbour discovery, ssh, echo to the VIP, other ports of the VIP, and answers to the director's own sockets.
 *
 * Invariants: the frame is never written to and its head is never moved, since AF_XDP users compute addresses from it;
 * every frame is counted once; a frame goes to the socket of the queue it arrived on, because AF_XDP delivers to no
 * other. The quick tables (quick.h) only spare look-ups: without them every verdict would be the same. It keeps no state
 * of connections.
 */
#include "maps.h"
#include "parse.h"
#include "quick.h"
#include "ranges.h"

/* No helper used here is reserved to GPL programs, yet a dual licence keeps bpf_printk and friends usable for whoever
 * debugs this, and the kernel's own list of compatible licences knows this string. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Is the key, or its address with any port, in the map? */
static __always_inline bool has_key(void *map, const struct key *key)
{
	if (bpf_map_lookup_elem(map, key))
		return true;
	struct key any_port = *key;
	any_port.port = 0;
	return bpf_map_lookup_elem(map, &any_port);
}

/* Does the address carry keys of this kind (ADDRESS_*) for this protocol, whatever their ports? */
static __always_inline bool has_address(const struct key *key, __u32 kind)
{
	struct key any_port = *key;
	any_port.port = 0;
	__u32 *kinds = bpf_map_lookup_elem(&addresses, &any_port);
	return kinds && *kinds & kind;
}

/* Is this one end of a service's connections? `peer` is the other end, the client; `no_key`: it is known already that it
 * has no key. */
static __always_inline bool is_service(const struct key *key, const struct key *peer, bool without_ports, bool no_key)
{
	if (!no_key && (without_ports ? has_address(key, ADDRESS_SERVICE) : has_key(&services, key)))
		return true;
	return settings.ranges && in_ranges(key, peer, without_ports);
}

static __always_inline bool is_reply(const struct key *key, bool without_ports)
{
	return without_ports ? has_address(key, ADDRESS_REPLY) : has_key(&replies, key);
}

static __always_inline bool is_local(const struct key *key)
{
	struct key address = *key;
	address.port = 0;
	address.protocol = 0;
	return bpf_map_lookup_elem(&local, &address);
}

/* The errors that a worker relays: as IPVS has it, all of ICMPv6 and three kinds of ICMP. Parameter problems, types that
 * merely inform, and neighbour discovery are the kernel's. */
static __always_inline bool is_icmp_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED;
	return type >= ICMPV6_FIRST_ERROR && type <= ICMPV6_LAST_ERROR;
}

/* Did the director itself send the quoted packet, through a tunnel to a TUN real server? Its ports, if any, are read. Of
 * tunnels inside IPv6 only the size of what fits matters to a worker: there are no other errors that IPVS relays. */
static __always_inline bool is_our_tunnel(const struct packet *packet, const struct packet *quoted, __u8 type)
{
	struct key far = quoted->destination;
	__u32 *kinds;

	if (quoted->later_fragment || (far.protocol != IPPROTO_UDP && !is_tunnel(far.protocol)))
		return false;
	if (far.family == FAMILY_IPV6 && type != ICMPV6_TOO_BIG)
		return false;
	far.protocol = 0;
	kinds = bpf_map_lookup_elem(&addresses, &far);
	return kinds && *kinds & ADDRESS_TUNNEL && is_local(&packet->destination);
}

/* Rule (c). `packet` is the ICMP packet, its payload the ICMP header. The quoted packet went the other way: what a
 * client's side complains of came from the VIP, what a real server's side complains of went to the RIP. */
static __always_inline enum outcome classify_icmp(const struct frame *frame, const struct packet *packet)
{
	struct icmp *icmp = at(frame, packet->payload);
	struct packet quoted;

	if (packet->later_fragment)
		return outcome_passed_not_steered;
	if ((void *)(icmp + 1) > frame->end || packet->room < sizeof(*icmp))
		return outcome_passed_malformed;
	if (!is_icmp_error(packet->source.protocol, icmp->type))
		return outcome_passed_not_steered;

	enum parsed parsed = parse_ip(frame, packet->payload + sizeof(*icmp), packet->source.family, &quoted);
	if (parsed == DEEP)
		return outcome_passed_deep;
	if (parsed != PARSED)
		return outcome_passed_malformed;
	if (has_ports(quoted.source.protocol) && !quoted.later_fragment && !read_ports(frame, &quoted))
		return outcome_passed_malformed;
	if (is_our_tunnel(packet, &quoted, icmp->type))
		return outcome_redirected_icmp;
	if (!has_ports(quoted.source.protocol))
		return outcome_passed_not_steered;

	if (is_service(&quoted.source, &quoted.destination, quoted.later_fragment, false) ||
	    is_service(&quoted.destination, &quoted.source, quoted.later_fragment, false))
		return outcome_redirected_icmp;
	if (!is_reply(&quoted.destination, quoted.later_fragment))
		return outcome_passed_not_steered;
	/* An error about the director's own connection to a real server, a health check say, comes home to the kernel. */
	return is_local(&packet->destination) ? outcome_passed_local : outcome_redirected_icmp;
}

/* Rules (a), (b) and (d). */
static __always_inline enum outcome classify_transport(const struct frame *frame, struct packet *packet, bool no_key)
{
	bool later = packet->later_fragment;
	__u32 header = transport_header(packet->source.protocol);

	if (!later) {
		if (at(frame, packet->payload + header) > frame->end || packet->room < header || !read_ports(frame, packet))
			return outcome_passed_malformed;
	}
	/* To an address that is neither a service's nor the director's, as most replies are, only a range can say "service". */
	bool known = quick_destination_key(&packet->destination);
	if (is_service(&packet->destination, &packet->source, later, no_key || !known))
		return later ? outcome_redirected_fragment : outcome_redirected_service;
	if (!is_reply(&packet->source, later))
		return outcome_passed_not_steered;
	if (known && is_local(&packet->destination))
		return outcome_passed_local;
	return later ? outcome_redirected_fragment : outcome_redirected_reply;
}

/* The commonest frames of all in few steps: TCP or UDP over IPv4, without tags, options and fragments. Whatever is not
 * exactly that goes the long way, which alone knows what is malformed; so does what the quick tables do not know. */
static __always_inline enum quick_verdict ask_quick(const struct frame *frame)
{
	struct ethhdr *ethernet = frame->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct ports *ports = (void *)(ip + 1);

	if ((void *)ports + transport_header(IPPROTO_UDP) > frame->end)
		return QUICK_NOTHING;
	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || *(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IPV4_OFFSET))
		return QUICK_NOTHING;
	if (ip->protocol == IPPROTO_TCP) {
		if ((void *)ports + transport_header(IPPROTO_TCP) > frame->end)
			return QUICK_NOTHING;
	} else if (ip->protocol != IPPROTO_UDP) {
		return QUICK_NOTHING;
	}
	if (bpf_ntohs(ip->tot_len) < sizeof(*ip) + transport_header(ip->protocol))
		return QUICK_NOTHING;
	return quick_ask(ip, ports->source, ports->destination);
}

/* IPsec has no ports: it goes where its key exchange goes, which is UDP from and to port 500. All fragments alike. */
#define ISAKMP 500

static __always_inline enum outcome classify_ipsec(struct packet *packet)
{
	packet->source.protocol = packet->destination.protocol = IPPROTO_UDP;
	packet->source.port = packet->destination.port = bpf_htons(ISAKMP);
	if (is_service(&packet->destination, &packet->source, false, false))
		return outcome_redirected_service;
	if (!is_reply(&packet->source, false))
		return outcome_passed_not_steered;
	return is_local(&packet->destination) ? outcome_passed_local : outcome_redirected_reply;
}

static __always_inline enum outcome classify(const struct frame *frame)
{
	struct packet packet;
	__u8 family;

	enum quick_verdict known = ask_quick(frame);
	if (known == QUICK_SERVICE)
		return outcome_redirected_service;
	if (known == QUICK_REPLY)
		return outcome_redirected_reply;
	if (known == QUICK_STRANGER)
		return outcome_passed_not_steered;
	__u32 offset = parse_link(frame, &family);
	if (!offset)
		return outcome_passed_not_ip;
	enum parsed parsed = parse_ip(frame, offset, family, &packet);
	if (parsed == DEEP)
		return outcome_passed_deep;
	if (parsed != PARSED)
		return outcome_passed_malformed;

	__u8 protocol = packet.source.protocol;
	if (protocol == (family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return classify_icmp(frame, &packet);
	if (protocol == IPPROTO_ESP || protocol == IPPROTO_AH)
		return classify_ipsec(&packet);
	if (!has_ports(protocol))
		return outcome_passed_not_steered;
	return classify_transport(frame, &packet, known == QUICK_NO_SERVICE);
}

/* Is the frame for this interface? A switch floods what it has not learned yet, and a frame that is on its way from the
 * director to a DR real server still carries the VIP: taken in again, it would be balanced a second time. */
static __always_inline bool is_ours(const struct frame *frame)
{
	__u32 macs = settings.macs;
	__u64 to;

	if (!macs)
		return true;
	if (frame->data + 6 > frame->end)
		return false;
	to = *(__u32 *)frame->data | (__u64)*(__u16 *)(frame->data + 4) << 32;
	for (__u32 i = 0; i < MACS_MAX; i++) {
		if (i >= macs)
			return false;
		if (settings.mac[i] == to)
			return true;
	}
	return false;
}

static __always_inline void count(enum outcome outcome, __u64 bytes)
{
	__u32 zero = 0;
	struct counters *row = bpf_map_lookup_elem(&counters, &zero);

	if (!row || outcome >= outcome_count)
		return;
	row->of[outcome].packets += 1;
	row->of[outcome].bytes += bytes;
}

SEC("xdp")
int xvs_redirect(struct xdp_md *ctx)
{
	struct frame frame = { .ctx = ctx, .data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end };
	__u64 bytes = frame.end - frame.data;
	int action = XDP_PASS;

	enum outcome outcome = classify(&frame);
	if (outcome <= outcome_redirected_fragment && !is_ours(&frame))
		outcome = outcome_passed_other_host;
	if (outcome <= outcome_redirected_fragment) {
		/* Without a socket in this slot the helper answers with what we hand it: no second look-up needed. */
		__u32 absent = settings.absent == XDP_PASS ? XDP_PASS : XDP_DROP;
		action = bpf_redirect_map(&xsks, ctx->rx_queue_index, absent);
		if (action != XDP_REDIRECT)
			outcome = action == XDP_PASS ? outcome_no_worker_passed : outcome_no_worker_dropped;
	}
	count(outcome, bytes);
	return action;
}
