/* generate: writes one packet of one of many flows, and sends it out of an interface.
 *
 * The kernel runs it over frames of its own (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES). A frame comes back after
 * somebody has received it and perhaps written to it, so all headers are written anew each time: a template of 54 bytes,
 * then source address, source port, and both checksums, which the template has for a source of zeros.
 *
 * Invariant: the source is a pure function of the flow's number, and a flow's packets are equal to the last bit.
 * Not here: options, IPv6, and any answer to what comes back.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define HEADERS 54
#define ETH_LEN 14
#define IP_CHECKSUM (ETH_LEN + 10)
#define IP_SOURCE (ETH_LEN + 12)
#define PORT_SOURCE (ETH_LEN + 20)
#define UDP_CHECKSUM (PORT_SOURCE + 6)
#define TCP_CHECKSUM (PORT_SOURCE + 16)

const volatile __u8 template[HEADERS] = {};
const volatile __u32 ifindex = 0;
const volatile __u32 first_address = 0; /* host order */
const volatile __u16 first_port = 0;
const volatile __u32 ports = 1; /* a source address has so many flows */
const volatile __u32 flows = 1;
const volatile __u32 random = 0; /* flows at random instead of one after the other */
const volatile __u32 tcp = 0;

struct progress {
	__u64 sent;
	__u64 next; /* flow */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

/* The template's checksum with more words in the sum (RFC 1624). */
static __always_inline __u16 with(__u16 checksum, __u32 words)
{
	__u32 sum = (__u16)~checksum + words;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int xvs_generate(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;
	__u32 zero = 0, flow, address, words;
	struct progress *mine;
	__u16 port, checksum;

	if (frame + HEADERS > (__u8 *)(long)ctx->data_end)
		return XDP_ABORTED;
	mine = bpf_map_lookup_elem(&progress, &zero);
	if (!mine)
		return XDP_ABORTED;
	if (random) {
		flow = bpf_get_prandom_u32() % flows;
	} else {
		flow = mine->next;
		mine->next = flow + 1 < flows ? flow + 1 : 0;
	}
	address = __builtin_bswap32(first_address + flow / ports);
	port = __builtin_bswap16(first_port + flow % ports);

	for (int i = 0; i < HEADERS; i++)
		frame[i] = template[i];
	words = (address & 0xffff) + (address >> 16);
	*(__u32 *)(frame + IP_SOURCE) = address;
	*(__u16 *)(frame + PORT_SOURCE) = port;
	*(__u16 *)(frame + IP_CHECKSUM) = with(*(__u16 *)(frame + IP_CHECKSUM), words);
	if (tcp) {
		*(__u16 *)(frame + TCP_CHECKSUM) = with(*(__u16 *)(frame + TCP_CHECKSUM), words + port);
	} else {
		/* In UDP a checksum of 0 says that there is none. */
		checksum = with(*(__u16 *)(frame + UDP_CHECKSUM), words + port);
		*(__u16 *)(frame + UDP_CHECKSUM) = checksum ? checksum : 0xffff;
	}
	mine->sent++;
	return bpf_redirect(ifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
