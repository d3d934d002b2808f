/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The one list of what can happen to a frame here. The C side expands it to an enum and sizes its counters
 * by it; build.rs reads the same lines into the table of names and help texts that `Redirect::counters` hands out.
 * Keep one entry a line, `OUTCOME(name, "help")`: the reader is a line reader, not a C parser.
 *
 * Invariant: every frame is counted under exactly one outcome.
 */
#ifndef XVS_OUTCOMES_H
#define XVS_OUTCOMES_H

#define XVS_OUTCOMES(OUTCOME)                                                                                \
	OUTCOME(redirected_service, "addressed to a virtual service, given to a worker")                     \
	OUTCOME(redirected_reply, "reply of a NAT real server, given to a worker")                           \
	OUTCOME(redirected_icmp, "ICMP error about a steered connection, given to a worker")                 \
	OUTCOME(redirected_fragment, "later fragment of a steered packet, given to a worker")                \
	OUTCOME(no_worker_dropped, "steered, but no worker serves its queue: dropped, as configured")        \
	OUTCOME(no_worker_passed, "steered, but no worker serves its queue: left to the kernel, as configured") \
	OUTCOME(passed_not_ip, "neither IPv4 nor IPv6 under at most two VLAN tags: ARP and the like")        \
	OUTCOME(passed_not_steered, "IP, but of no virtual service and no NAT real server")                  \
	OUTCOME(passed_other_host, "steered, but the frame is for another MAC: a switch flooded it")          \
	OUTCOME(passed_local, "from a NAT real server to the director itself: health checks and the like")   \
	OUTCOME(passed_malformed, "truncated, or an IP header that contradicts itself")                      \
	OUTCOME(passed_deep, "IPv6 with a longer chain of extension headers than is followed")

#endif
