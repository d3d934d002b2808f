/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Ranges: destinations that no single key can name. A firewall mark stands for prefixes and ranges of ports, FTP's data
 * connections for all high ports of a VIP.
 *
 * A prefix has a short list of ranges, read from the top; the first one that fits a packet decides. The trie answers
 * with the longest prefix only, so user space writes what shorter prefixes say into the lists of the longer ones: one
 * look-up is all there is. See ranges.rs.
 */
#ifndef XVS_RANGES_H
#define XVS_RANGES_H

#include "maps.h"

/* Prefixes. Twice of what user space takes in, so that one set can replace another without a gap. */
#define PREFIXES_MAX 16384
/* Ranges of a prefix, those of shorter prefixes included. A packet of no other key may be compared with each. */
#define RANGES_EACH 32

/* What the trie is looked up by, in the layout of struct bpf_lpm_trie_key: bits that count, then the bits. The family
 * comes first and counts always; addresses are written as in struct key. */
struct prefix {
	__u32 bits;
	__u32 family;
	__u8 address[16];
};
#define PREFIX_BITS (8 * (sizeof(struct prefix) - sizeof(__u32)))

struct range {
	__u64 source[2]; /* network order, as are the bits of the mask; a mask of zeros is any source */
	__u64 mask[2];
	__u16 first; /* ports, host order, both included */
	__u16 last;
	__u8 protocol; /* 0: each that has ports */
	__u8 steer;    /* 0: what fits is left alone, whatever stands below */
	__u8 reserved[2];
};

struct ranges {
	__u32 count;
	__u32 reserved;
	struct range of[RANGES_EACH];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct ranges);
} ranges SEC(".maps");

/* Without ports (a later fragment) a range that steers fits by all else; one that leaves alone fits only if it is of
 * every port, since the fragment may belong to a packet that is steered. */
static __always_inline bool fits(const struct range *range, const struct key *to, const __u64 from[2], bool without_ports)
{
	__u16 port = bpf_ntohs(to->port);

	if (range->protocol && range->protocol != to->protocol)
		return false;
	if ((from[0] & range->mask[0]) != range->source[0] || (from[1] & range->mask[1]) != range->source[1])
		return false;
	if (without_ports)
		return range->steer || (range->first == 0 && range->last == 0xffff);
	return port >= range->first && port <= range->last;
}

/* Does a packet from here to there belong to a steered range? Asked only where ranges exist: `settings.ranges`.
 *
 * A global function, verified once by itself, for the reason that skip_extensions() has. It is never called without
 * keys; the verifier does not know. */
__attribute__((noinline)) int in_ranges(const struct key *to, const struct key *from, __u32 without_ports)
{
	struct prefix prefix = { .bits = PREFIX_BITS };
	__u64 source[2];

	if (!to || !from)
		return 0;
	prefix.family = to->family;
	__builtin_memcpy(prefix.address, to->address, sizeof(prefix.address));
	__builtin_memcpy(source, from->address, sizeof(source));

	struct ranges *list = bpf_map_lookup_elem(&ranges, &prefix);
	if (!list)
		return 0;
	for (__u32 i = 0; i < RANGES_EACH; i++) {
		if (i >= list->count)
			break;
		if (fits(&list->of[i], to, source, without_ports))
			return list->of[i].steer;
	}
	return 0;
}

#endif
