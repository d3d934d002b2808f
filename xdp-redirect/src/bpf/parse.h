/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * From bytes to the two ends of a flow: IPv4 with options (RFC 791), IPv6 with extension headers (RFC 8200). Serves
 * the packet itself and the packet quoted in an ICMP error alike.
 *
 * Invariant: nothing is read at or beyond `end`, and nothing is decided about a packet whose headers do not all lie
 * before it. It does not verify checksums, does not look at TCP flags, and does not reassemble: workers do.
 */
#ifndef XVS_PARSE_H
#define XVS_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"

/* Q-in-Q: what Linux itself takes apart as well. */
#define VLAN_TAGS_MAX 2
/* RFC 8200 names six kinds of extension header, each useful once; a longer chain is somebody testing us. */
#define EXTENSIONS_MAX 6

#define IPV4_OFFSET 0x1fff
#define IPV6_OFFSET 0xfff8

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

/* What all IPv6 extension headers begin with. The length's unit depends on the kind. */
struct extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* of a fragment header: offset in the upper 13 bits */
	__be32 rest;     /* no extension header is shorter than eight bytes */
};

/* The ports of TCP, UDP and SCTP. */
struct ports {
	__be16 source;
	__be16 destination;
};

/* The kernel's own linux/icmp.h drags in half of libc; this is all that is needed of ICMP and ICMPv6. */
struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
};
#define ICMP_UNREACHABLE 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
#define ICMPV6_TOO_BIG 2
#define ICMPV6_FIRST_ERROR 1 /* unreachable, too big, time exceeded, parameter problem */
#define ICMPV6_LAST_ERROR 4

/* Positions are offsets into the frame, and bounded by a mask, so that the verifier finds the same range on every way
 * that leads to a place. The mask never cuts anything off: two chains of extension headers, each header at most 2048
 * bytes, and all that surrounds them, stay below it. */
#define OFFSET_MASK 0x7fff

struct frame {
	struct xdp_md *ctx;
	void *data;
	void *end;
};

static __always_inline void *at(const struct frame *frame, __u32 offset)
{
	return frame->data + (offset & OFFSET_MASK);
}

struct packet {
	struct key source;
	struct key destination;
	__u32 payload; /* offset of what lies behind IP and its options or extension headers */
	__u32 room;    /* bytes that IP says lie there; its sender's word, not to be read by */
	bool later_fragment; /* has no ports: `payload` begins somewhere inside the transport's data */
};

enum parsed { PARSED, MALFORMED, DEEP };

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* A packet inside another one, with no ports between them: what the director's own tunnels carry. */
static __always_inline bool is_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE;
}

/* The shortest header of a transport: a packet that ends sooner is nobody's flow. */
static __always_inline __u32 transport_header(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 20;
	case IPPROTO_SCTP:
		return 12;
	default: /* UDP, ICMP, ICMPv6 */
		return 8;
	}
}

static __always_inline void key_ipv4(struct key *key, __be32 address, __u8 protocol)
{
	__u32 *word = (__u32 *)key->address;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = address;
	key->port = 0;
	key->protocol = protocol;
	key->family = FAMILY_IPV4;
}

static __always_inline void key_ipv6(struct key *key, const struct in6_addr *address)
{
	__builtin_memcpy(key->address, address, sizeof(key->address));
	key->port = 0;
	key->protocol = 0; /* known at the end of the chain of extension headers */
	key->family = FAMILY_IPV6;
}

static __always_inline enum parsed parse_ipv4(const struct frame *frame, __u32 offset, struct packet *packet)
{
	struct iphdr *ip = at(frame, offset);

	if ((void *)(ip + 1) > frame->end)
		return MALFORMED;
	__u8 first = *(__u8 *)ip;
	__u32 header = (first & 0x0f) * 4;
	__u32 total = bpf_ntohs(ip->tot_len);
	if (first >> 4 != 4 || header < sizeof(*ip) || total < header || at(frame, offset + header) > frame->end)
		return MALFORMED;

	key_ipv4(&packet->source, ip->saddr, ip->protocol);
	key_ipv4(&packet->destination, ip->daddr, ip->protocol);
	packet->payload = offset + header;
	packet->room = total - header;
	packet->later_fragment = ip->frag_off & bpf_htons(IPV4_OFFSET);
	return PARSED;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT || next == IPPROTO_AH;
}

static __always_inline __u32 extension_length(__u8 kind, const struct extension *extension)
{
	if (kind == IPPROTO_FRAGMENT)
		return 8; /* its length field is reserved */
	if (kind == IPPROTO_AH)
		return (extension->length + 2) * 4;
	return (extension->length + 1) * 8;
}

