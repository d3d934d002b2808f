/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The quick tables: the keys of IPv4, TCP and UDP once more, as words in memory that is read without asking a helper;
 * and for all families and protocols which destinations need not be looked for. User space writes them through a mapping
 * of the same memory (quick.rs), the program only reads.
 *
 * Invariants. What the program finds in a table is steered: it is in `services` or `replies` as well. What it does not
 * find is not steered only if an empty slot ended the search; a bucket without one may have had no room for the key,
 * and then the maps are asked. A key that stays is in the same slot all the time, and no slot before it is ever empty.
 * An address whose bit in `destinations` is clear is neither a service's nor the director's. All that for a key that is
 * not about to come or go: a moment's difference to the maps is as if the frame had come a moment sooner or later.
 *
 * It is no truth of its own: whatever is here can be left out, and costs time then, nothing else.
 */
#ifndef XVS_QUICK_H
#define XVS_QUICK_H

#include <linux/ip.h>

#include "maps.h"

/* A bucket is a line of the cache. */
#define QUICK_SLOTS 8
#define QUICK_SERVICES_BITS 12
#define QUICK_REPLIES_BITS 13
#define QUICK_DESTINATIONS_BITS 16
/* Spreads keys over buckets and addresses over bits: the golden ratio, 2^64 times. Known to quick.rs, too. */
#define QUICK_SPREAD 0x9e3779b97f4a7c15ull

/* Address, port and protocol as they stand in the frame, see quick_key(). 0 is an empty slot, as protocol 0 is none of a
 * key. All ones is a slot whose key went: it ends no search. */
struct quick_bucket {
	__u64 slot[QUICK_SLOTS];
};

struct quick {
	struct quick_bucket services[1 << QUICK_SERVICES_BITS];
	struct quick_bucket replies[1 << QUICK_REPLIES_BITS];
	/* A bit for each of many addresses, of both families: some service or address of the director has this bit. */
	__u64 destinations[(1 << QUICK_DESTINATIONS_BITS) / 64];
};

/* A section, and thus a map, of its own, which all interfaces share. */
volatile struct quick quick SEC(".bss.quick");

static __always_inline __u64 quick_key(__be32 address, __be16 port, __u8 protocol)
{
	return (__u64)address << 32 | (__u32)port << 16 | protocol;
}

enum quick_search { QUICK_ABSENT, QUICK_FOUND, QUICK_FULL };

static __always_inline enum quick_search quick_search(const volatile struct quick_bucket *bucket, __u64 key)
{
#pragma unroll
	for (int i = 0; i < QUICK_SLOTS; i++) {
		__u64 slot = bucket->slot[i];
		if (slot == key)
			return QUICK_FOUND;
		if (!slot)
			return QUICK_ABSENT;
	}
	return QUICK_FULL;
}

/* The key, or its address with any port. Absent: neither is there, for certain. */
#define QUICK_FIND(table, bits, address, port, protocol)                                                       \
	({                                                                                                     \
		__u64 key = quick_key(address, port, protocol);                                                \
		enum quick_search found = quick_search(&quick.table[key * QUICK_SPREAD >> (64 - bits)], key);   \
		if (found != QUICK_FOUND) {                                                                    \
			__u64 any_port = quick_key(address, 0, protocol);                                      \
			enum quick_search other =                                                              \
				quick_search(&quick.table[any_port * QUICK_SPREAD >> (64 - bits)], any_port);  \
			if (other != QUICK_ABSENT)                                                             \
				found = other;                                                                 \
		}                                                                                              \
		found;                                                                                         \
	})

/* May the address be a service's or the director's? Its halves are those of struct key. */
static __always_inline bool quick_destination(__u64 upper, __u64 lower)
{
	__u32 bit = (upper * QUICK_SPREAD ^ lower) * QUICK_SPREAD >> (64 - QUICK_DESTINATIONS_BITS);

	return quick.destinations[bit / 64] >> (bit % 64) & 1;
}

static __always_inline bool quick_destination_key(const struct key *key)
{
	__u64 half[2];

	__builtin_memcpy(half, key->address, sizeof(half));
	return quick_destination(half[0], half[1]);
}

static __always_inline bool quick_destination_ipv4(__be32 address)
{
	union {
		__u32 word[2];
		__u64 half;
	} lower = { .word = { bpf_htonl(0xffff), address } };

	return quick_destination(0, lower.half);
}

/* What the tables tell of a packet: QUICK_NOTHING that is certain; of QUICK_NO_SERVICE only that no service has its
 * destination by address and port, which ranges may steer all the same. The others are verdicts. */
enum quick_verdict { QUICK_NOTHING, QUICK_NO_SERVICE, QUICK_SERVICE, QUICK_REPLY, QUICK_STRANGER };

static __always_inline enum quick_verdict quick_ask(const struct iphdr *ip, __be16 source, __be16 destination)
{
	enum quick_search found;

	if (quick_destination_ipv4(ip->daddr)) {
		found = QUICK_FIND(services, QUICK_SERVICES_BITS, ip->daddr, destination, ip->protocol);
		return found == QUICK_FOUND ? QUICK_SERVICE : found == QUICK_ABSENT ? QUICK_NO_SERVICE : QUICK_NOTHING;
	}
	if (settings.ranges)
		return QUICK_NO_SERVICE;
	found = QUICK_FIND(replies, QUICK_REPLIES_BITS, ip->saddr, source, ip->protocol);
	return found == QUICK_FOUND ? QUICK_REPLY : found == QUICK_ABSENT ? QUICK_STRANGER : QUICK_NO_SERVICE;
}

#endif
