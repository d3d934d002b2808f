/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What the program and user space share: keys, values, maps, one setting. The Rust view of these types is generated
 * from this object's BTF by the skeleton builder; nothing of it is written a second time by hand.
 *
 * Invariant: every byte of a key is written before it is looked up, since the kernel hashes all of them.
 */
#ifndef XVS_MAPS_H
#define XVS_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "outcomes.h"

/* Limits. Elements are allocated when they are inserted (BPF_F_NO_PREALLOC), so room that is not used costs one bucket
 * head (16 bytes) an entry and no more. */
#define SERVICES_MAX 16384
#define REPLIES_MAX 131072
#define ADDRESSES_MAX 131072
#define LOCAL_MAX 4096
/* Overwritten before load with the number of queues of the interface that this object is loaded for. */
#define QUEUES_MAX 64

/* One end of a flow. IPv4 is written as ::ffff:a.b.c.d, so both families share one map; `family` keeps an IPv6
 * packet that really carries such an address on the wire from being taken for the IPv4 address. Port 0 is "any port"
 * in `services` and `replies`. In `local` port and protocol are 0. In `addresses` the port is 0, but for the far end of a
 * tunnel: there the protocol is 0, and the port that of UDP that carries the tunnel, or 0 for tunnels without ports. */
struct key {
	__u8 address[16];
	__u16 port; /* network order */
	__u8 protocol;
	__u8 family; /* FAMILY_IPV4 or FAMILY_IPV6 */
};

#define FAMILY_IPV4 4
#define FAMILY_IPV6 6

/* What `addresses` knows of an address and protocol. */
#define ADDRESS_SERVICE 1u /* some port of it is a virtual service */
#define ADDRESS_REPLY 2u   /* some port of it is a NAT real server */
#define ADDRESS_TUNNEL 4u  /* a TUN real server opens tunnels there */

/* Virtual services: VIP, port, protocol. The value is reserved for flags, 0 today. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, __u32);
} services SEC(".maps");

/* NAT real servers: RIP, port, protocol. The value is reserved for flags, 0 today. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REPLIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, __u32);
} replies SEC(".maps");

/* The addresses of the two maps above without their ports, all that a later fragment can be matched by; and the far ends
 * of tunnels. ADDRESS_*. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, __u32);
} addresses SEC(".maps");

/* The director's own addresses: what real servers send there is for the kernel. The value is reserved. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LOCAL_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, __u32);
} local SEC(".maps");

/* One AF_XDP socket a receive queue, of one interface: see lib.rs on why each interface has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

enum outcome {
#define OUTCOME(name, help) outcome_##name,
	XVS_OUTCOMES(OUTCOME)
#undef OUTCOME
	outcome_count,
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct counters {
	struct counter of[outcome_count];
};

/* A single element: one look-up a frame finds the whole row of this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* The destination MACs of one interface that are its own: the device's, and those of virtual interfaces on it. */
#define MACS_MAX 8

/* What user space changes while the program runs; volatile for that reason. Rust writes it whole, in this layout. */
struct settings {
	__u32 absent;        /* what becomes of a steered frame when no worker serves its queue: XDP_DROP or XDP_PASS */
	__u32 macs;          /* how many of `mac` count; 0: every destination is taken */
	__u32 ranges;        /* are there any (ranges.h)? If not, none is looked for */
	__u32 reserved;
	__u64 mac[MACS_MAX]; /* the six bytes as they stand in the frame, the lowest first, two zero bytes above */
};
volatile struct settings settings = { .absent = XDP_DROP };

#endif