/* What a chain of extension headers came to, in one number: all that a global function can answer with. */
#define CHAIN_OFFSET(chain) ((chain)&OFFSET_MASK)         /* where it ends */
#define CHAIN_NEXT(chain) ((__u8)((chain) >> 16))         /* the protocol of what follows */
#define CHAIN_LATER_FRAGMENT (1u << 24)                   /* what follows is data of that protocol, no header */
#define CHAIN_MALFORMED (1u << 25)
#define CHAIN_DEEP (1u << 26)

/* Follows a chain of extension headers that begins at `offset` with one of kind `next`.
 *
 * This is a global function, not an inlined one, for the verifier's sake: it is verified once, by itself, for all
 * offsets there can be. Inlined, each of the ways through an outer chain would be combined with each of the ways
 * through a quoted one, which exceeds the million instructions that the verifier is ready to follow. */
__attribute__((noinline)) __u32 skip_extensions(struct xdp_md *ctx, __u32 offset, __u8 next)
{
	struct frame frame = { .data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end };
	__u32 later = 0;

	for (int depth = 0; depth < EXTENSIONS_MAX; depth++) {
		if (!is_extension(next))
			break;
		struct extension *extension = at(&frame, offset);
		if ((void *)(extension + 1) > frame.end)
			return CHAIN_MALFORMED;
		offset = (offset + extension_length(next, extension)) & OFFSET_MASK;
		/* What follows the header of a later fragment is data, no header: the chain ends there. */
		if (next == IPPROTO_FRAGMENT && extension->fragment & bpf_htons(IPV6_OFFSET))
			later = CHAIN_LATER_FRAGMENT;
		next = extension->next;
		if (later)
			break;
	}
	if (is_extension(next) && !later)
		return CHAIN_DEEP;
	return later | (__u32)next << 16 | CHAIN_OFFSET(offset);
}

static __always_inline enum parsed parse_ipv6(const struct frame *frame, __u32 offset, struct packet *packet)
{
	struct ipv6hdr *ip = at(frame, offset);

	if ((void *)(ip + 1) > frame->end || *(__u8 *)ip >> 4 != 6)
		return MALFORMED;
	__u32 room = bpf_ntohs(ip->payload_len);
	__u8 next = ip->nexthdr;
	key_ipv6(&packet->source, &ip->saddr);
	key_ipv6(&packet->destination, &ip->daddr);
	offset += sizeof(*ip);
	packet->payload = offset;
	packet->later_fragment = false;

	if (is_extension(next)) {
		__u32 chain = skip_extensions(frame->ctx, offset, next);
		if (chain & CHAIN_DEEP)
			return DEEP;
		if (chain & CHAIN_MALFORMED)
			return MALFORMED;
		next = CHAIN_NEXT(chain);
		packet->later_fragment = chain & CHAIN_LATER_FRAGMENT;
		packet->payload = CHAIN_OFFSET(chain);
	}
	__u32 skipped = packet->payload - offset;
	if (skipped > room)
		return MALFORMED;
	packet->room = room - skipped;
	packet->source.protocol = next;
	packet->destination.protocol = next;
	return PARSED;
}

static __always_inline enum parsed parse_ip(const struct frame *frame, __u32 offset, __u8 family, struct packet *packet)
{
	return family == FAMILY_IPV4 ? parse_ipv4(frame, offset, packet) : parse_ipv6(frame, offset, packet);
}

/* Writes the ports into both keys. False when they lie beyond the end. */
static __always_inline bool read_ports(const struct frame *frame, struct packet *packet)
{
	struct ports *ports = at(frame, packet->payload);

	if ((void *)(ports + 1) > frame->end)
		return false;
	packet->source.port = ports->source;
	packet->destination.port = ports->destination;
	return true;
}

/* Skips the Ethernet header and its VLAN tags. Returns the offset and the family of IP, or 0 if there is none. */
static __always_inline __u32 parse_link(const struct frame *frame, __u8 *family)
{
	struct ethhdr *ethernet = frame->data;
	__u32 offset = sizeof(*ethernet);

	if ((void *)(ethernet + 1) > frame->end)
		return 0;
	__be16 ethertype = ethernet->h_proto;

	for (int tags = 0; tags < VLAN_TAGS_MAX; tags++) {
		struct vlan_tag *tag = at(frame, offset);
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > frame->end)
			return 0;
		ethertype = tag->ethertype;
		offset += sizeof(*tag);
	}

	if (ethertype == bpf_htons(ETH_P_IP))
		*family = FAMILY_IPV4;
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		*family = FAMILY_IPV6;
	else
		return 0;
	return offset;
}

#endif
